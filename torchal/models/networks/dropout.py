"""Draws from a network's posterior by Monte-Carlo dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from torchal.errors import CapabilityError

_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class DropoutDraws:
    """Functions drawn from a network with dropout: each is the network with one mask, the same for all rows.

    One mask for all rows makes a draw one function, as joint quantities over rows need it (BatchBALD); a draw's
    log-probabilities of one row have the same distribution as with a mask for each row.

    Args:
        module: the network. It stays in evaluation mode, so that batch normalization does not change.
        seed: draw i of a layer's masks follows from the seed, i and the order in which the layers run.

    What is dropped by a call of `nn.functional.dropout` is not seen. While it draws, the network must not be used by
    another thread.

    Raises:
        CapabilityError: no layer drops anything, or one is of a kind whose masks are not known here, or gets its rows
            along another axis than the first.

    Reference:
        Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016; the one mask is that of Kirsch et al.,
        "BatchBALD", NeurIPS 2019, section 3.
    """

    def __init__(self, module: nn.Module, seed: int) -> None:
        layers = [layer for layer in module.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]
        if not layers:
            raise CapabilityError(
                f"{type(module).__name__} has no dropout layer to draw with; give it one (nn.Dropout with p above 0), "
                "or use TorchEnsemble"
            )
        inside = next((layer for layer in module.modules() if _drops_inside(layer)), None)
        if inside is not None:
            raise CapabilityError(
                f"draws by the dropout inside a {type(inside).__name__} are not supported; set that to 0, or use "
                "TorchEnsemble"
            )
        strange = next(
            (
                layer
                for layer in layers
                if not isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d)
            ),
            None,
        )
        if strange is not None:
            raise CapabilityError(
                f"draws by {type(strange).__name__} are not supported; use nn.Dropout or TorchEnsemble"
            )
        self._module, self._layers, self._seed = module, layers, seed
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._generators: dict[int, torch.Generator] = {}
        self._draw = self._calls = self._n_rows = 0

    @contextmanager
    def drawing(self) -> Iterator[Callable[[int], None]]:
        """While open, the network is a draw; call what this gives to say which one, before each forward pass."""

        def choose(draw: int) -> None:
            self._draw, self._calls = draw, 0

        hooks = [layer.register_forward_hook(self._drop) for layer in self._layers]
        hooks.append(self._module.register_forward_pre_hook(self._count_rows))
        try:
            yield choose
        finally:
            for hook in hooks:
                hook.remove()

    def _count_rows(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del module
        self._n_rows = len(inputs[0])

    def _drop(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del inputs
        assert isinstance(layer, _DropoutNd)
        if output.ndim < 2 or len(output) != self._n_rows:
            raise CapabilityError(
                f"draws by dropout need rows along axis 0: {self._n_rows} rows went in, a dropout layer got shape "
                f"{tuple(output.shape)}"
            )
        key = self._draw, self._calls
        self._calls += 1
        mask = self._masks.get(key)
        if mask is None:
            shape = output.shape[1:]
            if isinstance(layer, _BY_CHANNEL):
                shape = torch.Size([shape[0], *[1] * (len(shape) - 1)])
            mask = self._masks[key] = self._mask(layer.p, shape, output)
        return output * mask

    def _mask(self, p: float, shape: torch.Size, like: Tensor) -> Tensor:
        generator = self._generators.get(self._draw)
        if generator is None:
            # on the CPU: the same on every device; and not from the numbers that the first weights were drawn from
            words = np.random.SeedSequence([self._seed, 2, self._draw]).generate_state(1)
            generator = torch.Generator().manual_seed(int(words[0]))
            self._generators[self._draw] = generator
        kept = torch.rand(shape, generator=generator, device="cpu") >= p
        return kept.to(like.device, like.dtype) / (1 - p) if p < 1 else torch.zeros(shape, device=like.device)


def _drops_inside(layer: nn.Module) -> bool:
    """Tell whether a recurrent or attention layer drops something that no hook sees."""
    return isinstance(layer, nn.RNNBase | nn.MultiheadAttention) and layer.dropout > 0
