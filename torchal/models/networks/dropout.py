"""Draws from a network's posterior by Monte-Carlo dropout."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchal._batch import NamedRows, Rows, each_tensor
from torchal.errors import CapabilityError
from torchal.models.rows import rows_per_chunk

_BY_UNIT = (F.dropout, torch.dropout, torch.dropout_, F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_)
_BY_CHANNEL = (
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    torch.feature_dropout,
    torch.feature_dropout_,
    F.feature_alpha_dropout,
    torch.feature_alpha_dropout,
    torch.feature_alpha_dropout_,
)
_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
_ALPHA = 1.7580993408473766  # the least value of SELU, which a dropped unit of alpha dropout gets, before it is scaled
_TRIED = (2, 3)  # rows and draws of the trial of draws made side by side
_DO_NOT_FIT = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)  # what shapes that do not fit raise


class DropoutDraws:
    """Functions drawn from a network with dropout: each is the network with one mask, the same for all rows.

    One mask for all rows makes a draw one function, as joint quantities over rows need it (BatchBALD); a draw's
    log-probabilities of one row have the same distribution as with a mask for each row.

    Dropout is what is called: `nn.functional.dropout` and its kin, by a layer or by the network itself, with p above 0.
    The network stays in evaluation mode, so that batch normalization does not change; a call is drawn therefore
    whatever its argument `training` says, and one that the network makes only `if self.training` is none.

    Draws differ only from the first dropout on. So K of them are made in one pass: there the n rows become K n, where
    the network takes that, and a trial on a few rows gives what each draw gives alone; else each is a pass of its own,
    as of a network that adds what comes before a dropout to what comes after it.

    Rows by name (`NamedRows`) may be longer in one batch than in another. What is dropped of them follows from the
    place in the row, so that it does not depend on how many places there are after it.

    Args:
        network: makes logits (n, C) of rows (n, ...), in evaluation mode.
        seed: draw i of the masks follows from the seed, i, and the order of the calls.
        name: of the network, for what is said of it.

    Reference:
        Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016; the one mask is that of Kirsch et al.,
        "BatchBALD", NeurIPS 2019, section 3.
    """

    def __init__(self, network: Callable[[Any], Tensor], seed: int, *, name: str = "the network") -> None:
        self._network, self._masks, self._name = network, _Masks(seed), name
        self._together: bool | None = None  # whether draws can be made side by side

    def __call__(self, rows: Rows, k: int) -> Tensor:
        """Return logits (n, K, C) of rows (n, ...) in the first k draws.

        Raises:
            CapabilityError: nothing is dropped; or something in a way that is not known here, or along another axis
                than that of the rows.
        """
        if self._together is None and k > 1:
            self._together = self._gives_the_same_together(rows[: _TRIED[0]], range(min(k, _TRIED[1])))
        most = rows_per_chunk(rows[:1], rows.device)
        n_draws = min(k, most) if self._together else 1
        n_rows = max(1, most // n_draws) if self._together else len(rows)
        logits = None
        for start in range(0, len(rows), n_rows):
            some = rows[start : start + n_rows]
            for first in range(0, k, n_draws):
                last = min(first + n_draws, k)
                try:
                    drawn = self._run(some, range(first, last))
                except _DO_NOT_FIT as error:
                    if n_draws == 1 or isinstance(error, torch.OutOfMemoryError | CapabilityError):
                        raise
                    # rows unlike those that were tried, as texts of different lengths after texts of one
                    self._together = False
                    return self(rows, k)
                if logits is None:
                    logits = drawn.new_empty(len(rows), k, drawn.shape[2])
                logits[start : start + n_rows, first:last] = drawn
        assert logits is not None
        return logits

    def problem(self, rows: Rows) -> str:
        """Return why no function can be drawn, as seen by a pass of some rows (n, ...); nothing where it can."""
        return self._pass(rows, range(1))[1]

    def _gives_the_same_together(self, rows: Rows, draws: range) -> bool:
        """Tell whether the network gives in one pass what it gives draw by draw."""
        alone = torch.cat([self._run(rows, range(i, i + 1)) for i in draws], 1)
        try:
            together, problem = self._pass(rows, draws)
        except torch.OutOfMemoryError:
            raise
        except _DO_NOT_FIT:
            return False  # shapes that do not fit; what is wrong with one draw at a time was said above
        size = len(draws) * len(rows)
        if problem or together.shape != (size, alone.shape[2]):
            return False
        return torch.allclose(_by_row(together, len(draws)), alone, rtol=1e-3, atol=1e-5)

    def _run(self, rows: Rows, draws: range) -> Tensor:
        """Return logits (n, draws, C)."""
        logits, problem = self._pass(rows, draws)
        if problem:
            raise CapabilityError(problem)
        return _by_row(logits, len(draws))

    def _pass(self, rows: Rows, draws: range) -> tuple[Tensor, str]:
        """Return logits (draws times n, C), and what is wrong with them as draws."""
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # compiled parts would pass by the masks
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            dropping = stack.enter_context(_Dropping(self._masks, draws, rows))
            logits = self._network(rows)
        if dropping.problem or dropping.n_calls:
            return logits, dropping.problem
        return logits, (
            f"{self._name} has no dropout to draw with: give it some (nn.Dropout or nn.functional.dropout with p above "
            "0), or draw from TorchClassifier(posterior='laplace') or a TorchEnsemble"
        )


class _Dropping(TorchFunctionMode):
    """While open, dropout of rows (n, ...) keeps what some draws keep.

    Its answers have n rows for one draw. For more they have as many for each draw, one draw after another, and so may
    its inputs.
    """

    def __init__(self, masks: _Masks, draws: range, rows: Rows) -> None:
        super().__init__()
        self._masks, self._draws, self._rows = masks, draws, rows
        self.n_calls = 0
        self.problem = ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Take the place of a function that drops something; any other is called."""
        del types
        kwargs = kwargs or {}
        if func in _BY_UNIT or func in _BY_CHANNEL:
            x = args[0] if args else kwargs["input"]
            p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            if 0 < p <= 1:
                name = func.__name__
                inplace = args[3] if len(args) > 3 else kwargs.get("inplace", name.endswith("_"))
                return self._drop(x, p, by_channel=func in _BY_CHANNEL, alpha="alpha" in name, inplace=inplace)
        elif _drops_unseen(func, args, kwargs):
            what = "the dropout inside a recurrent layer" if func in _RECURRENT else "the dropout of attention weights"
            self.problem = f"draws by {what} are not supported; set that to 0, or use TorchEnsemble"
        return func(*args, **kwargs)

    def _drop(self, x: Tensor, p: float, *, by_channel: bool, alpha: bool, inplace: bool) -> Tensor:
        n, n_draws = len(self._rows), len(self._draws)
        if x.ndim < 2 or len(x) not in (n, n * n_draws):
            self.problem = self.problem or (
                f"draws by dropout need rows along axis 0: {n} rows went in, dropout got shape {tuple(x.shape)}"
            )
            return x
        call, self.n_calls = self.n_calls, self.n_calls + 1
        shape = x.shape[1:]
        if by_channel:
            shape = torch.Size([shape[0], *[1] * (len(shape) - 1)])
        masks = self._masks.by_place if isinstance(self._rows, NamedRows) else self._masks
        kept = masks(self._draws, call, p, shape, x.device).unsqueeze(1).to(x.dtype)
        of_draws: Tensor = x.unflatten(0, (len(x) // n, n))
        if not alpha:
            dropped = of_draws * (kept / (1 - p) if p < 1 else kept)
        elif p < 1:
            scale = ((_ALPHA**2 * p + 1) * (1 - p)) ** -0.5
            dropped = of_draws * (kept * scale) + ((kept - 1) * (_ALPHA * scale) + _ALPHA * scale * p)
        else:
            dropped = of_draws * kept
        dropped = dropped.flatten(0, 1)
        if inplace and dropped.shape == x.shape and not any(_share(x, tensor) for _, tensor in each_tensor(self._rows)):
            return x.copy_(dropped)  # the network may not look at the answer; what it was given stays as it is
        return dropped


class _Masks:
    """Which units each call of each draw keeps."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._generators: dict[int, torch.Generator] = {}
        self.by_place = _MasksByPlace(seed)

    def __call__(self, draws: range, call: int, p: float, shape: torch.Size, device: torch.device) -> Tensor:
        """Return masks (draws, *shape) bool of a call: False with probability p."""
        return torch.stack([self._one(draw, call, p, shape, device) for draw in draws])

    def _one(self, draw: int, call: int, p: float, shape: torch.Size, device: torch.device) -> Tensor:
        mask = self._masks.get((draw, call))
        if mask is None:
            if draw not in self._generators:
                # on the CPU: the same on every device; and not from the numbers that the first weights were drawn from
                words = np.random.SeedSequence([self._seed, 2, draw]).generate_state(1)
                self._generators[draw] = torch.Generator().manual_seed(int(words[0]))
            kept = torch.rand(shape, generator=self._generators[draw], device="cpu") >= p
            mask = self._masks[draw, call] = kept.to(device)
        return mask


class _MasksByPlace:
    """Which units each call of each draw keeps, each decided by its place: masks of two shapes agree where both are."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._masks: dict[tuple[int, int], Tensor] = {}  # the largest so far

    def __call__(self, draws: range, call: int, p: float, shape: torch.Size, device: torch.device) -> Tensor:
        """Return masks (draws, *shape) bool of a call: False with probability p."""
        masks = []
        for draw in draws:
            mask = self._masks.get((draw, call))
            if mask is None or mask.ndim != len(shape) or any(map(int.__lt__, mask.shape, shape)):
                # so that masks of shapes that grow by turns along two axes are not made anew each time
                wanted = shape if mask is None or mask.ndim != len(shape) else map(max, mask.shape, shape)
                kept = _uniform_by_place((self._seed, 2, draw, call), tuple(wanted)) >= p
                mask = self._masks[draw, call] = torch.from_numpy(kept).to(device)
            masks.append(mask[tuple(map(slice, shape))])
        return torch.stack(masks)


def _uniform_by_place(words: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return numbers between 0 and 1, each a hash of the words and of its place alone.

    Reference:
        Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014: the state's step and the
        mixing function of SplitMix64, taken once along each axis.
    """
    state = np.full((1,) * len(shape), np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
    for axis, size in enumerate(shape):
        places = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = state + places.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53


def _drops_unseen(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a recurrent layer or attention drops something that no mask reaches."""
    if func in _RECURRENT:
        return any(isinstance(value, float) and value > 0 for value in args)  # the dropout is their only float
    if func is F.scaled_dot_product_attention:
        return bool((args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0)
    if func is F.multi_head_attention_forward:
        return bool(inspect.signature(func).bind(*args, **kwargs).arguments["dropout_p"] > 0)
    return False


def _share(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _by_row(logits: Tensor, n_draws: int) -> Tensor:
    """Return logits (draws times n, C) as (n, draws, C)."""
    by_row: Tensor = logits.unflatten(0, (n_draws, -1)).transpose(0, 1)
    return by_row
