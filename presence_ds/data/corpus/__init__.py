"""A prepared corpus: made once on rank 0, read by every rank."""
