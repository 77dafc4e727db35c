"""Train a network on Fashion-MNIST in plain PyTorch, and let torchal choose which images to label next.

    python examples/fashion_mnist.py --data data/fashion-mnist --download

The labels are all there, so this is a simulation: a label counts as bought once its image was chosen.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import torchal
from torchal import PoolView
from torchal.data import fashion_mnist
from torchal.samplers import InformativeDiverse


def main(arguments: Sequence[str] | None = None) -> list[float]:
    """Return the test accuracy of each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("TORCHAL_DATA", "data")) / "fashion-mnist"
    parser.add_argument("--data", type=Path, default=default, help="folder of the four files")
    parser.add_argument("--download", action="store_true", help="have torchvision fetch them if they are not there")
    parser.add_argument("--pool", type=int, default=10_000, help="images to choose from")
    parser.add_argument("--test", type=int, default=2_000, help="images to test on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args(arguments)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows_of_parts = {"max_rows": options.pool, "fractions": (1, 0, 0), "test_limit": options.test}
    data = fashion_mnist(options.data, download=options.download, **rows_of_parts).to(device)
    images, labels = data.train
    labeled = torch.zeros(len(labels), dtype=torch.bool, device=device)
    labeled[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:100].to(device)] = True

    accuracies = []
    for _ in range(options.rounds):
        net = train(images[labeled], labels[labeled], epochs=options.epochs)
        accuracies.append(accuracy(net, *data.test))
        print(f"{int(labeled.sum())} labels: {accuracies[-1]:.3f} of the test images are right")

        # torchal: one pass over all images, then the 100 whose labels are worth the most
        outputs = torchal.embed(net, images)
        view = PoolView.from_tensors(features=outputs.features, scores=outputs.logits, labeled=labeled)
        rows = InformativeDiverse().select(view, 100).indices
        labeled[rows] = True
    return accuracies


def train(images: Tensor, labels: Tensor, *, epochs: int) -> nn.Module:
    """Train a small network from the start."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10),
    ).to(images.device)  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).to(images.device).split(32):
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose label is right."""
    return float((net.eval()(images).argmax(1) == labels).double().mean())


if __name__ == "__main__":
    main()
