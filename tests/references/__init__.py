"""Slow and obvious: what the kernels must agree with, written from the papers with plain Python loops."""
