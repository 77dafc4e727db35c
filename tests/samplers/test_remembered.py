import numpy as np
import pytest
import torch

from torchal.samplers.remembered import Remembered


def write_in_place(x):
    x[3] += 1


def write_by_numpy(x):
    x.numpy()[3] += 1


def write_by_another_wrapper(x):
    torch.from_numpy(x.numpy())[3].add_(1)


def write_to_data(x):
    x.data.add_(1)


WRITES = [write_in_place, write_by_numpy, write_by_another_wrapper, write_to_data]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("ask_with", ["itself", "a new wrapper", "a copy of now"])
def test_writes_are_noticed(write, ask_with):
    buffer = np.random.default_rng(0).random((20, 3))
    x = torch.from_numpy(buffer)
    remembered = Remembered(x)
    assert remembered.is_same(x)
    write(x)
    asked = {"itself": x, "a new wrapper": torch.from_numpy(buffer), "a copy of now": x.clone()}[ask_with]
    assert not remembered.is_same(asked)


@pytest.mark.parametrize("inference", [False, True])
def test_equal_contents_are_the_same_wherever_they_are(inference):
    with torch.inference_mode(inference):
        x = torch.rand(50, 4)
    remembered = Remembered(x)
    assert all(remembered.is_same(y) for y in (x, x.clone(), x.t().contiguous().t(), x[:], x.detach()))
    assert not any(remembered.is_same(y) for y in (x[:49], x.double(), x + 1, x.view(4, 50)))
    with torch.inference_mode(inference):
        x[7, 2] = 9
    assert not remembered.is_same(x)


def test_what_is_kept_of_large_inputs_is_small():
    assert Remembered(torch.zeros(100, 3, 64, 64))._sample.numel() == 4096
    assert Remembered(torch.zeros(0, 3)).is_same(torch.zeros(0, 3))


def test_other_objects_are_known_by_themselves():
    one, other = [1, 2], [1, 2]
    remembered = Remembered(one)
    assert remembered.is_same(one)
    assert not remembered.is_same(other)
    assert not remembered.is_same(torch.tensor(one))
