import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import information_density as reference
from torchal import ConfigError, DataError, ShapeError, _chunks
from torchal.functional import density_weighted, information_density, non_negative

KINDS = ["cosine", "rbf", "inverse"]


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_by_hand():
    x = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert information_density(x).tolist() == pytest.approx([0.5, 0.5])
    assert information_density(x, similarity="inverse").tolist() == pytest.approx([(1 + 1 / 6) / 2] * 2)
    # the columns' variances are 9 / 4 and 4
    width = 1 / 6.25
    assert information_density(x, similarity="rbf").tolist() == pytest.approx([(1 + math.exp(-25 * width)) / 2] * 2)
    assert information_density(x, similarity="rbf", gamma=0.1).tolist() == pytest.approx([(1 + math.exp(-2.5)) / 2] * 2)
    among = torch.tensor([False, True])
    assert information_density(x, among=among, similarity="inverse").tolist() == pytest.approx([1 / 6, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_pairs(kind):
    shapes = st.tuples(st.integers(1, 12), st.integers(1, 3))

    @settings(max_examples=40, deadline=None)
    @given(shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=st.floats(-4, 4, width=16))), st.data())
    def check(x, data):
        if kind == "cosine":
            x[(np.abs(x) < 0.01).all(1)] = 1
        among = data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x)).filter(any))
        gamma = 0.3 if kind == "rbf" else None
        chunk_rows = data.draw(st.integers(1, 13))
        found = information_density(
            torch.from_numpy(x), among=torch.tensor(among), similarity=kind, gamma=gamma, chunk_rows=chunk_rows
        )
        want = reference.information_density(x.astype(float).tolist(), among, kind, gamma)
        assert found.tolist() == pytest.approx(want, rel=1e-5, abs=1e-5)

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_rows", [None, 7, 64])
def test_blocks_change_nothing(kind, chunk_rows, monkeypatch):
    x, among = normal(150, 5), torch.arange(150) % 3 > 0
    want = reference.information_density(x.tolist(), among.tolist(), kind)
    if chunk_rows is None:
        monkeypatch.setattr(_chunks, "SMALLEST_CHUNK", 8)
    found = information_density(x, among=among, similarity=kind, chunk_rows=chunk_rows)
    assert found.tolist() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_have_equal_bits(kind):
    x = normal(70, 6, dtype=torch.float32)
    found = information_density(torch.cat([x, x[3:4], x]), similarity=kind)
    if kind == "cosine":
        assert found[:70].equal(found[71:])
        assert found[70] == found[3]
    assert torch.allclose(found[:70], found[71:])


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_single(kind):
    x = normal(60, 5).half()
    half, single = information_density(x, similarity=kind), information_density(x.float(), similarity=kind)
    assert half.dtype == torch.float32
    assert half.equal(single)
    assert information_density(x.double(), similarity=kind).dtype == torch.float64


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_cosines_and_widths_from_the_data_do_not_depend_on_the_size(size):
    x = normal(40, 4, dtype=torch.float32)
    for kind in ("cosine", "rbf"):
        want, found = information_density(x, similarity=kind), information_density(x * size, similarity=kind)
        assert torch.allclose(found, want, rtol=1e-4)
    limit = 1.0 if size < 1 else 1 / 40
    assert torch.allclose(information_density(x * size, similarity="inverse"), torch.full((40,), limit))


@pytest.mark.parametrize("gamma", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_any_width_gives_numbers(gamma, size):
    found = information_density(normal(9, 2) * size, similarity="rbf", gamma=gamma)
    assert bool(((found >= 1 / 9) & (found <= 1)).all())


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_and_equal_rows_are_as_dense_as_can_be(kind):
    assert information_density(torch.tensor([[2.0, 1.0]]), similarity=kind).tolist() == pytest.approx([1])
    assert information_density(torch.full((50, 3), 0.1), similarity=kind).tolist() == pytest.approx([1] * 50)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_among_many_is_denser_than_one_apart(kind):
    x = torch.cat([normal(50, 3) * 0.1 + 1, -normal(1, 3).abs()])
    found = information_density(x, similarity=kind)
    assert found[-1] < found[:-1].min()


def test_reads_a_mapped_file(tmp_path):
    x = normal(90, 4, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for kind in KINDS:
        assert torch.allclose(
            information_density(mapped, similarity=kind, chunk_rows=11), information_density(x, similarity=kind)
        )


def test_a_row_of_zeros_is_like_no_row():
    x = torch.tensor([[2.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    assert information_density(x).tolist() == pytest.approx([2 / 3, 0.0, 2 / 3])
    assert information_density(torch.zeros(2, 3)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(3)}, ShapeError, "axes"),
        ({"features": torch.zeros(0, 2)}, DataError, "no rows"),
        ({"features": torch.tensor([[1.0], [math.nan]])}, DataError, "finite"),
        ({"among": torch.zeros(4, dtype=torch.bool)}, DataError, "none of 4 rows"),
        ({"among": torch.ones(3, dtype=torch.bool)}, ShapeError, r"among must have shape \(4,\)"),
        ({"similarity": "euclidean"}, ConfigError, "one of cosine, rbf, inverse"),
        ({"similarity": "rbf", "gamma": 0.0}, ConfigError, "gamma must be a finite number above 0"),
        ({"gamma": 1.0}, ConfigError, "gamma is of 'rbf', the similarity is 'cosine'"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    arguments = {"features": torch.ones(4, 2)} | change
    with pytest.raises(error, match=message):
        information_density(arguments.pop("features"), **arguments)


def test_products_by_hand():
    uncertainty, density = torch.tensor([1.0, 0.5, 0.0, 2.0]), torch.tensor([0.5, 1.0, 1.0, -0.5])
    assert density_weighted(uncertainty, density).tolist() == [0.5, 0.5, 0, 0]
    assert density_weighted(uncertainty, density, beta=2).tolist() == [0.25, 0.5, 0, 0]
    assert density_weighted(uncertainty, density, beta=0).tolist() == [1, 0.5, 0, 2]


def test_negative_scores_are_counted_from_the_least_wanted_candidate():
    margins, density = torch.tensor([-0.5, -1.0, -9.0]), torch.tensor([0.5, 1.0, 1.0])
    candidates = torch.tensor([True, True, False])
    assert density_weighted(margins, density, candidates=candidates).tolist() == [0.25, 0, -math.inf]
    margins[2] = math.nan  # nobody asks
    assert density_weighted(margins, density, candidates=candidates).tolist() == [0.25, 0, -math.inf]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"uncertainty": torch.zeros(3)}, ShapeError, r"scores must be \(2,\) on cpu, got \(3,\)"),
        ({"uncertainty": torch.tensor([0.0, math.inf])}, DataError, "1 of 2 candidates' are not"),
        ({"density": torch.tensor([0.0, math.nan])}, DataError, "density must be finite"),
        ({"density": torch.zeros(2, 1)}, ShapeError, "axes"),
        ({"beta": -1}, ConfigError, "beta must be a finite number of at least 0, got -1"),
        ({"beta": math.nan}, ConfigError, "beta"),
        ({"candidates": torch.ones(3, dtype=torch.bool)}, ShapeError, "candidates"),
    ],
)
def test_products_refuse_what_they_cannot_use(change, error, message):
    arguments = {"uncertainty": torch.ones(2), "density": torch.ones(2)} | change
    with pytest.raises(error, match=message):
        density_weighted(arguments.pop("uncertainty"), arguments.pop("density"), **arguments)


def test_half_precision_scores():
    scores = torch.tensor([-1.0, 2.0]).half()
    found = non_negative(scores, candidates=torch.tensor([True, True]))
    assert found.dtype == torch.float32
    assert found.tolist() == [0, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_same(kind):
    x, among = normal(500, 7), torch.arange(500) % 3 > 0
    want = information_density(x, among=among, similarity=kind)
    found = information_density(x.cuda(), among=among.cuda(), similarity=kind)
    assert found.is_cuda
    assert torch.allclose(found.cpu(), want)
    streamed = information_density(x, among=among, similarity=kind, device="cuda", chunk_rows=90)
    assert streamed.device.type == "cpu"
    assert torch.allclose(streamed, want)
    weighted = density_weighted(x[:, 0].cuda(), found, candidates=among.cuda())
    assert torch.allclose(weighted.cpu(), density_weighted(x[:, 0], want, candidates=among))
