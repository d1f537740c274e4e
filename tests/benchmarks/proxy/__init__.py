"""The proxy beside other tunnels that speak SOCKS5 at their near end: see tests/benchmarks/README.md."""
