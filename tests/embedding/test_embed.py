"""Run as a program, it embeds into a FOLDER, with pauses."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from tests import forks
from tests.contracts import HostCopies
from torchal.embedding import npy_stream
from torchal.embedding.capture import capture
from torchal.embedding.embed import embed
from torchal.engine.features import FeatureReader
from torchal.errors import CapabilityError, ConfigError, DataError, RunError, ShapeError
from torchal.protocols import Outputs

ROOT = Path(__file__).parents[2]
N, ROWS_PER_BATCH = 22, 4  # the last batch has two rows


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3))


def make_rows(n=N):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


def reference(net, rows):
    """Return features and logits row by row."""
    with torch.no_grad():
        features = torch.stack([net[:-1].eval()(row) for row in rows])
    return features, torch.stack([net[-1](row).detach() for row in features])


def state_of(module):
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    flags = [part.training for part in module.modules()]
    return hooks, flags, [one.requires_grad for one in module.parameters()], torch.is_grad_enabled()


class Counting(nn.Module):
    """Counts its passes; may fail at one of them."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.net = make_net()
        self.n_passes = 0
        self.fails_at = fails_at

    def forward(self, x):
        if self.n_passes == self.fails_at:
            raise RuntimeError("the pass failed")
        self.n_passes += 1
        return self.net(x)


class HeadFirst(nn.Module):
    """Defines its layers in another order than it runs them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.unused = nn.Linear(9, 9)
        self.body = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x).tanh())


class Named(nn.Module):
    """Returns what is asked for, of layers to be watched by name."""

    embedding_layer = "first"

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.again = self.first
        self.relu = nn.ReLU(inplace=True)
        self.lstm = nn.LSTM(3, 2, batch_first=True)
        self.head = nn.Linear(3, 2)
        self.skips = False
        self.times = 1

    def forward(self, x):
        if self.skips:
            return x[:, :2]
        for _ in range(self.times):
            y = self.first(x)
            x = x + 1
        self.lstm(y[:, None])
        return self.head(self.relu(y))


class Speaker(nn.Module):
    """Takes and answers as Hugging Face's models do."""

    def __init__(self, answer=lambda logits: SimpleNamespace(logits=logits, hidden=None)):
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.classifier = nn.Linear(5, 3)
        self.answer = answer

    def forward(self, pixel_values=None, scale=1.0):
        return self.answer(self.classifier(self.body(pixel_values)) * scale)


class TestCapture:
    def test_gives_what_goes_into_the_last_linear_layer(self):
        net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
        net[0].weight.data = torch.tensor([[2.0], [-1.0]])
        with capture(net) as embedding:
            net(torch.tensor([[1.0], [3.0]]))
            assert embedding().tolist() == [[2.0, 0.0], [6.0, 0.0]]
            net(torch.tensor([[-1.0]]))
            assert embedding().tolist() == [[0.0, 1.0]]
            assert embedding().tolist() == [[0.0, 1.0]]

    def test_last_means_last_to_run(self):
        net, x = HeadFirst(), torch.randn(2, 4)
        with capture(net) as embedding:
            net(x)
            assert torch.equal(embedding(), net.body(x).tanh())

    def test_resnet(self):
        torchvision = pytest.importorskip("torchvision")
        net = torchvision.models.resnet18().eval()
        with torch.no_grad(), capture(net) as embedding:
            logits = net(torch.randn(4, 3, 64, 64))
            assert embedding().shape == (4, 512)
            assert torch.equal(net.fc(embedding()), logits)

    @pytest.mark.parametrize("layer", ["0", "2.1"])
    def test_a_named_layer_gives_what_comes_out_flattened(self, layer):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Sequential(nn.Identity(), nn.MaxPool2d(2)))
        x = torch.randn(3, 1, 8, 8)
        expected = net[0](x) if layer == "0" else net(x)
        with capture(net, layer) as embedding:
            net(x)
            assert torch.equal(embedding(), expected.flatten(1))

    def test_the_module_may_say_its_embedding_layer(self):
        net, x = Named(), torch.randn(2, 4)
        with capture(net) as embedding:
            net(x)
            assert torch.equal(embedding(), net.first(x))
        with capture(net, "relu") as embedding:
            net(x)
            assert torch.equal(embedding(), net.first(x).relu())

    def test_an_embedding_layer_that_is_no_name_is_another_thing(self):
        net, x = Named(), torch.randn(2, 4)
        net.embedding_layer = 3
        with capture(net) as embedding:
            net(x)
            assert torch.equal(embedding(), net.first(x).relu())

    def test_the_module_itself_and_second_names_are_layers(self):
        net, x = Named(), torch.randn(2, 4)
        with capture(net, "") as embedding, capture(net, "again") as same:
            assert torch.equal(net(x), embedding())
            assert torch.equal(same(), net.first(x))

    def test_the_last_of_several_runs_counts(self):
        net, x = Named(), torch.randn(2, 4)
        net.times = 3
        with capture(net) as embedding:
            net(x)
            assert torch.equal(embedding(), net.first(x + 1 + 1))

    def test_one_number_per_row_is_one_column(self):
        net = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
        with capture(net, "1") as embedding:
            net(torch.randn(3, 4))
            assert embedding().shape == (3, 1)

    def test_inputs_by_keyword(self):
        class ByKeyword(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                return self.head(input=x * 2)

        net, x = ByKeyword(), torch.randn(3, 4)
        with capture(net) as embedding:
            net(x)
            assert torch.equal(embedding(), x * 2)

    def test_unknown_names_are_answered_with_close_ones(self):
        with pytest.raises(ConfigError, match=r"Named has no layer 'frist' among its 5 layers; did you mean 'first'\?"):
            capture(Named(), "frist").__enter__()
        with pytest.raises(ConfigError, match=r"no layer 'zzz' among its 5 layers$"):
            capture(Named(), "zzz").__enter__()
        net = Named()
        net.embedding_layer = "last"
        with pytest.raises(ConfigError, match="no layer 'last'"):
            capture(net).__enter__()

    def test_no_linear_layer(self):
        net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten())
        with pytest.raises(
            CapabilityError, match=r"^Sequential has no nn.Linear whose input could be the embedding; name"
        ):
            capture(net).__enter__()
        with capture(net, "1") as embedding:
            net(torch.randn(2, 1, 1, 1))
            assert embedding().shape == (2, 2)

    @pytest.mark.parametrize("layer", ["first", "", None])
    def test_a_layer_that_did_not_run_is_not_answered_with_an_earlier_pass(self, layer):
        net = Named()
        net.embedding_layer = None
        with capture(net, layer) as embedding:
            with pytest.raises(CapabilityError, match="did not run"):
                embedding()
            net(torch.randn(2, 4))
            embedding()
            net.skips = True
            if layer != "":
                net(torch.randn(2, 4))
                with pytest.raises(CapabilityError, match="of Named did not run in its last pass"):
                    embedding()
        with pytest.raises(CapabilityError, match="did not run"):
            embedding()

    def test_a_layer_that_gives_no_tensor(self):
        net = Named()
        with capture(net, "lstm") as embedding:
            net(torch.randn(2, 4))
            with pytest.raises(
                CapabilityError, match="the layer 'lstm' of Named must give a tensor of rows, got tuple"
            ):
                embedding()

    def test_an_input_that_was_changed_in_place_is_not_answered(self):
        class Rescaling(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                x = x + 1
                logits = self.head(x)
                x.zero_()
                return logits

        net = Rescaling()
        with torch.no_grad(), capture(net) as embedding:
            net(torch.randn(3, 4))
            with pytest.raises(CapabilityError, match="Rescaling was changed in place since; name a layer"):
                embedding()

    def test_hooks_are_gone_at_the_end_and_after_an_error(self):
        net = Counting(fails_at=1)
        before = state_of(net)
        with capture(net):
            net(torch.randn(2, 4))
        assert state_of(net) == before
        with pytest.raises(RuntimeError, match="the pass failed"), capture(net, "net.1"):
            net(torch.randn(2, 4))
        assert state_of(net) == before
        with pytest.raises(ConfigError), capture(net, "net.9"):
            pass
        assert state_of(net) == before

    def test_an_earlier_pass_takes_no_memory(self):
        alive = []

        class Watched(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                gc.collect()
                alive.append(sum(one() is not None for one in made))
                x = x + 1
                made.append(weakref.ref(x))
                return self.head(x)

        made = []
        net = Watched()
        with torch.no_grad(), capture(net) as embedding:
            for _ in range(3):
                net(torch.randn(2, 4))
                assert made[-1]() is not None
        gc.collect()
        assert alive == [0, 0, 0]
        assert made[-1]() is None
        del embedding

    def test_is_part_of_the_graph(self):
        net = make_net()
        with capture(net) as embedding:
            net(torch.randn(2, 4))
            embedding().sum().backward()
        assert net[0].weight.grad is not None

    @pytest.mark.parametrize("layer", [None, "1"])
    def test_in_inference_mode(self, layer):
        net, rows = make_net().eval(), make_rows()
        with torch.inference_mode(), capture(net, layer) as embedding:
            net(rows)
            assert embedding().shape == (N, 5)

    @pytest.mark.parametrize("layer", [None, "0", "_orig_mod.0"])
    def test_a_compiled_module_is_watched_too(self, layer):
        net, rows = make_net().eval(), make_rows()
        expected = net[0](rows) if layer else net[:-1](rows)
        compiled = torch.compile(net, backend="eager")
        compiled(rows)  # compiled code has no hooks
        with capture(compiled, layer) as embedding:
            compiled(rows)
            assert torch.equal(embedding(), expected)
        assert torch.equal(embed(compiled, rows, layer=layer, progress=False).features, expected)


class Images(Dataset):
    """Notes which rows are read."""

    def __init__(self, rows, make=lambda row, label: (row, label), fails_at=None):
        self.rows, self.make, self.fails_at = rows, make, fails_at
        self.read = []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        self.read.append(number)
        if number == self.fails_at:
            raise OSError("no such picture")
        return self.make(self.rows[number], number)


class Endless(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class Foreign:
    """A data set of another library."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        raise AssertionError("its items are no batches")

    def __getitem__(self, number):
        return {"pixel_values": self.rows[number], "label": number}

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


def uneven(rows):
    return [rows[:1], rows[1:1], rows[1:10], rows[10:11], rows[11:]]


KINDS = {
    "tensor": lambda rows: rows,
    "array": lambda rows: rows.numpy(),
    "foreign bytes": lambda rows: rows.numpy().astype(">f4"),
    "backwards": lambda rows: rows.flip(0).numpy()[::-1],
    "dataset": Images,
    "dataset of rows": lambda rows: Images(rows, lambda row, label: row),
    "dataset of mappings": lambda rows: Images(rows, lambda row, label: {"input": row, "labels": label}),
    "iterable dataset": Endless,
    "loader": lambda rows: DataLoader(TensorDataset(rows), batch_size=ROWS_PER_BATCH),
    "loader with a batch sampler": lambda rows: DataLoader(
        TensorDataset(rows), batch_sampler=BatchSampler(SequentialSampler(rows), ROWS_PER_BATCH, drop_last=False)
    ),
    "loader of batches": lambda rows: DataLoader(rows.split(ROWS_PER_BATCH), batch_size=None),
    "loader of an iterable": lambda rows: DataLoader(Endless(rows), batch_size=ROWS_PER_BATCH),
    "loader of another kind": lambda rows: type("Loader", (DataLoader,), {})(rows, batch_size=ROWS_PER_BATCH),
    "batches": lambda rows: rows.split(ROWS_PER_BATCH),
    "uneven batches": uneven,
    "batches of arrays": lambda rows: [[part.numpy(), None] for part in rows.split(ROWS_PER_BATCH)],
    "generator": lambda rows: ((part, "label") for part in rows.split(ROWS_PER_BATCH)),
}


def run(module, data, **more):
    return embed(module, data, **{"batch_size": ROWS_PER_BATCH, "progress": False} | more)


class Flexible(nn.Module):
    """Takes its rows by position or as `input`."""

    def __init__(self):
        super().__init__()
        self.net = make_net()

    def forward(self, input):  # noqa: A002
        return self.net(input)


class TestEmbed:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_of_data_gives_the_same(self, kind):
        rows = make_rows()
        found = run(Flexible(), KINDS[kind](rows))
        for values, expected in zip(found, reference(make_net(), rows), strict=True):
            assert type(values) is torch.Tensor
            assert values.dtype == torch.float32
            torch.testing.assert_close(values, expected)

    def test_a_mapped_file_and_one_row(self, tmp_path):
        rows = make_rows()
        np.save(tmp_path / "rows.npy", rows.numpy().astype(np.float64))
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        torch.testing.assert_close(run(make_net(), mapped), Outputs(*reference(make_net(), rows)))
        torch.testing.assert_close(run(make_net(), rows[:1]), Outputs(*reference(make_net(), rows[:1])))

    def test_draws_no_random_numbers(self):
        net, rows = make_net(), make_rows()
        state = torch.get_rng_state()
        for data in (rows, Images(rows), rows.split(4)):
            run(net, data)
        assert torch.equal(torch.get_rng_state(), state)

    def test_workers_read_a_data_set(self):
        rows = make_rows()
        found = run(make_net(), TensorDataset(rows), num_workers=1)
        torch.testing.assert_close(found.features, reference(make_net(), rows)[0])

    def test_batches_have_the_size_that_was_asked_for(self):
        sizes = []
        net = make_net()
        net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        run(net, make_rows())
        assert sizes == [4, 4, 4, 4, 4, 2]
        embed(net, make_rows(), progress=False)
        assert sizes[6:] == [22]

    @pytest.mark.parametrize(
        "answer",
        [
            lambda logits: logits,
            lambda logits: SimpleNamespace(logits=logits),
            lambda logits: {"loss": None, "logits": logits},
            lambda logits: (logits, "more"),
            lambda logits: namedtuple("Output", "logits other")(logits, None),
        ],
    )
    def test_logits_may_come_in_several_ways(self, answer):
        net, rows = Speaker(answer), make_rows()
        found = run(net, [{"pixel_values": rows, "labels": torch.zeros(N), "label": 3}])
        assert torch.equal(found.features, net.body(rows))
        assert torch.equal(found.logits, net.classifier(net.body(rows)))

    @pytest.mark.parametrize("answer", [lambda _: None, lambda _: ("a",), lambda _: {}, lambda _: (), lambda _: [_]])
    def test_an_answer_without_logits(self, answer):
        with pytest.raises(CapabilityError, match=r"the module must answer with logits: .*; got"):
            run(Speaker(answer), make_rows())

    def test_a_data_set_of_another_library(self):
        net, rows = Speaker(), make_rows()
        assert torch.equal(run(net, Foreign(rows)).features, run(net, rows).features)

    def test_batch_to_inputs(self):
        net, rows = Speaker(), make_rows()
        expected = run(net, rows)
        data = [{"image": part, "more": 1} for part in rows.split(4)]
        ways = {
            "tensor": lambda batch: batch["image"],
            "array": lambda batch: batch["image"].double().numpy(),
            "tuple": lambda batch: (batch["image"], 2.0),
            "mapping": lambda batch: {"pixel_values": batch["image"], "scale": 2.0},
        }
        for name, way in ways.items():
            found = run(net, data, batch_to_inputs=way)
            torch.testing.assert_close(found.features, expected.features)
            torch.testing.assert_close(found.logits, expected.logits * (1 if name in ("tensor", "array") else 2))
        with pytest.raises(ConfigError, match="batch_to_inputs must return a tensor, a tuple or a mapping, got list"):
            run(net, data, batch_to_inputs=lambda batch: [batch["image"]])

    def test_tensors_inside_are_cast_where_they_are_floating(self):
        class Nested(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 2, dtype=torch.float64)

            def forward(self, x, kind, pair):
                assert x["rows"][0].dtype == pair.left.dtype == torch.float64
                assert kind.dtype == torch.int64
                assert pair.right == "text"
                return self.head(x["rows"][0])

        pair = namedtuple("Pair", "left right")
        batch = {
            "x": {"rows": [torch.randn(2, 4)]},
            "kind": torch.arange(2),
            "pair": pair(torch.ones(2).half(), "text"),
        }
        found = run(Nested(), [batch])
        assert found.features.dtype == found.logits.dtype == torch.float64

    def test_everything_is_as_before_also_after_an_error(self):
        net = Counting(fails_at=8)
        net.net[2].eval()
        net.net[0].weight.requires_grad_(False)
        before = state_of(net)
        expected = reference(make_net(), make_rows())
        torch.testing.assert_close(run(net, make_rows()), Outputs(*expected))
        assert state_of(net) == before
        with pytest.raises(RuntimeError, match="the pass failed") as caught:
            run(net, make_rows())
        assert caught.value.__notes__ == ["in the forward pass of batch 2"]
        assert state_of(net) == before
        with torch.no_grad():
            run(net.net, make_rows())
            assert not torch.is_grad_enabled()

    def test_modes_are_set_without_calling_train(self):
        class Merging(nn.Linear):
            def train(self, mode=True):
                raise AssertionError("merges weights")

        net = nn.Sequential(Merging(4, 2), nn.Dropout())
        torch.testing.assert_close(run(net, make_rows()).logits, net[0](make_rows()).detach())
        assert all(part.training for part in net.modules())

    def test_answers_are_of_use_with_autograd(self):
        with torch.inference_mode():
            found = run(make_net(), make_rows())
        weight = torch.ones(5, requires_grad=True)
        (found.features @ weight).sum().backward()
        torch.testing.assert_close(weight.grad, found.features.sum(0))
        assert not found.features.requires_grad

    def test_answers_share_no_memory_with_the_data(self):
        rows = make_rows()

        def refilled():
            room = torch.empty(4, 4)
            for part in rows.split(4):
                yield room[: len(part)].copy_(part)

        found = run(nn.Linear(4, 2), refilled())
        assert torch.equal(found.features, rows)
        whole = run(nn.Linear(4, 2), rows, batch_size=N)
        whole.features.zero_()
        assert rows.any()

    @pytest.mark.parametrize(
        ("precision", "dtype"),
        [
            ("fp32", torch.float32),
            ("fp64", torch.float64),
            ("bf16-mixed", torch.float32),
            ("fp16-mixed", torch.float32),
        ],
    )
    def test_precisions(self, precision, dtype):
        net, rows = make_net(), make_rows()
        seen = []
        net.register_forward_hook(lambda *_: seen.append(_[2].dtype))
        found = run(net, rows, precision=precision)
        assert found.features.dtype == found.logits.dtype == dtype
        inside = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}.get(precision, dtype)
        assert set(seen) == {inside}
        assert {one.dtype for one in net.parameters()} == {torch.float32}
        tolerance = {"rtol": 0.05, "atol": 0.05} if "mixed" in precision else {}
        for values, expected in zip(found, reference(net.to(dtype), rows.to(dtype)), strict=True):
            torch.testing.assert_close(values, expected, **tolerance)

    def test_the_callers_autocast_changes_nothing(self):
        expected = run(make_net(), make_rows())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = run(make_net(), make_rows())
            assert torch.is_autocast_enabled("cpu")
        assert torch.equal(found.logits, expected.logits)

    def test_a_half_precision_module_answers_in_float32(self):
        found = run(make_net().bfloat16(), make_rows())
        assert found.features.dtype == found.logits.dtype == torch.float32

    def test_a_module_without_parameters(self):
        rows = make_rows()
        torch.testing.assert_close(run(nn.Tanh(), rows, layer="").features, rows.tanh())

    @pytest.mark.gpu
    @pytest.mark.parametrize("kind", ["tensor", "dataset", "generator"])
    def test_on_another_device_a_copy_runs(self, kind, tmp_path):
        net, rows = make_net(), make_rows()
        found = run(net, KINDS[kind](rows), device="cuda")
        assert found.features.device == found.logits.device == torch.device("cuda", 0)
        assert {one.device.type for one in net.parameters()} == {"cpu"}
        torch.testing.assert_close(found.features.cpu(), reference(net, rows)[0])
        stored = run(net.cuda(), KINDS[kind](rows), out=tmp_path / "features.npy")
        assert np.array_equal(stored.logits, found.logits.cpu())

    @pytest.mark.gpu
    @pytest.mark.parametrize("kind", ["tensor", "dataset of rows", "dataset of mappings", "loader", "generator"])
    def test_rows_that_are_there_stay_there(self, kind, tmp_path):
        rows = make_rows().cuda()
        net = Flexible().cuda()
        with HostCopies() as copies:
            found = run(net, KINDS[kind](rows))
        assert found.features.is_cuda
        assert found.logits.is_cuda
        assert copies.largest <= 1
        for values, expected in zip(found, reference(make_net(), make_rows()), strict=True):
            torch.testing.assert_close(values.cpu(), expected)
        stored = run(net, KINDS[kind](rows), out=tmp_path / "features.npy")
        assert isinstance(stored.features, np.memmap)
        assert np.array_equal(stored.features, found.features.cpu())
        assert np.array_equal(stored.logits, found.logits.cpu())
        again = run(net, KINDS[kind](rows), out=tmp_path / "features.npy")  # is read, not made again
        assert np.array_equal(again.features, stored.features)

    @pytest.mark.gpu
    @pytest.mark.parametrize("home", ["cpu", "cuda"])
    def test_a_pass_there_that_was_cut_off_goes_on(self, home, tmp_path):
        rows = make_rows().to(home)
        net = Counting(fails_at=3).cuda()
        with pytest.raises(RuntimeError, match="the pass failed"):
            run(net, rows, out=tmp_path / "features.npy")
        net.fails_at = None
        net.n_passes = 0
        found = run(net, rows, out=tmp_path / "features.npy")
        assert net.n_passes == 3  # of six batches
        whole = run(make_net().cuda(), rows)
        assert np.array_equal(found.features, whole.features.cpu())
        assert np.array_equal(found.logits, whole.logits.cpu())

    @pytest.mark.gpu
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of a fork beside CUDA's threads
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_a_data_set_of_the_host_is_pinned_by_workers(self, num_workers, tmp_path):
        expected = reference(make_net(), make_rows())
        for out in (None, tmp_path / "features.npy"):
            found = run(make_net(), Images(make_rows()), device="cuda", num_workers=num_workers, out=out)
            features = found.features.cpu() if out is None else torch.tensor(found.features)
            torch.testing.assert_close(features, expected[0])

    @pytest.mark.gpu
    def test_a_mapped_file_is_read_there(self, tmp_path):
        np.save(tmp_path / "rows.npy", make_rows().numpy())
        found = run(make_net(), np.load(tmp_path / "rows.npy", mmap_mode="r"), device="cuda")
        assert found.features.is_cuda
        torch.testing.assert_close(found.features.cpu(), reference(make_net(), make_rows())[0])

    @pytest.mark.gpu
    @pytest.mark.parametrize("precision", ["fp64", "bf16-mixed", "fp16-mixed"])
    def test_precisions_there(self, precision):
        found = run(make_net().cuda(), make_rows().cuda(), precision=precision)
        expected = reference(make_net(), make_rows())
        tolerance = 1e-5 if precision == "fp64" else 0.05
        for values, want in zip(found, expected, strict=True):
            assert values.is_cuda
            assert values.dtype == (torch.float64 if precision == "fp64" else torch.float32)
            torch.testing.assert_close(values.cpu().float(), want, rtol=tolerance, atol=tolerance)

    def test_progress(self, capsys):
        run(make_net(), make_rows(), progress=True)
        assert "22/22" in capsys.readouterr().err
        run(make_net(), make_rows().split(4), progress=True)
        assert "6/6" in capsys.readouterr().err
        run(make_net(), make_rows())
        assert not capsys.readouterr().err


class Ragged(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]


class TestErrors:
    @pytest.mark.parametrize(
        ("data", "match"),
        [
            (torch.empty(0, 4), r"no rows: shape \(0, 4\)"),
            (torch.tensor(1.0), r"no rows: shape \(\)"),
            (np.empty((0, 4)), "no rows"),
            (TensorDataset(torch.empty(0, 4)), "no rows: TensorDataset of length 0"),
            (DataLoader(TensorDataset(torch.empty(0, 4))), "no rows"),
            ([], "no batches: list of length 0"),
            (iter([]), "has 0 rows in 0 batches"),
            ([torch.empty(0, 4)], "has 0 rows in 1 batches"),
            (np.array(["a"]), "numbers that torch has, got an array of <U1"),
            (np.ones((2, 4), dtype=np.longdouble), "numbers that torch has"),
            ("rows.npy", "got str"),
            ({"x": torch.ones(2, 4)}, "got dict"),
            (3, "data must be a tensor, an array, a Dataset, a DataLoader or an iterable of batches, got int"),
            (Dataset(), "a data set must have a length, Dataset has none"),
            ([3], "a batch must be .*, got int; give batch_to_inputs"),
            ([()], "got a tuple of 0"),
        ],
    )
    def test_data_that_cannot_be_used(self, data, match):
        with pytest.raises(DataError, match=match):
            run(make_net(), data)

    def test_settings(self):
        rows = make_rows()
        for name, value, match in [
            ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
            ("batch_size", 2.5, "got 2.5"),
            ("num_workers", -1, "num_workers"),
            ("progress", "no", "progress must be true or false"),
            ("precision", "fp8", "precision must be one of fp32, fp64, bf16-mixed, fp16-mixed; got 'fp8'"),
            ("device", "cuda:99", "there is no device 'cuda:99' here"),
            ("device", "abacus", "there is no device 'abacus' here"),
            ("device", "meta", "nothing is computed"),
            ("layer", "nope", "no layer 'nope'"),
            ("out", "features.pt", "out must be the path of an .npy file or of a folder, got 'features.pt'"),
            ("shard_rows", 10, "shard_rows is for a folder of shards; out is nothing: give a folder"),
            ("ids", list(range(N)), "ids is for a folder of shards; out is nothing"),
        ]:
            with pytest.raises(ConfigError, match=match):
                run(make_net(), rows, **{name: value})
        with pytest.raises(CapabilityError, match=r"module must be an nn\.Module, got function"):
            run(make_rows, rows)
        with pytest.raises(CapabilityError, match=r"has no nn\.Linear"):
            run(nn.Tanh(), rows)

    def test_loaders_whose_rows_have_another_order(self):
        rows = TensorDataset(make_rows())
        for settings_, match in [
            (
                {"shuffle": True},
                "read its TensorDataset in order, its rows are drawn by a RandomSampler: use shuffle=False",
            ),
            ({"sampler": [3, 1]}, "drawn by a list"),
            ({"batch_sampler": [[3, 1]]}, "drawn by a list"),
            ({"drop_last": True, "batch_size": 4}, "leaves out the last 2 of 22 rows: use drop_last=False"),
            ({"num_workers": 1, "in_order": False}, "in_order=False"),
        ]:
            with pytest.raises(ConfigError, match=match):
                run(make_net(), DataLoader(rows, **settings_))
        run(make_net(), DataLoader(rows, batch_size=11, drop_last=True))
        with pytest.raises(ConfigError, match="leaves out the last rows of its Endless"):
            run(make_net(), DataLoader(Endless(make_rows()), batch_size=4, drop_last=True))

    @pytest.mark.parametrize("known", [True, False])
    def test_values_that_are_not_finite(self, known):
        rows = make_rows()
        rows[13] = torch.nan
        with pytest.raises(
            DataError, match="features must be finite: 1 of 4 rows of batch 3 are not, the first is row 13"
        ):
            run(make_net(), rows if known else rows.split(4))
        net = make_net()
        net[3].bias.data[1] = torch.inf
        with pytest.raises(
            DataError, match="logits must be finite: 4 of 4 rows of batch 0 are not, the first is row 0"
        ):
            run(net, make_rows() if known else make_rows().split(4))

    def test_an_item_that_cannot_be_read(self):
        with pytest.raises(DataError, match=r"row 9 of the data set \(Images\) .*: OSError: no such picture") as caught:
            run(make_net(), Images(make_rows(), fails_at=9))
        assert caught.value.__notes__ == ["while reading batch 2"]
        with pytest.raises(OSError, match="no such picture") as caught:  # a loader's own errors are let through
            run(make_net(), DataLoader(Images(make_rows(), fails_at=9), batch_size=4))
        assert caught.value.__notes__ == ["while reading batch 2"]

    def test_a_module_without_weights_yet(self):
        net = nn.Sequential(nn.LazyLinear(3))
        with pytest.raises(CapabilityError, match="Sequential has weights that its first pass will make: run it once"):
            run(net, make_rows())
        net(make_rows())
        run(net, make_rows())

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda x: x[:, None], r"logits must be \(n, C\), got shape \(4, 1, 3\) in batch 0"),
            (lambda x: x[:, 0], r"logits must be \(n, C\), got shape \(4,\) in batch 0"),
            (lambda x: x[:, :0], r"logits must have shape \(4, 0\), got \(4, 0\) in batch 0"),
            (lambda x: x[:3], r"logits must have shape \(4, 3\), got \(3, 3\) in batch 0"),
            (lambda x: x[:, : len(x)], r"logits must have shape \(2, 3\), got \(2, 2\) in batch 5"),
        ],
    )
    def test_logits_of_another_shape(self, make, match):
        for data in (make_rows(), make_rows().split(4)):
            known = torch.is_tensor(data)
            wanted = (ShapeError, match) if known else ((ShapeError, CapabilityError), "must (be|have)|is not its head")
            with pytest.raises(wanted[0], match=wanted[1]):
                run(Speaker(make), data)

    def test_features_of_another_shape(self):
        class Transposed(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 3)

            def forward(self, x):
                return self.head(x.repeat(2, 1))[: len(x)]

        with pytest.raises(CapabilityError, match=r"is not its head: it gave \(8, 3\) and the network \(4, 3\); name"):
            run(Transposed(), make_rows())
        with pytest.raises(ShapeError, match=r"features must have shape \(4, 3\), got \(8, 3\) in batch 0"):
            run(Transposed(), make_rows(), layer="head")

    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_a_row_that_cannot_be_read_is_named(self, num_workers):
        class Broken(torch.utils.data.Dataset):
            def __len__(self):
                return 22

            def __getitem__(self, row):
                if row == 13:
                    raise OSError("bad sector")
                return make_rows()[row]

        expected = r"^row 13 of the data set \(Broken\) cannot be read: OSError: bad sector"
        with pytest.raises(DataError, match=expected):
            run(make_net(), Broken(), num_workers=num_workers)

    def test_rows_of_several_shapes(self):
        ragged = [*make_rows()[:3], torch.zeros(7)]
        with pytest.raises(DataError, match=r"cannot be put together: .* give a DataLoader with a collate_fn"):
            run(make_net(), Ragged(ragged))

    def test_a_linear_layer_that_is_not_the_head(self):
        class Squeezed(nn.Module):
            def __init__(self):
                super().__init__()
                self.squeeze, self.head = nn.Linear(4, 2), nn.Conv1d(4, 3, 1)

            def forward(self, x):
                return self.head(x[..., None]).flatten(1) * self.squeeze(x).mean(1, keepdim=True)

        with pytest.raises(CapabilityError, match=r"is not its head: it gave \(4, 2\) and the network \(4, 3\); name"):
            run(Squeezed(), make_rows())
        assert run(Squeezed(), make_rows(), layer="squeeze").features.shape == (22, 2)

    def test_layers_that_differ_in_a_setting_only(self, tmp_path):
        nets = [nn.Sequential(nn.LeakyReLU(slope), nn.Linear(4, 3)) for slope in (0.1, 0.9)]
        nets[1].load_state_dict(nets[0].state_dict())
        run(nets[0], make_rows(), out=tmp_path / "features.npy")
        with pytest.raises(ConfigError, match="of something else: module was"):
            run(nets[1], make_rows(), out=tmp_path / "features.npy")

    def test_a_list_with_more_batches(self, tmp_path):
        run(make_net(), list(make_rows().split(4)), out=tmp_path / "features.npy")
        with pytest.raises(ConfigError, match="of something else: n_batches was 6, is 3"):
            run(make_net(), list(make_rows().split(4))[:3], out=tmp_path / "features.npy")

    def test_the_data_are_read_outside_of_the_precision(self):
        class Mixing(torch.utils.data.Dataset):
            def __len__(self):
                return 22

            def __getitem__(self, row):
                return make_rows()[row] @ torch.eye(4)

        net = make_net()
        mixed = run(net, Mixing(), precision="bf16-mixed")
        torch.testing.assert_close(mixed, run(net, make_rows(), precision="bf16-mixed"), rtol=0, atol=0)

    def test_three_things_in_a_batch_need_a_word(self):
        batches = [(rows, rows > 0, torch.zeros(len(rows))) for rows in make_rows().split(4)]
        with pytest.raises(DataError, match="got a tuple of 3; give batch_to_inputs"):
            run(make_net(), batches)
        assert run(make_net(), batches, batch_to_inputs=lambda batch: batch[0]).features.shape == (22, 5)

    def test_the_batch_before_one_that_fails_is_kept(self, tmp_path):
        def batches():
            yield from make_rows().split(4)[:2]
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            run(make_net(), batches(), out=tmp_path / "features.npy")
        journal = (tmp_path / "features.npy.json.partial").read_text().splitlines()
        assert len(journal) == 1 + 2

    def test_a_loader_that_makes_fewer_rows_than_its_data_set_has(self):
        def leave_out(items):
            return torch.stack(items[:-1])

        with pytest.raises(ShapeError, match=r"\(4, 3\), got \(3, 3\)"):
            run(make_net(), DataLoader(make_rows(), batch_size=4, collate_fn=leave_out))

        class Short(DataLoader):
            def __iter__(self):
                return itertools.islice(super().__iter__(), 3)

        with pytest.raises(DataError, match="the data has 12 rows in 3 batches, expected 22"):
            run(make_net(), Short(make_rows(), batch_size=4))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FINISHED = ["features.logits.npy", "features.npy", "features.npy.json"]
PARTIAL = ["features.logits.npy.partial", "features.npy.json.partial", "features.npy.partial"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(Counting(), make_rows(), out=folder / "features.npy")
    return contents(folder)


@pytest.fixture
def interrupted(tmp_path):
    with pytest.raises(RuntimeError, match="the pass failed"):
        run(Counting(fails_at=3), make_rows(), out=tmp_path / "features.npy")
    return tmp_path


class TestFiles:
    @pytest.mark.parametrize("kind", KINDS)
    def test_hold_what_memory_would(self, kind, tmp_path):
        expected = run(Flexible(), KINDS[kind](make_rows()))
        found = run(Flexible(), KINDS[kind](make_rows()), out=tmp_path / "a" / "features.npy")
        assert names(tmp_path / "a") == FINISHED
        for values, tensor, name in zip(found, expected, ("features.npy", "features.logits.npy"), strict=True):
            assert isinstance(values, np.memmap)
            assert not values.flags.writeable
            assert np.array_equal(values, tensor)
            loaded = np.load(tmp_path / "a" / name)
            assert loaded.dtype == np.float32
            assert np.array_equal(loaded, tensor)

    def test_are_read_by_the_kernels(self, tmp_path):
        found = run(make_net(), make_rows(), out=str(tmp_path / "features.npy"))
        assert FeatureReader(found.features).read(0, N).equal(run(make_net(), make_rows()).features)

    def test_of_double_precision_and_one_row(self, tmp_path):
        found = run(make_net(), make_rows(1), out=tmp_path / "features.npy", precision="fp64")
        assert found.features.shape == (1, 5)
        assert found.logits.dtype == np.float64

    def test_unfinished_ones_are_not_mistaken(self, interrupted):
        assert names(interrupted) == PARTIAL
        for name in PARTIAL:
            with pytest.raises(ValueError, match="allow_pickle"):
                np.load(interrupted / name)

    def test_finished_ones_are_read_without_a_pass(self, tmp_path, undisturbed):
        run(Counting(), make_rows(), out=tmp_path / "features.npy")
        assert contents(tmp_path) == undisturbed
        (tmp_path / "features.npy.json.partial").touch()
        module = Counting()
        found = run(module, make_rows(), out=tmp_path / "features.npy")
        assert module.n_passes == 0
        assert np.array_equal(found.features, run(module, make_rows()).features)

    def test_finished_ones_may_come_from_another_device(self, tmp_path):
        run(Counting(), make_rows(), out=tmp_path / "features.npy")
        about = tmp_path / "features.npy.json"
        about.write_text(about.read_text().replace('"cpu"', '"cuda"'))
        run(Counting(), make_rows(), out=tmp_path / "features.npy")

    @pytest.mark.parametrize("finished", [True, False])
    @pytest.mark.parametrize(
        "what", ["weights", "buffers", "layer", "precision", "batch_size", "n_rows", "first_batch", "batch_to_inputs"]
    )
    def test_of_something_else_are_refused(self, what, finished, tmp_path):
        out = tmp_path / "features.npy"
        module, data, more = Counting(fails_at=None if finished else 3), make_rows(), {}
        module.register_buffer("scale", torch.ones(1))
        try:
            run(module, data, out=out)
        except RuntimeError:
            assert not finished
        before = contents(tmp_path)
        if what == "weights":
            module.net[0].weight.data[0, 0] += 1
        elif what == "buffers":
            module.scale += 1
        elif what in ("layer", "precision", "batch_size"):
            more = {what: {"layer": "net.1", "precision": "bf16-mixed", "batch_size": 5}[what]}
        elif what == "n_rows":
            data = make_rows()[:20]
        elif what == "first_batch":
            data[3, 3] += 1
        else:
            more = {"batch_to_inputs": lambda batch: batch + 1}
        named = {"weights": "module", "buffers": "module", "batch_to_inputs": "first_batch"}.get(what, what)
        files = r"features\.npy, features\.logits\.npy, features\.npy\.json"
        if not finished:
            files = files.replace("npy,", r"npy\.partial,").replace("json", r"json\.partial")
        with pytest.raises(ConfigError, match=rf"of something else: {named} was .*, is .*delete {files}$"):
            run(module, data, out=out, **more)
        assert contents(tmp_path) == before

    def test_settings_that_mean_the_same_are_no_difference(self, tmp_path):
        net = make_net()
        for more in ({}, {"precision": "fp32"}, {"device": "cpu"}, {"num_workers": 0}):
            run(net, make_rows(), out=tmp_path / "features.npy", **more)
        run(net.eval(), DataLoader(TensorDataset(make_rows()), batch_size=4), out=tmp_path / "features.npy")
        named = Named()
        run(named, make_rows(), out=tmp_path / "named.npy")
        run(named, make_rows(), out=tmp_path / "named.npy", layer="first")

    def test_of_somebody_else_are_left_alone(self, tmp_path):
        for name in FINISHED[:2]:
            np.save(tmp_path / name, np.ones((2, 2)))
            with pytest.raises(
                ConfigError, match=r"is there already, without features.*; delete it, or choose another"
            ):
                run(make_net(), make_rows(), out=tmp_path / "features.npy")
            assert np.load(tmp_path / name).tolist() == [[1, 1], [1, 1]]
            (tmp_path / name).unlink()
            assert not names(tmp_path)
        run(make_net(), make_rows(), out=tmp_path / "features.npy")
        np.save(tmp_path / "features.npy", np.ones((22, 5)))
        with pytest.raises(RunError, match=r"features.npy is damaged: it has numbers of float64, float32 was written"):
            run(make_net(), make_rows(), out=tmp_path / "features.npy")
        (tmp_path / "features.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(RunError, match=r"features.npy is damaged: it cannot be read as .npy"):
            run(make_net(), make_rows(), out=tmp_path / "features.npy")
        np.save(tmp_path / "features.npy", np.ones((2, 2), dtype=np.float32))
        with pytest.raises(RunError, match=r"features.npy is damaged: it has shape \(2, 2\), \(22, 5\) was written"):
            run(make_net(), make_rows(), out=tmp_path / "features.npy")

    def test_that_were_deleted_are_made_again(self, tmp_path, undisturbed):
        out = tmp_path / "features.npy"
        run(Counting(), make_rows(), out=out)
        out.unlink()
        (tmp_path / "features.logits.npy").unlink()
        with pytest.raises(RuntimeError):
            run(Counting(fails_at=3), make_rows(), out=out)
        assert names(tmp_path) == PARTIAL  # no old file says that they are whole
        run(Counting(), make_rows(), out=out)
        assert contents(tmp_path) == undisturbed

    def test_without_a_row_are_begun_anew(self, tmp_path, undisturbed):
        with pytest.raises(RuntimeError, match="the pass failed"):
            run(Counting(fails_at=0), make_rows() + 1, out=tmp_path / "features.npy")
        assert names(tmp_path) == PARTIAL
        run(Counting(), make_rows(), out=tmp_path / "features.npy")
        assert contents(tmp_path) == undisturbed

    def test_damaged_notes(self, interrupted):
        journal = interrupted / "features.npy.json.partial"
        whole = journal.read_bytes()
        journal.write_bytes(b"{nothing\n" + whole)
        with pytest.raises(RunError, match=r"features.npy.json.partial is damaged"):
            run(Counting(), make_rows(), out=interrupted / "features.npy")
        journal.write_bytes(whole)
        run(Counting(), make_rows(), out=interrupted / "features.npy")
        (interrupted / "features.npy.json").write_text("[]")
        with pytest.raises(RunError, match=r"features.npy.json is damaged"):
            run(Counting(), make_rows(), out=interrupted / "features.npy")

    def test_one_process_at_a_time(self, interrupted):
        journal = interrupted / "features.npy.json.partial"
        lock = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True)"
        command = [sys.executable, "-c", f"{lock}; input()", str(journal)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            with pytest.raises(RunError, match=r"features\.npy is being written by another process"):
                run(Counting(), make_rows(), out=interrupted / "features.npy")
            process.kill()
        run(Counting(), make_rows(), out=interrupted / "features.npy")


class TestResume:
    def test_goes_on_where_it_stopped(self, interrupted, undisturbed, capsys):
        module = Counting()
        run(module, make_rows(), out=interrupted / "features.npy", progress=True)
        assert module.n_passes == 3
        assert contents(interrupted) == undisturbed
        bar = capsys.readouterr().err.split("\r")
        assert "12/22" in bar[1]
        assert "22/22" in bar[-1]

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_of_data(self, kind, tmp_path):
        expected = run(Flexible(), KINDS[kind](make_rows()))

        class Failing(Flexible):
            def __init__(self, n):
                super().__init__()
                self.n = n

            def forward(self, input):  # noqa: A002
                self.n -= 1
                if self.n < 0:
                    raise RuntimeError
                return super().forward(input)

        for n_passes in (0, 1, 2, 9):
            module = Failing(n_passes)
            try:
                found = run(module, KINDS[kind](make_rows()), out=tmp_path / "features.npy")
            except RuntimeError:
                assert n_passes < 9
        assert module.n == 9 - ((5 if kind == "uneven batches" else 6) - 3)
        assert np.array_equal(found.features, expected.features)
        assert np.array_equal(found.logits, expected.logits)

    @pytest.mark.parametrize("loader", [True, False])
    def test_rows_that_are_done_are_not_read(self, loader, interrupted, undisturbed):
        images = Images(make_rows())
        data = DataLoader(images, batch_size=ROWS_PER_BATCH) if loader else images
        run(Counting(), data, out=interrupted / "features.npy")
        assert images.read == [0, 1, 2, 3, *range(12, 22)]  # batch 0 tells that the data is the same
        assert contents(interrupted) == undisturbed

    def test_another_device_does_not_go_on(self, interrupted):
        journal = interrupted / "features.npy.json.partial"
        journal.write_bytes(journal.read_bytes().replace(b'"cpu"', b'"cuda"'))
        with pytest.raises(ConfigError, match="device was 'cuda', is 'cpu'"):
            run(Counting(), make_rows(), out=interrupted / "features.npy")

    @given(
        cuts=st.tuples(*(st.integers(0, 400) for _ in range(2))), journal=st.integers(0, 500), seed=st.integers(0, 3)
    )
    @settings(max_examples=60, deadline=None)
    def test_after_any_bytes_are_lost(self, cuts, journal, seed, tmp_path_factory):
        folder = tmp_path_factory.mktemp("cut")
        with pytest.raises(RuntimeError):
            run(Counting(fails_at=5), make_rows(), out=folder / "features.npy")
        sizes = []
        for name, cut in zip(("features.npy.partial", "features.logits.npy.partial"), cuts, strict=True):
            os.truncate(folder / name, min(cut + 130 * seed, (folder / name).stat().st_size))
            sizes.append((folder / name).stat().st_size)
        noted = folder / "features.npy.json.partial"
        n_noted = 5
        if seed == 0:
            os.truncate(noted, min(journal, noted.stat().st_size))
            n_noted = max(0, noted.read_bytes().count(b"\n") - 1)
        held = [max(0, size - 128) // (4 * width) for size, width in zip(sizes, (5, 3), strict=True)]
        module = Counting()
        found = run(module, make_rows(), out=folder / "features.npy")
        assert module.n_passes == 6 - min(*(rows // ROWS_PER_BATCH for rows in held), n_noted)
        expected = run(module, make_rows())
        assert np.array_equal(found.features, expected.features)
        assert np.array_equal(found.logits, expected.logits)
        assert names(folder) == FINISHED

    def test_after_a_kill_from_outside(self, tmp_path, undisturbed):
        with subprocess.Popen([sys.executable, "-m", "tests.embedding.test_embed", str(tmp_path)], cwd=ROOT) as process:
            passes = tmp_path / "passes"
            while not passes.exists() or passes.stat().st_size < 3:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        n_before = passes.stat().st_size
        passes.unlink()
        assert names(tmp_path) == PARTIAL
        noted = (tmp_path / "features.npy.json.partial").read_bytes().count(b"\n") - 1
        assert 1 <= noted <= n_before < 6
        module = Counting()
        run(module, make_rows(), out=tmp_path / "features.npy")
        assert module.n_passes == 6 - noted
        assert contents(tmp_path) == undisturbed

    def test_after_a_kill_at_any_line(self, tmp_path, undisturbed):
        passes = forks.answer(run_and_be_killed_at_every_line, tmp_path)
        assert len(passes) > 12
        assert passes[0] == 6
        assert passes[-1] == 0
        assert passes == sorted(passes, reverse=True)
        folders = list(tmp_path.iterdir())
        assert len(folders) == len(passes)
        for folder in folders:
            assert contents(folder) == undisturbed


def run_slowly(folder):
    """Note each pass and wait, to be killed from outside."""
    module = Counting()

    def note(*_):
        with (folder / "passes").open("a") as file:
            file.write("x")
        time.sleep(0.2)

    module.register_forward_hook(note)
    run(module, Images(make_rows()), out=folder / "features.npy", num_workers=1)  # which outlives this process


def run_and_be_killed(folder, line):
    """Embed in a process that is killed before the n-th line that the writer executes; tell whether it came so far."""
    process = os.fork()
    if process:
        return os.WIFSIGNALED(os.waitpid(process, 0)[1])
    n_lines = 0

    def trace(frame, event, _):
        nonlocal n_lines
        if frame.f_code.co_filename != npy_stream.__file__:
            return None
        n_lines += event == "line"
        if n_lines > line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    run(Counting(), make_rows(), out=folder / "features.npy")
    os._exit(0)


def run_and_be_killed_at_every_line(folder):
    """Return how many passes it took to go on, for each line."""
    passes, run_on, lines = [], True, itertools.count(step=11)
    while run_on:
        line = next(lines)
        place = folder / str(line)
        run_on = run_and_be_killed(place, line)
        module = Counting()
        run(module, make_rows(), out=place / "features.npy")
        passes.append(module.n_passes)
    return passes


if __name__ == "__main__":
    run_slowly(Path(sys.argv[1]))
