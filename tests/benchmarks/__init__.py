"""How fast wspool is, beside other pools: see README.md."""
