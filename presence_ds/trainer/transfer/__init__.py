"""Batches to the device and figures from it, for which no step waits."""
