"""Sums of rows by group: the same in any order, and as near as float64."""

from fractions import Fraction

import pytest
import torch

from torchal.engine.sums import ChunkSums, ExactSums


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def summed(sums, index, x, weights, order, size):
    for some in order.split(size):
        sums.add(index[some], x[some], weights[some])
    return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fine", [False, True])
def test_the_same_in_any_order_and_in_any_parts(dtype, fine):
    n, k, d = 5000, 3, 4
    x = torch.randn(n, d, generator=seeded(0), dtype=dtype)
    weights = torch.rand(n, generator=seeded(1), dtype=dtype)
    index = torch.randint(0, k, (n,), generator=seeded(2))
    longest = float(x.norm(dim=1).max())

    def new():
        return ExactSums(k, d, longest=longest, n_rows=n, fine=fine, device=x.device)

    one = summed(new(), index, x, weights, torch.arange(n), n)
    for seed, size in ((3, 1), (4, 37), (5, 1024)):
        order = torch.randperm(n, generator=seeded(seed))
        first, second = (summed(new(), index, x, weights, part, size).parts for part in (order[:999], order[999:]))
        assert torch.equal(first + second, one.parts)
    sums, masses = one.total(one.parts)
    expected = torch.zeros(k, d, dtype=torch.float64).index_add_(0, index, x.double() * weights.double().unsqueeze(1))
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-11 if fine else 1e-7)
    torch.testing.assert_close(
        masses, torch.bincount(index, weights.double(), minlength=k), rtol=0, atol=1e-11 if fine else 1e-7
    )


def test_small_weights_are_not_rounded_away():
    x = torch.tensor([[1.0], [3.0], [5.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 1e-13, 3e-13], dtype=torch.float64)
    index = torch.tensor([0, 1, 1])
    sums = ExactSums(2, 1, longest=5.0, n_rows=1 << 20, fine=True, device=x.device)
    sums.add(index, x, weights)
    of_groups, masses = sums.total(sums.parts)
    expected = (Fraction(1e-13) * 3 + Fraction(3e-13) * 5) / (Fraction(1e-13) + Fraction(3e-13))
    assert float(of_groups[1, 0] / masses[1]) == pytest.approx(float(expected), rel=1e-5)


def test_sums_of_chunks():
    sums = ChunkSums(2, 1, device=torch.device("cpu"))
    sums.add(torch.tensor([0, 1, 0]), torch.tensor([[1.0], [4.0], [3.0]]), torch.tensor([1.0, 1.0, 0.5]))
    of_groups, masses = sums.total(sums.parts)
    assert of_groups.tolist() == [[2.5], [4.0]]
    assert masses.tolist() == [1.5, 1.0]
