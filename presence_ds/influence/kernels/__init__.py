"""Triton kernels of what a GPU does in many small passes otherwise; imported where one is used, and not before."""
