"""Small networks to begin with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """A perceptron with hidden layers and ReLU between them, on flattened rows.

    Args:
        n_features: numbers in one row, counted over all its axes.
        n_classes: number of logits.
        hidden: width of each hidden layer; empty for a linear model.
        dropout: probability of dropping a hidden unit while training.

    Shapes:
        input: (n, ...), with n_features numbers a row.
        output: (n, n_classes).

    Example:
        >>> import torch
        >>> MLP(64, 10)(torch.zeros(2, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, n_features: int, n_classes: int, *, hidden: Sequence[int] = (128,), dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = units
        super().__init__(*layers, nn.Linear(width, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        logits: Tensor = super().forward(x)
        return logits
