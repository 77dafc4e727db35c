"""Copies of the training rows: a pool with as much redundancy as one wants."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor

from torchal._checks import check_whole
from torchal.data.splits import Splits
from torchal.errors import ConfigError

_STREAM = 1 << 32  # seeds of other things that are drawn from the same number are below


def with_repeats(splits: Splits, times: int, *, noise: float = 0.1, seed: int = 0) -> Splits:
    """Return splits with every training row several times, each copy with a little noise of its own.

    Such a pool tells strategies that look at a batch as a whole from those that take the best rows one by one: these
    ask for copies of the same row. Row i of the source is at i, N + i, 2 N + i, ...; validation and test stay.

    Args:
        splits: the data; the training inputs are one tensor.
        times: how many copies, 1 for none but the row itself (which gets noise too).
        noise: standard deviation of the noise, in standard deviations of all numbers of the training inputs.
        seed: draws the noise.

    Raises:
        ConfigError: a setting is impossible, or the inputs are not in one tensor, or are whole numbers that are to get
            noise.

    Reference:
        Repeated MNIST of Kirsch, van Amersfoort & Gal, "BatchBALD", NeurIPS 2019, section 4.1: three copies with noise
        of 0.1.

    Example:
        >>> from torchal.data import iris
        >>> many = with_repeats(iris(), 3)
        >>> len(many.train.targets), len(many.test.targets)
        (300, 25)
    """
    check_whole("repeat.times", times, least=1)
    check_whole("seed", seed, least=0)
    if isinstance(noise, bool) or not isinstance(noise, Real) or not 0 <= float(noise) < math.inf:
        raise ConfigError(f"repeat.noise must be a number of at least 0, got {noise!r}")
    inputs, targets = splits.train
    if not isinstance(inputs, Tensor):
        raise ConfigError(f"repeat.times needs inputs in one tensor, {splits.name} has {type(inputs).__name__}")
    if noise and not inputs.is_floating_point():
        raise ConfigError(f"repeat.noise needs inputs of floats, {splits.name} has {inputs.dtype}; or set it to 0")
    copies = inputs.repeat(times, *[1] * (inputs.ndim - 1))
    if noise:
        generator = torch.Generator().manual_seed(_STREAM + seed)
        spread = float(noise) * float(inputs.double().std())
        for some in copies.split(1024):  # on the CPU, so that every device gets the same numbers
            drawn = torch.randn(some.shape, generator=generator, dtype=some.dtype, device="cpu")
            some.add_(drawn.to(some.device), alpha=spread)
    true_targets = splits.true_targets
    return replace(
        splits,
        train=splits.train._replace(inputs=copies, targets=targets.repeat(times)),
        train_rows=splits.train_rows.repeat(times),
        documents=None if splits.documents is None else [*splits.documents] * times,
        true_targets=None if true_targets is None else true_targets.repeat(times),
    )
