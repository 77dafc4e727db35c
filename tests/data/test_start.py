"""The start set of a simulation."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torchal.data import start_rows
from torchal.errors import BudgetError, ConfigError, DataError, ShapeError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shuffled_targets(sizes, seed=0):
    targets = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return targets[torch.randperm(len(targets), generator=seeded(seed))]


@pytest.mark.parametrize(
    ("sizes", "n", "least", "taken"),
    [
        ([10, 10, 10], 6, 2, [2, 2, 2]),
        ([10, 10, 10], 8, 2, [3, 3, 2]),  # equal remainders go to the lower class
        ([60, 30, 10], 20, 2, [11, 6, 3]),  # 14 to share: 8.6, 4.2, 1.2
        ([60, 30, 10], 20, 0, [12, 6, 2]),
        ([97, 2, 1], 10, 1, [8, 1, 1]),
        ([5, 2, 2], 9, 2, [5, 2, 2]),
        ([2, 2], 4, 2, [2, 2]),
        ([7], 3, 2, [3]),
    ],
)
def test_the_rest_is_shared_in_proportion(sizes, n, least, taken):
    targets = shuffled_targets(sizes)
    rows = start_rows(targets, n, generator=seeded(), min_per_class=least)
    assert rows.shape == (n,)
    assert rows.dtype == torch.int64
    assert targets[rows].bincount(minlength=len(sizes)).tolist() == taken


def test_classes_are_those_present():
    targets = torch.tensor([7, 7, 3, 3, 7, 3])
    assert sorted(targets[start_rows(targets, 4, generator=seeded())].tolist()) == [3, 3, 7, 7]


@pytest.mark.parametrize("how", ["stratified", "playground"])
def test_the_generator_decides(how):
    targets = shuffled_targets([50, 60, 70])
    first, again, other = (start_rows(targets, 20, generator=seeded(seed), how=how) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_row_of_a_class_is_equally_likely():
    targets = shuffled_targets([6, 4])
    generator = seeded()
    counts = torch.stack([start_rows(targets, 5, generator=generator) for _ in range(2000)]).flatten().bincount()
    # 3 of 6 and 2 of 4: each row is in half of the draws, give or take 5 standard deviations of sqrt(2000) / 2
    assert int((counts - 1000).abs().max()) < 112


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    least=st.integers(0, 4),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_start_set_is_exact_distinct_and_proportional(sizes, least, share, seed):
    assume(min(sizes) >= least)
    smallest = max(1, least * len(sizes))
    n = smallest + int(share * (sum(sizes) - smallest))
    targets = shuffled_targets(sizes, seed)
    rows = start_rows(targets, n, generator=seeded(seed), min_per_class=least)
    assert len(rows) == len(rows.unique()) == n
    taken = targets[rows].bincount(minlength=len(sizes))
    left = sum(sizes) - least * len(sizes)
    for size, count in zip(sizes, taken.tolist(), strict=True):
        exact = least + (n - least * len(sizes)) * (size - least) / max(left, 1)
        assert least <= count <= size
        assert abs(count - exact) < 1


@pytest.mark.parametrize(("n", "size"), [(1, 18), (18, 18), (40, 40)])
def test_the_playgrounds_start_set_holds_four_of_each_class(n, size):
    targets = shuffled_targets([100, 100, 60])
    for seed in range(5):
        rows = start_rows(targets, n, generator=seeded(seed), how="playground")
        assert len(rows.unique()) == size
        assert int(targets[rows].bincount().min()) >= 4


@pytest.mark.parametrize(
    ("sizes", "n", "setting", "error", "words"),
    [
        ([5, 5], 11, {}, BudgetError, ["11", "10"]),
        ([5, 5], 0, {}, BudgetError, ["0", "10"]),
        ([5, 5], -2, {}, BudgetError, ["-2"]),
        ([5, 5], 2.0, {}, BudgetError, ["2.0"]),
        ([5, 5, 5], 5, {}, BudgetError, ["5 rows", "2 of each of 3", "6"]),
        ([5, 1, 1], 6, {}, DataError, ["2 rows", "2 of 3 classes", "class 1 has 1"]),
        ([5, 5], 5, {"min_per_class": -1}, ConfigError, ["min_per_class", "-1"]),
        ([5, 5], 5, {"how": "random"}, ConfigError, ["'stratified'", "'playground'", "'random'"]),
        ([4, 4], 4, {"how": "playground"}, BudgetError, ["12", "8"]),
        ([50, 3], 4, {"how": "playground"}, DataError, ["4 rows", "class 1 has 3"]),
        ([100_000, 4], 4, {"how": "playground"}, DataError, ["12 rows", "shuffles", "stratified"]),
    ],
)
def test_an_impossible_start_set_is_refused(sizes, n, setting, error, words, monkeypatch):
    monkeypatch.setattr("torchal.data.start._MAX_SHUFFLES", 20)
    with pytest.raises(error) as caught:
        start_rows(shuffled_targets(sizes), n, generator=seeded(), **setting)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("targets", [[0, 1], torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]])])
def test_targets_must_be_labels(targets):
    with pytest.raises(ShapeError, match="int64"):
        start_rows(targets, 2, generator=seeded())


def test_a_row_without_a_label_is_refused():
    with pytest.raises(DataError, match="1 of 3"):
        start_rows(torch.tensor([0, -1, 1]), 2, generator=seeded())
