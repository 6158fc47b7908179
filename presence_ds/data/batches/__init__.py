"""Batches of a prepared corpus on every rank: for training without end, for an evaluation every sample once."""
