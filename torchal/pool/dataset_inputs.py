"""Rows of a data set that are read when they are needed: one tensor each, or several by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, get_worker_info

from torchal._batch import NamedRows, Rows, array_as_tensor, is_numeric, without_labels
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError, TorchalError


class DatasetInputs:
    """Rows of a data set, as inputs of a pool or of a model that reads batch by batch (`TorchClassifier`).

    The data set is one of torch, one that a DataLoader reads as such (`datasets.Dataset` of Hugging Face), or a list.
    Nothing is read before it is needed: `inputs[rows]` is again a DatasetInputs. Labels that the data set may have are
    not looked at.

    Rows that are mappings, as {"input_ids": ..., "attention_mask": ...}, go to a network as keyword arguments, whatever
    is called "label" or "labels" left out. Their values are tensors, arrays, numbers or lists of numbers, and rows of
    a batch are stacked, name by name; `collate` makes a batch of rows that differ in length, or hold something else.

    Args:
        dataset: `len(dataset)` items, each the tensor or array of one row, a mapping of them, or a tuple that begins
            with either.
        train: the same rows as they are to be read while training, as with augmentation; `dataset` unless given.
        to_row: makes the row of an item of another kind: `lambda item: item["image"]`.
        collate: makes a mapping of tensors (n, ...) of a list of n rows, padding them for instance:
            `transformers.DataCollatorWithPadding(tokenizer)`.

    Raises:
        DataError: the data set has no length, no rows, or `train` has another number of rows.
        ConfigError: collate or to_row is no function.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> inputs = DatasetInputs(TensorDataset(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0])))
        >>> len(inputs), inputs[torch.tensor([2, 0])].load().tolist()
        (3, [[4.0, 5.0], [0.0, 1.0]])
        >>> texts = DatasetInputs([{"ids": [5, 7], "label": 1}, {"ids": [3, 1], "label": 0}])
        >>> texts.read([0, 1]).tensors
        {'ids': tensor([[5, 7],
                [3, 1]])}
    """

    def __init__(
        self,
        dataset: Any,
        *,
        train: Any | None = None,
        to_row: Callable[[Any], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        for one in (dataset, train):
            if isinstance(one, Mapping):
                raise DataError(
                    f"a data set has items by number, got a {type(one).__name__} of {len(one)} columns; make it rows: "
                    "[dict(zip(columns, row)) for row in zip(*columns.values())]"
                )
            if one is not None and (isinstance(one, IterableDataset) or not hasattr(one, "__len__")):
                raise DataError(f"a data set needs a length and items by number; {type(one).__name__} has not both")
        if not len(dataset):
            raise DataError(f"the data set has no rows: {type(dataset).__name__} of length 0")
        if train is not None and len(train) != len(dataset):
            raise DataError(f"train must have the same rows as the data set: {len(train)} and {len(dataset)}")
        for name, function in (("to_row", to_row), ("collate", collate)):
            if function is not None and not callable(function):
                raise ConfigError(f"{name} must be a function, got {type(function).__name__}")
        self.dataset = dataset
        self.train = train
        self.to_row = to_row
        self.collate = collate
        self._rows: Tensor | None = None  # in the data set; None for all

    def __len__(self) -> int:
        return len(self.dataset) if self._rows is None else len(self._rows)

    def __getitem__(self, rows: Any) -> DatasetInputs:
        """Return some rows, (n,) int64 or a slice, in that order and still unread."""
        numbers = torch.arange(len(self), device="cpu") if self._rows is None else self._rows
        chosen = object.__new__(DatasetInputs)
        chosen.__dict__.update(self.__dict__)
        chosen._rows = numbers[rows.cpu() if isinstance(rows, Tensor) else rows].reshape(-1)
        return chosen

    def joined(self, more: DatasetInputs) -> DatasetInputs:
        """Return these with other rows behind them.

        Args:
            more: the rows that come behind.

        Raises:
            DataError: one has another way to read rows than the other, or rows with other names.
        """
        same = more.to_row is self.to_row and more.collate is self.collate
        if not same or (more.train is None) != (self.train is None):
            raise DataError(
                "rows of a data set with to_row=, collate= or train= can only be joined by others with the same"
            )
        names, others = self.names(), more.names()
        if sorted(names) != sorted(others):
            shown = [", ".join(some) or "one tensor" for some in (names, others)]
            raise DataError(f"rows of the pool have the names {shown[0]}, the new ones {shown[1]}")
        parts: Any = (self, more)
        chosen = object.__new__(DatasetInputs)
        chosen.__dict__.update(self.__dict__)
        chosen.dataset = ConcatDataset([part.dataset for part in parts])
        chosen.train = None if self.train is None else ConcatDataset([part.train for part in parts])
        numbers = [torch.arange(len(part.dataset)) if part._rows is None else part._rows for part in parts]
        chosen._rows = torch.cat([numbers[0], numbers[1] + len(self.dataset)])
        return chosen

    def read(self, rows: list[int], *, training: bool = False, seed: tuple[int, ...] = (0,)) -> Rows:
        """Return rows as one tensor (n, ...), or as several by name.

        What is random in reading a row follows from the seed and the row alone, and in what is done to all of them at
        once, as `collate` and other libraries' data sets do, from the seed and the first; the global generators stay as
        they are.

        Args:
            rows: their numbers.
            training: whether they are read as for training, by the other data set where there is one.
            seed: of all that is random in reading.

        Raises:
            DataError: an item cannot be read, or not made a tensor; it says which, and why.
            ShapeError: the rows differ in shape.
        """
        dataset = self.train if training and self.train is not None else self.dataset
        numbers = rows if self._rows is None else self._rows[rows].tolist()
        with _own_randomness():
            items = self._items(dataset, numbers, seed)
            if self.collate is not None:
                _seed_all(*seed, numbers[0])
                return self._collated(items, f"rows {numbers[0]} to {numbers[-1]} of {_named(dataset)}")
        return _stacked(items, numbers)

    def read_batch(self, rows: list[int]) -> Rows:
        """Return rows as they go to a network, for whoever reads data sets batch by batch, as `torchal.embed` does."""
        return self.read(rows)

    def __getitems__(self, rows: list[int]) -> list[Any]:
        """Return rows one by one, as a DataLoader asks for those of a batch."""
        with _own_randomness():
            return self._items(self.dataset, rows if self._rows is None else self._rows[rows].tolist(), (0,))

    def items(self, rows: list[int]) -> list[Any]:
        """Return the data set's own items of rows, as they are before anything makes them tensors.

        Raises:
            DataError: an item cannot be read; it says which, and why.
        """
        numbers = rows if self._rows is None else self._rows[rows].tolist()
        items = []
        with _own_randomness():
            for number in numbers:
                _seed_all(0, number)
                try:
                    items.append(self.dataset[number])
                except Exception as error:
                    raise DataError(
                        f"row {number} of {_named(self.dataset)} cannot be read: {_reason(error)}"
                    ) from error
        return items

    def names(self) -> list[str]:
        """Return the names of a row's tensors, as the first row has them; none where a row is one tensor."""
        first = self.read([0])
        return [] if isinstance(first, Tensor) else list(first.tensors)

    def load(self) -> Tensor:
        """Read all rows into one tensor (n, ...).

        Raises:
            CapabilityError: rows are several tensors by name.
        """
        return as_one_tensor(self.read(list(range(len(self)))))

    def _items(self, dataset: Any, numbers: list[int], seed: tuple[int, ...]) -> list[Any]:
        """Return rows of the data set: tensors, mappings of tensors, or, to be collated, what they are."""
        at_once = _read_at_once(dataset, numbers, seed)
        items = []
        for i, number in enumerate(numbers):
            try:
                if at_once is None:
                    _seed_all(*seed, number)
                items.append(self._as_row(dataset[number] if at_once is None else at_once[i]))
            except Exception as error:
                raise DataError(f"row {number} of {_named(dataset)} cannot be read: {_reason(error)}") from error
        return items

    def _as_row(self, item: Any) -> Any:
        if self.to_row is not None:
            item = self.to_row(item)
        elif isinstance(item, tuple) or (isinstance(item, list) and self.collate is None):
            item = item[0]
        if isinstance(item, Mapping):
            item = without_labels(item)
            if self.collate is None:
                return _as_named(item)
        if self.collate is not None:
            return item
        if not isinstance(item, Tensor | np.ndarray | np.generic):
            kinds = "a tensor or an array, or a mapping of them"
            if self.to_row is not None:
                raise DataError(f"to_row must return {kinds}, got {type(item).__name__}")
            raise DataError(
                f"an item must be {kinds}, or a tuple that begins with one, got {type(item).__name__}; give to_row="
            )
        return item.detach() if isinstance(item, Tensor) else array_as_tensor(np.asarray(item))

    def _collated(self, items: list[Any], where: str) -> NamedRows:
        assert self.collate is not None
        try:
            batch = self.collate(items)
        except Exception as error:
            raise DataError(f"{where} cannot be put together by collate=: {_reason(error)}") from error
        if not isinstance(batch, Mapping):
            raise DataError(f"collate must return a mapping of tensors, got {type(batch).__name__}")
        rows = _as_named(without_labels(batch))
        for name, tensor in rows.items():
            if tensor.ndim == 0 or len(tensor) != len(items):
                raise ShapeError(
                    f"collate must return tensors of {len(items)} rows for {len(items)} items, got {name!r} of shape "
                    f"{tuple(tensor.shape)}"
                )
        return NamedRows(rows)


def is_dataset(values: object) -> bool:
    """Tell whether values are a torch Dataset, or another library's that a DataLoader reads batch by batch as one."""
    if isinstance(values, Dataset):
        return True
    return hasattr(values, "__getitems__") and hasattr(values, "__len__") and not isinstance(values, DatasetInputs)


def as_one_tensor(rows: Rows) -> Tensor:
    """Return rows that are one tensor (n, ...).

    Raises:
        CapabilityError: they are several by name.
    """
    if isinstance(rows, NamedRows):
        names = ", ".join(rows.tensors)
        raise CapabilityError(
            f"rows that are mappings ({names}) are no one array of numbers; a network in TorchClassifier reads them, "
            "and DatasetInputs(..., to_row=) makes one tensor of each"
        )
    return rows


def _read_at_once(dataset: Any, numbers: list[int], seed: tuple[int, ...]) -> list[Any] | None:
    """Return the items of another library's data set in one call, which takes it a tenth of the time, or None."""
    if isinstance(dataset, Dataset) or not hasattr(dataset, "__getitems__"):
        return None
    _seed_all(*seed, numbers[0])
    try:
        items: list[Any] = dataset.__getitems__(numbers)
    except Exception:
        return None
    return items if len(items) == len(numbers) else None


def _stacked(items: list[Any], numbers: list[int]) -> Rows:
    """Return rows (n, ...) that have one shape, name by name where they have names."""
    first = items[0]
    if not any(isinstance(item, dict) for item in items):
        _check_alike(items, numbers, "", "give the data set a transform that resizes")
        return torch.stack(items)
    for number, item in zip(numbers, items, strict=True):
        if not (isinstance(item, dict) and isinstance(first, dict) and item.keys() == first.keys()):
            has = [", ".join(sorted(one)) if isinstance(one, dict) else "one tensor" for one in (first, item)]
            raise DataError(
                f"all rows must have the same names: row {numbers[0]} has {has[0]}, row {number} has {has[1]}"
            )
    columns = {name: [item[name] for item in items] for name in first}
    for name, values in columns.items():
        _check_alike(values, numbers, f" of {name!r}", "give collate= to pad them")
    return NamedRows({name: torch.stack(values) for name, values in columns.items()})


def _check_alike(tensors: list[Tensor], numbers: list[int], what: str, remedy: str) -> None:
    for number, tensor in zip(numbers, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            raise ShapeError(
                f"all rows must have one shape{what}: row {numbers[0]} has {tuple(tensors[0].shape)}, row {number} has "
                f"{tuple(tensor.shape)}; {remedy}"
            )


def _as_named(item: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a mapping of numbers as tensors by name."""
    if not item:
        raise DataError("a mapping must have something else than labels, it has nothing")
    named = {}
    for name, value in item.items():
        if not isinstance(name, str):
            raise DataError(f"names must be text, got {name!r}")
        tensor = _as_numbers(value)
        if tensor is None:
            raise DataError(
                f"{name!r} is no tensor, array or list of numbers of even lengths but {_shown(value)}; leave it out of "
                "the data set, or give to_row= or collate= to make numbers of it"
            )
        named[name] = tensor
    return named


def _as_numbers(value: Any) -> Tensor | None:
    """Return numbers of any kind as a tensor, None for anything else."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray | np.generic | int | float | list | tuple):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        return None
    return array_as_tensor(array) if is_numeric(array) else None


def _shown(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, list | tuple):
        return f"a {kind} of {', '.join(sorted({type(one).__name__ for one in value})) or 'nothing'}"
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else kind


def _named(dataset: Any) -> str:
    return f"the data set ({type(dataset).__name__})"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, TorchalError) else f"{type(error).__name__}: {error}"


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Put the global generators back at the end, unless this process is a DataLoader's worker, which owns them."""
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _seed_all(*words: int) -> None:
    """Seed all generators that data sets and augmentation libraries draw from."""
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
