"""The kernels themselves, interpreted on the CPU, or compiled where there is a CUDA device."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal.engine import greedy

pytest.importorskip("triton", reason="triton comes with torch on Linux with CUDA wheels only")
from torchal.engine import triton_kernels as kernels

# triton's interpreter of older versions, with newer versions of NumPy
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def both(values, distances, n, least):
    """Return the picks of the plain loop of torch, and the kernel's, with the values that each has left."""
    parts = [values.clone() for _ in range(2)]
    plain = greedy._pick_masked(parts[0], distances, n, least)
    ours = kernels.pick_in_matrix(parts[1], distances, n, least)
    return (*plain, parts[0]), (*ours, parts[1])


@given(
    n_rows=st.integers(1, 40),
    n=st.integers(1, 45),
    grid=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    least=st.sampled_from([-torch.inf, 0.0, 1.0, 5.0]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_picks_are_those_of_the_plain_loop(n_rows, n, grid, share, least, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, grid + 1, (n_rows, 2), generator=generator).to(DEVICE, dtype)  # with ties and duplicates
    distances = torch.cdist(x, x, p=1)
    values = torch.randint(0, 7, (n_rows,), generator=generator).to(DEVICE, dtype)
    values[torch.rand(n_rows, generator=generator).to(DEVICE) < share] = -torch.inf
    for plain, ours in zip(*both(values, distances, n, least), strict=True):
        assert torch.equal(plain, ours)


def test_one_pick_by_hand():
    distances = torch.tensor([[0.0, 4.0, 9.0], [4.0, 0.0, 1.0], [9.0, 1.0, 0.0]], device=DEVICE)
    values = torch.tensor([2.0, 3.0, 8.0], device=DEVICE)
    rows, scores = kernels.pick_in_matrix(values, distances, 2, 0.0)
    assert rows.tolist() == [2, 0]
    assert scores.tolist() == [8.0, 2.0]
    assert values.tolist() == [-torch.inf, 1.0, -torch.inf]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (64, 64, 7), (65, 130, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_manhattan_distances(shape, dtype):
    n_a, n_b, n_columns = shape
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n_columns, generator=generator, dtype=dtype).to(DEVICE) for n in (n_a, n_b))
    expected = (a.unsqueeze(1) - b).abs().sum(2)
    assert kernels.manhattan(a, b).dtype == dtype
    torch.testing.assert_close(
        kernels.manhattan(a, b), expected, rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=0
    )


def test_no_rows_have_no_distances():
    assert kernels.manhattan(torch.empty(0, 3, device=DEVICE), torch.zeros(2, 3, device=DEVICE)).shape == (0, 2)
