import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models import MLP
from torchal.models.networks.nets import AllConv, SmallCNN, TorchvisionNet


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_mlp_flattens_and_answers_with_logits():
    net = MLP(12, 3, hidden=(7, 5), dropout=0.5)
    assert net(torch.zeros(4, 3, 2, 2)).shape == (4, 3)
    widths = [(layer.in_features, layer.out_features) for layer in net if isinstance(layer, nn.Linear)]
    assert widths == [(12, 7), (7, 5), (5, 3)]
    assert sum(isinstance(layer, nn.Dropout) for layer in net) == 2


def test_mlp_without_hidden_layers_is_linear():
    net = MLP(2, 3, hidden=())
    assert sum(p.numel() for p in net.parameters()) == 9


def test_importing_models_loads_no_sklearn_and_nets_no_torchvision():
    code = (
        "import sys, torchal.models as m; assert 'sklearn' not in sys.modules; print(*dir(m)); "
        "import torchal.models.networks.nets; assert 'torchvision' not in sys.modules"
    )
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"MLP", "LogisticRegression", "TorchClassifier"} <= set(names)


def test_unknown_name():
    import torchal.models

    with pytest.raises(AttributeError, match="no attribute 'Forest'"):
        torchal.models.Forest  # noqa: B018


def n_parameters(net):
    return sum(p.numel() for p in net.parameters())


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("net", "expected"), [(SmallCNN, 1_250_858), (AllConv, 1_369_738)])
def test_number_of_parameters_on_cifar_10(net, expected):
    assert n_parameters(net((3, 32, 32), 10)) == expected


@pytest.mark.parametrize("shape", [(3, 10, 10), (1, 11, 13), (2, 10, 25), (4, 17, 12), (28, 28), (10, 10)])
@pytest.mark.parametrize("rows", [1, 3])
def test_small_cnn_sizes(shape, rows):
    net = SmallCNN(shape, 4)
    assert net(images(rows, *shape)).shape == (rows, 4)
    assert net.eval()(images(rows, *shape)).isfinite().all()


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 9), (2, 5, 3), (4, 8, 8), (7, 6), (1, 1)])
@pytest.mark.parametrize("rows", [1, 3])
def test_all_conv_sizes(shape, rows):
    net = AllConv(shape, 4)
    assert net(images(rows, *shape)).shape == (rows, 4)
    assert net.eval()(images(rows, *shape)).isfinite().all()


@pytest.mark.parametrize("net", [SmallCNN, AllConv])
def test_two_axes_are_one_channel(net):
    torch.manual_seed(0)
    flat = net((12, 10), 3).eval()
    torch.manual_seed(0)
    deep = net((1, 12, 10), 3).eval()
    x = images(2, 12, 10)
    assert torch.equal(flat(x), deep(x.unsqueeze(1)))


@pytest.mark.parametrize("net", [SmallCNN, AllConv])
def test_dropout_is_for_training_only(net):
    made = net((3, 12, 12), 5)
    x = images(2, 3, 12, 12)
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


@pytest.mark.parametrize(("net", "expected"), [(SmallCNN, [0.25, 0.25, 0.5]), (AllConv, [0.5, 0.5])])
def test_dropout_probabilities(net, expected):
    assert [layer.p for layer in net((3, 12, 12), 5).modules() if isinstance(layer, nn.Dropout)] == expected


def with_biases(net):
    """Give every bias a value: a layer left out, or one ReLU too many, then shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5, generator=generator)
    return net.double().eval()


def test_small_cnn_layers():
    net = with_biases(SmallCNN((3, 13, 16), 4))
    w = list(net.parameters())
    x = images(5, 3, 13, 16).double()
    h = F.relu(F.conv2d(x, w[0], w[1], padding=1))
    h = F.max_pool2d(F.relu(F.conv2d(h, w[2], w[3])), 2)
    h = F.relu(F.conv2d(h, w[4], w[5], padding=1))
    h = F.max_pool2d(F.relu(F.conv2d(h, w[6], w[7])), 2)
    hidden = F.linear(h.flatten(1), w[8], w[9])
    expected = F.linear(F.relu(hidden), w[10], w[11])
    assert len(w) == 12
    assert (expected < 0).any()  # no ReLU at the end
    torch.testing.assert_close(net(x), expected)

    seen = []
    net.hidden.register_forward_hook(lambda layer, args, output: seen.append(output))
    net(x)
    assert (hidden < 0).any()
    torch.testing.assert_close(seen[0], hidden)  # before ReLU, and still so when the pass is over
    assert seen[0].shape == (5, 512)
    assert net.head.out_features == 4


def test_all_conv_layers():
    net = with_biases(AllConv((2, 7, 10), 4))
    w = list(net.parameters())
    x = h = images(3, 2, 7, 10).double()
    for i, stride in enumerate((1, 1, 2, 1, 1, 2, 1)):
        h = F.relu(F.conv2d(h, w[2 * i], w[2 * i + 1], padding=1, stride=stride))
    h = F.relu(F.conv2d(h, w[14], w[15]))
    places = F.conv2d(h, w[16], w[17])
    assert len(w) == 18
    assert places.shape == (3, 4, 2, 3)
    assert (places < 0).any()  # no ReLU at the end
    torch.testing.assert_close(net(x), places.mean((-2, -1)))

    seen = []
    net.get_submodule(AllConv.embedding_layer).register_forward_hook(lambda layer, args, output: seen.append(output))
    net(x)
    torch.testing.assert_close(seen[0], places)


@pytest.mark.parametrize("net", [SmallCNN, AllConv])
def test_weights_begin_glorot_uniform(net):
    layers = [layer for layer in net((3, 12, 12), 5).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        per_place = math.prod(layer.weight.shape[2:])
        fan_out, fan_in = layer.weight.shape[0] * per_place, layer.weight.shape[1] * per_place
        bound = math.sqrt(6 / (fan_in + fan_out))
        weight = layer.weight.detach()
        assert 0.97 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()
    assert len(layers) == {SmallCNN: 6, AllConv: 9}[net]


@pytest.mark.parametrize("net", [SmallCNN, AllConv])
def test_same_seed_same_weights(net):
    made = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append(torch.cat([p.flatten() for p in net((3, 10, 10), 5).parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("net", [SmallCNN, AllConv])
def test_gradients_reach_every_weight(net):
    made = net((12, 12), 3)
    F.cross_entropy(made(images(4, 12, 12)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(parameter.grad.any() for parameter in made.parameters())


@pytest.mark.parametrize(
    ("net", "shape", "least"),
    [
        (SmallCNN, (64,), 10),
        (SmallCNN, (3, 9, 32), 10),
        (SmallCNN, (3, 32, 9), 10),
        (SmallCNN, (3, 32), 10),
        (SmallCNN, (0, 32, 32), 10),
        (SmallCNN, (2, 3, 32, 32), 10),
        (SmallCNN, (), 10),
        (AllConv, (64,), 1),
        (AllConv, (3, 0, 4), 1),
        (AllConv, (0, 4, 4), 1),
    ],
)
def test_rows_that_are_no_images(net, shape, least):
    with pytest.raises(ShapeError) as caught:
        net(shape, 10)
    assert str(caught.value) == (
        f"{net.__name__} reads images (channels, height, width) of at least {least} x {least}, or (height, width) of "
        f"one channel, got rows of shape {shape}"
    )


@pytest.mark.parametrize("net", [SmallCNN, AllConv])
@pytest.mark.parametrize("n_classes", [0, 2.0, True])
def test_number_of_classes(net, n_classes):
    with pytest.raises(ConfigError, match=f"n_classes must be a whole number of at least 1, got {n_classes}"):
        net((3, 12, 12), n_classes)


@pytest.fixture
def models():
    return pytest.importorskip("torchvision").models


@pytest.mark.usefixtures("models")
class TestTorchvisionNet:
    SMALL = "squeezenet1_1"  # the quickest to make; its last layer is a convolution

    @pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (28, 28), (3, 33, 40)])
    @pytest.mark.parametrize("small_images", [False, True])
    def test_resnet(self, shape, small_images):
        net = TorchvisionNet(shape, 10, name="resnet18", small_images=small_images)
        assert net(images(2, *shape)).shape == (2, 10)
        assert net.eval()(images(1, *shape)).shape == (1, 10)
        # 11 181 642 is torchvision's resnet18 for 10 classes; the first convolution has 64 * 3 * (49 - 9) weights less
        assert n_parameters(net) == 11_181_642 - 7_680 * small_images

    def test_small_images_keep_their_size_until_the_first_block_with_a_stride(self):
        net = TorchvisionNet((3, 32, 32), 10, name="resnet18", small_images=True)
        sizes = []
        for layer in (net.net.conv1, net.net.layer1, net.net.layer2):
            layer.register_forward_hook(lambda layer, args, output: sizes.append(tuple(output.shape[1:])))
        net.eval()(images(1, 3, 32, 32))
        assert sizes == [(64, 32, 32), (64, 32, 32), (128, 16, 16)]
        assert float(net.net.conv1.weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.1)

    @pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_0", "shufflenet_v2_x0_5", "regnet_y_400mf"])
    def test_other_networks(self, name):
        net = TorchvisionNet((3, 32, 40), 7, name=name)
        assert net.training
        assert net(images(2, 3, 32, 40)).shape == (2, 7)

    def test_networks_with_auxiliary_classifiers_answer_with_logits_while_training(self):
        net = TorchvisionNet((3, 64, 64), 7, name="googlenet")
        assert net(images(2, 3, 64, 64)).shape == (2, 7)

    def test_grey_is_repeated_to_three_channels(self):
        net = TorchvisionNet((1, 28, 28), 3, name=self.SMALL).eval()
        x = images(2, 28, 28)
        expected = net.net(torch.stack([x, x, x], dim=1))
        assert torch.equal(net(x), expected)
        assert torch.equal(net(x.unsqueeze(1)), expected)

    @pytest.mark.parametrize("name", [SMALL, "resnet18"])
    def test_same_seed_same_weights_as_torchvision_draws(self, name, models):
        torch.manual_seed(5)
        net = TorchvisionNet((3, 32, 32), 4, name=name)
        after = torch.get_rng_state()
        torch.manual_seed(5)
        own = models.get_model(name, weights=None, num_classes=4)
        assert torch.equal(after, torch.get_rng_state())  # the look at the shapes drew nothing
        assert all(torch.equal(tensor, net.net.state_dict()[key]) for key, tensor in own.state_dict().items())

    def test_same_seed_same_small_images(self):
        made = []
        for _ in range(2):
            torch.manual_seed(5)
            made.append(TorchvisionNet((3, 32, 32), 4, name="resnet18", small_images=True).state_dict())
        assert all(torch.equal(tensor, made[1][key]) for key, tensor in made[0].items())
        assert not made[0]["net.bn1.running_mean"].any()  # the look at the shapes left the statistics alone
        assert made[0]["net.bn1.num_batches_tracked"] == 0

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("resnet19", "'resnet19'; close to it: .*resnet18.* lists all [0-9]+$"),
            ("ResNet18", "'ResNet18'; close to it: resnet18"),
            ("qqqq", "'qqqq'; close to it: none"),
            ("fcn_resnet50", "'fcn_resnet50'; close to it: .*resnet50"),
            (18, "18; close to it: none"),
        ],
    )
    def test_unknown_name(self, name, told):
        with pytest.raises(ConfigError, match=f"torchvision has no classification network {told}"):
            TorchvisionNet((3, 32, 32), 10, name=name)

    def test_small_images_need_a_resnet(self):
        with pytest.raises(ConfigError, match="torchvision's ResNet class, squeezenet1_1 is a SqueezeNet"):
            TorchvisionNet((3, 32, 32), 10, name=self.SMALL, small_images=True)
        with pytest.raises(ConfigError, match="small_images must be true or false, got 'no'"):
            TorchvisionNet((3, 32, 32), 10, name="resnet18", small_images="no")

    @pytest.mark.parametrize("shape", [(64,), (2, 3, 32, 32), (3, 0, 32)])
    def test_rows_that_are_no_images(self, shape):
        with pytest.raises(ShapeError, match=r"TorchvisionNet reads images .* of at least 1 x 1, .* got rows of shape"):
            TorchvisionNet(shape, 10, name=self.SMALL)

    @pytest.mark.parametrize("channels", [2, 4])
    def test_channels(self, channels):
        with pytest.raises(ShapeError, match=rf"images of 1 or 3 channels, got rows of shape \({channels}, 32, 32\)"):
            TorchvisionNet((channels, 32, 32), 10, name=self.SMALL)

    @pytest.mark.parametrize(
        ("name", "shape", "reason"),
        [
            ("alexnet", (3, 16, 16), "Given input size: .* Output size is too small"),
            (SMALL, (6, 30), "Given input size"),
            ("vit_b_32", (3, 32, 32), "Wrong image height! Expected 224 but got 32"),
        ],
    )
    def test_sizes_that_the_network_cannot_take(self, name, shape, reason):
        told = rf"{name} cannot take rows of shape \({', '.join(map(str, shape))}\): {reason}"
        with pytest.raises(ShapeError, match=told) as caught:
            TorchvisionNet(shape, 10, name=name)
        assert "\n" not in str(caught.value)


def saved(tmp_path, net):
    path = tmp_path / "weights.pt"
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.usefixtures("models")
class TestWeights:
    SHAPE = (3, 32, 32)

    def make(self, name, n_classes, seed, **settings):
        torch.manual_seed(seed)
        return TorchvisionNet(self.SHAPE, n_classes, name=name, **settings)

    @pytest.mark.parametrize("wrapped", [False, True])  # torchvision's own keys, or those of a TorchvisionNet
    @pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
    def test_round_trip(self, tmp_path, name, wrapped):
        source = self.make(name, 5, seed=1)
        source(images(2, *self.SHAPE))  # moves the statistics of batch normalization
        net = self.make(name, 5, seed=2, weights=str(saved(tmp_path, source if wrapped else source.net)))
        assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in source.state_dict().items())
        assert net.training
        x = images(2, *self.SHAPE)
        assert torch.equal(net.eval()(x), source.eval()(x))

    @pytest.mark.parametrize(
        ("name", "last"),
        [("squeezenet1_0", "classifier.1"), ("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3")],
    )
    def test_last_layer_for_other_classes_is_left_as_made(self, tmp_path, name, last):
        source = self.make(name, 9, seed=1)
        fresh = self.make(name, 5, seed=2).net.state_dict()
        net = self.make(name, 5, seed=2, weights=saved(tmp_path, source.net))
        for key, tensor in net.net.state_dict().items():
            expected = fresh[key] if key in {f"{last}.weight", f"{last}.bias"} else source.net.state_dict()[key]
            assert torch.equal(tensor, expected), key
        assert net.eval()(images(2, *self.SHAPE)).shape == (2, 5)

    def test_as_many_classes_as_a_convolution_has_channels(self, tmp_path):
        source = self.make("resnet18", 9, seed=1).net
        fresh = self.make("resnet18", 512, seed=2).net
        net = self.make("resnet18", 512, seed=2, weights=saved(tmp_path, source)).net
        assert torch.equal(net.fc.weight, fresh.fc.weight)
        assert torch.equal(net.layer4[1].conv2.weight, source.layer4[1].conv2.weight)

    def test_files_from_before_batch_counts(self, tmp_path):
        source = self.make("resnet18", 5, seed=1).net
        state = {key: tensor for key, tensor in source.state_dict().items() if "num_batches" not in key}
        torch.save(state, tmp_path / "old.pt")
        net = self.make("resnet18", 5, seed=2, weights=tmp_path / "old.pt")
        assert torch.equal(net.net.layer1[0].conv1.weight, source.layer1[0].conv1.weight)

    def test_file_of_another_network(self, tmp_path):
        path = saved(tmp_path, self.make("squeezenet1_0", 5, seed=1).net)
        with pytest.raises(DataError) as caught:
            self.make("resnet18", 5, seed=2, weights=path)
        told = str(caught.value)
        assert told.startswith(f"{path} does not fit resnet18, which has 122 tensors: 102 missing (conv1.weight, ")
        assert "; 52 unexpected (features.0.weight, features.0.bias, features.3.squeeze.weight, ...)" in told
        assert "another shape" not in told

    def test_every_mismatch_is_counted(self, tmp_path):
        state = self.make("squeezenet1_0", 5, seed=1).net.state_dict()
        del state["features.0.bias"]
        state["extra"] = torch.zeros(2)
        state["features.0.weight"] = torch.zeros(64, 3, 7, 7)
        state["classifier.1.weight"] = torch.zeros(5, 500, 1, 1)
        torch.save(state, tmp_path / "bad.pt")
        with pytest.raises(DataError) as caught:
            self.make("squeezenet1_0", 5, seed=2, weights=tmp_path / "bad.pt")
        assert str(caught.value).endswith(
            "which has 52 tensors: 1 missing (features.0.bias); 1 unexpected (extra); 2 of another shape "
            "(features.0.weight (64, 3, 7, 7) where the network has (96, 3, 7, 7), "
            "classifier.1.weight (5, 500, 1, 1) where the network has (5, 512, 1, 1))"
        )

    def test_first_convolution_for_large_images(self, tmp_path):
        path = saved(tmp_path, self.make("resnet18", 5, seed=1).net)
        with pytest.raises(
            DataError, match=r"1 of another shape \(conv1.weight \(64, 3, 7, 7\) where .* \(64, 3, 3, 3\)"
        ):
            self.make("resnet18", 5, seed=2, small_images=True, weights=path)

    def test_network_that_asks_for_more_than_tensors(self, tmp_path):
        torch.save(dict(self.make("mnasnet0_5", 5, seed=1).net.state_dict()), tmp_path / "plain.pt")
        with pytest.raises(DataError, match=r"plain\.pt does not fit mnasnet0_5: version"):
            self.make("mnasnet0_5", 5, seed=2, weights=tmp_path / "plain.pt")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.pt"):
            self.make("squeezenet1_0", 5, seed=1, weights=tmp_path / "none.pt")

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("kept", [0, 1, 40, 2000, 100_000])
    def test_cut_file(self, tmp_path, kept, legacy):
        path = tmp_path / "cut.pt"
        torch.save({"a": torch.zeros(50_000)}, path, _use_new_zipfile_serialization=not legacy)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(DataError, match=r"cut\.pt cannot be read safely as a state_dict: \w*Error"):
            self.make("squeezenet1_0", 5, seed=1, weights=path)

    def test_text(self, tmp_path):
        path = tmp_path / "page.pt"
        path.write_text("<html>not found</html>")
        with pytest.raises(DataError, match=r"page\.pt cannot be read safely as a state_dict"):
            self.make("squeezenet1_0", 5, seed=1, weights=path)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ([torch.zeros(2)], "must hold a state_dict, got a list"),
            (torch.zeros(2), "must hold a state_dict, got a Tensor"),
            ({"weights": {}, "epoch": 3}, r"got 2 of 2 entries that are not tensors by name \(weights, epoch\)"),
            ({3: torch.zeros(2)}, r"got 1 of 1 entries that are not tensors by name \(3\)"),
        ],
    )
    def test_other_content(self, tmp_path, content, told):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(DataError, match=told):
            self.make("squeezenet1_0", 5, seed=1, weights=tmp_path / "other.pt")

    def test_files_of_other_makers(self, tmp_path):
        net = self.make("squeezenet1_0", 5, seed=0)
        own = net.net.state_dict()
        for content in (
            {"state_dict": own, "epoch": 3},
            {"model": {f"module.{key}": value for key, value in own.items()}},
        ):
            torch.save(content, tmp_path / "other.pt")
            loaded = self.make("squeezenet1_0", 5, seed=1, weights=tmp_path / "other.pt")
            assert all(value.equal(own[key]) for key, value in loaded.net.state_dict().items())

    def test_weights_that_are_not_finite(self, tmp_path):
        own = self.make("squeezenet1_0", 5, seed=0).net.state_dict()
        own["features.0.bias"][2] = torch.nan
        torch.save(own, tmp_path / "nan.pt")
        with pytest.raises(DataError, match=r"features\.0\.bias in .*nan\.pt must be finite"):
            self.make("squeezenet1_0", 5, seed=1, weights=tmp_path / "nan.pt")

    def test_network_instead_of_its_state_dict(self, tmp_path):
        torch.save(nn.Linear(2, 3), tmp_path / "net.pt")
        with pytest.raises(DataError, match=r"net\.pt cannot be read safely as a state_dict: UnpicklingError"):
            self.make("squeezenet1_0", 5, seed=1, weights=tmp_path / "net.pt")
