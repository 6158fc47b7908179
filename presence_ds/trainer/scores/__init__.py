"""Scores of every sample of a prepared corpus, and what is made of them: a filtered corpus, probes."""
