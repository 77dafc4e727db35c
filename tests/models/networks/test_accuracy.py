"""Accuracies on real images, beside a plain loop: minutes of work, so `pytest -m slow`."""

import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from torchal.data import fashion_mnist
from torchal.models import SmallCNN, TorchClassifier

DATA = Path(os.environ.get("TORCHAL_DATA", Path(__file__).parents[3] / "../shared/data")) / "fashion-mnist"
RMSPROP = partial(torch.optim.RMSprop, lr=1e-3, alpha=0.9, eps=1e-7)
EPOCHS = 15


def plain_loop(images, labels, seed):
    torch.manual_seed(seed)
    net = SmallCNN((1, 28, 28), 10)
    optimizer = RMSPROP(net.parameters())
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(32):
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"no Fashion-MNIST in {DATA}; TORCHAL_DATA names another folder")
def test_small_cnn_is_as_accurate_as_in_a_plain_loop():
    data = fashion_mnist(DATA, max_rows=2000, fractions=(1, 0, 0), test_limit=5000)
    ours, plain = [], []
    for seed in range(3):
        model = TorchClassifier(SmallCNN, optimizer=RMSPROP, epochs=EPOCHS, random_state=seed, device="cpu")
        ours.append(model.fit(*data.train).score(*data.test))
        with torch.random.fork_rng():
            net = plain_loop(*data.train, seed=100 + seed)
        with torch.no_grad():
            right = [net(x).argmax(1) == y for x, y in zip(*(part.split(500) for part in data.test), strict=True)]
        plain.append(float(torch.cat(right).double().mean()))
    print(f"ours {[round(a, 4) for a in ours]}, plain loop {[round(a, 4) for a in plain]}")  # noqa: T201 - pytest -s
    means = sum(ours) / 3, sum(plain) / 3
    noise = math.sqrt(sum((a - m) ** 2 for some, m in zip((ours, plain), means, strict=True) for a in some) / 4)
    assert abs(means[0] - means[1]) < max(3 * noise * math.sqrt(2 / 3), 0.01)
    assert min(ours) > 0.78
