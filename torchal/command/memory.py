"""The folder beside an answer that remembers: which rows there are, what was asked and told, and how it went."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from torchal._records import as_safe_bytes, write_atomically
from torchal.command.sources import Source, reordered
from torchal.errors import DataError, RunError
from torchal.pool.round_result import RoundResult
from torchal.runs.learner import ActiveLearner

VERSION = 1
_FILE, _LABELS, _LOCK = "state.pt", "labels.csv", "lock"


@dataclass
class Memory:
    """What is known from before.

    Attributes:
        ids: of the rows, in the order of the learner's; how many, where they are their numbers.
        digests: of the rows as they came in.
        settings: of the command that asked last.
        state, history: of the learner.
    """

    ids: list[str] | int
    digests: list[str]
    settings: dict[str, Any]
    state: dict[str, Any] = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)

    @classmethod
    def load(cls, folder: Path) -> Memory | None:
        """Read what is remembered in a folder; None where nothing is.

        Raises:
            RunError: the file is damaged, or of another version.
        """
        path = folder / _FILE
        try:
            saved = torch.load(path, weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise RunError(f"{path} is damaged: {error}; {_anew(folder)}") from error
        if not isinstance(saved, dict) or saved.get("version") != VERSION:
            raise RunError(f"{path} is of another version; {_anew(folder)}")
        names = ("ids", "digests", "settings", "state", "history")
        return cls(**{name: saved[name] for name in names})

    @classmethod
    def of(cls, source: Source, learner: ActiveLearner, settings: Mapping[str, Any]) -> Memory:
        """Return what is to be remembered now."""
        plain = all(name == str(row) for row, name in enumerate(source.ids))
        history = [result.to_json() for result in learner.history]
        ids = len(source) if plain else list(source.ids)
        return cls(ids, list(source.digests), dict(settings), learner.state_dict(), history)

    def save(self, folder: Path) -> None:
        """Write all of it, as a whole or not at all; the labels also as a table, which outlives the rest."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _LABELS, self._labels().encode())
        write_atomically(folder / _FILE, as_safe_bytes({"version": VERSION, **vars(self)}))

    def _labels(self) -> str:
        """Return a table of all labels, as --labels takes it."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["id", "label"])
        classes, names = self.state["classes"], self.ids
        for row, code in zip(self.state["labeled"].tolist(), self.state["labels"].tolist(), strict=True):
            writer.writerow([row if isinstance(names, int) else names[row], classes[code]])
        return text.getvalue()

    @property
    def n_rows(self) -> int:
        """How many rows there were."""
        return self.ids if isinstance(self.ids, int) else len(self.ids)

    def arrange(self, source: Source, folder: Path) -> Source:
        """Return a source with the rows of before first, in their order.

        Raises:
            DataError: rows of before are not there any more, or have changed.
        """
        again = f"{_anew(folder)}, or name another file by --out"
        ids = [str(row) for row in range(self.ids)] if isinstance(self.ids, int) else self.ids
        try:
            source = reordered(source, ids)
        except DataError as error:
            raise DataError(f"{error}; {again}") from error
        per_row = len(self.digests) == self.n_rows and len(source.digests) == len(source)
        if per_row:
            changed = [row for row in range(self.n_rows) if self.digests[row] != source.digests[row]]
            if changed:
                raise DataError(
                    f"{len(changed)} of {self.n_rows} rows are not as they were, the first is "
                    f"{source.ids[changed[0]]!r}; {again}"
                )
        elif self.digests != source.digests and len(source) == self.n_rows:
            raise DataError(f"the features are not those of before, though as many rows; {again}")
        return source

    def restore(self, learner: ActiveLearner, *, same_strategy: bool) -> list[str]:
        """Let a learner go on from here; return what could not be taken over, for people.

        Labels, what was asked and the record are. A sampler's own state is not where it is another sampler, or where
        rows were added to a table or to texts, whose features are then others.

        Raises:
            DataError: no row was added, and the features are others nevertheless.
        """
        notes = []
        state = dict(self.state)
        fresh = learner.state_dict()
        if learner.pool.fingerprint(self.n_rows) != state["pool"]:
            if len(learner.pool) == self.n_rows:
                raise DataError(
                    "the rows are those of before, but what is computed of them is not: give what was given before "
                    "(--columns, --categorical or --missing of a table; --weights, --backbone, --size or --normalize "
                    "of images), or another file by --out"
                )
            state["pool"] = learner.pool.fingerprint(self.n_rows)
            notes.append("Rows were added, and all features are computed with them.")
            same_strategy = False
        if not same_strategy:
            if fresh["sampler_state"]:
                notes.append(f"{fresh['sampler']} starts anew, from the labels that there are.")
            state |= {"sampler": fresh["sampler"], "sampler_state": fresh["sampler_state"]}
        state["seed"] = fresh["seed"]
        learner.load_state_dict(state, [RoundResult.from_json(record) for record in self.history])
        return notes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    Raises:
        RunError: another process holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder} is in use by another call of this command; nothing is changed (many processes that pick "
            "together, as torchrun starts them, are for rows in --shards)"
        ) from None
    try:
        yield
    finally:
        lock.release()
        if not (folder / _FILE).exists():  # a call that failed leaves nothing behind
            (folder / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # something else is in it, as the embedding of images
                folder.rmdir()


def _anew(folder: Path) -> str:
    return f"to begin anew, keep {folder / _LABELS} elsewhere, for --labels, and delete the folder {folder}"
