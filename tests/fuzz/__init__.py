"""Arbitrary bytes against all that reads what a far end sends. `python -m tests.fuzz` runs it under atheris."""
