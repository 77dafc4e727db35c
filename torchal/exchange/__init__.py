"""Rows that are asked for, and labels that come back, as files of other tools."""

from torchal.exchange.questions import Question

__all__ = ["Question"]
