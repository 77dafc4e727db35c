"""Networks behind the scikit-learn interface, against plain torch loops and skorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compare
from torchal.models import MLP, SmallCNN, TorchClassifier, TorchvisionNet

IMAGES = {"small": 500, "medium": 10_000, "large": 10_000}
ROWS = {"small": 20_000, "medium": 1_000_000, "large": 1_000_000}
WIDTHS = {"small": (128,), "medium": (16, 128, 512, 2048), "large": (16, 64, 128, 256, 512, 1024, 2048)}
RMSPROP = partial(torch.optim.RMSprop, lr=1e-3, alpha=0.9, eps=1e-7)


def rows(size: str, device: str) -> Iterator[Row]:
    """Time fits and forward passes."""
    yield from _small_cnn(size, device)
    yield from _mlp(device)
    yield from _forward(size, device)
    yield from _fit_many(size, device)
    if device.startswith("cuda"):
        yield from _on_cuda(device)


def _small_cnn(size: str, device: str) -> Iterator[Row]:
    x, y, source = _images(IMAGES[size])
    x, y = x.to(device), y.to(device)
    recipe = partial(SmallCNN, (1, 28, 28), 10)
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(TorchClassifier(SmallCNN, optimizer=RMSPROP, epochs=1, device=device).fit, x, y),
        "plain loop": partial(plain_loop, recipe, RMSPROP, x, y, epochs=1),
    }
    if find_spec("skorch"):
        settings = {"optimizer__alpha": 0.9, "optimizer__eps": 1e-7}
        candidates["skorch"] = partial(_skorch(recipe, torch.optim.RMSprop, 1, device, **settings).fit, x, y)
    yield from compare(f"small_cnn, 1 epoch, {len(x)} {source}", candidates, repeats=3, device=device)


def _mlp(device: str) -> Iterator[Row]:
    x, y = torch.randn(1000, 64, device=device), torch.randint(0, 10, (1000,), device=device)
    recipe, fused = partial(MLP, 64, 10), partial(torch.optim.Adam, lr=1e-3, fused=True)
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(TorchClassifier(epochs=20, device=device).fit, x, y),
        "plain loop, fused Adam": partial(plain_loop, recipe, fused, x, y, epochs=20),
        "plain loop, Adam": partial(plain_loop, recipe, torch.optim.Adam, x, y, epochs=20),
    }
    if find_spec("skorch"):
        candidates["skorch"] = partial(_skorch(recipe, torch.optim.Adam, 20, device).fit, x, y)
    yield from compare("mlp 64-128-10, 1000 rows, 20 epochs, batch 32", candidates, repeats=7, device=device)


def _forward(size: str, device: str) -> Iterator[Row]:
    x = torch.randn(ROWS[size], 64, device=device)
    model = TorchClassifier(epochs=1, device=device).fit(x[:100], torch.arange(100, device=device) % 10)
    *layers, head = model.module_.children()
    body = nn.Sequential(*layers)

    @torch.no_grad()
    def bare() -> tuple[Tensor, Tensor]:
        features, logits = [], []
        for batch in x.split(8192):
            hidden = body(batch)
            features.append(hidden)
            logits.append(head(hidden))
        return torch.cat(features), torch.cat(logits).argmax(1)

    @torch.no_grad()
    def one_pass() -> tuple[Any, Any]:
        logits, features = model.outputs(x)
        return features, logits.argmax(1)

    candidates: dict[str, Callable[[], object]] = {
        "ours": one_pass,
        "bare module in a loop": bare,
        "ours, predict and transform": lambda: (model.transform(x), model.predict(x)),
    }
    yield from compare(f"predict and transform, {len(x)} x 64, mlp", candidates, repeats=5, device=device)


def _fit_many(size: str, device: str) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 1000, 64, generator=generator).to(device)
    y = torch.randint(0, 10, (10, 1000), generator=generator).to(device)
    for width in WIDTHS[size]:
        model = TorchClassifier(partial(MLP, hidden=(width,)), epochs=5 if width < 1000 else 1, device=device)
        yield from _many(f"fit_many, 10 mlps 64-{width}-10, batch 32", model, x, y, device)


def _on_cuda(device: str) -> Iterator[Row]:
    x, y, source = _images(10_000)
    x, y = x.to(device), y.to(device)
    recipe = partial(TorchvisionNet, (1, 28, 28), 10, name="resnet18", small_images=True)
    settings: dict[str, Any] = {"optimizer": partial(torch.optim.AdamW, fused=True), "batch_size": 256}
    ours = TorchClassifier(recipe, epochs=1, device=device, deterministic=False, **settings)
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(ours.fit, x, y),
        "plain loop": partial(plain_loop, recipe, settings["optimizer"], x, y, epochs=1, batch_size=256),
    }
    work = f"resnet18 (small stem), 1 epoch, {len(x)} {source}, batch 256"
    yield from compare(work, candidates, repeats=3, device=device)
    many = TorchClassifier(SmallCNN, optimizer=RMSPROP, epochs=1, device=device)
    yield from _many(
        "fit_many, 10 small_cnns, 1000 images each", many, x.view(10, 1000, 1, 28, 28), y.view(10, 1000), device
    )


def _many(work: str, model: TorchClassifier, x: Tensor, y: Tensor, device: str) -> Iterator[Row]:
    def one_after_another() -> None:
        for rows, labels in zip(x, y, strict=True):
            model.fit(rows, labels)

    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: model.fit_many(x, y),
        "one after another": one_after_another,
    }
    yield from compare(work, candidates, repeats=3, device=device)


def plain_loop(
    recipe: Callable[[], nn.Module],
    optimizer: Callable[..., torch.optim.Optimizer],
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch_size: int = 32,
) -> nn.Module:
    """Train as a script would, on tensors that are on the device."""
    torch.manual_seed(0)
    net = recipe().to(x.device).train()
    steps = optimizer(net.parameters())
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).to(x.device).split(batch_size):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            steps.zero_grad()
            loss.backward()
            steps.step()
    return net


def _skorch(recipe: Any, optimizer: Any, epochs: int, device: str, **settings: Any) -> Any:
    from skorch import NeuralNetClassifier

    return NeuralNetClassifier(
        recipe,
        criterion=nn.CrossEntropyLoss,
        optimizer=optimizer,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=32,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
        device=device,
        **settings,
    )


def _images(n: int) -> tuple[Tensor, Tensor, str]:
    """Return the first images of Fashion-MNIST, or noise where its files are not there."""
    folder = Path(os.environ.get("TORCHAL_DATA", "../shared/data")) / "fashion-mnist"
    if not folder.exists():
        generator = torch.Generator().manual_seed(0)
        return torch.rand(n, 1, 28, 28, generator=generator), torch.arange(n) % 10, "images of noise"
    from torchal.data import fashion_mnist

    train = fashion_mnist(folder, max_rows=n, fractions=[1.0, 0.0, 0.0], test_limit=10).train
    inputs: Any = train.inputs
    return inputs, train.targets, "Fashion-MNIST images"
