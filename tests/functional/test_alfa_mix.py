import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.references import alfa_mix as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import features as feature_rows
from torchal.functional import alfa_mix, class_means, cluster_representatives, flip_eps


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n_rows=60, n_columns=5, n_classes=4, n_anchors=3, seed=0, dtype=torch.float64):
    generator = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    layer = {"weight": normal(n_classes, n_columns), "bias": normal(n_classes), "anchors": normal(n_anchors, n_columns)}
    return normal(n_rows, n_columns), layer


def test_class_means_literal():
    x = torch.tensor([[1.0, 2.0], [5.0, 6.0], [3.0, 0.0], [7.0, 7.0]])
    assert class_means(x, torch.tensor([4, 1, 4, -1])).tolist() == [[5.0, 6.0], [2.0, 1.0]]


@settings(deadline=None)
@given(data=st.data(), n_rows=st.integers(1, 12))
def test_class_means_agree_with_the_loop(data, n_rows):
    x = problem(n_rows, seed=data.draw(st.integers(0, 100)))[0]
    targets = data.draw(st.lists(st.integers(-1, 4), min_size=n_rows, max_size=n_rows).filter(lambda t: max(t) >= 0))
    want = torch.tensor(reference.class_means(x.tolist(), targets), dtype=x.dtype)
    torch.testing.assert_close(class_means(x, torch.tensor(targets)), want)


def test_class_means_of_large_and_half_precision_numbers():
    targets = torch.zeros(4, dtype=torch.int64)
    assert class_means(torch.full((4, 1), 3e38), targets).tolist() == torch.tensor([[3e38]]).tolist()
    means = class_means(torch.full((4, 1), 6e4, dtype=torch.float16), targets)
    assert means.dtype == torch.float32
    assert means.tolist() == [[60000.0]]


def test_class_means_refuse_what_they_cannot_use():
    with pytest.raises(DataError, match="none of 3 rows is labeled"):
        class_means(torch.rand(3, 2), torch.full((3,), -1))
    with pytest.raises(ShapeError, match=r"targets must be \(3,\) int64"):
        class_means(torch.rand(3, 2), torch.zeros(2, dtype=torch.int64))


def test_flip_eps_literal():
    # Two classes that differ along the first column only: the boundary is x0 = 0, at the distance x0.
    weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)
    anchors = torch.tensor([[4.0, 5.0], [2.0, 1.0]])
    found = flip_eps(torch.tensor([[1.0, 1.0], [-3.0, 1.0]]), weight=weight, bias=bias, anchors=anchors)
    # the farther anchor is 5 away from the first row, and 8.06 from the second
    assert found.tolist() == pytest.approx([math.sqrt(2) / 5, 3 * math.sqrt(2) / math.sqrt(65)])


def test_a_column_that_equals_the_anchors_does_not_move():
    weight, bias = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.zeros(2)
    row = torch.tensor([[1.0, 0.0]])
    free = flip_eps(row, weight=weight, bias=bias, anchors=torch.tensor([[5.0, 3.0]]))
    stuck = flip_eps(row, weight=weight, bias=bias, anchors=torch.tensor([[6.0, 0.0]]))
    assert float(free) == pytest.approx(1 / 5)  # the boundary is sqrt(1/2) away
    assert float(stuck) == pytest.approx(2 / 5)  # half of the way along the gradient is left out
    assert flip_eps(row, weight=weight, bias=bias, anchors=row).tolist() == [math.inf]
    both = flip_eps(row, weight=weight, bias=bias, anchors=torch.tensor([[1.0, 0.0], [5.0, 3.0]]))
    assert float(both) == pytest.approx(1 / 5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n_columns=st.integers(1, 5),
    n_classes=st.integers(2, 5),
    n_anchors=st.integers(1, 4),
    sparse=st.booleans(),
)
@example(seed=446, n_columns=1, n_classes=3, n_anchors=1, sparse=True)  # logits that rise by -0.0
def test_labels_flip_just_above_and_not_below(seed, n_columns, n_classes, n_anchors, sparse):
    x, layer = problem(8, n_columns, n_classes, n_anchors, seed=seed)
    if sparse:  # as features behind a ReLU: rows and anchors are 0 in the same columns
        x, layer["anchors"] = x.relu(), layer["anchors"].relu()
    found = flip_eps(x, **layer)
    assert (found >= 0).all()
    for row, eps in zip(x.numpy(), found.tolist(), strict=True):
        assert not reference.flips(row, *layer.values(), min(eps, 1e6) * 0.999)
        assert eps > 1e6 or reference.flips(row, *layer.values(), eps * 1.001)


def test_a_sure_row_flips_later_than_a_doubtful_one():
    weight, bias = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    found = flip_eps(torch.tensor([[0.1], [200.0]]), weight=weight, bias=bias, anchors=torch.tensor([[9.0]]))
    assert found[0] < found[1] < math.inf  # though the probability of the second row is 1 in float32


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_features_does_not_count(size):
    x, layer = problem(dtype=torch.float32)
    want = flip_eps(x, **layer)
    layer |= {"weight": layer["weight"] / size, "anchors": layer["anchors"] * size}
    torch.testing.assert_close(flip_eps(x * size, **layer), want)


def test_more_classes_than_columns_and_a_mean_that_all_classes_share():
    x, layer = problem(n_columns=2, n_classes=9, dtype=torch.float64)
    want = flip_eps(x, **layer)
    for row, eps in zip(x, want, strict=True):
        assert reference.flips(row, *layer.values(), float(eps) * 1.001)
    layer["weight"] = layer["weight"] + 1e4
    torch.testing.assert_close(flip_eps(x, **layer), want, rtol=1e-6, atol=1e-9)


def test_one_class_equal_classes_and_no_distance_never_flip():
    x, layer = problem()
    one = {**layer, "weight": layer["weight"][:1], "bias": layer["bias"][:1]}
    assert flip_eps(x, **one).isinf().all()
    equal = {**layer, "weight": layer["weight"][:1].repeat(3, 1), "bias": torch.zeros(3, dtype=x.dtype)}
    assert flip_eps(x, **equal).isinf().all()
    assert flip_eps(x[:1], **{**layer, "anchors": x[:1]}).isinf().all()


def test_a_class_that_is_never_predicted_does_not_matter():
    x, layer = problem()
    more = {**layer, "weight": torch.cat([layer["weight"], torch.zeros(1, 5, dtype=x.dtype)])}
    more["bias"] = torch.cat([layer["bias"], torch.tensor([-1e3], dtype=x.dtype)])
    torch.testing.assert_close(flip_eps(x, **more), flip_eps(x, **layer))


def test_half_precision_and_equal_rows():
    x, layer = problem(dtype=torch.float32)
    found = flip_eps(x.half(), **layer)
    assert found.dtype == torch.float32
    assert found.equal(flip_eps(x.half().float(), **layer))
    alike = flip_eps(x[:1].repeat(50, 1), **layer)
    torch.testing.assert_close(alike, alike[:1].expand(50))


def test_chunks_do_not_change_the_answer(monkeypatch):
    x, layer = problem(300)
    x = torch.cat([x, x.relu()])
    layer["anchors"] = layer["anchors"].relu()
    whole = flip_eps(x, **layer)
    monkeypatch.setattr(feature_rows, "values_per_chunk", lambda _: 20)
    monkeypatch.setattr(feature_rows, "SMALLEST_CHUNK", 1)
    torch.testing.assert_close(flip_eps(x, **layer), whole, rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), seed=st.integers(0, 1000), n_rows=st.integers(2, 30))
def test_the_candidates_are_those_of_the_growing_mix(data, seed, n_rows):
    x, layer = problem(n_rows, seed=seed)
    candidates = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows).filter(any))
    n = data.draw(st.integers(1, sum(candidates)))
    eps, max_eps = data.draw(st.sampled_from([(0.2, 1.0), (0.25, 0.25), (0.1, 2.0)]))
    found = flip_eps(x, **layer)
    remainder = (found / eps) % 1
    assume(bool(((remainder > 1e-6) & (remainder < 1 - 1e-6)).all()))
    rows = reference.wanted(found.tolist(), candidates, n, eps, max_eps)
    wanted = torch.zeros(n_rows, dtype=torch.bool)
    wanted[rows] = True
    mask = torch.tensor(candidates)
    want = cluster_representatives(x, n, wanted=wanted, scores=-found, candidates=mask, generator=seeded())
    picked = alfa_mix(x, n, **layer, eps=eps, max_eps=max_eps, candidates=mask, generator=seeded())
    assert picked.indices.equal(want.indices)
    assert picked.scores.equal(-found[want.indices])


def test_what_is_missing_is_what_flips_next():
    x, layer = problem()
    picked = alfa_mix(x, 10, **layer, eps=1e-6, max_eps=1e-6, generator=seeded())
    assert picked.indices.equal(flip_eps(x, **layer).sort().indices[:10])


def test_all_candidates_and_rows_that_never_flip():
    x, layer = problem(n_classes=1)
    picked = alfa_mix(x, 60, **layer, generator=seeded())
    assert picked.indices.equal(torch.arange(60))
    assert picked.scores.eq(-math.inf).all()
    assert alfa_mix(x[:1], 1, **layer, generator=seeded()).indices.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 61}, BudgetError, "asked for 61 rows, 60 can"),
        ({"candidates": torch.ones(5, dtype=torch.bool)}, ShapeError, "candidates must have shape"),
        ({"weight": torch.zeros(4, 6)}, ShapeError, r"weight must be \(C, 5\) on cpu .*\(4, 6\)"),
        ({"weight": torch.zeros(0, 5)}, ShapeError, "at least 1"),
        ({"weight": torch.zeros(4, 5, dtype=torch.int64)}, ShapeError, "floating point"),
        ({"bias": torch.zeros(3)}, ShapeError, r"bias must be \(4,\)"),
        ({"bias": torch.full((4,), math.inf)}, DataError, "bias must be finite"),
        ({"anchors": torch.zeros(2, 4)}, ShapeError, r"anchors must be \(A, 5\)"),
        ({"anchors": torch.zeros(0, 5)}, ShapeError, "at least 1"),
        ({"anchors": torch.full((1, 5), math.nan)}, DataError, "anchors must be finite"),
        ({"features": torch.full((60, 5), math.nan)}, DataError, "features must be finite"),
        ({"features": torch.zeros(60, 5, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
        ({"eps": 0.0}, ConfigError, "eps must be a finite number above 0"),
        ({"eps": math.nan}, ConfigError, "eps must be a finite number above 0"),
        ({"max_eps": "1"}, ConfigError, "max_eps must be a finite number"),
        ({"max_eps": 0.1}, ConfigError, "at least eps = 0.2, got 0.1"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    x, layer = problem()
    arguments = {"features": x, "n": 3, **layer} | change
    with pytest.raises(error, match=message):
        alfa_mix(arguments.pop("features"), arguments.pop("n"), **arguments, generator=seeded())


@pytest.mark.gpu
def test_cuda_picks_the_same():
    x, layer = problem(2000)
    x[::3] = x[::3].relu()
    layer["anchors"] = layer["anchors"].relu()
    there = {name: tensor.cuda() for name, tensor in layer.items()}
    targets = torch.arange(2000) % 7 - 1
    torch.testing.assert_close(class_means(x.cuda(), targets.cuda()).cpu(), class_means(x, targets))
    candidates = torch.rand(2000, generator=seeded(3)) < 0.8
    want = alfa_mix(x, 20, **layer, candidates=candidates, generator=seeded())
    found = alfa_mix(x.cuda(), 20, **there, candidates=candidates.cuda(), generator=seeded())
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    whole = alfa_mix(x.cuda(), 20, **there, generator=torch.Generator("cuda").manual_seed(0))
    assert len(whole.indices.unique()) == 20
