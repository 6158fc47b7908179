"""Processes of a run: starting and watching them, and what SLURM, torchrun or DeepSpeed say about ranks."""
