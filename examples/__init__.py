"""PURE. Programs that are built with wspool, each a package of its own."""
