"""Ask for rows of a pool that lies in many files, by as many processes as torchrun starts: each reads a part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchal import functional
from torchal.distributed import Shards, join
from torchal.embedding.shard_folder import LOGITS
from torchal.embedding.shards import ShardedFeatures, open_shards
from torchal.engine.features import as_matrix
from torchal.errors import ConfigError, DataError, RunError
from torchal.exchange.answers import Answers, text_of
from torchal.exchange.questions import Question
from torchal.exchange.tables import check_table, write_questions
from torchal.functional.selection import Selection

_IDS = 1 << 16  # rows whose ids are looked at in one go
_UNSCORED = ("uniform",)


@dataclass
class Part:
    """What a rank knows of its own rows.

    Shapes:
        labeled, candidates: (N,) bool.
    """

    features: Any
    logits: Any
    labeled: Tensor
    candidates: Tensor

    def log_probs(self) -> Tensor:
        """Return what the logits say, (N, C) float32, in memory: few numbers beside the features."""
        return as_matrix("logits", self.logits).float().log_softmax(1)


@dataclass
class ShardedRequest:
    """What is wanted.

    Attributes:
        folder: of the shards; see `open_shards`.
        budget: how many rows to ask for.
        out: the table of what is asked; it must not be there yet.
        strategy: by name.
        seed: all randomness follows from it.
        id_column: the column of the ids; "id" or the only one unless given.
    """

    folder: Path
    budget: int
    out: Path
    strategy: str = "k_center"
    seed: int = 0
    id_column: str | None = None

    def __post_init__(self) -> None:
        check_table(self.out)
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"of rows in shards, --strategy is one of {', '.join(STRATEGIES)}; got {self.strategy!r}")


def _uniform(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:
    return functional.uniform(n, candidates=part.candidates, generator=generator, group=group)


def _k_center(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:  # noqa: ARG001 - draws nothing
    return functional.k_center_greedy(part.features, n, labeled=part.labeled, candidates=part.candidates, group=group)


def _k_center_by_parts(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:  # noqa: ARG001
    found = functional.k_center_by_parts(
        part.features, n, labeled=part.labeled, candidates=part.candidates, group=group
    )
    return Selection(found.indices, found.scores)


def _kmeans_plus_plus(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:
    weights = part.candidates.float()
    return functional.kmeans_plus_plus(
        part.features, n, generator=generator, weights=weights, labeled=part.labeled, group=group
    )


def _badge(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:
    with group.meeting() as meeting:
        meeting.rows(len(part.labeled), 1, name="logits")
        log_probs = part.log_probs()
    return functional.badge(log_probs, part.features, n, generator=generator, candidates=part.candidates, group=group)


def _typiclust(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:
    return functional.typiclust(
        part.features, n, generator=generator, labeled=part.labeled, candidates=part.candidates, group=group
    )


def _facility_location(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:  # noqa: ARG001
    found = functional.facility_location(
        part.features, n, labeled=part.labeled, candidates=part.candidates, group=group
    )
    return Selection(found.indices, found.scores)


def _by_score(score: Callable[[Tensor], Tensor]) -> Callable[[Part, int, torch.Generator, Shards], Selection]:
    def select(part: Part, n: int, generator: torch.Generator, group: Shards) -> Selection:  # noqa: ARG001
        with group.meeting() as meeting:  # logits that cannot be read, or are none, are told to all
            meeting.rows(len(part.labeled), 1, name="logits")
            scores = score(part.log_probs())
        return functional.top_n(scores, n, candidates=part.candidates, group=group)

    return select


STRATEGIES: dict[str, Callable[[Part, int, torch.Generator, Shards], Selection]] = {
    "badge": _badge,
    "entropy": _by_score(functional.entropy),
    "facility_location": _facility_location,
    "k_center": _k_center,
    "k_center_by_parts": _k_center_by_parts,
    "kmeans_plus_plus": _kmeans_plus_plus,
    "least_confidence": _by_score(functional.least_confidence),
    "margin": _by_score(functional.margin),
    "typiclust": _typiclust,
    "uniform": _uniform,
}
_OF_LOGITS = ("badge", "entropy", "least_confidence", "margin")


def query_shards(request: ShardedRequest, answers: Answers | None) -> list[str]:
    """Choose the rows to label next, and write them down; each rank of a group that torchrun started calls this.

    Nothing is kept but the table, which the first rank writes: rows that have a label, in `answers`, are left out and
    kept away from. The same call with any number of ranks writes the same table, unless the strategy is one that picks
    of each rank's part first.

    Returns:
        What was done, for people; nothing on other ranks than the first.

    Raises:
        RunError: the table is there already.
        ConfigError: a strategy that needs logits, and there are none.
        DataError: the shards cannot be read, or no row has the id of a label.
        BudgetError: more rows are wanted than there are.
        GroupError: another rank failed or is gone.
    """
    shards = Shards(join())
    with shards.meeting() as meeting:
        if shards.rank == 0 and request.out.exists():
            raise RunError(
                f"{request.out} is there already, and perhaps filled in: give it by --labels, and another --out"
            )
        found = open_shards(request.folder)
        part = _part(found, shards, request, answers)
        meeting.rows(len(part.labeled), found.n_columns)
        meeting.count(part.labeled.sum(), (~part.candidates).sum())
    n_labeled, n_known = meeting.totals[:2]
    n_told = 0 if answers is None else len(set(answers.ids))
    if n_known < n_told:
        raise DataError(f"labels name {n_told} rows, of which {n_told - n_known} are not in {request.folder}")
    generator = torch.Generator().manual_seed(request.seed)
    picks = STRATEGIES[request.strategy](part, request.budget, generator, shards)
    with shards.meeting() as meeting:  # a disk that is full is told to all
        meeting.rows(len(part.labeled), found.n_columns)
        if shards.rank == 0:
            write_questions(_questions(found, request, picks), request.out)
    if shards.rank:
        return []
    return [
        f"{request.strategy}: {request.budget} of {len(found)} rows, of which {n_labeled} are labeled, by "
        f"{shards.world_size} process{'es' if shards.world_size > 1 else ''}.",
        f"Wrote {request.out}.",
    ]


def _part(found: ShardedFeatures, shards: Shards, request: ShardedRequest, answers: Answers | None) -> Part:
    """Return this rank's rows."""
    rows = found.part(shards.rank, shards.world_size)
    labeled = torch.zeros(rows.stop - rows.start, dtype=torch.bool)
    skipped = torch.zeros_like(labeled)
    if answers is not None:
        labels = {name for name, label in zip(answers.ids, answers.labels, strict=True) if label is not None}
        skips = {name for name, skip in zip(answers.ids, answers.skipped, strict=True) if skip}
        for start in range(rows.start, rows.stop, _IDS):
            names = _names(found, torch.arange(start, min(start + _IDS, rows.stop)), request.id_column)
            here = slice(start - rows.start, start - rows.start + len(names))
            labeled[here] = torch.tensor([name in labels for name in names])
            skipped[here] = torch.tensor([name in skips for name in names])
    logits = None
    if request.strategy in _OF_LOGITS:
        if not (request.folder / LOGITS).is_dir():
            raise ConfigError(f"{request.strategy} needs logits, and there is no folder {LOGITS!r} in {request.folder}")
        of_logits = open_shards(request.folder, subfolder=LOGITS)
        if len(of_logits) != len(found):
            raise DataError(f"{request.folder} has features of {len(found)} rows, and logits of {len(of_logits)}")
        logits = of_logits.features(rows)
    return Part(found.features(rows), logits, labeled, ~(labeled | skipped))


def _names(found: ShardedFeatures, rows: Tensor, column: str | None) -> list[str]:
    """Return what rows are called: their ids, or their numbers where there are none."""
    if not found.id_columns:
        return [str(row) for row in rows.tolist()]
    return [text_of(name) or "" for name in found.ids(rows, column)]


def _questions(found: ShardedFeatures, request: ShardedRequest, picks: Selection) -> list[Question]:
    names = _names(found, picks.indices, request.id_column)
    scores = [None] * len(names) if request.strategy in _UNSCORED else picks.scores.tolist()
    return [
        Question(id=name, rank=rank, score=score, picked_by=request.strategy)
        for rank, (name, score) in enumerate(zip(names, scores, strict=True), 1)
    ]
