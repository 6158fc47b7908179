"""Text that is read, tokenized and packed while a model trains: lanes → a rank's samples → batches.

A lane is an endless sequence of samples with a small state, and the samples of a run are taken from the lanes in turn.
Which sample comes when depends on the number of lanes, never on ranks, workers or micro-batches.
"""
