"""Benchmarks of the websocket, layer by layer: see ``python -m tests.benchmarks.websocket --help``."""
