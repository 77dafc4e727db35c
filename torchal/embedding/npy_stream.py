"""Features and logits that grow batch by batch in two .npy files, and are gone on with after the process was killed.

For `features.npy` the files are, while it grows, `features.npy.partial`, `features.logits.npy.partial` and the journal
`features.npy.json.partial`: one line that says what is being made, and one line for each batch that both files hold.
Finished, they are `features.npy`, `features.logits.npy` and `features.npy.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from torchal._records import differences, write_atomically
from torchal.errors import ConfigError, RunError

Fingerprint: TypeAlias = "dict[str, str | int | None]"
"""What the rows were made of. Its "device" counts only while they grow."""

Mapped: TypeAlias = "np.memmap[tuple[int, ...], np.dtype[Any]]"

_HEADER_BYTES = 128


class StreamFiles(NamedTuple):
    """Where a stream writes: features, logits, and what they were made of."""

    features: Path
    logits: Path
    about: Path


class NpyStream:
    """The two files, as a context manager. Leaving it closes them, finished or not.

    Args:
        files: see `files_of`; their folders are made if they are not there.
        fingerprint: what the rows are made of.
        dtype: of the numbers in both files.

    Attributes:
        finished: whether the files were there in full.
        n_batches, n_rows: what they hold.
        widths: numbers in a row of each, once there is a row.

    Raises:
        ConfigError: the files are of something else.
        RunError: another process writes to them, they are damaged, or cannot be written.
    """

    def __init__(self, files: StreamFiles, fingerprint: Fingerprint, dtype: np.dtype[Any]) -> None:
        self._paths = files[:2]
        self._about = files.about
        self._fingerprint = fingerprint
        self._dtype = dtype
        self._stack = ExitStack()
        self.finished = False
        self.n_batches = self.n_rows = 0
        self.widths: tuple[int, int] | None = None

    def __enter__(self) -> NpyStream:
        with self._stack:
            if not self._paths[0].exists():
                with _as_run_error(self._paths[0]):
                    for path in (*self._paths, self._about):
                        path.parent.mkdir(parents=True, exist_ok=True)
                    self._open()
            self.finished = self._paths[0].exists()
            if self.finished:
                self._check_finished()
                if _partial(self._about).exists():  # killed just before this
                    _partial(self._about).unlink(missing_ok=True)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk fails once more when what is still buffered is written; the first error says so already.
        with nullcontext() if error is None else suppress(OSError):
            self._stack.close()

    def write(self, features: Tensor, logits: Tensor) -> None:
        """Append one batch, (n, D) and (n, C)."""
        for path, file, values in zip(self._paths, self._files, (features, logits), strict=True):
            with _as_run_error(path):
                file.write(values.cpu().contiguous().numpy().data)
                file.flush()
        self.n_rows += len(features)
        self.n_batches += 1
        self.widths = features.shape[1], logits.shape[1]
        # only now: a batch counts when both files have it
        with _as_run_error(self._about):
            self._note([self.n_rows, *self.widths])

    def finish(self) -> None:
        """Put the files in their places; `out` itself comes last, so that it is never there without the others."""
        assert self.widths is not None
        with _as_run_error(self._paths[0]):
            for file, width in zip(self._files, self.widths, strict=True):
                file.seek(0)
                file.write(npy_header(self.n_rows, width, self._dtype))
                file.flush()
                os.fsync(file.fileno())
            record = {"fingerprint": self._fingerprint, "n_rows": self.n_rows, "widths": self.widths}
            write_atomically(self._about, json.dumps(record, indent=2).encode() + b"\n")
            self._put_in_place()

    def read(self) -> tuple[Mapped, Mapped]:
        """Map the finished files into memory, read-only."""
        features, logits = (self._map(path) for path in self._paths)
        return features, logits

    def _map(self, path: Path) -> Mapped:
        try:
            array: Mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise RunError(f"{path} is damaged: it cannot be read as .npy ({type(error).__name__})") from error
        if array.dtype != self._dtype:
            raise RunError(f"{path} is damaged: it has numbers of {array.dtype}, {self._dtype} was written")
        return array

    def _put_in_place(self) -> None:
        for path in reversed(self._paths):
            if _partial(path).exists():
                _partial(path).replace(path)
        _partial(self._about).unlink(missing_ok=True)

    def _open(self) -> None:
        """Lock the journal and find out what is there; open both files behind the last batch that both have."""
        self._journal = self._stack.enter_context(_partial(self._about).open("a+b"))
        if not lock(self._journal):
            raise RunError(f"{self._paths[0]} is being written by another process")
        if self._paths[0].exists():  # finished by another process meanwhile
            return
        self._journal.seek(0)
        lines = self._journal.read().split(b"\n")[:-1]  # a last line that was cut off does not count
        noted, *batches = self._parse(lines) or [None]
        if batches:  # else nothing is lost by beginning anew
            self._check_same(noted, "holds unfinished rows", [_partial(path) for path in (*self._paths, self._about)])
            if self._about.exists() and _partial(self._paths[0]).exists():
                self._put_in_place()  # killed in the middle of that
                return
        if self._paths[1].exists():
            _partial(self._about).unlink()
            raise ConfigError(
                f"{self._paths[1]} is there already, without {self._paths[0].name}; delete it, or choose another out"
            )
        # Left by an earlier result that was deleted; beside the new files it would say that they are whole.
        self._about.unlink(missing_ok=True)
        self._files = [self._stack.enter_context(_open_for_update(_partial(path))) for path in self._paths]
        self._keep(lines, batches)
        if not batches:
            self._note(self._fingerprint)

    def _keep(self, lines: list[bytes], batches: list[list[int]]) -> None:
        """Cut both files and the journal behind the last batch that both files hold in full."""
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        for n_rows, *widths in batches:
            if any(size < self._end(n_rows, width) for size, width in zip(sizes, widths, strict=True)):
                break
            self.n_batches += 1
            self.n_rows, self.widths = n_rows, (widths[0], widths[1])
        self._journal.truncate(sum(len(line) + 1 for line in lines[: 1 + self.n_batches]) if batches else 0)
        for file, width in zip(self._files, self.widths or (0, 0), strict=True):
            file.truncate(self._end(self.n_rows, width))  # zeros where the header will be: no reader takes them for one
            file.seek(0, os.SEEK_END)

    def _parse(self, lines: list[bytes]) -> list[Any]:
        try:
            parsed = [json.loads(line) for line in lines]
        except ValueError as error:
            raise RunError(f"{_partial(self._about)} is damaged: {error}") from error
        whole = all(isinstance(line, list) and list(map(type, line)) == [int] * 3 for line in parsed[1:])
        if parsed and not (whole and isinstance(parsed[0], dict)):
            raise RunError(f"{_partial(self._about)} is damaged: its lines are not those of a pass")
        return parsed

    def _end(self, n_rows: int, width: int) -> int:
        return _HEADER_BYTES + n_rows * width * self._dtype.itemsize

    def _note(self, line: object) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()

    def _check_finished(self) -> None:
        for path in (self._about, self._paths[1]):
            if not path.exists():
                raise ConfigError(
                    f"{self._paths[0]} is there already, without {path.name}; delete it, or choose another out"
                )
        try:
            record = json.loads(self._about.read_text(encoding="utf-8"))
            noted = {key: value for key, value in record["fingerprint"].items() if key != "device"}
            shapes = [(record["n_rows"], width) for width in record["widths"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self._about} is damaged: {error}") from error
        self._check_same(noted, "is there already", [*self._paths, self._about])
        for path, array, shape in zip(self._paths, self.read(), shapes, strict=True):
            if array.shape != shape:
                raise RunError(f"{path} is damaged: it has shape {array.shape}, {shape} was written")

    def _check_same(self, noted: Any, what: str, files: list[Path]) -> None:
        wanted = {key: value for key, value in self._fingerprint.items() if key in noted or key != "device"}
        different = differences(noted, wanted)
        if different:
            listed = ", ".join(path.name for path in files)
            raise ConfigError(
                f"{self._paths[0]} {what}, of something else: {different}. Choose another out, or delete {listed}"
            )


def files_of(out: str | os.PathLike[str]) -> StreamFiles:
    """Return the files beside one another for the features in `out`, an .npy file."""
    path = Path(out).expanduser()
    return StreamFiles(path, path.with_name(f"{path.stem}.logits.npy"), path.with_name(path.name + ".json"))


def lock(file: BinaryIO) -> bool:
    """Lock an open file for this process until it is closed or the process ends; tell whether no other has it."""
    import fcntl  # not on Windows, where torchal can still be imported

    try:
        # not flock: a DataLoader's processes would inherit that, and outlive this one by seconds if it is killed
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextmanager
def _as_run_error(path: Path) -> Iterator[None]:
    """Say which file could not be written, on a full disk for instance."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error}; what is whole is kept, call again to go on") from error


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _open_for_update(path: Path) -> BinaryIO:
    path.touch()
    return path.open("r+b")


def npy_header(n_rows: int, width: int, dtype: np.dtype[Any]) -> bytes:
    """Return the header of an .npy file, format 1.0: of one length, so that it can be written behind the rows."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': ({n_rows}, {width}), }}"
    magic = b"\x93NUMPY\x01\x00"
    length = _HEADER_BYTES - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"
