"""What a GPU is to tell, in one command of at most eight minutes: `python -m benchmarks.gpu` (docs/gpu.md)."""
