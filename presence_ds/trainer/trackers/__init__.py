"""Trackers: where the figures of a run are shown while it trains."""
