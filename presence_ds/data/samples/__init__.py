"""Samples: packings of tokenized documents, and what an objective makes of them for a model."""
