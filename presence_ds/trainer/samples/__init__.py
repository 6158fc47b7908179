"""Samples that a run has recorded: which ones stand out, and their text."""
