"""Batches of a data set in the order of its rows, that can be begun in the middle; the arguments that they make."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, default_collate

from torchal._batch import NamedRows, array_as_tensor, is_numeric, without_labels
from torchal.errors import ConfigError, DataError, TorchalError

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
"""Positional and named arguments of a module."""


class Batches(ABC):
    """Batches in order.

    Attributes:
        n_rows, n_batches, batch_size: where they are known; a batch has `batch_size` rows, the last one what is left.
        kind: what the data is, for errors.
    """

    kind: str = "the data"

    n_rows: int | None = None
    n_batches: int | None = None
    batch_size: int | None = None

    def first(self) -> Any:
        """Return batch 0; `since` gives it again."""
        return next(self.since(0))

    @abstractmethod
    def since(self, start: int) -> Iterator[Any]:
        """Yield the batches from number `start` on; those before it are not read where that can be helped."""

    def part(self, rows: range) -> Batches:
        """Return the batches of a run of rows alone; the first one begins where the run does.

        Raises:
            DataError: rows cannot be read by their numbers.
        """
        raise DataError(
            f"{self.kind} is read from its beginning to its end, so that rows {rows.start} to {rows.stop - 1} cannot "
            "be a shard: give a tensor, an array, a Dataset with a length or a DataLoader of one, or one file as out"
        )

    def n_in(self, n_before: int) -> int | None:
        """Return how many rows the batch has that comes after `n_before` rows, if that is known."""
        if self.n_rows is None or self.batch_size is None:
            return None
        return min(self.batch_size, self.n_rows - n_before)


def as_batches(data: object, *, batch_size: int, num_workers: int, pin_memory: bool) -> Batches:
    """Return the batches of rows in memory, of a data set, of a DataLoader, or of any iterable of batches.

    Raises:
        ConfigError: a DataLoader has its rows in another order than its data set, or leaves some out.
        DataError: there are no rows, or the data is of an unknown kind.
    """
    if isinstance(data, Tensor | np.ndarray):
        return _Sliced(data, batch_size)
    # other libraries' data sets do not inherit from torch's, but have the method by which a DataLoader reads a batch
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):
        if not isinstance(data, IterableDataset | Sized):
            raise DataError(f"a data set must have a length, {type(data).__name__} has none")
        # with a generator of its own the loader draws nothing from the global one
        generator = torch.Generator(torch.get_default_device())
        dataset: Any = data if isinstance(data, IterableDataset) else _Readable(data)
        collate = None if isinstance(data, IterableDataset) else _collated
        data = DataLoader(
            dataset,
            batch_size,
            num_workers=num_workers,
            # without workers it would save no time, and rows that are on the device already cannot be pinned
            pin_memory=pin_memory and num_workers > 0,
            generator=generator,
            collate_fn=collate,
        )
    if isinstance(data, DataLoader):
        return _as_loaded(data)
    if isinstance(getattr(data, "loader", None), DataLoader):  # a wrapper that moves batches ahead, as timm has one
        _as_loaded(data.loader)  # type: ignore[attr-defined]
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        kinds = "a tensor, an array, a Dataset, a DataLoader or an iterable of batches"
        raise DataError(f"data must be {kinds}, got {type(data).__name__}")
    n_batches = len(data) if isinstance(data, Sized) else None
    if n_batches == 0:
        raise DataError(f"the data has no batches: {type(data).__name__} of length 0")
    return _Streamed(data, n_batches=n_batches)


def arguments_of(batch: Any, batch_to_inputs: Callable[[Any], Any] | None) -> Arguments:
    """Return the positional and the named arguments that a batch makes."""
    if batch_to_inputs is not None:
        batch = batch_to_inputs(batch)
        if isinstance(batch, Mapping):
            return (), dict(batch)
        if isinstance(batch, tuple):
            return batch, {}
        if not isinstance(batch, Tensor | np.ndarray):
            raise ConfigError(f"batch_to_inputs must return a tensor, a tuple or a mapping, got {type(batch).__name__}")
        return (batch,), {}
    if isinstance(batch, NamedRows):
        return (), batch.tensors
    if isinstance(batch, Mapping):
        return (), without_labels(batch)
    if isinstance(batch, tuple | list) and 0 < len(batch) <= 2:  # inputs, or inputs and labels
        return (batch[0],), {}
    if isinstance(batch, Tensor | np.ndarray):
        return (batch,), {}
    what = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
    raise DataError(
        "a batch must be a tensor, an array, a mapping, or a tuple or list of inputs and perhaps labels, "
        f"got {what}; give batch_to_inputs"
    )


def digest(value: Any) -> str:
    """Return a digest of the tensors, arrays, numbers and text in a structure."""
    found = hashlib.sha256()
    _feed(found.update, value)
    return found.hexdigest()[:32]


def _feed(update: Callable[[Any], None], value: Any) -> None:
    if isinstance(value, np.ndarray) and is_numeric(value):
        value = array_as_tensor(value)
    if isinstance(value, Tensor):
        update(f"{value.dtype}{tuple(value.shape)}".encode())
        update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        _feed(update, list(value.items()))
    elif isinstance(value, tuple | list):
        update(f"{len(value)} items".encode())
        for item in value:
            _feed(update, item)
    else:
        plain = value is None or isinstance(value, str | int | float | bool)
        update(f"{type(value).__name__} {value if plain else ''}".encode())


class _Sliced(Batches):
    """Slices of a tensor or an array; of a mapped file, no more is read at once."""

    def __init__(self, rows: Tensor | NDArray[Any], batch_size: int) -> None:
        if isinstance(rows, np.ndarray) and not is_numeric(rows):
            raise DataError(f"data must be numbers that torch has, got an array of {rows.dtype}")
        if not rows.ndim or not len(rows):
            raise DataError(f"the data has no rows: shape {tuple(rows.shape)}")
        self._rows, self._size = rows, batch_size
        self.n_rows, self.batch_size = len(rows), batch_size

    def part(self, rows: range) -> Batches:
        return _Sliced(self._rows[rows.start : rows.stop], self._size)

    def since(self, start: int) -> Iterator[Tensor]:
        for begin in range(start * self._size, len(self._rows), self._size):
            rows = self._rows[begin : begin + self._size]
            yield rows if isinstance(rows, Tensor) else array_as_tensor(rows)


def _as_loaded(loader: DataLoader[Any]) -> Batches:
    dataset: Any = loader.dataset
    kind = type(dataset.wrapped if isinstance(dataset, _Readable) else dataset).__name__
    in_order = f"the DataLoader must read its {kind} in order"
    if loader.num_workers and not getattr(loader, "in_order", True):
        raise ConfigError(f"{in_order}, it has in_order=False")
    if isinstance(loader.dataset, IterableDataset):
        if loader.drop_last:
            raise ConfigError(f"the DataLoader leaves out the last rows of its {kind}: use drop_last=False")
        return _Streamed(loader, batch_size=loader.batch_size)
    batched: Any = loader.batch_sampler  # None where each item is a batch
    sampler: Any = loader.sampler if batched is None else getattr(batched, "sampler", None)
    for found, plain in ((batched, (BatchSampler, type(None))), (sampler, (SequentialSampler,))):
        if type(found) not in plain:
            raise ConfigError(f"{in_order}, its rows are drawn by a {type(found).__name__}: use shuffle=False")
    n = len(sampler)
    if n != len(loader.dataset):  # type: ignore[arg-type]
        raise ConfigError(f"{in_order}, its sampler takes {n} of {len(loader.dataset)} rows")  # type: ignore[arg-type]
    if n == 0:
        raise DataError(f"the data has no rows: {kind} of length 0")
    if batched is None:
        return _Loaded(loader, n_batches=n)
    size = batched.batch_size
    if batched.drop_last and n % size:
        raise ConfigError(f"the DataLoader leaves out the last {n % size} of {n} rows: use drop_last=False")
    if type(loader) is not DataLoader:
        return _Streamed(loader, n_rows=n, batch_size=size)  # what a subclass does besides, only itself can do
    return _Loaded(loader, n_rows=n, batch_size=size)


class _Loaded(Batches):
    """What a DataLoader reads, in the order of its data set."""

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        n_rows: int | None = None,
        n_batches: int | None = None,
        batch_size: int | None = None,
        first_item: int = 0,
    ) -> None:
        self._loader = loader
        self._first = first_item
        self.n_rows, self.n_batches, self.batch_size = n_rows, n_batches, batch_size
        self.kind = f"a DataLoader of {type(loader.dataset).__name__} with batch_size=None"  # else it can be cut

    def first(self) -> Any:
        # read to its end, since a loader's processes take seconds to stop if they are left halfway
        [batch] = map(_checked, self._of(self._items[: self._size]))
        return batch

    def since(self, start: int) -> Iterator[Any]:
        items = self._items[start * self._size :]
        whole = len(items) == len(self._loader.dataset)  # type: ignore[arg-type]
        return map(_checked, self._loader if whole else self._of(items))

    def part(self, rows: range) -> Batches:
        if self.n_rows is None:  # each item is a batch, of so many rows as it has
            return super().part(rows)
        first = self._first + rows.start
        return _Loaded(self._loader, n_rows=len(rows), batch_size=self.batch_size, first_item=first)

    @property
    def _size(self) -> int:
        return self.batch_size or 1

    @property
    def _items(self) -> range:
        """Return the numbers of the items in the data set."""
        return range(self._first, self._first + (self.n_rows or self.n_batches or 0))

    def _of(self, items: range) -> DataLoader[Any]:
        """Return the same loader of a part of the data set."""
        loader = self._loader
        return DataLoader(
            loader.dataset,
            self.batch_size,
            sampler=items,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
        )


class _Readable(Dataset[Any]):
    """A data set whose errors are handed back as values: raised in a worker, they would lose their own message."""

    def __init__(self, dataset: Any) -> None:
        self.wrapped = dataset

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getitem__(self, row: int) -> Any:
        return self._read(lambda: self.wrapped[row], f"row {row}")

    def __getitems__(self, rows: list[int]) -> list[Any]:
        where = f"a row of {rows[0]} to {rows[-1]}"
        if hasattr(self.wrapped, "read_batch"):  # as DatasetInputs, which put rows together by themselves
            batch = self._read(lambda: self.wrapped.read_batch(rows), where)
            return [batch if isinstance(batch, TorchalError) else _Whole(batch)]
        if not hasattr(self.wrapped, "__getitems__"):
            return [self[row] for row in rows]
        items = self._read(lambda: self.wrapped.__getitems__(rows), where)
        return [items] if isinstance(items, TorchalError) else items

    def _read(self, read: Callable[[], Any], what: str) -> Any:
        try:
            return read()
        except Exception as error:
            reason = str(error) if isinstance(error, TorchalError) else f"{type(error).__name__}: {error}"
            return DataError(f"{what} of the data set ({type(self.wrapped).__name__}) cannot be read: {reason}")


class _Whole(NamedTuple):
    """A batch that is put together already."""

    batch: Any


def _collated(items: list[Any]) -> Any:
    if len(items) == 1 and isinstance(items[0], _Whole):
        return items[0].batch
    failed = next((item for item in items if isinstance(item, TorchalError)), None)
    if failed is not None:
        return failed
    try:
        return default_collate(items)
    except (RuntimeError, TypeError, AttributeError) as error:
        return DataError(f"the items of a batch cannot be put together: {error}; give a DataLoader with a collate_fn")


def _checked(batch: Any) -> Any:
    if isinstance(batch, TorchalError):
        raise batch
    return batch


class _Streamed(Batches):
    """What can be read only from its beginning."""

    def __init__(
        self,
        data: Iterable[Any],
        *,
        n_rows: int | None = None,
        n_batches: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.n_rows, self.n_batches, self.batch_size = n_rows, n_batches, batch_size
        self.kind = f"an iterable of batches ({type(data).__name__})"
        self._rest = iter(data)
        self._held: list[Any] = []  # batch 0, once it was looked at

    def first(self) -> Any:
        if not self._held:
            self._held = list(islice(self._rest, 1))
        if not self._held:
            raise DataError("the data has no batches")
        return self._held[0]

    def since(self, start: int) -> Iterator[Any]:
        held, self._held = self._held, []
        return islice(chain(held, self._rest), start, None)
