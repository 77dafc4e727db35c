"""What a label would tell about a model's parameters, from draws of its posterior; and batches drawn by it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchal._checks import SUM_TOLERANCE, ArrayLike
from torchal._chunks import exact_arithmetic
from torchal.engine.information import as_draws, rows_per_chunk
from torchal.errors import DataError
from torchal.functional.stochastic_batch import power_scores, softmax_scores, softrank_scores


def bald(log_probs: ArrayLike) -> Tensor:
    r"""Return how much a row's label would tell about the model: the mutual information of both, in nats.

    It is the entropy of the draws' mean prediction minus their mean entropy, \(H(\bar p) - \frac1K \sum_k H(p_k)\):
    high where each draw is sure and they contradict each other, zero where all of them say the same, however unsure.
    One draw alone contradicts nobody.

    Shapes:
        log_probs: (N, K, C) float, natural logarithms of probabilities that sum to 1 over C; -inf is probability 0.

    Returns:
        (N,), between 0 and log(min(K, C)); exactly 0 where all draws are the same. Equal rows have equal scores, to the
        last bit. float32 for half-precision input.

    Raises:
        ShapeError: log_probs is not a float tensor of three axes, or has no draw or no class.
        DataError: the probabilities of a row, averaged over its draws, do not sum to 1 (within 1e-3; 0.01 in float16,
            0.1 in bfloat16), as when probabilities are given in place of their logarithms.

    Reference:
        Houlsby, Huszar, Ghahramani & Lengyel, "Bayesian Active Learning for Classification and Preference Learning",
        2011, equation 2; over draws of a network in Gal, Islam & Ghahramani, "Deep Bayesian Active Learning with Image
        Data", ICML 2017, section 4. The same number as there, summed class by class so that no two large entropies are
        subtracted.

    Complexity:
        One exponential per number and one logarithm per row and class, in one pass over log_probs; O(N) memory.

    Example:
        >>> draws = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> bald(draws)
        tensor([0.6931, 0.0000])
    """
    log_probs = as_draws("log_probs", log_probs)
    scores = log_probs.new_empty(len(log_probs), dtype=torch.promote_types(log_probs.dtype, torch.float32))
    sums = torch.empty_like(scores)
    size = rows_per_chunk(log_probs)
    with exact_arithmetic(log_probs.device):
        for start in range(0, len(scores), size):
            rows = slice(start, start + size)
            scores[rows], sums[rows] = _mutual_information(log_probs[rows], scores.dtype)
    _check_sums(sums, log_probs.dtype)
    return scores


def power_bald(log_probs: Tensor, *, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Return scores whose n largest are a batch drawn with probabilities that grow as the power beta of `bald`.

    Shapes:
        log_probs: (N, K, C) float, as for `bald`.

    Returns:
        (N,) float64, for `top_n`.

    Raises:
        ConfigError, ShapeError, DataError: as `bald` and `power_scores`.

    Reference:
        PowerBALD of Kirsch et al. (2023); see `power_scores`.

    Complexity:
        That of `bald`.

    Example:
        >>> draws = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> power_bald(draws, generator=torch.Generator().manual_seed(0)).argmax()
        tensor(0)
    """
    return power_scores(bald(log_probs), beta=beta, generator=generator)


def softmax_bald(log_probs: Tensor, *, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Return scores whose n largest are a batch drawn with probabilities that grow as exp(beta `bald`).

    Shapes:
        log_probs: (N, K, C) float, as for `bald`.

    Returns:
        (N,) float64, for `top_n`.

    Raises:
        ConfigError, ShapeError, DataError: as `bald` and `softmax_scores`.

    Reference:
        SoftmaxBALD of Kirsch et al. (2023); see `softmax_scores`.

    Complexity:
        That of `bald`.

    Example:
        >>> draws = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> softmax_bald(draws, beta=100, generator=torch.Generator().manual_seed(0)).argmax()
        tensor(0)
    """
    return softmax_scores(bald(log_probs), beta=beta, generator=generator)


def softrank_bald(log_probs: Tensor, *, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Return scores whose n largest are a batch drawn with probabilities that fall as the rank by `bald` to the beta.

    Shapes:
        log_probs: (N, K, C) float, as for `bald`.

    Returns:
        (N,) float64, for `top_n`.

    Raises:
        ConfigError, ShapeError, DataError: as `bald` and `softrank_scores`.

    Reference:
        SoftrankBALD of Kirsch et al. (2023); see `softrank_scores`.

    Complexity:
        That of `bald`, and one sort of N numbers.

    Example:
        >>> draws = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> softrank_bald(draws, beta=100, generator=torch.Generator().manual_seed(0)).argmax()
        tensor(0)
    """
    return softrank_scores(bald(log_probs), beta=beta, generator=generator)


def _mutual_information(log_probs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the mutual information (n,) of a chunk (n, K, C), and the sum (n,) of the mean probabilities.

    With m the largest log-probability that a draw gives a class, and r = p / exp(m), the class has the part
    exp(m) (mean of r log r - mean r log mean r). It is at least 0, and r is 1 wherever the draws agree.
    """
    # With the draws first, what goes over them goes over whole (n, C): on a CPU twice as fast with ten classes as over
    # the axis in the middle, this copy included.
    logs = log_probs.new_empty(log_probs.transpose(0, 1).shape, dtype=dtype).copy_(log_probs.transpose(0, 1))
    most = logs.amax(0).clamp_(min=torch.finfo(dtype).min)  # where no draw gives the class any probability
    logs.sub_(most).clamp_(min=math.log(torch.finfo(dtype).tiny))  # 0 log 0 = 0, without denormal numbers
    ratios = logs.exp()
    mean_of_logs = _sum_(logs.mul_(ratios)).div_(len(logs))
    mean = _sum_(ratios).div_(len(ratios))
    parts = mean_of_logs.sub_(mean * mean.log()).clamp_(min=0)
    most.exp_()
    return parts.mul_(most).sum(1), mean.mul_(most).sum(1)


def _sum_(values: Tensor) -> Tensor:
    """Return the sum (n, C) over the first axis of (K, n, C), which is overwritten.

    Adding halves is as fast as `sum`, whose order of adding, and so whose last bit, depends on the place of a column:
    equal rows would not have equal scores.
    """
    n = len(values)
    while n > 1:
        half = n // 2
        values[:half] += values[n - half : n]
        n -= half
    return values[0]


def _check_sums(sums: Tensor, dtype: torch.dtype) -> None:
    off = ~((sums - 1).abs() <= SUM_TOLERANCE.get(dtype, 1e-3))  # also true of NaN
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise DataError(
            "log_probs must hold logarithms of probabilities: "
            f"row {row} sums to {float(sums[row]):.4g} after exp, in the mean over its draws, not to 1"
        )
