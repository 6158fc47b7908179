"""The folder of a run: what is in it, who may write to it, and whether it still moves."""
