"""A Gaussian around the weights of a last linear layer, and functions drawn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.errors import CapabilityError, DataError

MOST_EXACT = 2048
"""Most weights of a layer whose Gaussian is exact: its matrix is 32 MiB then."""
MOST_FEATURES = 8192
"""Most features of a layer: their matrix is 512 MiB then."""


def check_size(weight: Tensor) -> None:
    """Require a last layer, of weights (C, D), that is not too large.

    Raises:
        CapabilityError: it has more than `MOST_FEATURES` features.
    """
    if weight.shape[1] > MOST_FEATURES:
        raise CapabilityError(
            f"a last layer of {weight.shape[1]} features is too large for Laplace's approximation, {MOST_FEATURES} "
            "are the most; reduce the features first, or draw by an ensemble or a Committee"
        )


class LaplaceFit:
    r"""Collects the Gaussian of Laplace's approximation at a last layer, from all rows that it was trained on.

    The layer makes logits $W x + b$ of features x; $\Theta = (W, b)$ is (C, E), E the number of features and one more
    where there is a bias. The Gaussian's mean are the layer's weights, and its precision is the Hessian of the negative
    log-likelihood, the sum over the rows of $w \Lambda \otimes \phi \phi^T$ with $\phi = (x, 1)$ and $\Lambda$ =
    diag(p) - p p^T, plus the prior's precision on the diagonal. Up to `MOST_EXACT` weights that is exact; above, the
    sum is (sum of $w \Lambda$) $\otimes$ (mean of $\phi \phi^T$), Kronecker-factored, the prior still being added
    exactly. One output stands for the second of two classes, with $\Lambda = p (1 - p)$.

    Args:
        weight: the layer's, that the posterior is highest at.
        bias: None where the layer has none.
        prior: precision of the prior of each weight, above 0.
        flat_bias: whether the bias has none, as of a penalty that leaves it out: it has a millionth of the prior then,
            so that the direction that raises all classes alike, which no probability sees, stays finite.

    Shapes:
        weight: (C, D), or (1, D) for two classes.
        bias: (C,), or (1,).

    Raises:
        CapabilityError: there are more than `MOST_FEATURES` features.

    Reference:
        Daxberger et al., "Laplace Redux - Effortless Bayesian Deep Learning", NeurIPS 2021, of the last layer. Martens
        & Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015, section 3.1,
        with the bias as the weight of a feature that is always 1.

    Complexity:
        Of n rows n (C E)^2 multiply-adds where it is exact, else n E^2, both in float64; then (C E)^3 or E^3.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        prior: float,
        flat_bias: bool = False,
        most_exact: int = MOST_EXACT,
    ) -> None:
        check_size(weight)
        parts = [weight.detach()] if bias is None else [weight.detach(), bias.detach().unsqueeze(1)]
        self._mean = torch.cat(parts, 1).double()
        self._has_bias = bias is not None
        n_outputs, n_inputs = self._mean.shape
        self._prior = self._mean.new_full((n_inputs,), prior)
        if bias is not None and flat_bias:
            self._prior[-1] *= 1e-6
        self._is_exact = n_outputs * n_inputs <= most_exact
        # the Hessian; or the sums of w Lambda and of w phi phi^T
        n = self._mean.numel()
        self._hessian = self._mean.new_zeros(n, n) if self._is_exact else None
        self._of_outputs = self._mean.new_zeros(n_outputs, n_outputs)
        self._of_inputs = self._mean.new_zeros(n_inputs, n_inputs)
        self._total = self._mean.new_zeros(())

    def add(self, features: Tensor, weights: Tensor | None = None) -> None:
        """Add rows.

        Shapes:
            features: (n, D).
            weights: (n,), 1 each unless given.
        """
        width = self._mean.numel() if self._is_exact else sum(self._mean.shape)
        size = max(1, values_per_chunk(features.device) // width)
        for start in range(0, len(features), size):
            some = features[start : start + size].double()
            self._add(some, None if weights is None else weights[start : start + size].double())

    def gaussian(self) -> LastLayerGaussian:
        """Return the Gaussian given all rows so far."""
        n_outputs = len(self._mean)
        with exact_arithmetic(self._mean.device):
            if self._hessian is not None:
                precision = self._hessian.clone()
                precision.diagonal().add_(self._prior.repeat(n_outputs))
                scale = precision.diagonal().sqrt()
                precision /= scale.unsqueeze(1) * scale
                precision.diagonal().add_(len(precision) * torch.finfo(precision.dtype).eps)  # rounding of the sums
                root: Tensor = torch.linalg.cholesky(precision) * scale.unsqueeze(1)
                return LastLayerGaussian(self._mean, (root,), has_bias=self._has_bias)
            root = self._prior.sqrt()
            inputs, input_axes = torch.linalg.eigh(self._of_inputs / (root.unsqueeze(1) * root * self._total))
            outputs, output_axes = torch.linalg.eigh(self._of_outputs)
            spread = (outputs.clamp(min=0).unsqueeze(1) * inputs.clamp(min=0) + 1).rsqrt()
            factors = (output_axes, spread, input_axes, 1 / root)
            return LastLayerGaussian(self._mean, factors, has_bias=self._has_bias)

    def _add(self, features: Tensor, weights: Tensor | None) -> None:
        with exact_arithmetic(features.device):
            phi = torch.cat([features, features.new_ones(len(features), 1)], 1) if self._has_bias else features
            logits = phi @ self._mean.T
            probs = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
            root = None if weights is None else weights.sqrt().unsqueeze(1)
            if root is not None:
                phi = phi * root
            if self._hessian is not None:
                blocks = (probs.unsqueeze(2) * phi.unsqueeze(1)).flatten(1)  # (n, C E)
                self._hessian.addmm_(blocks.T, blocks, alpha=-1)
                on_diagonal = (blocks.T @ phi).unflatten(0, self._mean.shape)  # (C, E, E)
                for own, one in zip(_diagonal_blocks(self._hessian, len(self._mean)), on_diagonal, strict=True):
                    own.add_(one)
                return
            self._of_inputs.addmm_(phi.T, phi)
            weighted = probs if root is None else probs * root.square()
            self._of_outputs.addmm_(weighted.T, probs, alpha=-1)
            self._of_outputs.diagonal().add_(weighted.sum(0))
            self._total += len(phi) if root is None else root.square().sum()


class LastLayerGaussian:
    """A Gaussian over the weights of a last layer.

    Args:
        mean: what the draws are around, the bias as the last column.
        factors: L (C E, C E), lower triangular, of the precision L L^T; or U (C, C) and V (E, E), orthogonal, s (C, E)
            and t (E,), in the order U, s, V, t, of draws mean + U (s * U^T noise V) V^T diag(t).
        has_bias: whether there is one.

    Shapes:
        mean: (C, E) float64.
    """

    def __init__(self, mean: Tensor, factors: tuple[Tensor, ...], *, has_bias: bool) -> None:
        self.mean, self.factors, self.has_bias = mean, factors, has_bias

    def covariance(self) -> Tensor:
        """Return the covariance (C E, C E) of the weights, in the order of `mean`."""
        if len(self.factors) == 1:
            inverse: Tensor = torch.cholesky_inverse(self.factors[0])
            return inverse
        outputs, spread, inputs, scale = self.factors
        axes: Tensor = torch.kron(outputs, inputs * scale.unsqueeze(1)) * spread.flatten()
        return axes @ axes.T

    def draw(self, k: int, seed: int) -> Tensor:
        """Return weights (K, C, E) float64 of k draws; draw i follows from the seed and i."""
        # on the CPU: the same on every device; and not from the numbers that masks of dropout are drawn from
        words = [np.random.SeedSequence([seed, 3, i]).generate_state(1) for i in range(k)]
        generators = [torch.Generator().manual_seed(int(one[0])) for one in words]
        shape, dtype = self.mean.shape, self.mean.dtype
        drawn = [torch.randn(shape, generator=one, dtype=dtype, device="cpu") for one in generators]
        noise = torch.stack(drawn).to(self.mean.device)
        with exact_arithmetic(self.mean.device):
            if len(self.factors) == 1:
                flat: Tensor = torch.linalg.solve_triangular(self.factors[0].T, noise.flatten(1).T, upper=True)
                return self.mean + flat.T.view(k, *shape)
            outputs, spread, inputs, scale = self.factors
            # by the symmetric root: which way the axes point, as another machine may find them otherwise, is nothing
            return self.mean + outputs @ (spread * (outputs.T @ noise @ inputs)) @ inputs.T * scale

    def logits(self, features: Tensor, draws: Tensor) -> Tensor:
        """Return logits (n, K, C) of features (n, D), also sparse ones, under weights (K, C, E) of the same dtype."""
        flat = draws.flatten(0, 1)
        weight = flat[:, :-1] if self.has_bias else flat
        logits = features @ weight.T
        if self.has_bias:
            logits += flat[:, -1]
        return logits.view(len(features), *draws.shape[:2])

    def state_dict(self) -> dict[str, Any]:
        """Return what makes it, in tensors on the CPU."""
        return {
            "mean": self.mean.cpu(),
            "factors": [factor.cpu() for factor in self.factors],
            "has_bias": self.has_bias,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> LastLayerGaussian:
        """Return the Gaussian whose `state_dict` this is, on a device.

        Raises:
            DataError: the state is damaged.
        """
        try:
            mean, factors = state["mean"].to(device), tuple(factor.to(device) for factor in state["factors"])
            n_outputs, n_inputs = mean.shape
            wanted = [(n_outputs, n_outputs), (n_outputs, n_inputs), (n_inputs, n_inputs), (n_inputs,)]
            shapes = [tuple(factor.shape) for factor in factors]
            fits = shapes == wanted or shapes == [(math.prod(mean.shape),) * 2]
            has_bias = bool(state["has_bias"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"the saved posterior is damaged: {type(error).__name__}: {error}") from error
        if not fits:
            raise DataError(f"the saved posterior is damaged: a mean of {tuple(mean.shape)}, factors of {shapes}")
        return cls(mean, factors, has_bias=has_bias)


def _diagonal_blocks(matrix: Tensor, n: int) -> list[Tensor]:
    """Return the n square blocks on the diagonal of a matrix, as views."""
    size = len(matrix) // n
    return [matrix[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(n)]
