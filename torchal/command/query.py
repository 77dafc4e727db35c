"""Choose the rows to label next, and write them as a table, a map and a page; remember, so that it can go on."""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchal import functional, samplers
from torchal._records import write_atomically
from torchal.command.memory import Memory
from torchal.command.models import make_model
from torchal.command.sources import Source
from torchal.command.stop import advice
from torchal.errors import ConfigError, DataError
from torchal.exchange.answers import Answers
from torchal.exchange.questions import Question
from torchal.exchange.tables import write_questions
from torchal.pool.classes import Classes
from torchal.pool.pool import Pool
from torchal.protocols import HasProbabilities, provides
from torchal.report.coordinates import map_coordinates
from torchal.report.map import as_png, draw_map
from torchal.report.page import write_page
from torchal.runs.learner import ActiveLearner
from torchal.samplers.base import Sampler

COLD = "typiclust"
"""Takes the place of a strategy that reads a model, while none can be fitted."""

_SHOWN = 5
_MOST_LOOKED_AT = 100_000  # rows of the pool whose predictions the page sums up


@dataclass
class Request:
    """What is wanted.

    Attributes:
        budget: how many rows to ask for.
        strategy: by name; chosen where None.
        model: by name.
        out: the table of what is asked; a map, a page and a folder that remembers lie beside it.
        seed: all randomness follows from it.
        classes: all there are, in their order; learned from the labels where None.
        correct: whether a label that differs from one told before corrects it, and is no mistake.
        coordinates: (N, 2) of a map; the first two principal components where None.
        stop: whether to say if it is time to stop.
        command: as it was typed.
        title: of the page.
    """

    budget: int
    out: Path
    strategy: str | None = None
    model: str = "logistic"
    seed: int = 0
    classes: list[str] | None = None
    correct: bool = False
    coordinates: Tensor | None = None
    stop: bool = False
    command: Sequence[str] = ()
    title: str = "Rows to label"

    @property
    def folder(self) -> Path:
        """The folder that remembers."""
        return self.out.with_suffix(".torchal")


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        questions: the rows to label.
        files: that were written.
        notes: what was chosen, and why.
        warnings: what one should know first.
        classes: all there are so far, in their order.
        seconds: of each part.
    """

    questions: list[Question]
    files: list[Path]
    notes: list[str]
    warnings: list[str]
    classes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the seconds of a part."""
        started = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - started


def query(source: Source, answers: Answers | None, request: Request) -> Outcome:
    """Choose the rows of a source to label next, and write them down.

    The same call again writes the same files; with more labels, it goes on. What was told is kept beside the answer
    before anything is written, and nothing is kept of a call that fails.

    Raises:
        DataError: labels of rows that there are not, or that contradict what was told before; rows that have changed.
        BudgetError: more rows are wanted than can be asked for.
        ConfigError: a strategy or a model that is unknown, or that needs what the command does not have.
        CapabilityError: the strategy needs something that the model does not have.
    """
    told = Outcome([], [], list(source.notes), [])
    memory = Memory.load(request.folder)
    if memory is not None:
        source = memory.arrange(source, request.folder)
    labels = labels_of(source, answers, request.classes)
    name = _strategy(request, memory, labels, told)
    learner = _learner(source, request, samplers.from_name(name))
    if memory is not None:
        told.notes += memory.restore(learner, same_strategy=memory.settings["strategy"] == name)
    news = _tell(learner, source, labels, request)
    _warn_of_classes(learner, request, told)
    same = memory is not None and memory.settings["strategy"] == name and memory.settings["budget"] == request.budget
    if news or not same or not len(learner.asked):
        learner.withdraw()
        with told.timed("select"):
            learner.ask(request.budget)
    told.notes.insert(0, _why(learner, name, request))
    told.classes = [str(word) for word in learner.pool.classes or ()]
    settings = {"strategy": name, "budget": request.budget, "model": request.model}
    Memory.of(source, learner, settings).save(request.folder)
    with told.timed("describe"):
        xy, explained = _coordinates(source, request)
        told.questions = _questions(learner, source, name, xy)
        sure, predicted = _confidence(learner, request.seed)
    if request.stop:
        told.notes += advice(learner, make_model(request.model), request.budget, seed=request.seed)
    with told.timed("write"):
        _write(learner, request, told, (xy, explained, sure, predicted))
    return told


def labels_of(source: Source, answers: Answers | None, classes: list[str] | None) -> dict[str, str | None]:
    """Return what files say of a source's rows, by id: a label, or None where nobody can tell.

    Raises:
        DataError: ids that are none of the source's, or labels that are none of the classes.
    """
    labels: dict[str, str | None] = {}
    if source.labels is not None:
        labels |= {name: label for name, label in zip(source.ids, source.labels, strict=True) if label}
    if answers is not None:
        found = answers.labels_of()
        skipped: dict[str, str | None] = {
            name: None for name, skip in zip(answers.ids, answers.skipped, strict=True) if skip
        }
        different = [name for name, label in found.items() if labels.get(name, label) != label]
        if different:
            raise DataError(
                f"{len(different)} rows have one label in the table and another in --labels: {_some(different)}"
            )
        labels |= skipped
        labels |= found
        known = set(source.ids)
        unknown = [name for name in answers.ids if name not in known]
        if unknown:
            numbers = f"; ids are the numbers 0 to {len(source) - 1}" if source.ids[0] == "0" else ""
            raise DataError(
                f"{len(set(unknown))} of {len(set(answers.ids))} ids of the labels are none of the "
                f"{len(source)} rows: {_some(unknown)}{numbers}"
            )
    others = sorted({label for label in labels.values() if label is not None and label not in (classes or [label])})
    if others:
        raise DataError(f"{len(others)} labels are none of the {len(classes or [])} classes: {_some(others)}")
    return labels


def _strategy(request: Request, memory: Memory | None, labels: dict[str, str | None], told: Outcome) -> str:
    """Return the strategy to ask: the one wanted, or one that needs no model, where there can be none."""
    name = samplers.full_name(request.strategy or "margin")
    sampler = samplers.from_name(name)
    if sampler.needs_validation:
        raise ConfigError(f"{name} looks at the score on a validation part, which the command does not have")
    known = {label for label in labels.values() if label is not None}
    if memory is not None:
        known |= set(memory.state["classes"] or ())
    if len(known) < 2 and sampler.needs_model(0):
        of = f"labels of {len(known)} class{'es' * (len(known) != 1)}"
        told.notes.append(
            f"There are {of} so far, and {name} reads a model, which takes two: {COLD} picks, which needs none."
        )
        return COLD
    return name


def _learner(source: Source, request: Request, sampler: Sampler) -> ActiveLearner:
    pool = Pool.unlabeled(source.features)
    pool = _with_classes(pool, request.classes or [])
    model = make_model(request.model)
    learner = ActiveLearner(model, sampler, pool, seed=request.seed)
    if provides(model, HasProbabilities):
        learner.watch("kappa", "uncertainty")
    return learner


def _with_classes(pool: Pool, names: Iterable[str | None]) -> Pool:
    """Return a pool with further classes behind those that it has."""
    known = pool.classes or ()
    more = [name for name in dict.fromkeys(names) if name is not None and name not in known]
    return pool.with_classes(Classes((*known, *more), max(2, len(known) + len(more)), grows=True))


def _in_order(name: str | None) -> tuple[float, str]:
    """Return by what names of classes are put in order: as numbers where they are."""
    text = str(name)
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _tell(learner: ActiveLearner, source: Source, labels: dict[str, str | None], request: Request) -> bool:
    """Tell a learner the labels that it does not know; return whether there were any.

    Raises:
        DataError: labels that contradict those told before.
    """
    place = {name: row for row, name in enumerate(source.ids)}
    pool = learner.pool
    new, changed = {}, {}
    for name, label in labels.items():
        row = place[name]
        if bool(pool.candidates[row]):
            new[row] = label
        else:
            code = int(pool.targets[row])
            before = None if code < 0 else (pool.classes or ())[code]
            if before != label:
                changed[row] = (before, label)
    if changed and not request.correct:
        first = ", ".join(
            f"{source.ids[row]!r} was {before!r}, is {after!r}"
            for row, (before, after) in list(changed.items())[:_SHOWN]
        )
        raise DataError(
            f"{len(changed)} labels are not as they were told before: {first}. If these correct them, say --correct"
        )
    for row, (before, after) in changed.items():
        if before is None:
            learner.unlabel([row])
            learner.tell([row], [after])
        else:
            learner.relabel([row], [after])
    words = {word for word in new.values() if word is not None}
    learner.pool = _with_classes(learner.pool, sorted(words, key=_in_order))
    if new:
        learner.tell(list(new), list(new.values()))
    return bool(new or changed)


def _warn_of_classes(learner: ActiveLearner, request: Request, told: Outcome) -> None:
    """Refuse a class that is one row and nearly another's name, and point out others of one row.

    Raises:
        DataError: a class looks like a slip of the pen.
    """
    counts = _counts(learner)
    known = request.classes or []
    for name, count in counts.items():
        others = [other for other, n in counts.items() if n > 1]
        if count != 1 or name in known:
            continue
        near = get_close_matches(name, others, n=1, cutoff=0.7)
        if near and near[0] != name and not name.strip("-.").isdigit():
            raise DataError(
                f"one row has the label {name!r}, and {counts[near[0]]} have {near[0]!r}: if it is a class of its own, "
                f"say so by --classes {','.join(counts)}"
            )
        told.warnings.append(f"Of the class {name!r} there is one label.")


def _counts(learner: ActiveLearner) -> dict[str, int]:
    """Return how many labels of each class there are."""
    pool = learner.pool
    counts = pool.targets[pool.labeled].bincount(minlength=pool.n_classes).tolist()
    return {str(name): count for name, count in zip(pool.classes or (), counts, strict=False)}


def _why(learner: ActiveLearner, name: str, request: Request) -> str:
    pool = learner.pool
    waits = len(learner.asked)
    scored = any(score is not None for score in learner.scores_of(learner.asked))
    how = f"{waits} rows picked by {name}" if scored else f"{waits} rows drawn at random"
    known = f"{pool.n_labeled} are labeled" if pool.n_labeled else "none is labeled"
    fitted = f", and {request.model} was fitted on them" if learner.can_fit else ""
    return f"{how}, of {len(pool)}: {known}{fitted}."


def _coordinates(source: Source, request: Request) -> tuple[Tensor, Tensor | None]:
    if request.coordinates is not None:
        return request.coordinates, None
    found = map_coordinates(source.features, generator=torch.Generator().manual_seed(request.seed))
    return found.xy, found.explained


def _questions(learner: ActiveLearner, source: Source, name: str, xy: Tensor) -> list[Question]:
    """Return what is known of each row that is asked for."""
    rows, pool = learner.asked, learner.pool
    n = len(rows)
    scores = learner.scores_of(rows)
    stands_for = functional.represents(source.features, rows, among=~pool.labeled).counts.tolist()
    nearest: list[tuple[str | None, str | None, float | None]] = [(None, None, None)] * n
    labeled = pool.labeled.nonzero().squeeze(1)
    if len(labeled):
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=1).fit(source.features[labeled].numpy())
        distances, places = search.kneighbors(source.features[rows].numpy())
        at = labeled[torch.from_numpy(places[:, 0])]
        words = pool.labels.decode(pool.targets[at])
        nearest = [
            (source.ids[row], str(word), float(distance))
            for row, word, distance in zip(at.tolist(), words, distances[:, 0].tolist(), strict=True)
        ]
    guesses: list[tuple[str | None, float | None]] = [(None, None)] * n
    if learner.can_fit and provides(learner.model, HasProbabilities):
        best = learner.predict_proba(source.features[rows]).max(1)
        guesses = list(zip(map(str, pool.labels.decode(best.indices)), best.values.tolist(), strict=True))
    elif learner.can_fit:
        guesses = [(str(word), None) for word in learner.predict(source.features[rows])]
    return [
        Question(
            id=source.ids[row],
            rank=rank + 1,
            score=scores[rank],
            picked_by=name if scores[rank] is not None else "random",
            nearest_id=nearest[rank][0],
            nearest_label=nearest[rank][1],
            distance=nearest[rank][2],
            represents=stands_for[rank],
            predicted=guesses[rank][0],
            probability=guesses[rank][1],
            text=None if source.texts is None else source.texts[row],
            image=None if source.images is None else source.images[row],
            x=float(xy[row, 0]),
            y=float(xy[row, 1]),
        )
        for rank, row in enumerate(rows.tolist())
    ]


def _confidence(learner: ActiveLearner, seed: int) -> tuple[Tensor | None, dict[str, int] | None]:
    """Return how sure the model is of rows without a label, and which classes it says; of some where these are many."""
    if not (learner.can_fit and provides(learner.model, HasProbabilities)):
        return None, None
    rows = (~learner.pool.labeled).nonzero().squeeze(1)
    if len(rows) > _MOST_LOOKED_AT:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        rows = rows[order[:_MOST_LOOKED_AT].sort().values]
    if not len(rows):
        return None, None
    features: Any = learner.pool.inputs
    best = learner.predict_proba(features[rows]).max(1)
    counts = Counter(map(str, learner.pool.labels.decode(best.indices)))
    return best.values, {str(name): counts[str(name)] for name in learner.pool.classes or ()}


def _write(
    learner: ActiveLearner,
    request: Request,
    told: Outcome,
    looks: tuple[Tensor, Tensor | None, Tensor | None, dict[str, int] | None],
) -> None:
    """Write the table, the map and the page."""
    xy, explained, sure, predicted = looks
    pool = learner.pool
    labeled = pool.labeled.nonzero().squeeze(1)
    words = [str(word) for word in pool.labels.decode(pool.targets[labeled])]
    classes = [str(name) for name in pool.classes or ()]
    looks_like: dict[str, Any] = {"asked": learner.asked, "explained": explained}
    if len(labeled):
        looks_like |= {"labeled": labeled, "labels": words, "classes": classes}
    png, page = request.out.with_suffix(".png"), request.out.with_suffix(".html")
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_questions(told.questions, request.out)
    write_atomically(png, as_png(draw_map(xy, **looks_like)))
    command = shlex.join(["torchal", *request.command]) if request.command else None
    told.warnings += write_page(
        page,
        title=request.title,
        questions=told.questions,
        map_png=as_png(draw_map(xy, title="", **looks_like)),
        dark_map_png=as_png(draw_map(xy, title="", theme="dark", **looks_like)),
        classes=_counts(learner) if len(labeled) else None,
        predicted=predicted,
        confidence=sure,
        notes=told.notes,
        command=command,
        warnings=told.warnings,
    )
    told.files += [request.out, png, page, request.folder]


def _some(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(map(repr, distinct[:_SHOWN])) + more
