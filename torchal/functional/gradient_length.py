"""Expected gradient length: how far a label is expected to move the last layer."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_log_probs, check_distributions, check_finite, check_flag
from torchal._chunks import exact_arithmetic
from torchal.engine.features import FeatureReader, Features
from torchal.errors import ShapeError


def expected_gradient_length(log_probs: ArrayLike, features: Features, *, bias: bool = True) -> Tensor:
    r"""Return the length of the gradient of a row's loss in the last layer, expected over its label.

    With the label c the gradient of the cross-entropy is the outer product of p - e_c and the features h, with a 1
    for the bias behind them, so its expected length is sqrt(|h|^2 + 1) times the sum over c of p_c |p - e_c|.
    No gradient is computed.

    Args:
        log_probs: of the model's prediction.
        features: what the last layer reads.
        bias: whether the last layer has a bias.

    Shapes:
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        features: (N, D) float, on the same device; a tensor or a mapped file.

    Returns:
        (N,), at least 0, in the wider dtype of the two and at least float32. As accurate for a row whose largest
        probability rounds to 1.

    Raises:
        ShapeError: log_probs or features is no float matrix, or they disagree in rows or device.
        DataError: a row of log_probs does not sum to 1 after exp, or features are not finite.

    Reference:
        Settles, Craven & Ray, "Multiple-Instance Active Learning", NIPS 2007, section 3; as a query strategy for single
        instances in Settles, "Active Learning Literature Survey", 2009, section 3.3. There the gradient is that of all
        parameters and the loss that of all labeled rows, at whose optimum what is left is that of the new row; here
        it is that of the last layer.

    Complexity:
        N (C + D) reads in one pass; O(N) memory beyond the input, and chunks. The gradients would be N C^2 D numbers.

    Example:
        >>> log_probs = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()
        >>> expected_gradient_length(log_probs, torch.tensor([[1.0], [7.0]])).round(decimals=3)
        tensor([1., 0.])
    """
    check_flag("bias", bias)
    reader = FeatureReader(features)
    log_probs = as_log_probs(log_probs)
    if len(log_probs) != len(reader) or log_probs.device != reader.device:
        raise ShapeError(
            f"log_probs must be ({len(reader)}, C) on {reader.device}, "
            f"got {tuple(log_probs.shape)} on {log_probs.device}"
        )
    dtype = torch.promote_types(torch.promote_types(reader.dtype, log_probs.dtype), torch.float32)
    out = torch.empty(len(reader), dtype=dtype, device=reader.device)

    def measure(start: int, stop: int) -> None:
        x = reader.read(start, stop)
        check_finite("features", x, first_row=start)
        lengths = _lengths(x.to(dtype))
        if bias:
            lengths = lengths.hypot(torch.ones_like(lengths))
        probs = log_probs[start:stop].detach().to(dtype).exp()
        check_distributions(probs, log_probs.dtype, first_row=start)
        out[start:stop] = lengths * _expected_residual(probs)

    with exact_arithmetic(reader.device):
        reader.in_chunks(len(reader), reader.chunk_rows(log_probs.shape[1]), measure)
    return out


def _lengths(x: Tensor) -> Tensor:
    """Return the lengths of rows (R, D), (R,), of which no square overflows or vanishes."""
    peak = x.abs().amax(1, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(x / peak.masked_fill(peak == 0, 1), dim=1)
    return lengths * peak.squeeze(1)


def _expected_residual(probs: Tensor) -> Tensor:
    """Return the sum over c of p_c |p - e_c|, (R,).

    |p|^2 - 2 p_c + 1 would be nothing but rounding for the most probable class of a sure row: there, 1 - p is taken as
    the sum of the other probabilities. For every other class |p - e_c| is at least 1/2, and nothing cancels.
    """
    best = probs.argmax(1, keepdim=True)
    most = probs.gather(1, best)
    others = probs.scatter(1, best, 0)
    miss = others.sum(1, keepdim=True)
    shares = others / miss.masked_fill(miss == 0, 1)  # no square of a small probability vanishes
    sure = most * miss * (1 + shares.square().sum(1, keepdim=True)).sqrt()
    squares = others.square().sum(1, keepdim=True) + most.square()
    # |p - e_c|^2 = |p|^2 - p_c^2 + (1 - p_c)^2
    lengths = (squares - others.square() + (1 - others).square()).sqrt()
    return sure.squeeze(1) + (others * lengths).sum(1)
