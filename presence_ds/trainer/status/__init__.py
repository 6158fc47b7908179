"""What a run is doing, read from its directory without touching it."""
