"""What several people say of the same rows: votes, the label that they come to, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, TypeAlias

from torchal.protocols import UNLABELED

Consensus: TypeAlias = Literal["majority", "unanimous"]


class Disagreement(NamedTuple):
    """A row of which people say different things."""

    row: int
    labels: dict[str, Any]
    """What each says; None where somebody cannot tell."""
    label: Any
    """What the row counts as; None where it has no label."""


@dataclass(frozen=True)
class Agreement:
    """How far people agree on the rows that two or more have labeled.

    Attributes:
        n_rows: how many rows these are.
        share: of all pairs of answers to one row, those that are the same; NaN where there are none.
        alpha: Krippendorff's, for labels without an order: 1 where all agree, 0 as by chance; NaN where there are no
            such rows, or all answers are the same.

    Reference:
        Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, nominal data with missing values.
    """

    n_rows: int
    share: float
    alpha: float


class Opinions:
    """Who said what of which row, in numbers of classes; -1 where somebody cannot tell."""

    def __init__(self, votes: Mapping[int, Mapping[str, int]] | None = None) -> None:
        self._votes = {int(row): dict(said) for row, said in (votes or {}).items()}

    def with_votes(self, rows: Iterable[int], codes: Iterable[int], by: str) -> Opinions:
        """Return these and somebody's answers, which take the place of older ones of the same person."""
        more = Opinions()
        more._votes = dict(self._votes)
        for row, code in zip(rows, codes, strict=True):
            said = {who: other for who, other in self._votes.get(row, {}).items() if who != by}
            more._votes[row] = said | {by: code}  # the last, so that it counts as the latest
        return more

    def without(self, rows: Iterable[int]) -> Opinions:
        """Return these without what was said of some rows."""
        less = Opinions()
        less._votes = dict(self._votes)
        for row in rows:
            less._votes.pop(row, None)
        return less

    def __contains__(self, row: int) -> bool:
        return row in self._votes

    def of(self, row: int) -> dict[str, int]:
        """Return who said what of a row, the earliest first."""
        return dict(self._votes.get(row, {}))

    def decide(self, row: int, rule: Consensus) -> int | None:
        """Return the class that a row comes to, -1 where nobody can tell, None where people are at odds.

        By majority they are where several classes have the most votes.
        """
        votes = Counter(code for code in self._votes.get(row, {}).values() if code != UNLABELED)
        if not votes:
            return UNLABELED
        (first, most), *others = votes.most_common()
        if others and (rule == "unanimous" or others[0][1] == most):
            return None
        return first

    def at_odds(self) -> list[int]:
        """Return the rows of which people said different classes, ascending."""
        return sorted(r for r, said in self._votes.items() if len({c for c in said.values() if c != UNLABELED}) > 1)

    def agreement(self) -> Agreement:
        """Return how far people agree."""
        units = [[code for code in said.values() if code != UNLABELED] for said in self._votes.values()]
        units = [unit for unit in units if len(unit) > 1]
        pairs = [a == b for unit in units for a, b in combinations(unit, 2)]
        totals = Counter(code for unit in units for code in unit)
        n = sum(totals.values())
        # each unit's pairs count for as much as it has answers
        observed = sum(2 * sum(a != b for a, b in combinations(unit, 2)) / (len(unit) - 1) for unit in units)
        expected = sum(count * (n - count) for count in totals.values()) / (n - 1) if n > 1 else 0.0
        return Agreement(
            n_rows=len(units),
            share=sum(pairs) / len(pairs) if pairs else float("nan"),
            alpha=1 - observed / expected if expected else float("nan"),
        )

    def state(self) -> dict[int, dict[str, int]]:
        """Return all votes, in numbers and text."""
        return {row: dict(said) for row, said in self._votes.items()}
