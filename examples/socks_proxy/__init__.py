"""PURE. A SOCKS5 proxy in two ends, which carries every session over a pooled TLS websocket."""
