"""Measurements behind the documentation: run as ``python -m benchmarks.NAME`` from the repository's root."""
