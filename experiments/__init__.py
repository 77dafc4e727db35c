"""Experiments: one Hydra command runs one, a sweep of it compares strategies."""
