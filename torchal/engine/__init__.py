"""Exact selection in few passes over the pool: readers, distances, and the greedy engine with its draws.

Strategies stand above, in `torchal.functional`; a function that a user calls by name does not belong here.
"""
