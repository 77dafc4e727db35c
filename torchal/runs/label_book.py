"""The labels of a learner: which rows were asked for, what was told of them, by whom, and what was corrected."""

from __future__ import annotations

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchal._checks import as_rows
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.exchange.tables import read_answers
from torchal.pool.classes import Classes
from torchal.pool.pool import Pool
from torchal.pool.round_result import RoundResult
from torchal.protocols import UNLABELED
from torchal.runs.opinions import Agreement, Consensus, Disagreement, Opinions

_LISTED = 100  # problems of a file


class Correction(NamedTuple):
    """A label that was told, and is another now.

    Attributes:
        round: how many rounds were finished when it was corrected.
        row: whose label it is.
        before, after: in the words of the pool; None where the row has no label.
    """

    round: int
    row: int
    before: Any
    after: Any


class LabelBook(ABC):
    """What is known of a pool's labels, and all that people do to them; an `ActiveLearner` is one.

    Args:
        pool: the rows, with the labels that are there already.
        consensus: see `ActiveLearner`.
    """

    def __init__(self, pool: Pool, *, consensus: Consensus) -> None:
        self.pool = pool
        self.consensus: Consensus = consensus
        self.asked = torch.empty(0, dtype=torch.int64, device=pool.device)
        """(n,) int64, rows that were asked for and are not answered yet; nobody is asked for them again."""
        self.corrections: list[Correction] = []
        """The labels that were told and are others now, in the order in which they were corrected."""
        self.history: list[RoundResult] = []
        """The finished rounds."""
        self._opinions = Opinions()
        self._scores: dict[int, float] = {}  # of rows that the sampler picked and no finished round has
        self._asks: list[dict[str, Any]] = []  # the rows of each batch that is not wholly answered, and its report
        self._bought: list[int] = pool.labeled.nonzero().squeeze(1).tolist()  # since the last finished round
        self._batches: list[dict[str, Any]] = []  # of these rows, in their order, what the sampler has observed already

    @abstractmethod
    def _fit_anew(self) -> None:
        """Take notice that the model is not that of the labels any more."""

    @abstractmethod
    def _revised(self, rows: Tensor, codes: Tensor) -> None:
        """Take notice that labels of which the sampler knows are others now, or none (-1)."""

    @abstractmethod
    def _reordered(self, before: Classes) -> None:
        """Take notice that the classes have other numbers than before, since a state was loaded."""

    @property
    def _free(self) -> Tensor:
        """(N,) bool, the candidates that nobody was asked for."""
        return self.pool.candidates.index_fill(0, self.asked, False)

    def ask_again(self, rows: Any = None) -> Tensor:
        """Ask for another opinion of rows; return them, (n,) int64.

        They have no label until it came; what was said of them before is remembered, and counts.

        Args:
            rows: (n,) int64; those of which people said different things, unless given.

        Raises:
            DataError: nobody said anything of a row.
        """
        rows = self._opinions.at_odds() if rows is None else rows
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        silent = [row for row in rows.tolist() if not self._opinions.of(row)]
        if silent:
            raise DataError(f"nobody has labeled {len(silent)} of {len(rows)} rows by name, the first is {silent[0]}")
        self._change(rows[~self.pool.candidates[rows]], None)
        return self._reserve(rows[~torch.isin(rows, self.asked)], answer=rows)

    def _reserve(self, rows: Tensor, *, answer: Tensor | None = None) -> Tensor:
        self.asked = torch.cat([self.asked, rows])
        return (rows if answer is None else answer).clone()

    def tell(self, rows: Any, labels: Any, *, by: str | None = None) -> None:
        """Take labels of rows, asked for or not, in any order and in part.

        A label that is missing (None, NaN) says that nobody can tell, as `cannot_label` does. Without `by` it takes the
        place of what people said of the row.

        Args:
            rows: of the pool.
            labels: in the words of the pool's classes; numbers in [0, n_classes) where these have no names.
            by: who says so, where several people label. The label of a row is then what they come to, see `consensus`,
                and may change with an answer (`corrections`); a later answer of the same person takes the place of an
                earlier one; a missing label says that this person cannot tell.

        Shapes:
            rows: (n,) int64.
            labels: (n,).

        Raises:
            DataError: a row is labeled already, by nobody in particular; a label is none of the classes. Nothing is
                taken then.
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        if by is not None:
            self._tell_by(rows, labels, by)
            return
        pool = self.pool.with_labels(rows, labels)
        if not len(rows):
            return  # and keep the fitted model
        told = rows[pool.labeled[rows]]
        self.pool = pool
        self._opinions = self._opinions.without(rows.tolist())
        self._drop(rows[~pool.labeled[rows]])
        self._buy(told)

    def _buy(self, rows: Tensor) -> None:
        """Note that rows have a label now."""
        if len(rows):
            self._bought += rows.tolist()
            self._fit_anew()
            self.asked = self.asked[~torch.isin(self.asked, rows)]

    def _tell_by(self, rows: Tensor, labels: Any, by: str) -> None:
        """Take what somebody says, and give each row the label that people come to."""
        if not isinstance(by, str) or not by:
            raise ConfigError(f"by must name who says so, got {by!r}")
        codes, classes = self.pool.labels.encode(labels, n=len(rows))
        told, targets = rows.tolist(), self.pool.targets[rows].tolist()
        alone = [row for row, now in zip(told, targets, strict=True) if now != UNLABELED and row not in self._opinions]
        if alone:
            raise DataError(
                f"{len(alone)} of {len(told)} rows are labeled already, by nobody in particular, the first is row "
                f"{alone[0]}; relabel takes the place of such a label"
            )
        self._opinions = self._opinions.with_votes(told, codes.tolist(), by)
        self.pool = self.pool.with_classes(classes)
        decided: dict[int, int] = {}
        for row, now in zip(told, targets, strict=True):
            code = self._opinions.decide(row, self.consensus)
            # who is at odds leaves a row as it is, or without a label where all must agree
            at_odds = UNLABELED if self.consensus == "unanimous" else now
            decided[row] = at_odds if code is None else code
        self._give(decided)
        answered = rows[self.pool.labeled[rows] | self.pool.skipped[rows]]
        self.asked = self.asked[~torch.isin(self.asked, answered)]

    def _give(self, decided: Mapping[int, int]) -> None:
        """Give rows the labels that people came to, -1 for none; where nobody can tell, they are skipped."""
        rows = torch.tensor(list(decided), dtype=torch.int64, device=self.pool.device)
        codes = torch.tensor(list(decided.values()), dtype=torch.int64, device=rows.device)
        before = self.pool.targets[rows]
        old = (before != UNLABELED) & (before != codes)
        new = (before == UNLABELED) & (codes != UNLABELED)
        self._change(rows[old], codes[old].tolist())
        self.pool = self.pool.with_labels(rows[new], self.pool.labels.decode(codes[new]))
        self._buy(rows[new])
        silent = [r for r, code in decided.items() if code == UNLABELED and self._opinions.decide(r, "majority") == -1]
        if silent:
            self._skip(torch.tensor(silent, device=rows.device))

    def relabel(self, rows: Any, labels: Any) -> None:
        """Correct labels that were told. The record of their round stays, and `corrections` has both.

        The model is fitted anew; a sampler that has learned from them learns again (`Sampler.revised`).

        Args:
            rows: labeled rows.
            labels: as in `tell`; a missing one says that nobody can tell.

        Shapes:
            rows: (n,) int64.
            labels: (n,).

        Raises:
            DataError: a row is not labeled, or a label is none of the classes. Nothing is changed then.
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        codes, classes = self.pool.labels.encode(labels, n=len(rows))
        self._check_labeled(rows)
        self.pool = self.pool.with_classes(classes)
        self._opinions = self._opinions.without(rows.tolist())
        self._change(rows, codes.tolist())
        skipped = rows[(codes == UNLABELED).to(rows.device)]
        if len(skipped):
            self._skip(skipped)

    def unlabel(self, rows: Any) -> None:
        """Take labels back, as if they had not been told; these rows may be asked again. See `relabel`.

        Shapes:
            rows: (n,) int64.

        Raises:
            DataError: a row is neither labeled nor one that nobody can tell.
            ShapeError: rows repeat or lie outside the pool.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        self.pool.unlabel(rows)  # whether it can be
        self._opinions = self._opinions.without(rows.tolist())
        self._change(rows, None)

    def _check_labeled(self, rows: Tensor) -> None:
        others = rows[~self.pool.labeled[rows]]
        if len(others):
            raise DataError(f"{len(others)} of {len(rows)} rows have no label, the first is row {int(others[0])}")

    def _change(self, rows: Any, codes: list[int] | None) -> None:
        """Give rows that have a label other ones, -1 for none; without codes, none to rows that nobody can tell too."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.pool.device)
        if codes is None:
            self.pool = self.pool.unlabel(rows[self.pool.skipped[rows]])
        after = torch.tensor(codes if codes is not None else [UNLABELED] * len(rows), device=rows.device)
        before = self.pool.targets[rows]
        changed = before != after
        rows, before, after = rows[changed], before[changed], after[changed]
        if not len(rows):
            return
        told = after != UNLABELED
        pool = self.pool.unlabel(rows)
        self.pool = pool.with_labels(rows[told], pool.labels.decode(after[told]))
        self.corrections += [
            Correction(len(self.history), row, self._word(old), self._word(new))
            for row, old, new in zip(rows.tolist(), before.tolist(), after.tolist(), strict=True)
        ]
        unlabeled, new = set(rows[~told].tolist()), set(self._unobserved)
        known = torch.tensor([row not in new for row in rows.tolist()])
        self._bought = [row for row in self._bought if row not in unlabeled]
        self._batches = [
            batch | {"rows": [row for row in batch["rows"] if row not in unlabeled]} for batch in self._batches
        ]
        self._fit_anew()
        if bool(known.any()):
            self._revised(rows.cpu()[known], after.cpu()[known])

    def disagreements(self) -> list[Disagreement]:
        """Return the rows of which people said different things (`tell(..., by=)`), in the order of the pool."""
        found = []
        for row in self._opinions.at_odds():
            said = {who: self._word(code) for who, code in self._opinions.of(row).items()}
            found.append(Disagreement(row, said, self._word(int(self.pool.targets[row]))))
        return found

    def agreement(self) -> Agreement:
        """Return how far people agree on rows that several have labeled (`tell(..., by=)`)."""
        return self._opinions.agreement()

    def _word(self, code: int) -> Any:
        """Return what people call a class; None for no label."""
        return None if code == UNLABELED else self.pool.classes[code] if self.pool.classes is not None else code

    def cannot_label(self, rows: Any) -> None:
        """Take rows out of the candidates for good, as when nobody can tell what they are.

        Raises:
            DataError: a row is labeled already.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        self._skip(rows)
        self._opinions = self._opinions.without(rows.tolist())

    def _skip(self, rows: Tensor) -> None:
        self.pool = self.pool.without(rows)
        self._drop(rows)

    def release(self, rows: Any) -> None:
        """Give back rows that were asked for and will not be answered; they may be asked for again.

        Shapes:
            rows: (n,) int64.

        Raises:
            DataError: a row was not asked for, or is answered already.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        others = rows[~torch.isin(rows, self.asked)]
        if len(others):
            raise DataError(f"{len(others)} of {len(rows)} rows wait for no answer, the first is row {int(others[0])}")
        self._drop(rows)

    def withdraw(self) -> None:
        """Give back all rows that were asked for and not answered."""
        self._drop(self.asked)

    def tell_csv(
        self, path: str | os.PathLike[str], *, column: Literal["row", "source_row"] = "row", by: str | None = None
    ) -> Tensor:
        """Take labels from a CSV or Parquet file, as `export_asked` writes it and a person fills it in.

        Rows may come in any order, and others may be left out. A blank label is none yet; one that is there already
        counts as told. Other columns are not looked at.

        Args:
            path: the file, with the columns `label` and `column`.
            column: what tells the rows: their numbers in the pool, or where the data came from.
            by: who says so, see `tell`.

        Returns:
            The rows whose labels are new, (n,) int64.

        Raises:
            DataError: the file cannot be read; rows that there are not; labels that are none of the classes, or not
                those that were told before. All of it is listed, and nothing is taken.
        """
        answers = read_answers(os.fspath(path), id_column=column, label_column="label")
        numbers = range(len(self.pool)) if column == "row" else self.pool.source_rows.tolist()
        places = {str(number): row for row, number in enumerate(numbers)}
        if len(places) < len(self.pool):
            raise DataError("several rows of the pool have the same source_row: tell them by column='row'")
        problems, new = [], {}
        targets, read = self.pool.targets.tolist(), {}
        for name, text in zip(answers.ids, answers.labels, strict=True):
            if name not in places:
                problems.append(f"there is no {column} {name}")
            elif text is not None:
                if text not in read:  # there are few labels, and may be many rows
                    label = self.pool.labels.read(text)
                    read[text] = label, self._not_a_class(label)
                row, (label, problem) = places[name], read[text]
                before = self._word(targets[row])
                if by is None and before is not None and before != label:
                    problems.append(f"{column} {name} was told {before!r}, the file says {label!r} (see relabel)")
                elif by is not None or before is None:
                    new[row] = label
                    problems += [f"{column} {name}: {problem}"] if problem else []
        if problems:
            more = f"\n- and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            listed = "".join(f"\n- {problem}" for problem in problems[:_LISTED])
            raise DataError(f"{os.fspath(path)} cannot be taken, {len(problems)} problems:{listed}{more}")
        rows = torch.tensor(list(new), dtype=torch.int64, device=self.pool.device)
        self.tell(rows, list(new.values()), by=by)
        return rows

    def _not_a_class(self, label: Any) -> str | None:
        """Return why a label cannot be taken; None where it can."""
        try:
            self.pool.labels.encode([label], n=1)
        except (DataError, ShapeError) as error:
            return str(error)
        return None

    def scores_of(self, rows: Any) -> list[float | None]:
        """Return how much the sampler wanted each of some rows that wait for an answer; None of those that it did not.

        Shapes:
            rows: (n,) int64.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        return [self._scores.get(row) for row in rows.tolist()]

    def export_asked(self, path: str | os.PathLike[str]) -> None:
        """Write the rows that wait for a label as CSV: row, source_row, score, and an empty column label."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "source_row", "score", "label"])
            for row, source in zip(self.asked.tolist(), self.pool.source_rows[self.asked].tolist(), strict=True):
                writer.writerow([row, source, self._scores.get(row, ""), ""])

    @property
    def _unobserved(self) -> list[int]:
        """The rows bought since the last finished round that the sampler has not learned from yet."""
        return self._bought[sum(len(batch["rows"]) for batch in self._batches) :]

    def _drop(self, rows: Tensor) -> None:
        """Forget that rows were asked for, and what the sampler thought of them."""
        for row in rows.tolist():
            self._scores.pop(row, None)
        self.asked = self.asked[~torch.isin(self.asked, rows)]

    def _label_state(self) -> dict[str, Any]:
        """Return all of this in numbers, text and tensors."""
        return {
            "n_rows": len(self.pool),
            "classes": None if self.pool.classes is None else list(self.pool.classes),
            "labeled": self.pool.labeled.nonzero().squeeze(1).cpu(),
            "labels": self.pool.targets[self.pool.labeled].cpu(),
            "skipped": self.pool.skipped.nonzero().squeeze(1).cpu(),
            "asked": self.asked.cpu(),
            "scores": dict(self._scores),
            "bought": list(self._bought),
            "batches": list(self._batches),
            "asks": [dict(ask) for ask in self._asks],
            "corrections": [list(correction) for correction in self.corrections],
            "votes": self._opinions.state(),
        }

    def _load_label_state(self, state: Mapping[str, Any]) -> None:
        pool = self.pool.unlabel((~self.pool.candidates).nonzero().squeeze(1))
        if state.get("classes") is not None:
            names = tuple(state["classes"])
            pool = pool.with_classes(Classes(names, max(2, len(names)), pool.learns_classes))
        labels = pool.labels.decode(state["labels"])
        before = self.pool.labels
        self.pool = pool.with_labels(state["labeled"], labels).without(state["skipped"])
        if before != self.pool.labels:
            self._reordered(before)
        self.asked = state["asked"].to(self.pool.device)
        self._scores = dict(state["scores"])
        self._bought, self._batches = list(state["bought"]), list(state.get("batches", []))
        # a state of earlier versions has one report, of all rows that wait
        old = [{"rows": list(self._scores), "report": state["report"]}] if state.get("report") else []
        self._asks = [dict(ask) for ask in state.get("asks", old)]
        self.corrections = [Correction(*correction) for correction in state.get("corrections", [])]
        self._opinions = Opinions(state.get("votes"))
