"""Rows that lie on several ranks of torch.distributed: who holds which, and how the ranks speak with each other.

Every rank calls the same function with its own rows and the same settings, and `group=`. The rows of all ranks, one
behind another in the order of the ranks, are the pool: row numbers count through it. What is found is the same on every
rank, for any number of ranks and any split of the rows, empty parts too.

An error on one rank is an error on all: whatever a rank meets in its own rows is kept until the ranks speak next, and
each message says whether the sender still works. So nobody waits for a rank that has given up, and everyone learns why.

Example:
    >>> shards = Shards(None)  # one process, and so nothing to say
    >>> shards.rank, shards.world_size
    (0, 1)
    >>> shards.all_reduce(torch.tensor([2.0]))
    tensor([2.])
"""

from __future__ import annotations

import atexit
import itertools
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from torchal.errors import ConfigError, DataError, GroupError, ShapeError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Group: TypeAlias = "ProcessGroup | Shards"
"""A process group of torch.distributed, as `torch.distributed.group.WORLD`, or the context made of one."""

Operation: TypeAlias = Literal["sum", "max", "min"]
Result = TypeVar("Result")

_REDUCE: dict[str, Callable[..., Tensor]] = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}
_COUNTS = 4  # numbers that a meeting adds up
_GATHERED = 1 << 16  # numbers of all ranks, up to which a reduction is a gathering in the order of the ranks
_LAST: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # of each group, the operation that was the last


class Shards:
    """A pool whose rows are split over the ranks of a process group, each rank's behind those of the one before.

    With one rank, or without a group, nothing is sent and every method gives back what it was given.

    Args:
        group: a process group that was initialised, on whatever backend; none for one process.
        n_rows: of one process, where that is known already.

    Attributes:
        rank: of this process, from 0.
        world_size: how many ranks there are.
        offsets: the row where each rank's rows begin, and the number of all rows behind them; once the ranks met.
        rounds: collective operations so far.
        received_bytes: what they brought to this rank.
    """

    def __init__(self, group: ProcessGroup | None, *, n_rows: int = 0) -> None:
        self._group = group
        self.rank, self.world_size = 0, 1
        self._device = torch.device("cpu")
        if group is not None:
            import torch.distributed as dist

            self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)
            if self.rank < 0:
                raise ConfigError("this process is not a member of the group")
            if "gloo" not in str(dist.get_backend_config(group)):
                self._device = torch.device("cuda", torch.cuda.current_device())
        self.offsets = [0, n_rows]
        self.rounds = self.received_bytes = 0
        self._failure: Exception | None = None

    @property
    def alone(self) -> bool:
        """Whether this is the only rank."""
        return self.world_size == 1

    @property
    def n_rows(self) -> int:
        """Rows of all ranks."""
        return self.offsets[-1]

    @property
    def start(self) -> int:
        """The number of this rank's first row."""
        return self.offsets[self.rank]

    @property
    def stop(self) -> int:
        """The number of the row behind this rank's last one."""
        return self.offsets[self.rank + 1]

    # -- what the ranks agree on ----------------------------------------------------------------------------------

    @contextmanager
    def meeting(self) -> Iterator[Meeting]:
        """Check the arguments inside, each rank its own; behind it all know how many rows there are.

        Raises:
            GroupError: another rank met an error inside. The rank that did raises it as it is.
            ShapeError, ConfigError: ranks disagree in what they said.
        """
        meeting = Meeting(self)
        try:
            yield meeting
        except Exception as error:
            if self.alone:
                raise
            self._failure = error
        meeting.close()

    @property
    def failed(self) -> bool:
        """Whether this rank met an error of which the others do not know yet."""
        return self._failure is not None

    def attempt(self, work: Callable[[], Result], otherwise: Callable[[], Result]) -> Result:
        """Return what work on this rank's own rows brings; if it fails, something else until the ranks speak next.

        Args:
            work: what is tried.
            otherwise: what takes its place once something failed; it must not fail.
        """
        if self.alone:
            return work()
        if self._failure is None:
            try:
                return work()
            except Exception as error:
                self._failure = self._failure or error  # the first, where attempts are made inside of this one
        return otherwise()

    # -- what they say ----------------------------------------------------------------------------------------------

    def all_gather(self, tensor: Tensor, sizes: list[int] | None = None) -> Tensor:
        """Return the rows of all ranks, one rank's behind another's.

        Args:
            tensor: of the same dtype, and the same axes but the first, on every rank.
            sizes: how many rows each rank sends; they are asked for, in a round of its own, unless all know them.

        Shapes:
            tensor: (n, ...), with any n.
        """
        if self.alone:
            return tensor
        if sizes is None:
            sizes = self.all_gather(torch.tensor([len(tensor)]), [1] * self.world_size).tolist()
        return self.all_gather_together([tensor], [sizes])[0]

    def all_gather_together(self, tensors: list[Tensor], sizes: list[list[int]]) -> list[Tensor]:
        """Do what `all_gather` does to several tensors, in one round.

        Args:
            tensors: (n, ...) each.
            sizes: for each, how many rows of it each rank sends at most; zeros are behind the rows of one with fewer.
        """
        if self.alone:
            return tensors
        items = [math.prod(tensor.shape[1:]) * tensor.element_size() for tensor in tensors]
        begins = [8, *(max(each) * item for each, item in zip(sizes, items, strict=True))]
        sent = torch.zeros(sum(begins), dtype=torch.uint8, device=self._device)
        sent[0] = self._failure is not None
        places = list(itertools.accumulate(begins))
        if self._failure is None:
            for tensor, begin in zip(tensors, places[:-1], strict=True):
                data = tensor.contiguous().reshape(-1).view(torch.uint8)
                sent[begin : begin + len(data)] = data
        got = self._exchange(sent)
        self._raise_if(bool(got[:, 0].any()))
        found = []
        for tensor, each, item, begin in zip(tensors, sizes, items, places[:-1], strict=True):
            parts = [part[begin : begin + size * item] for part, size in zip(got, each, strict=True)]
            found.append(torch.cat(parts).view(tensor.dtype).view(sum(each), *tensor.shape[1:]).to(tensor.device))
        return found

    def all_reduce(self, tensor: Tensor, operation: Operation = "sum") -> Tensor:
        """Return the sum, largest or smallest of each number over all ranks.

        Small tensors are added up in the order of the ranks; large ones as the backend does, the same on every rank.

        Args:
            tensor: of this rank.
            operation: "sum", "max" or "min".

        Shapes:
            tensor: any, the same on every rank.
        """
        if self.alone:
            return tensor
        if tensor.numel() * self.world_size <= _GATHERED:
            got = self.all_gather(tensor.unsqueeze(0), [1] * self.world_size)
            return _REDUCE[operation](got, dim=0)
        failed = self._failure is not None
        flat = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype, device=self._device)
        if not failed:
            flat[:-1] = tensor.reshape(-1)
        status = {"sum": 1, "max": 1, "min": -1}[operation]
        flat[-1] = status if failed else 0
        self._combine(flat, operation)
        self._raise_if(bool(flat[-1] != 0))
        return flat[:-1].view(tensor.shape).to(tensor.device)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Return the tensor of one rank; those of the others say which shape and dtype it has.

        Args:
            tensor: of this rank.
            source: the rank whose tensor all get.
        """
        if self.alone:
            return tensor
        sizes = [len(tensor) if rank == source else 0 for rank in range(self.world_size)]
        return self.all_gather(tensor if self.rank == source else tensor[:0], sizes)

    def total(self, count: int) -> int:
        """Return the sum of a whole number over all ranks.

        Args:
            count: of this rank.
        """
        return count if self.alone else int(self.all_reduce(torch.tensor([count])))

    def settle(self) -> None:
        """Let all ranks know whether each has come to its end: for work behind which nothing else is said."""
        self.all_gather(torch.empty(0, dtype=torch.uint8), [0] * self.world_size)

    def values_of(self, index: Tensor, values: Tensor) -> Tensor:
        """Return the values (N, ...) of rows of the pool, of which each rank has those of its own, (n, ...).

        Args:
            index: row numbers of the pool, (n,) int64, the same on every rank.
            values: of the rows of this rank.
        """
        return self.gather_rows(index, lambda rows: [values[rows]], [values[:0]])[0]

    def mine(self, index: Tensor) -> Tensor:
        """Return for each row of the pool whether it is this rank's, (n,) bool.

        Args:
            index: row numbers of the pool, (n,) int64.
        """
        return torch.ones_like(index, dtype=torch.bool) if self.alone else (index >= self.start) & (index < self.stop)

    def numbers_of(self, mask: Tensor) -> Tensor:
        """Return the rows of the pool for which the masks (N,) bool of all ranks are true, ascending, on every rank.

        Args:
            mask: of the rows of this rank.
        """
        return self.all_gather(mask.nonzero().squeeze(1) + self.start)

    def lowest_of(self, mask: Tensor) -> Tensor:
        """Return the lowest row of the pool for which a mask (N,) bool is true, () int64; one behind all if none is."""
        row = torch.where(mask.any(), mask.to(torch.uint8).argmax() + self.start, self.n_rows) if len(mask) else None
        row = mask.new_full((), self.n_rows, dtype=torch.int64) if row is None else row
        return self.all_reduce(row, "min")

    def gather_rows(
        self,
        index: Tensor,
        read: Callable[[Tensor], list[Tensor]],
        like: list[Tensor],
        of_each: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """Return rows of the pool, wherever they are, on every rank, in one round.

        Args:
            index: row numbers of the pool, the same on every rank.
            read: returns what is wanted of rows of this rank, by numbers that count from its first.
            like: tensors of the dtypes, devices and axes of what is read.
            of_each: what each rank has to say beside, a row each.

        Shapes:
            index: (n,) int64.
            of_each: (1, ...) each.

        Returns:
            What was read, and what each rank said, (world_size, ...).
        """
        if self.alone:
            return [*read(index), *of_each]
        ends = torch.tensor(self.offsets[1:], device=index.device)
        owner = torch.searchsorted(ends, index, right=True)
        sizes = owner.bincount(minlength=self.world_size).tolist()
        mine = index[owner == self.rank] - self.start
        nothing = [each.new_empty(0, *each.shape[1:]) for each in like]
        here = self.attempt(lambda: read(mine) if len(mine) else nothing, lambda: nothing)
        ones = [1] * self.world_size
        found = self.all_gather_together([*here, *of_each], [sizes] * len(here) + [ones] * len(of_each))
        place = torch.empty_like(owner)
        place[owner.argsort(stable=True)] = torch.arange(len(owner), device=owner.device)
        rows = [each.index_select(0, place.to(each.device)) for each in found[: len(here)]]
        return [*rows, *found[len(here) :]]

    def local(self, index: Tensor) -> Tensor:
        """Return which rows of the pool are this rank's, by numbers that count from its first: (m,) of (n,) int64.

        Args:
            index: row numbers of the pool.
        """
        return index if self.alone else index[self.mine(index)] - self.start

    # -- how -------------------------------------------------------------------------------------------------------

    def _exchange(self, sent: Tensor) -> Tensor:
        """Return what each rank sent, (world_size, n) uint8."""
        import torch.distributed as dist

        got = torch.empty(self.world_size, len(sent), dtype=torch.uint8, device=self._device)
        with self._speaking(got.numel() - len(sent)):
            self._wait_for(dist.all_gather(list(got.unbind(0)), sent, group=self._group, async_op=True))
        return got

    def _combine(self, flat: Tensor, operation: Operation) -> None:
        """Put the sum, largest or smallest over all ranks of each number in its place."""
        import torch.distributed as dist

        work = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}[operation]
        with self._speaking(2 * flat.numel() * flat.element_size()):
            self._wait_for(dist.all_reduce(flat, work, group=self._group, async_op=True))

    def _wait_for(self, work: Any) -> None:
        """Wait until an operation is done, and hold it until the next one.

        The thread of the group that did it lets go of it a little later. Were it the last to do so, it would free the
        tensors, for which it needs the interpreter, and where a program ends just then the process is aborted.
        """
        work.wait()
        _LAST[self._group] = work

    @contextmanager
    def _speaking(self, n_bytes: int) -> Iterator[None]:
        self.rounds += 1
        self.received_bytes += n_bytes
        try:
            yield
        except RuntimeError as error:
            why = str(error).strip().splitlines()[0]
            own = f"; before that, this rank met: {self._failure}" if self._failure is not None else ""
            raise GroupError(
                f"rank {self.rank} of {self.world_size} lost the others: one of them ended, or did not answer within "
                f"the group's timeout ({why}){own}"
            ) from error

    def _raise_if(self, failed: bool) -> None:
        """Raise on every rank, once one of them has said that it failed."""
        if not failed:
            return
        mine, self._failure = self._failure, None
        text = "" if mine is None else f"{type(mine).__name__}: {mine}"
        texts = self._texts(text)
        if mine is not None:
            try:
                raise mine
            finally:
                del mine  # or the error would hold this frame, and so itself and the group, as long as it is
        told = [f"rank {rank} failed with {what}" for rank, what in enumerate(texts) if what]
        raise GroupError("; ".join(told))

    def _texts(self, text: str) -> list[str]:
        """Return what each rank has to say, in at most 1 000 bytes."""
        room = torch.zeros(1000, dtype=torch.uint8, device=self._device)
        data = text.encode(errors="replace")[:1000]
        if data:
            room[: len(data)] = torch.tensor(list(data), dtype=torch.uint8)
        return [bytes(got.tolist()).rstrip(b"\0").decode(errors="ignore") for got in self._exchange(room).cpu()]


class Meeting:
    """What a rank says of its own arguments, and what it learns of those of the others once the meeting is over.

    Args:
        shards: whose ranks meet.

    Attributes:
        totals: the sums over all ranks of what was counted, in the same order.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._rows = (0, 0)
        self._name = "features"
        self._counts: list[int] = [0] * _COUNTS
        self._same: dict[str, object] = {}
        self.totals = self._counts

    def rows(self, n_rows: int, n_columns: int, *, name: str = "features") -> None:
        """Say how many rows this rank has, and of how many columns, which must be alike on all ranks.

        Args:
            n_rows: of this rank.
            n_columns: of the rows.
            name: what they are called in a message.
        """
        self._rows, self._name = (n_rows, n_columns), name

    def count(self, *numbers: int | Tensor) -> None:
        """Say up to four whole numbers of which the sums are wanted."""
        self._counts[: len(numbers)] = [int(number) for number in numbers]

    def same(self, **settings: object) -> None:
        """Say what must be the same on all ranks; generators by their state.

        Args:
            settings: by name.
        """
        self._same.update(settings)

    def close(self) -> None:
        """Exchange all that was said."""
        shards = self._shards
        if shards.alone:
            shards.offsets = [0, self._rows[0]]
            return
        parts = [f"{name}={_said(value)}" for name, value in self._same.items()]
        text = "; ".join(parts)
        said = torch.tensor([[*self._rows, zlib.crc32(text.encode()), *self._counts]])
        got = shards.all_gather(said, [1] * shards.world_size)
        n_rows, n_columns, settings = (column.tolist() for column in got[:, :3].unbind(1))
        if len(set(n_columns)) > 1:
            raise ShapeError(f"{self._name} must have the same columns on all ranks, got {n_columns}")
        if len(set(settings)) > 1:
            # first their marks, for there is room for what differs, and not for all that does not
            marks = torch.tensor([zlib.crc32(part.encode()) for part in parts], dtype=torch.int64)
            values, n_times = shards.all_gather(marks).unique(return_counts=True)
            others = torch.isin(marks, values[n_times < shards.world_size]).tolist()
            differing = shards._texts("; ".join(part for part, is_other in zip(parts, others, strict=True) if is_other))
            raise ConfigError(
                "the ranks were asked for different things: "
                + "; ".join(f"rank {rank} for {what or 'nothing'}" for rank, what in enumerate(differing))
            )
        shards.offsets = [0, *torch.tensor(n_rows).cumsum(0).tolist()]
        self.totals = got[:, 3:].sum(0).tolist()
        if not shards.n_rows:
            raise DataError(f"{self._name} has no rows on any of {shards.world_size} ranks")


def _said(value: object) -> str:
    """Return a setting as text, the same for equal settings."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, torch.Generator):
        return f"a generator in state {zlib.crc32(value.get_state().numpy().tobytes()):08x}"
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{tuple(value.shape)} numbers {zlib.crc32(data):08x}"
    return repr(value)


def join(timeout: timedelta | None = None) -> ProcessGroup | None:
    """Join the process group that torchrun started this process for; None where nothing like it did.

    NCCL where there are GPUs, one for each process of this machine, else gloo. When torchrun starts all processes again
    since one of them failed, they meet in a place of their own: addresses that the killed ones left are not read.

    Args:
        timeout: how long a rank waits for the others before it gives up; half an hour (NCCL: ten minutes) unless given.

    Raises:
        GroupError: the others did not come.

    Example:
        >>> join() is None  # outside of torchrun
        True
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if not dist.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            n_devices = torch.cuda.device_count()
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % n_devices)
            if dist.is_nccl_available() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= n_devices:
                backend = "nccl"  # which refuses two ranks on one GPU
        try:
            store, rank, world_size = next(rendezvous("env://", timeout=timeout or timedelta(minutes=30)))
            store = dist.PrefixStore(  # type: ignore[attr-defined]
                f"torchal/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store
            )
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
            atexit.register(_leave)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[0]
            raise GroupError(f"rank {os.environ['RANK']} did not meet the others: {why}") from error
    return dist.group.WORLD


def _leave() -> None:
    """Leave the group in good order: threads that wait for the others must not outlive the interpreter."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def as_shards(group: Any) -> Shards:
    """Return the context of a process group; that of one process for None.

    Raises:
        ConfigError: group is something else.
    """
    if isinstance(group, Shards):
        return group
    if group is None:
        return Shards(None)
    with suppress(ImportError):
        from torch.distributed import ProcessGroup

        if isinstance(group, ProcessGroup):
            return Shards(group)
    raise ConfigError(f"group must be a process group of torch.distributed, got {type(group).__name__}")
