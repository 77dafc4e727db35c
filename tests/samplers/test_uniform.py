import pytest
import torch

from torchal import PoolView
from torchal.samplers import Uniform


def view(n_rows, seed, labeled=()):
    mask = torch.zeros(n_rows, dtype=torch.bool)
    mask[list(labeled)] = True
    return PoolView.from_tensors(labeled=mask, generator=torch.Generator().manual_seed(seed))


def test_every_unlabeled_row_is_as_likely_as_every_other():
    counts = torch.zeros(10)
    for seed in range(2000):
        counts[Uniform().select(view(10, seed, labeled=[0, 4]), 3).indices] += 1
    assert counts[[0, 4]].tolist() == [0, 0]
    expected = 2000 * 3 / 8
    chi_square = ((counts[counts > 0] - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001; the seeds are fixed


def test_does_not_take_the_first_rows_in_order():
    assert Uniform().select(view(1000, 0), 10).indices.tolist() != list(range(10))


@pytest.mark.parametrize("seed", [1, 2])
def test_follows_the_generator_of_the_view(seed):
    assert not Uniform().select(view(1000, seed), 10).indices.equal(Uniform().select(view(1000, 0), 10).indices)
