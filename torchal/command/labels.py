"""What files say of the rows of a source, and how a learner is told."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from difflib import get_close_matches

import torch

from torchal.command.sources import Source, some
from torchal.errors import DataError
from torchal.exchange.answers import Answers
from torchal.pool.classes import Classes
from torchal.pool.pool import Pool
from torchal.runs.learner import ActiveLearner

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?", re.ASCII)


def labels_of(
    source: Source,
    answers: Answers | None,
    classes: Sequence[str] | None,
    *,
    known: Iterable[str] = (),
    notes: list[str] | None = None,
) -> dict[str, str | None]:
    """Return what files say of a source's rows, by id: a label, or None where nobody can tell.

    Programs of tables write 007 as 7, and 1 as 1.0. A label or an id that is none of those that are known, and the same
    number as one of them, is that one.

    Args:
        source: the rows.
        answers: from files of labels.
        classes: all that there are; None where labels name them.
        known: classes of labels that were told before.
        notes: to which it adds what was read as something else.

    Raises:
        DataError: ids that are none of the source's, or labels that are none of the classes.
    """
    said = [] if notes is None else notes
    labels: dict[str, str | None] = {}
    of_source = source.labels or []
    given = Counter(label for label in of_source if label)
    if answers is not None:
        answers = _with_known_ids(source, answers, said)
        given.update(label for label in answers.labels if label is not None)
    same = _spellings(given, list(classes or known), said)
    labels |= {name: same.get(label, label) for name, label in zip(source.ids, of_source, strict=False) if label}
    if answers is not None:
        told = [None if label is None else same.get(label, label) for label in answers.labels]
        found = replace(answers, labels=told).labels_of()
        different = [name for name, label in found.items() if labels.get(name, label) != label]
        if different:
            raise DataError(
                f"{len(different)} rows have one label in the table and another in --labels: {some(different)}"
            )
        labels |= {name: None for name, skip in zip(answers.ids, answers.skipped, strict=True) if skip}
        labels |= found
    allowed = set(given if classes is None else classes)
    others = sorted({label for label in labels.values() if label is not None} - allowed - set(same.values()))
    if others:
        raise DataError(f"{len(others)} labels are none of the {len(allowed)} classes: {some(others)}")
    return labels


def _with_known_ids(source: Source, answers: Answers, notes: list[str]) -> Answers:
    """Return answers with the ids that the source has, without those of rows that it left out.

    Raises:
        DataError: an id is none of the source's.
    """
    if source.left_out:
        empty = set(source.left_out)
        kept = [i for i, name in enumerate(answers.ids) if name not in empty]
        columns = (answers.ids, answers.labels, answers.by, answers.skipped)
        answers = Answers(*([column[i] for i in kept] for column in columns))  # type: ignore[arg-type]
    known = set(source.ids)
    unknown = dict.fromkeys(name for name in answers.ids if name not in known)
    if not unknown:
        return answers
    named: dict[Decimal, list[str]] = {}
    for name in source.ids:
        if (number := _number(name)) is not None:
            named.setdefault(number, []).append(name)
    same = {}
    for name in unknown:
        number = _number(name)
        if number is not None and len(named.get(number, ())) == 1:
            same[name] = named[number][0]
    gone = [name for name in unknown if name not in same]
    if gone:
        numbers = f"; ids are the numbers 0 to {len(source) - 1}" if source.ids[0] == "0" else ""
        raise DataError(
            f"{len(gone)} of {len(set(answers.ids))} ids of the labels are none of the "
            f"{len(source)} rows: {some(gone)}{numbers}"
        )
    first, meant = next(iter(same.items()))
    notes.append(f"{len(same)} ids of labels were taken for those of the same number, as {first!r} for {meant!r}.")
    return replace(answers, ids=[same.get(name, name) for name in answers.ids])


def _spellings(given: Mapping[str, int], known: Sequence[str], notes: list[str]) -> dict[str, str]:
    """Return labels that are another way to write a class, and the class: the one known, or the most frequent."""
    written: dict[Decimal, list[str]] = {}
    for name in dict.fromkeys([*known, *given]):
        if (number := _number(name)) is not None:
            written.setdefault(number, []).append(name)
    same: dict[str, str] = {}
    for names in written.values():
        fixed = [name for name in names if name in known]
        if len(names) == 1 or len(fixed) > 1:
            continue
        kept = fixed[0] if fixed else min(names, key=lambda name: (-given[name], len(name), name))
        same |= {name: kept for name in names if name != kept}
    notes += [
        f"The label {name!r} is the same number as {kept!r}, and was taken for it." for name, kept in same.items()
    ]
    return same


def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def with_classes(pool: Pool, names: Iterable[str | None]) -> Pool:
    """Return a pool with further classes behind those that it has."""
    known = pool.classes or ()
    there = set(known)
    more = [name for name in dict.fromkeys(names) if name is not None and name not in there]
    return pool.with_classes(Classes((*known, *more), max(2, len(known) + len(more)), grows=True))


def _in_order(name: str) -> tuple[float, str]:
    """Return by what names of classes are put in order: as numbers where they are."""
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def tell(learner: ActiveLearner, source: Source, labels: Mapping[str, str | None], *, correct: bool) -> bool:
    """Tell a learner the labels that it does not know; return whether there were any.

    Args:
        learner: whose pool has the rows of the source.
        source: with their ids.
        labels: by id.
        correct: whether a label that differs from one told before corrects it.

    Raises:
        DataError: labels that contradict those told before.
    """
    place = {name: row for row, name in enumerate(source.ids)}
    pool = learner.pool
    classes = pool.classes or ()
    rows = torch.tensor([place[name] for name in labels], dtype=torch.int64)
    new: dict[int, str | None] = {}
    changed: dict[int, tuple[object, str | None]] = {}
    is_open, codes = pool.candidates[rows].tolist(), pool.targets[rows].tolist()
    for row, label, is_new, code in zip(rows.tolist(), labels.values(), is_open, codes, strict=True):
        before = None if code < 0 else classes[code]
        if is_new:
            new[row] = label
        elif before != label:
            changed[row] = before, label
    if changed and not correct:
        row, (before, after) = next(iter(changed.items()))
        first = f"{source.ids[row]!r} was {before!r}, is {after!r}"
        raise DataError(
            f"{len(changed)} labels are not as they were told before: {first}. If these correct them, say --correct"
        )
    unlabeled = [row for row, (before, _) in changed.items() if before is None]  # nobody could tell
    learner.unlabel(unlabeled)
    new |= {row: changed.pop(row)[1] for row in unlabeled}
    told = [*new.values(), *(after for _, after in changed.values())]
    words = sorted({word for word in told if word is not None}, key=_in_order)
    learner.pool = with_classes(learner.pool, words)
    if changed:
        learner.relabel(list(changed), [after for _, after in changed.values()])
    if new:
        learner.tell(list(new), list(new.values()))
    return bool(new or changed)


def lonely_classes(counts: Mapping[str, int], known: Sequence[str]) -> list[str]:
    """Return the classes of one row, unless they are known.

    Raises:
        DataError: one of them is nearly the name of another: a slip of the pen.
    """
    others = [name for name, count in counts.items() if count > 1]
    lonely = [name for name, count in counts.items() if count == 1 and name not in known]
    for name in lonely:
        near = get_close_matches(name, others, n=1, cutoff=0.7)
        if near and not name.strip("-.").isdigit():
            raise DataError(
                f"one row has the label {name!r}, and {counts[near[0]]} have {near[0]!r}: if it is a class of its own, "
                f"say so by --classes {shlex.quote(','.join(counts))}"
            )
    return lonely
