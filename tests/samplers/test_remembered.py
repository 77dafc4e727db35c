import gc
import importlib

import numpy as np
import pytest
import torch

from torchal import ActiveLearner, LogisticRegression, Pool
from torchal.samplers import GraphDensity, Hierarchical, InformativeDiverse, remembered
from torchal.samplers.remembered import Remembered, shared_by_samplers


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


class TestSharedBySamplers:
    def test_it_is_computed_once_for_the_very_same_inputs(self):
        calls = []
        inputs, others = torch.rand(9, 2), torch.rand(9, 2)

        def value(of, settings):
            return shared_by_samplers(of, settings, lambda: calls.append(settings) or len(calls))

        assert [value(inputs, "a"), value(inputs, "a"), value(inputs, "b"), value(others, "a")] == [1, 1, 2, 3]
        inputs[0] += 1
        assert [value(inputs, "a"), value(inputs, "a"), value(others, "a")] == [4, 4, 3]

    def test_it_goes_with_the_inputs(self):
        gc.collect()  # what other tests have left
        before = len(remembered._shared)
        inputs = torch.rand(9, 2)
        shared_by_samplers(inputs, "a", lambda: 7)
        assert len(remembered._shared) == before + 1
        del inputs
        gc.collect()
        assert len(remembered._shared) == before

    @pytest.mark.parametrize(
        ("sampler", "module", "name"),
        [
            (GraphDensity, "torchal.functional.density", "density_graph"),
            (Hierarchical, "torchal.samplers.hierarchical", "cluster_tree"),
            (InformativeDiverse, "torchal.samplers.informative_diverse", "kmeans"),
        ],
    )
    def test_trials_on_one_pool_have_one_graph_tree_or_clustering(self, sampler, module, name, monkeypatch):
        calls = []
        made = getattr(importlib.import_module(module), name)
        monkeypatch.setattr(f"{module}.{name}", lambda *args, **kwargs: calls.append(1) or made(*args, **kwargs))
        inputs = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
        truth = (inputs[:, 0] > 0.5).long()
        pool = Pool.unlabeled(inputs, n_classes=2)
        picked = []
        for seed in range(3):
            learner = ActiveLearner(LogisticRegression(), sampler(), pool, seed=seed)
            learner.tell(torch.arange(seed, 40, 10), truth[seed::10])
            picked.append(learner.ask(5))
        assert len(calls) == 1
        alone = ActiveLearner(LogisticRegression(), sampler(), Pool.unlabeled(inputs.clone(), n_classes=2), seed=0)
        alone.tell(torch.arange(0, 40, 10), truth[::10])
        assert torch.equal(alone.ask(5), picked[0])
        assert len(calls) == 2
