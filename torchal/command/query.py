"""Choose the rows to label next, and write them as a table, a map and a page; remember, so that it can go on."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchal import functional, samplers
from torchal._records import write_atomically
from torchal.command.labels import labels_of, lonely_classes, tell, with_classes
from torchal.command.memory import Memory
from torchal.command.models import make_model
from torchal.command.sources import Source
from torchal.command.stop import advice
from torchal.errors import BudgetError, ConfigError, RunError
from torchal.exchange.answers import Answers
from torchal.exchange.questions import Question
from torchal.exchange.tables import check_table, write_questions
from torchal.pool.pool import Pool
from torchal.protocols import HasProbabilities, provides
from torchal.report.coordinates import map_coordinates
from torchal.report.map import as_png, draw_map
from torchal.report.page import write_page
from torchal.runs.learner import ActiveLearner
from torchal.samplers.base import Sampler

COLD = "typiclust"
"""Takes the place of a strategy that reads a model, while none can be fitted."""

_MOST_LOOKED_AT = 100_000  # rows of the pool whose predictions the page sums up


@dataclass
class Request:
    """What is wanted.

    Attributes:
        budget: how many rows to ask for; 0 takes labels in, and asks for none.
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

    def __post_init__(self) -> None:
        check_table(self.out)
        if not self.budget and self.stop:
            raise ConfigError("--stop says what the next labels would bring, and --budget 0 asks for none")
        self._stamp = self._stamp_of_out()

    def _stamp_of_out(self) -> tuple[int, int] | None:
        try:
            about = self.out.stat()
        except FileNotFoundError:
            return None
        return about.st_mtime_ns, about.st_size

    def check_unchanged(self) -> None:
        """Require that nobody has written into the table since this was made, as labels.

        Raises:
            RunError: somebody has.
        """
        if self._stamp_of_out() != self._stamp:
            raise RunError(f"{self.out} was written while this ran, and is left as it is: give the command again")

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
    """

    questions: list[Question]
    files: list[Path]
    notes: list[str]
    warnings: list[str]
    classes: list[str] = field(default_factory=list)


def query(source: Source, answers: Answers | None, request: Request) -> Outcome:
    """Choose the rows of a source to label next, and write them down.

    The same call again writes the same files; with more labels, it goes on. What was told is kept beside the answer
    before anything is written, and nothing is kept of a call that fails. With a budget of 0 what was told is kept, and
    nothing else is done: whoever asks next is asked anew if that was something.

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
    known = [] if memory is None else list(memory.state["classes"] or ())
    labels = labels_of(source, answers, request.classes, known=known, notes=told.notes)
    name = _strategy(request, {*known, *(label for label in labels.values() if label is not None)}, told)
    if memory is not None and not request.budget:
        name = memory.settings["strategy"]  # the one whose state is kept
    learner = _learner(source, request, samplers.from_name(name))
    if memory is not None:
        told.notes += memory.restore(learner, same_strategy=memory.settings["strategy"] == name)
    news = tell(learner, source, labels, correct=request.correct)
    lonely = lonely_classes(_counts(learner), request.classes or [])
    told.warnings += [f"Of the class {name!r} there is one label." for name in lonely]
    settings = {"strategy": name, "budget": request.budget, "model": request.model, "seed": request.seed}
    if not request.budget:
        # settings of a call that asks are never those of one that does not, so that it asks anew
        Memory.of(source, learner, settings if news or memory is None else memory.settings).save(request.folder)
        pool, waits = learner.pool, len(learner.asked)
        told.notes.insert(0, f"{pool.n_labeled} of {len(pool)} rows are labeled; {waits} wait for an answer.")
        told.files = [request.folder]
        return told
    same = memory is not None and memory.settings == settings
    if news or not same or not len(learner.asked):
        learner.withdraw()
        if not learner.pool.candidates.any():
            raise BudgetError(f"no row is left to ask for: {learner.pool.n_labeled} of {len(learner.pool)} are labeled")
        learner.ask(request.budget)
    told.notes.insert(0, _why(learner, name, request))
    told.classes = [str(word) for word in learner.pool.classes or ()]
    Memory.of(source, learner, settings).save(request.folder)
    xy, explained = _coordinates(source, request)
    told.questions = _questions(learner, source, name, xy)
    sure, predicted = _confidence(learner, request.seed)
    if request.stop:
        told.notes += advice(learner, make_model(request.model), request.budget, seed=request.seed)
    _write(learner, request, told, (xy, explained, sure, predicted))
    return told


def _strategy(request: Request, known: set[str], told: Outcome) -> str:
    """Return the strategy to ask: the one wanted, or one that needs no model, where there can be none."""
    name = samplers.full_name(request.strategy or "margin")
    sampler = samplers.from_name(name)
    if sampler.needs_validation:
        raise ConfigError(f"{name} looks at the score on a validation part, which the command does not have")
    if len(known) < 2 and sampler.needs_model(0):
        of = "are labels of one class" if known else "is no label"
        if request.budget:
            told.notes.append(
                f"There {of} so far, and {name} reads a model, which takes two: {COLD} picks, which needs none."
            )
        return COLD
    return name


def _learner(source: Source, request: Request, sampler: Sampler) -> ActiveLearner:
    pool = Pool.unlabeled(source.features)
    pool = with_classes(pool, request.classes or [])
    model = make_model(request.model)
    learner = ActiveLearner(model, sampler, pool, seed=request.seed)
    if provides(model, HasProbabilities):
        learner.watch("kappa", "uncertainty")
    return learner


def _counts(learner: ActiveLearner) -> dict[str, int]:
    """Return how many labels of each class there are."""
    pool = learner.pool
    counts = pool.targets[pool.labeled].bincount(minlength=pool.n_classes).tolist()
    return {str(name): count for name, count in zip(pool.classes or (), counts, strict=False)}


def _why(learner: ActiveLearner, name: str, request: Request) -> str:
    pool = learner.pool
    waits = len(learner.asked)
    scored = any(score is not None for score in learner.scores_of(learner.asked))
    rows = f"{waits} row{'s' * (waits != 1)}"
    how = f"{rows} picked by {name}" if scored else f"{rows} drawn at random"
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
            text=source.text_of(row),
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
    request.check_unchanged()
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
