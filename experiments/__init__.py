"""Experiments: one Hydra command runs one, a sweep of it compares strategies."""

from torchal._checks import check_installed

for _package in ("hydra", "matplotlib"):
    check_installed(_package, extra="experiments")
