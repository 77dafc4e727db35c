"""Benchmarks: run from a clone, need neither hydra nor faiss."""
