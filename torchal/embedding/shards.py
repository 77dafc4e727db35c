"""A matrix of features that lies in numbered files, with the ids of its rows."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_integers, check_whole
from torchal._chunks import values_per_chunk
from torchal.embedding.id_columns import ROWS_PER_GROUP
from torchal.embedding.npy_stream import npy_header
from torchal.embedding.parquet_files import (
    IdFile,
    embedding_column,
    embedding_file,
    id_file,
    id_schema,
    read_embeddings,
    read_ids,
)
from torchal.embedding.shard_files import BFLOAT16, MatrixFile, check_alike, in_order, listed, npy_file, number_of
from torchal.embedding.shard_folder import FEATURES, LOGITS, MANIFEST, METADATA
from torchal.engine.file_rows import FileRows
from torchal.errors import CapabilityError, ConfigError, DataError, RunError, ShapeError

Mapped: TypeAlias = "np.memmap[tuple[int, ...], np.dtype[Any]]"

_SUBFOLDERS = (FEATURES, "text_emb", LOGITS)  # those that have `metadata` beside them


@dataclass(frozen=True)
class Shard:
    """One of the files.

    Args:
        path: where it is.
        rows: the numbers of its rows in the whole.
        ids: the file with the ids of its rows; itself where that is Parquet; None where there is none.
    """

    path: Path
    rows: range
    ids: Path | None


def open_shards(
    source: str | os.PathLike[str],
    *,
    subfolder: str = FEATURES,
    metadata: str | os.PathLike[str] | None = None,
    embedding_column: str | None = None,
) -> ShardedFeatures:
    """Open a matrix of features that lies in numbered files; only their headers are read.

    A folder that `torchal.embed` or clip-retrieval filled has `img_emb/img_emb_07.npy` and, with a row for each row of
    it, `metadata/metadata_07.parquet`, which may be missing altogether. A folder of .npy files is taken as it is. One
    of Parquet files has the embeddings in a column of lists, as NeMo Curator writes them, and the ids in others.
    Numbers stand at the end of names and are sorted as numbers, padded or not. Parquet files that are not numbered
    alike are sorted by name.

    Args:
        source: the folder, or a pattern of files, as "part/img_emb_*.npy"; a pattern need not begin at number 0.
        subfolder: the folder in it, where there are several: "img_emb", "text_emb" or "logits".
        metadata: the folder or a pattern of the Parquet files with ids; found by itself in the layouts above.
        embedding_column: the column of embeddings in Parquet files; "embedding" or "embeddings" unless given.

    Returns:
        The shards, whose `features` are what `torchal.functional` takes.

    Raises:
        DataError: there are no files; a number is missing or there twice; files differ in width or dtype, or in rows
            from their ids; one cannot be read; a pass into the folder is not finished.
        MissingExtraError: Parquet needs pyarrow, which is not installed.

    Complexity:
        The header of each file.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> for i, n_rows in enumerate([3, 2]):
        ...     np.save(folder / f"emb_{i}.npy", np.full((n_rows, 4), i, np.float16))
        >>> shards = open_shards(folder)
        >>> shards.shape, shards.dtype, [shard.rows for shard in shards.files], shards.part(1, 2)
        ((5, 4), dtype('float16'), [range(0, 3), range(3, 5)], slice(2, 5, None))
        >>> shards.features(slice(2, 4))[torch.tensor([0, 1])].tolist()
        [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    """
    path = Path(source).expanduser()
    _check_finished(path, subfolder)
    place = path / subfolder if (path / subfolder).is_dir() else path
    arrays = listed(place, ".npy")
    if arrays:
        files = [npy_file(one) for one in in_order(arrays, from_zero=place.is_dir())]
        ids = _ids_beside(files, place, metadata)
        found = ShardedFeatures(files, ids, column=None)
    else:
        tables = listed(place, ".parquet")
        if not tables:
            raise DataError(f"there is no .npy or .parquet file in {place}" + _what_else(path, subfolder))
        files = [embedding_file(one, embedding_column) for one in _by_number_or_name(tables, place)]
        found = ShardedFeatures(files, [id_file(one.path) for one in files], column=_column_of(files, embedding_column))
    _check_manifest(path, found)
    return found


class ShardedFeatures:
    """A matrix in files, row after row; see `open_shards`. Nothing of it is held in memory.

    Args:
        files: the files, in order.
        column: of Parquet files, that which has the rows; None of .npy files.

    Attributes:
        files: what lies where.
        n_rows, n_columns: (N, D).
        dtype: of the numbers; bfloat16, which NumPy has not, is two bytes of nothing, `V2`.
        id_columns: names of the columns of ids that all files have.
    """

    def __init__(self, files: Sequence[MatrixFile], ids: Sequence[IdFile] | None, *, column: str | None) -> None:
        self.n_columns, self.dtype = check_alike(files)
        ends = np.cumsum([one.n_rows for one in files]).tolist()
        self.n_rows: int = ends[-1]
        self.files = tuple(
            Shard(one.path, range(end - one.n_rows, end), None if ids is None else ids[i].stamp.path)
            for i, (one, end) in enumerate(zip(files, ends, strict=True))
        )
        for one, its_ids in zip(files, ids or (), strict=False):
            if one.n_rows != its_ids.n_rows:
                raise DataError(f"{one.path} has {one.n_rows} rows, {its_ids.stamp.path} has {its_ids.n_rows}")
        first = ids[0].columns if ids else ()
        self.id_columns = tuple(name for name in first if all(name in one.columns for one in ids or ()))
        self._files, self._ids, self._column = tuple(files), ids, column
        self._starts = np.array([shard.rows.start for shard in self.files])

    def __len__(self) -> int:
        return self.n_rows

    @property
    def shape(self) -> tuple[int, int]:
        """Return (N, D)."""
        return self.n_rows, self.n_columns

    def part(self, rank: int, world_size: int) -> slice:
        """Return the rows of one of several processes: runs of equal length but for one row, through files.

        Raises:
            ConfigError: rank is not between 0 and world_size - 1.
        """
        check_whole("world_size", world_size, least=1)
        check_whole("rank", rank, least=0)
        if rank >= world_size:
            raise ConfigError(f"rank must be below world_size, got {rank} of {world_size}")
        return slice(rank * self.n_rows // world_size, (rank + 1) * self.n_rows // world_size)

    def ids(self, rows: Tensor | NDArray[Any] | Sequence[int], column: str | None = None) -> list[Any]:
        """Return the ids of some rows; only the row groups that hold them are read.

        Args:
            rows: row numbers, in any order.
            column: which one; "id" or the only one, unless given.

        Shapes:
            rows: (n,) integers.

        Returns:
            n values.

        Raises:
            DataError: there are no ids; a file is missing, or was changed since it was opened.
            ConfigError: there is no such column, or several to choose from.
            ShapeError: rows are not between 0 and N - 1.
        """
        column = self._id_column(column)
        wanted = as_integers("rows", rows).cpu().numpy()
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self.n_rows:
            raise ShapeError(f"rows must lie in [0, {self.n_rows}), got {wanted.min()} to {wanted.max()}")
        assert self._ids is not None
        places = np.searchsorted(self._starts, wanted, side="right") - 1
        values: list[Any] = [None] * len(wanted)
        for place in np.unique(places).tolist():
            mine = np.flatnonzero(places == place)
            found = read_ids(self._ids[place], wanted[mine] - self._starts[place], column)
            for i, value in zip(mine.tolist(), found, strict=True):
                values[i] = value
        return values

    @property
    def arrays(self) -> list[Mapped]:
        """Map each file with rows into memory, read-only.

        Raises:
            CapabilityError: they are Parquet.
            DataError: a file is missing, or was changed since it was opened.
        """
        return [self._map(one) for one in self._files if one.n_rows]

    def features(self, rows: slice = slice(None)) -> FileRows:
        """Return a run of rows for `torchal.functional`, which reads it chunk by chunk.

        Args:
            rows: from one row to another, as `part` gives them; all of them unless given.

        Returns:
            (n, D), read from the files where it is asked for; bfloat16 is known as such.

        Raises:
            CapabilityError: the files are Parquet.
            ConfigError: the slice leaves rows out.
            DataError: a file is missing, or was changed since it was opened.
        """
        start, stop, step = rows.indices(self.n_rows)
        if step != 1:
            raise ConfigError(f"rows must be a run, got {rows}")
        held = [shard.rows for shard in self.files]
        chosen = [i for i, its in enumerate(held) if max(start, its.start) < min(stop, its.stop)]
        chosen = chosen or [next(i for i, its in enumerate(held) if its)]  # of no rows, too, the columns are known
        for i in chosen:
            self._check(self._files[i])
        whole = FileRows([self.files[i].path for i in chosen], torch.bfloat16 if self.dtype.str == BFLOAT16 else None)
        before = held[chosen[0]].start
        return cast(FileRows, whole[start - before : stop - before] if start < stop else whole[:0])

    def to_npy(self, folder: str | os.PathLike[str]) -> ShardedFeatures:
        """Write embeddings that lie in Parquet as .npy, once, so that any row can be read: Parquet has no single rows.

        Each file becomes `img_emb/img_emb_07.npy` and `metadata/metadata_07.parquet`, chunk by chunk: what pyarrow
        holds of a row group is in memory, and no more. Until all is written, it is in a folder "unfinished_..." inside.

        Returns:
            The shards that were written.

        Raises:
            ConfigError: the files are .npy already, or the folder holds shards.
            DataError: a file is missing, was changed or cannot be read; an embedding is missing, or of another width.
            RunError: the folder cannot be written.
        """
        if self._column is None:
            raise ConfigError(f"{self._files[0].path} and those behind it are .npy already")
        target = Path(folder).expanduser()
        for name in (MANIFEST, FEATURES, METADATA):
            if (target / name).exists():
                raise ConfigError(f"{target} holds {name} already: choose another folder, or delete it")
        try:
            target.mkdir(parents=True, exist_ok=True)
            room = Path(tempfile.mkdtemp(prefix="unfinished_", dir=target))
            try:
                for i, one in enumerate(self._files):
                    self._convert(one, room, str(i).zfill(len(str(len(self._files)))))
                for name in (METADATA, FEATURES) if self.id_columns else (FEATURES,):
                    (room / name).rename(target / name)
            finally:
                shutil.rmtree(room)
        except OSError as error:
            raise RunError(f"{target} cannot be written: {error}") from error
        return open_shards(target)

    def _convert(self, source: MatrixFile, room: Path, number: str) -> None:
        import pyarrow.parquet as pq

        assert self._column is not None
        path = room / FEATURES / f"{FEATURES}_{number}.npy"
        beside = room / METADATA / f"{METADATA}_{number}.parquet"
        for one in (path, beside):
            one.parent.mkdir(exist_ok=True)
        chunk_rows = max(1, values_per_chunk(torch.device("cpu")) // self.n_columns)
        with path.open("wb") as file, beside.open("wb") as ids_file:
            file.write(npy_header(source.n_rows, self.n_columns, self.dtype))
            with pq.ParquetWriter(ids_file, id_schema(source.path, self.id_columns)) as writer:
                for rows, ids in read_embeddings(source, self._column, self.id_columns, self.n_columns, chunk_rows):
                    file.write(np.ascontiguousarray(rows).data)
                    writer.write_batch(ids, row_group_size=ROWS_PER_GROUP)
            for written in (file, ids_file):
                written.flush()
                os.fsync(written.fileno())

    def _check(self, one: MatrixFile) -> None:
        """Require a file with rows to be read one by one, that is the same still."""
        if self._column is not None:
            raise CapabilityError(
                f"{one.path} is Parquet, which has no single rows to read: to_npy(folder) writes all of it as .npy once"
            )
        one.stamp.check()

    def _map(self, one: MatrixFile) -> Mapped:
        self._check(one)
        return np.memmap(one.path, one.dtype, "r", one.offset, (one.n_rows, self.n_columns))

    def _id_column(self, column: str | None) -> str:
        if not self.id_columns:
            folder = self.files[0].path.parent.absolute()
            raise DataError(
                f"{folder} has no ids: there are no Parquet files beside it, or no columns. Rows are called by their "
                "numbers then"
            )
        if column is None:
            if "id" not in self.id_columns and len(self.id_columns) > 1:
                raise ConfigError(f"column must be one of {', '.join(map(repr, self.id_columns))}")
            return "id" if "id" in self.id_columns else self.id_columns[0]
        if column not in self.id_columns:
            raise ConfigError(f"there is no column {column!r} of ids among {', '.join(map(repr, self.id_columns))}")
        return column


def _check_finished(path: Path, subfolder: str) -> None:
    if (path / MANIFEST).exists() and not (path / FEATURES).exists() and subfolder in (FEATURES, LOGITS):
        raise DataError(f"{path} is not finished: shards are still made, or torchal.embed was stopped; call it again")


def _check_manifest(path: Path, found: ShardedFeatures) -> None:
    """Require as many rows as were written: of a last shard that was deleted, no number tells."""
    try:
        n_rows = json.loads((path / MANIFEST).read_bytes())["n_rows"]
    except (FileNotFoundError, NotADirectoryError):
        return
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path / MANIFEST} is damaged: {error}") from error
    if n_rows != found.n_rows:
        raise DataError(
            f"{found.files[0].path.parent} has {found.n_rows} rows in {len(found.files)} shards, {n_rows} were written"
        )


def _ids_beside(files: list[MatrixFile], place: Path, metadata: str | os.PathLike[str] | None) -> list[IdFile] | None:
    """Return the files of ids by number, in the order of the shards."""
    if metadata is not None:
        paths = listed(metadata, ".parquet")
        if not paths:
            raise DataError(f"there is no .parquet file in {metadata}")
    else:
        folder = place if place.is_dir() else files[0].path.parent
        paths = [one for one in listed(folder, ".parquet") if one.name.startswith(METADATA)]
        if not paths and folder.name in _SUBFOLDERS:
            paths = listed(folder.parent / METADATA, ".parquet")
        if not paths:
            return None
    if len(files) == len(paths) == 1:
        return [id_file(paths[0])]
    by_number: dict[int | None, Path] = {}
    for one in sorted(paths):
        if number_of(one) in by_number:
            raise DataError(f"{one} and {by_number[number_of(one)]} have the same number")
        by_number[number_of(one)] = one
    if place.is_dir() and len(paths) > len(files):
        extra = next(one for one in paths if number_of(one) not in {number_of(file.path) for file in files})
        raise DataError(f"{extra} has ids, but there is no shard of its number among the {len(files)} in {place}")
    for file in files:
        if number_of(file.path) not in by_number:
            raise DataError(f"{file.path} has no file of ids with its number beside {sorted(paths)[0]}")
    return [id_file(by_number[number_of(file.path)]) for file in files]


def _by_number_or_name(paths: list[Path], place: Path) -> list[Path]:
    prefixes = {one.stem.rstrip("0123456789") for one in paths}
    of = any("-of-" in one.stem or "_of_" in one.stem for one in paths)
    return in_order(paths, from_zero=place.is_dir()) if len(prefixes) == 1 or of else sorted(paths)


def _column_of(files: list[MatrixFile], given: str | None) -> str:
    names = {embedding_column(one.path, given) for one in files}
    if len(names) > 1:
        raise DataError(f"embeddings are in columns of several names, {', '.join(map(repr, sorted(names)))}: name one")
    return names.pop()


def _what_else(path: Path, subfolder: str) -> str:
    if not path.is_dir():
        return "" if glob.has_magic(str(path)) or path.exists() else ", which does not exist"
    others: Iterator[str] = (one.name for one in sorted(path.iterdir()) if one.is_dir())
    named = ", ".join(others)
    return f", and it has no folder {subfolder}; its folders are {named}" if named else ""
