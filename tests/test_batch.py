from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from torchal._batch import NamedRows, cast, channels_last, each_tensor, logits_of, moved, run
from torchal.errors import CapabilityError

IDS, PIXELS = torch.arange(10).reshape(5, 2), torch.rand(5, 3, 4, 4, dtype=torch.float64)


@pytest.fixture
def rows():
    return NamedRows({"ids": IDS, "pixels": PIXELS})


class TestNamedRows:
    def test_counted_and_cut_as_one_tensor(self, rows):
        assert len(rows) == 5
        assert rows[1:3].tensors["ids"].equal(IDS[1:3])
        assert rows[torch.tensor([4, 0])].tensors["pixels"].equal(PIXELS[[4, 0]])
        for parts in (1, 2, 3, 5, 7):
            found = [part.tensors["ids"] for part in rows.tensor_split(parts)]
            for part, expected in zip(found, IDS.tensor_split(parts), strict=True):
                assert part.equal(expected)

    def test_whole_numbers_stay_what_they_are(self, rows):
        there = rows.to(torch.device("cpu"), torch.float32)
        assert {name: tensor.dtype for name, tensor in there.tensors.items()} == {
            "ids": torch.int64,
            "pixels": torch.float32,
        }
        assert cast(rows, torch.float16).tensors["pixels"].dtype == torch.float16
        assert cast(rows, None) is rows
        assert cast(IDS, torch.float16).dtype == torch.float16  # one tensor is cast whatever it holds

    def test_images_are_put_channels_last(self, rows):
        found = channels_last(rows)
        assert found.tensors["pixels"].is_contiguous(memory_format=torch.channels_last)
        assert found.tensors["ids"].equal(IDS)
        assert channels_last(PIXELS).is_contiguous(memory_format=torch.channels_last)

    def test_names_of_what_is_in_it(self, rows):
        assert [name for name, _ in each_tensor(rows)] == ["X['ids']", "X['pixels']"]
        assert [name for name, _ in each_tensor(IDS)] == ["X"]

    @pytest.mark.gpu
    def test_on_a_device(self, rows):
        there = rows.pin_memory().to(torch.device("cuda"), torch.float32, non_blocking=True)
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.tensors["pixels"].cpu(), PIXELS.float())


@pytest.mark.parametrize(
    "answer",
    [
        lambda logits: logits,
        lambda logits: (logits, "more"),
        lambda logits: SimpleNamespace(logits=logits, loss=None),
        lambda logits: {"loss": None, "logits": logits},
        lambda logits: OrderedDict(logits=logits),
        lambda logits: namedtuple("Answer", "first logits")(None, logits),
        lambda logits: namedtuple("Answer", "scores more")(logits, None),
    ],
)
def test_logits_in_an_answer(answer):
    assert logits_of(answer(IDS)) is IDS


@pytest.mark.parametrize("answer", [None, [IDS], (), ("a", IDS), {}, {"scores": IDS}, SimpleNamespace(scores=IDS)])
def test_answers_without_logits(answer):
    with pytest.raises(CapabilityError, match=rf"must answer with logits: .* got {type(answer).__name__}"):
        logits_of(answer)


def test_one_tensor_goes_in_by_place_and_several_by_name(rows):
    class Net(nn.Module):
        def forward(self, ids, pixels=None):
            return ids if pixels is None else ids + len(pixels)

    assert run(Net(), IDS) is IDS
    assert run(Net(), rows).equal(IDS + 5)


def test_what_is_moved_keeps_its_structure():
    pair = namedtuple("Pair", "a b")
    value = {"x": [np.ones(2, ">f4"), "text"], "y": pair(torch.ones(2, dtype=torch.float64), (IDS,))}
    found = moved(value, torch.device("cpu"), torch.float16)
    assert found["x"][0].dtype == found["y"].a.dtype == torch.float16
    assert found["x"][1] == "text"
    assert found["y"].b[0] is IDS
    assert moved(value, torch.device("cpu"), None)["y"].a.dtype == torch.float64
