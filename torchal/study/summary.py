"""What a report says, in plain values: the page, the tables and the charts are made of these and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torchal._records import as_plain


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval; the ends are None where one run says nothing of how much runs differ."""

    mean: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Band:
    """A mean curve and its 95 % interval, at P places.

    Shapes:
        x, mean: (P,); x ascends.
        lower, upper: (P,), None where a single run was there.
    """

    x: list[float]
    mean: list[float]
    lower: list[float | None]
    upper: list[float | None]
    n_runs: int


@dataclass(frozen=True)
class Reached:
    """Labels that were needed to come to a target, where some runs did not come to it.

    Attributes:
        target: the value of the metric.
        runs: how many runs there are.
        reached: how many of them came to it.
        median: labels by which half of all runs had reached it (Kaplan-Meier), None where fewer did.
    """

    target: float
    runs: int
    reached: int
    median: float | None


@dataclass(frozen=True)
class Comparison:
    """Two samplers, A minus B, over runs that are paired: of the same experiment and seed.

    Attributes:
        difference: of the areas under the curves, with its interval.
        wins, ties, losses: in so many pairs A was better, equal, worse. "Better" minds whether less is more.
        p: of the paired t-test, p_wilcoxon of the signed-rank test, p_holm of the t-test after Holm's correction over
            all comparisons that stand together; None where they are not defined.
        verdict: 1 where A is better and p_holm is below 0.05, -1 where B is, else 0.
    """

    a: str
    b: str
    pairs: int
    difference: Estimate
    wins: int
    ties: int
    losses: int
    p: float | None
    p_wilcoxon: float | None
    p_holm: float | None
    verdict: int


@dataclass(frozen=True)
class Example:
    """A row that a sampler bought: its label in words, and its picture as a `data:` URI, or its text."""

    label: str
    picture: str | None = None
    width: int = 0
    height: int = 0
    text: str | None = None


@dataclass(frozen=True)
class Entry:
    """A sampler in an experiment, over its runs. Dictionaries are by metric unless said otherwise.

    Attributes:
        runs: how many are finished, unfinished how many are not; curves have both.
        final, area: of finished runs.
        against: the comparison with the experiment's baseline; empty for the baseline itself.
        curves: by metric, then by what they are drawn against: labels, cost, seconds.
        seconds: of a run, by phase (fit, select, score, ...).
        classes: (R, C) for each round (by labels, as in `class_labels`) how many labels of each class a run has bought
            by then, on average.
        first, last: rows of the first batch that the sampler picked, and of the last.
        divergence: of the classes of all labels bought from those of the pool, in nats (Kullback & Leibler), where
            these are known.
        sole: the share of its rows that no other sampler of the experiment picked with the same seed.
    """

    sampler: str
    runs: int
    unfinished: int
    labels: float
    cost: float
    seconds: dict[str, float]
    final: dict[str, Estimate]
    area: dict[str, Estimate]
    reached: Reached | None
    against: dict[str, Comparison]
    curves: dict[str, dict[str, Band]]
    class_labels: list[float] = field(default_factory=list)
    classes: list[list[float]] = field(default_factory=list)
    first: list[Example] = field(default_factory=list)
    last: list[Example] = field(default_factory=list)
    divergence: float | None = None
    sole: float | None = None


@dataclass(frozen=True)
class ExperimentSummary:
    """Runs that differ in sampler and seed only.

    Attributes:
        folder: as it was given.
        settings: what else tells it apart from others of the same data and model, as "noise.share=0.1".
        class_names: of the columns of `Entry.classes`.
        pool_classes: the rows of each class in the pool, where it is known.
        full_data: the main metric with all training data.
        ordered: samplers from the best mean area of the main metric to the worst.
        key: all settings that its runs share, `StudyRun.settings`.
    """

    folder: str
    data: str
    model: str
    settings: str
    baseline: str | None
    full_data: float | None
    class_names: list[str]
    pool_classes: list[int] | None
    entries: dict[str, Entry]
    ordered: list[str]
    key: str = ""

    @property
    def name(self) -> str:
        """What a chart of it is called."""
        return ", ".join(part for part in (self.data, self.model, self.settings) if part)


@dataclass(frozen=True)
class Ranking:
    """Samplers over several data sets: Friedman's test and Nemenyi's critical difference.

    Attributes:
        mean_ranks: by sampler, the best first; 1 is the best rank.
        blocks: how many experiments have all of them.
        p: of Friedman's test.
        critical_difference: of mean ranks, at 5 %.
        cliques: samplers that do not differ by it, each from the best to the worst.
        left_out: experiments that lack a sampler.
    """

    mean_ranks: dict[str, float]
    blocks: int
    p: float
    critical_difference: float
    cliques: list[list[str]]
    left_out: list[str]


@dataclass(frozen=True)
class Penalties:
    """How often a sampler was significantly better than another: `matrix[i][j]` is what i has over j (Ash et al. 2020).

    Each experiment gives a pair 1 / (numbers of labels that are compared) for each number of labels at which i is
    better by a paired t-test at 5 %, so that no entry is larger than `experiments`, or than `compared[i][j]`, how many
    of them have both.
    """

    samplers: list[str]
    matrix: list[list[float]]
    experiments: int
    compared: list[list[int]] = field(default_factory=list)

    def shares(self) -> list[list[float | None]]:
        """Return the matrix divided by how many experiments have both samplers; None where none has."""
        counts = self.compared or [[self.experiments] * len(self.samplers)] * len(self.samplers)
        return [
            [value / count if count else None for value, count in zip(row, counted, strict=True)]
            for row, counted in zip(self.matrix, counts, strict=True)
        ]


@dataclass(frozen=True)
class Problem:
    """A folder that could not be read as it should be, and why."""

    folder: str
    why: str


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        title: of the page.
        written: when.
        command: which made it, as one types it.
        metrics: of the test part, by name, the main one first; then what was watched (`ActiveLearner.watch`), in which
            samplers are not compared.
        lower_is_better: those of them of which less is more.
        comparisons: by metric, of all pairs of samplers over all experiments.
        ranking, penalties: of the main metric; None with fewer than two experiments (two samplers).
        unfinished: runs that are going on, or were stopped: those of a sampler in a line.
        missing: what other samplers of the experiment have and this one has not, as "digits, logistic: margin has no
            run of seed 3".
        versions: lines on what the runs were made with.
        notes: what was left out, chosen, or should be known.
        problems: what could not be read, a line each.
        n_empty: how many of the unfinished runs have no round yet.
    """

    title: str
    command: str
    written: str
    metrics: list[str]
    lower_is_better: list[str]
    experiments: list[ExperimentSummary]
    comparisons: dict[str, list[Comparison]]
    ranking: Ranking | None
    penalties: Penalties | None
    problems: list[Problem]
    unfinished: list[str]
    missing: list[str]
    versions: list[str]
    notes: list[str]
    n_empty: int = 0

    @property
    def metric(self) -> str:
        """The main metric."""
        return self.metrics[0]

    @property
    def n_unfinished(self) -> int:
        """How many runs are going on, or were stopped."""
        return sum(entry.unfinished for one in self.experiments for entry in one.entries.values()) + self.n_empty

    def to_json(self) -> Mapping[str, Any]:
        """Return plain numbers, text, lists and dicts."""
        plain: dict[str, Any] = as_plain(asdict(self))
        return plain
