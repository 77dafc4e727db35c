"""Networks to begin with: small ones of torchal's own, and those of torchvision."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from torchal._checks import check_finite, check_flag, check_installed, check_whole
from torchal.errors import ConfigError, DataError, ShapeError


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


class SmallCNN(nn.Module):
    """Classify small images by four convolutions and one hidden layer.

    3 x 3 convolutions of 32 and 32 channels, max-pooling by 2, dropout; the same with 64 and 64; a dense layer of 512,
    dropout, a dense layer of C. The first convolution of a pair keeps the size, the second loses a border of
    one pixel. ReLU follows every layer but the last. Weights begin Glorot-uniform, biases at zero.

    The layer `hidden` is the one of 512: its output is the embedding before ReLU. The last layer is `head`.

    Args:
        input_shape: (channels, height, width), or (height, width) of images with one channel; at least 10 x 10 pixels.
        n_classes: number of logits.
        dropout: probabilities of dropping, after each pair of convolutions and after the dense layer.

    Shapes:
        input: (n, *input_shape).
        output: (n, n_classes).

    Raises:
        ShapeError: input_shape is not that of images, or too small.
        ConfigError: n_classes is not a whole number above 0, or dropout not two probabilities.

    Reference:
        `small_cnn` of google/active-learning (2017), which is the CIFAR-10 example of Keras for any image size. Here
        the channels are the first axis, also where the places are flattened, and the answer is logits, without
        softmax.

    Example:
        >>> SmallCNN((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, input_shape: tuple[int, ...], n_classes: int, *, dropout: Sequence[float] = (0.25, 0.5)) -> None:
        channels, height, width = _image_shape("SmallCNN", input_shape, least=10)
        check_whole("n_classes", n_classes, least=1)
        if len(dropout) != 2 or not all(0 <= p <= 1 for p in dropout):
            raise ConfigError(f"dropout must be two probabilities, got {dropout!r}")
        super().__init__()
        self.features = nn.Sequential(
            *_conv_relu(channels, 32, padding=1),
            nn.Conv2d(32, 32, 3),
            *_pool_relu(),
            nn.Dropout(dropout[0]),
            *_conv_relu(32, 64, padding=1),
            nn.Conv2d(64, 64, 3),
            *_pool_relu(),
            nn.Dropout(dropout[0]),
            nn.Flatten(),
        )
        rows, columns = (((size - 2) // 2 - 2) // 2 for size in (height, width))
        self.hidden = nn.Linear(64 * rows * columns, 512)
        self.dropout = nn.Dropout(dropout[1])
        self.head = nn.Linear(512, n_classes)
        _begin_glorot_uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        hidden: Tensor = self.hidden(self.features(_as_images(x)))
        logits: Tensor = self.head(self.dropout(hidden.relu()))  # not in place: `hidden` answers before ReLU
        return logits


class AllConv(nn.Module):
    """Classify small images by convolutions alone, with strides in place of pooling.

    3 x 3 convolutions of 96, 96 and 96 channels, the third with stride 2, dropout 0.5; the same with 192; one more of
    192; then 1 x 1 convolutions of 192 and C, and the mean over all places. ReLU follows every convolution but the
    last. Weights begin Glorot-uniform, biases at zero.

    The 3 x 3 convolutions are padded by one pixel on every side. TensorFlow's "same" pads one side only for an even
    size at stride 2, so that its windows lie one pixel off from these.

    Args:
        input_shape: (channels, height, width), or (height, width) of images with one channel.
        n_classes: number of logits.

    Attributes:
        embedding_layer: name of the layer whose output, flattened, is the embedding: the last convolution, (n, C,
            height / 4, width / 4) with sizes rounded up, which the logits are the mean of.

    Shapes:
        input: (n, *input_shape).
        output: (n, n_classes).

    Raises:
        ShapeError: input_shape is not that of images.
        ConfigError: n_classes is not a whole number above 0.

    Reference:
        Springenberg, Dosovitskiy, Brox & Riedmiller, "Striving for Simplicity: The All Convolutional Net", ICLR 2015
        workshop, All-CNN-C, in the form of `allconv` of google/active-learning (2017): without the dropout of inputs
        and the ReLU after the last convolution, and the seventh convolution keeps the size, where the paper's loses a
        border.

    Example:
        >>> AllConv((3, 8, 8), 10)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """

    embedding_layer: ClassVar[str] = "classifier"

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        channels, _, _ = _image_shape("AllConv", input_shape, least=1)
        check_whole("n_classes", n_classes, least=1)
        super().__init__()
        self.features = nn.Sequential(
            *_conv_relu(channels, 96, padding=1),
            *_conv_relu(96, 96, padding=1),
            *_conv_relu(96, 96, padding=1, stride=2),
            nn.Dropout(0.5),
            *_conv_relu(96, 192, padding=1),
            *_conv_relu(192, 192, padding=1),
            *_conv_relu(192, 192, padding=1, stride=2),
            nn.Dropout(0.5),
            *_conv_relu(192, 192, padding=1),
            *_conv_relu(192, 192, kernel_size=1),
        )
        self.classifier = nn.Conv2d(192, n_classes, 1)
        _begin_glorot_uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        places: Tensor = self.classifier(self.features(_as_images(x)))
        return places.mean((2, 3))


class TorchvisionNet(nn.Module):
    """Classify images by a network of torchvision, made by its name.

    The network itself is the submodule `net`. Images of one channel are repeated to three. Nothing is ever downloaded.

    Args:
        input_shape: (channels, height, width) with one or three channels, or (height, width) of images with one.
        n_classes: number of logits.
        name: one of `torchvision.models.list_models(module=torchvision.models)`. Of inception_v3 and googlenet only
            the last classifier is made. The vit and maxvit networks take images of 224 x 224 pixels.
        small_images: begin with a 3 x 3 convolution of stride 1 and no max-pooling, for images as small as those of
            CIFAR; for torchvision's ResNet class (resnet, resnext, wide_resnet).
        weights: file with the state_dict of such a network, or of a TorchvisionNet, to begin with. A last layer for
            another number of classes is left as it was made. The files that torchvision offers for densenet (earlier
            names), inception_v3 and googlenet (auxiliary classifiers) do not fit.

    Shapes:
        input: (n, *input_shape).
        output: (n, n_classes).

    Raises:
        MissingExtraError: torchvision is not installed.
        ConfigError: no such network, or small_images for one that is no ResNet.
        ShapeError: input_shape is not that of images, or the network cannot take it.
        DataError: the file is damaged or does not fit the network.
        OSError: the file cannot be read; FileNotFoundError where there is none.

    Reference:
        Chen, Kornblith, Norouzi & Hinton, "A Simple Framework for Contrastive Learning of Visual Representations",
        ICML 2020, appendix B.9, for small_images. Each network's own paper is named in torchvision.

    Example:
        >>> net = TorchvisionNet((28, 28), 10, name="resnet18", small_images=True)
        >>> net(torch.zeros(2, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        name: str,
        small_images: bool = False,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        check_installed("torchvision", extra="vision")
        check_whole("n_classes", n_classes, least=1)
        check_flag("small_images", small_images)
        channels, _, _ = _image_shape("TorchvisionNet", input_shape, least=1)
        if channels not in (1, 3):
            raise ShapeError(f"TorchvisionNet reads images of 1 or 3 channels, got rows of shape {tuple(input_shape)}")
        super().__init__()
        self.net = _torchvision_network(name, n_classes, small_images=small_images)
        _check_takes(self, name, tuple(input_shape))
        if weights is not None:
            _load(self.net, Path(weights), name=name, n_classes=n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        images = _as_images(x)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        logits: Tensor = self.net(images)
        return logits


def _image_shape(network: str, input_shape: tuple[int, ...], *, least: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of rows that are images of at least `least` pixels either way."""
    shape = tuple(input_shape)
    channels, height, width = (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else (0, 0, 0)
    if channels < 1 or min(height, width) < least:
        raise ShapeError(
            f"{network} reads images (channels, height, width) of at least {least} x {least}, or (height, width) of "
            f"one channel, got rows of shape {shape}"
        )
    return channels, height, width


def _as_images(x: Tensor) -> Tensor:
    """Return rows (n, height, width) as images of one channel, others as they are."""
    return x.unsqueeze(1) if x.ndim == 3 else x


def _conv_relu(
    n_in: int, n_out: int, *, kernel_size: int = 3, stride: int = 1, padding: int = 0
) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(n_in, n_out, kernel_size, stride=stride, padding=padding), nn.ReLU()


def _pool_relu() -> tuple[nn.Module, nn.Module]:
    return nn.MaxPool2d(2), nn.ReLU()  # the same as in the other order, at a quarter of the places


def _begin_glorot_uniform(net: nn.Module) -> None:
    """Draw all weights from torch's global generator, as Keras's layers begin; biases are zero."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _torchvision_network(name: str, n_classes: int, *, small_images: bool) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(str(name).lower(), known, n=5)
        raise ConfigError(
            f"torchvision has no classification network {name!r}; close to it: {', '.join(close) or 'none'}; "
            f"torchvision.models.list_models(module=torchvision.models) lists all {len(known)}"
        )
    # the auxiliary classifiers would answer beside the last one while training; without init_weights torchvision warns
    settings = {"aux_logits": False, "init_weights": False} if name in ("inception_v3", "googlenet") else {}
    net: nn.Module = models.get_model(name, weights=None, num_classes=n_classes, **settings)
    if small_images:
        if not isinstance(net, models.ResNet):
            raise ConfigError(f"small_images is for torchvision's ResNet class, {name} is a {type(net).__name__}")
        net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as the one it replaces
        net.maxpool = nn.Identity()
    return net


def _check_takes(net: nn.Module, name: str, input_shape: tuple[int, ...]) -> None:
    """Require that one row goes through, by shapes alone: nothing is computed and no random number drawn."""
    # Tensors without memory take the places of the network's own. Making the network anew on the meta device would
    # cost its construction twice, and fails for the regnets, which read numbers from tensors while they are made.
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    shapes = {key: torch.empty_like(tensor, device="meta") for key, tensor in tensors.items()}
    net.eval()
    try:
        with torch.no_grad():
            functional_call(net, shapes, (torch.empty(1, *input_shape, device="meta"),))
    except (RuntimeError, AssertionError) as error:  # AssertionError: torchvision's vit checks sizes by torch._assert
        reason = str(error).partition("\n")[0]
        raise ShapeError(f"{name} cannot take rows of shape {input_shape}: {reason}") from error
    net.train()


def _load(net: nn.Module, path: Path, *, name: str, n_classes: int) -> None:
    """Load a state_dict into the network, all of it but a last layer for another number of classes."""
    state = _read_state(path)
    for prefix in ("module.", "_orig_mod.", "net."):  # of DataParallel, torch.compile and TorchvisionNet
        consume_prefix_in_state_dict_if_present(state, prefix)
    for key in [key for key in state if key.startswith(("AuxLogits.", "aux1.", "aux2."))]:
        del state[key]  # the auxiliary heads of inception_v3 and googlenet
    for key, value in state.items():
        check_finite(f"{key} in {path}", value)
    last = _last_layer(net, n_classes)
    reshaped = []
    for key, own in net.state_dict().items():
        if key in state and (shape := state[key].shape) != own.shape:
            if key.rpartition(".")[0] != last or shape[1:] != own.shape[1:]:
                reshaped.append(f"{key} {tuple(shape)} where the network has {tuple(own.shape)}")
            state[key] = own
    # torch compares the keys: it knows that files of its early versions lack the batch counts of batch normalization
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:  # mnasnet asks for its version, which a plain dict does not have
        raise DataError(f"{path} does not fit {name}: {error}") from error
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if any(faults.values()):
        told = "; ".join(f"{len(keys)} {fault} ({_first_few(keys)})" for fault, keys in faults.items() if keys)
        raise DataError(f"{path} does not fit {name}, which has {len(net.state_dict())} tensors: {told}")


def _read_state(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:  # a file that is not there or not readable is Python's own error, which names it
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises nearly anything: KeyError, struct.error, UnicodeDecodeError
            raise DataError(f"{path} cannot be read safely as a state_dict: {type(error).__name__}") from error
    for wrapper in ("state_dict", "model"):  # a checkpoint of a training script
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise DataError(f"{path} must hold a state_dict, got a {type(state).__name__}")
    others = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise DataError(
            f"{path} must hold a state_dict, got {len(others)} of {len(state)} entries that are not tensors by name "
            f"({_first_few(others)})"
        )
    return state


def _last_layer(net: nn.Module, n_classes: int) -> str:
    """Return the path of the last layer that is as wide as there are classes."""
    wide = ""
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and len(layer.weight) == n_classes:
            wide = path
    return wide


def _first_few(names: Sequence[str], *, most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
