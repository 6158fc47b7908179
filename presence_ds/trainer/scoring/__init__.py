"""Scores of every sample of a corpus by a model that exists."""
