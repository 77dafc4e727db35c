import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import lcmd as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import k_center_greedy
from torchal.functional.lcmd import lcmd, max_dist

module = importlib.import_module("torchal.functional.lcmd")  # the package has the function by this name
BOTH = [lcmd, max_dist]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def mask(n_rows, *rows):
    return torch.zeros(n_rows, dtype=torch.bool).index_fill_(0, torch.tensor(rows, dtype=torch.int64), True)


def test_by_hand():
    # two centres; three rows about 2 from the one, one row 3 from the other
    x = torch.tensor([[0.0], [10.0], [2.0], [2.5], [3.0], [14.0]])
    labeled = mask(6, 0, 1)
    far = max_dist(x, 2, labeled=labeled)
    assert far.indices.tolist() == [5, 4]
    assert far.scores.tolist() == [4, 3]
    largest = lcmd(x, 3, labeled=labeled)  # 4 + 6.25 + 9 is more than 16; then 16, then 1 + 0.25
    assert largest.indices.tolist() == [4, 5, 2]
    assert largest.scores.tolist() == [3, 4, 1]


@pytest.mark.parametrize("pick", BOTH)
def test_the_first_pick_without_labels_has_the_largest_norm(pick):
    x = torch.tensor([[100.0, 0.0], [101.0, 1.0], [100.0, 3.0], [90.0, 0.0]])
    picks = pick(x, 2)
    assert picks.indices.tolist() == [1, 3]
    assert picks.scores.tolist() == pytest.approx([math.hypot(101, 1), math.hypot(11, 1)])
    one = pick(x, 1, candidates=mask(4, 0, 2, 3))
    assert one.indices.tolist() == [2]


GRIDS = st.lists(st.lists(st.integers(-4, 4), min_size=2, max_size=2), min_size=1, max_size=14)


@pytest.mark.parametrize("pick", BOTH)
@settings(max_examples=120, deadline=None)
@given(rows=GRIDS, data=st.data())
def test_picks_are_those_of_the_loop_also_where_distances_are_equal(pick, rows, data):
    n_rows = len(rows)
    kinds = data.draw(st.lists(st.sampled_from("lccn"), min_size=n_rows, max_size=n_rows).filter(lambda k: "c" in k))
    labeled, candidates = [kind == "l" for kind in kinds], [kind == "c" for kind in kinds]
    n = data.draw(st.integers(1, sum(candidates)))
    want = getattr(reference, pick.__name__)(rows, n, labeled, candidates)
    x = torch.tensor(rows, dtype=torch.float32)
    masks = {"labeled": torch.tensor(labeled), "candidates": torch.tensor(candidates)}
    picks = pick(x, n, **masks)
    assert picks.indices.tolist() == want
    centers = [row for row in range(n_rows) if labeled[row]]
    for row, score in zip(want, picks.scores.tolist(), strict=True):
        near = [math.dist(rows[row], rows[c]) for c in centers] or [math.hypot(*rows[row])]
        assert score == pytest.approx(min(near), rel=1e-6)
        centers.append(row)


@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_labeled", [0, 7])
def test_gradients_are_those_multiplied_out(pick, bias, n_labeled):
    x = normal(120, 5, dtype=torch.float64)
    log_probs = (2 * normal(120, 4, seed=1, dtype=torch.float64)).log_softmax(1)
    labeled = torch.arange(120) < n_labeled
    picks = pick(x, 40, log_probs=log_probs, labeled=labeled, bias=bias)
    rows = reference.gradients(log_probs, x, bias)
    want = getattr(reference, pick.__name__)(rows, 40, labeled.tolist(), (~labeled).tolist())
    assert picks.indices.tolist() == want
    assert pick(torch.from_numpy(rows), 40, labeled=labeled).scores.numpy() == pytest.approx(picks.scores.numpy())


def test_max_dist_with_labels_is_k_center_greedy():
    x, labeled = normal(3000, 8), torch.arange(3000) < 10
    assert max_dist(x, 200, labeled=labeled).indices.equal(k_center_greedy(x, 200, labeled=labeled).indices)


def test_many_picks_agree_with_the_loop():
    x = normal(400, 3, dtype=torch.float64) + 4 * normal(6, 3, seed=1, dtype=torch.float64)[torch.arange(400) % 6]
    labeled = torch.arange(400) < 5
    want = reference.lcmd(x, 60, labeled.tolist(), (~labeled).tolist())
    assert lcmd(x, 60, labeled=labeled).indices.tolist() == want


@pytest.mark.parametrize("pick", BOTH)
def test_every_candidate_is_picked_once_and_copies_of_centres_come_last(pick):
    x = normal(9, 3)[torch.arange(90) % 9]
    picks = pick(x, 80, labeled=torch.arange(90) < 10)
    assert picks.indices.sort().values.equal(torch.arange(10, 90))
    assert (picks.scores == 0).all()
    assert picks.indices.equal(torch.arange(10, 90))
    some = pick(x, 90)
    assert sorted(some.indices[:9].tolist()) == list(range(9))
    assert (some.scores[9:] == 0).all()
    assert (some.scores[:9] > 0).all()


@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize("gradients", [False, True])
def test_all_rows_equal_and_one_row(pick, gradients):
    def more(n_rows):
        return {"log_probs": torch.tensor([[0.25, 0.75]]).log().expand(n_rows, 2)} if gradients else {}

    x = torch.full((6, 3), 0.1)
    assert pick(x, 6, **more(6)).indices.tolist() == list(range(6))
    assert pick(x, 3, labeled=mask(6, 1), **more(6)).indices.tolist() == [0, 2, 3]
    assert pick(x[:1], 1, **more(1)).indices.tolist() == [0]
    assert pick(x, 1, labeled=torch.arange(6) != 4, **more(6)).indices.tolist() == [4]


@pytest.mark.parametrize("pick", BOTH)
def test_a_model_that_is_sure_has_no_gradients(pick):
    log_probs = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0], [0.0, -math.inf]])
    assert pick(normal(3, 2), 3, log_probs=log_probs).indices.tolist() == [0, 1, 2]
    unsure = torch.cat([log_probs, torch.tensor([[0.5, 0.5]]).log()])
    assert pick(normal(4, 2), 2, log_probs=unsure).indices.tolist() == [3, 0]


@pytest.mark.parametrize("pick", BOTH)
def test_one_class_only(pick):
    assert pick(normal(4, 2), 2, log_probs=torch.zeros(4, 1)).indices.tolist() == [0, 1]


@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_features_of_any_size(pick, size):
    x = normal(60, 4)
    want = pick(x, 20, labeled=torch.arange(60) < 3)
    found = pick(x * size, 20, labeled=torch.arange(60) < 3)
    assert found.indices.equal(want.indices)
    assert found.scores.numpy() == pytest.approx(size * want.scores.numpy(), rel=1e-4)
    assert pick(x * size, 5).indices.equal(pick(x, 5).indices)


@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(pick, dtype):
    x = normal(50, 4).to(dtype)
    picks = pick(x, 10, labeled=torch.arange(50) < 3)
    assert picks.scores.dtype == torch.promote_types(dtype, torch.float32)
    assert picks.indices.equal(pick(x.double(), 10, labeled=torch.arange(50) < 3).indices)


@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize("gradients", [False, True])
def test_chunks_and_files_change_nothing(pick, gradients, tmp_path, monkeypatch):
    x = torch.randint(-9, 10, (300, 6), generator=seeded()).float()
    p = torch.tensor([0.125, 0.25, 0.5, 0.125]).log()[
        torch.stack([torch.randperm(4, generator=seeded(i)) for i in range(300)])
    ]
    more = {"log_probs": p} if gradients else {}
    labeled = torch.arange(300) % 60 == 0
    want = pick(x, 80, labeled=labeled, **more)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for features, rows in ((x, 7), (mapped, 64), (mapped, 300)):
        found = pick(features, 80, labeled=labeled, chunk_rows=rows, **more)
        assert found.indices.equal(want.indices)
        assert found.scores.equal(want.scores)
    monkeypatch.setattr(module, "_HELD", 0)
    assert pick(x, 80, labeled=labeled, **more).indices.equal(want.indices)


def test_rows_that_may_not_be_picked_make_no_cluster_large():
    x = torch.tensor([[0.0], [10.0], [3.0], [12.0], [12.0]])
    labeled = mask(5, 0, 1)
    assert lcmd(x, 1, labeled=labeled).indices.tolist() == [2]
    crowd = torch.cat([x, torch.full((50, 1), 11.5)])
    labeled = mask(55, 0, 1)
    assert lcmd(crowd, 1, labeled=labeled, candidates=mask(55, 2, 3, 4)).indices.tolist() == [2]
    assert lcmd(crowd, 1, labeled=labeled).indices.tolist() == [3]


@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize(
    ("x", "n", "more", "error", "message"),
    [
        (torch.zeros(3), 1, {}, ShapeError, r"features must have 2 axes"),
        (torch.zeros(3, 2).cfloat(), 1, {}, ShapeError, r"features must be real numbers"),
        (torch.zeros(0, 2), 1, {}, DataError, "features has no rows"),
        (torch.tensor([[1.0], [math.nan]]), 1, {}, DataError, "the first is row 1"),
        (torch.tensor([[1.0], [math.inf]]), 1, {"log_probs": torch.full((2, 2), 0.5).log()}, DataError, "row 1"),
        (torch.zeros(3, 2), 4, {}, BudgetError, "asked for 4 rows, 3 can be picked"),
        (torch.zeros(3, 2), 3, {"labeled": mask(3, 0)}, BudgetError, "asked for 3 rows, 2 can be picked"),
        (torch.zeros(3, 2), 0, {}, BudgetError, "asked for 0"),
        (torch.zeros(3, 2), 1, {"labeled": mask(4)}, ShapeError, r"labeled must have shape \(3,\)"),
        (torch.zeros(3, 2), 1, {"labeled": mask(3, 0), "candidates": mask(3, 0)}, ShapeError, "both labeled and cand"),
        (torch.zeros(3, 2), 1, {"log_probs": torch.zeros(2, 2)}, ShapeError, r"log_probs must be \(3, C\)"),
        (torch.zeros(3, 2), 1, {"log_probs": torch.zeros(3, 2)}, DataError, "sums to 2 after exp"),
        (torch.zeros(3, 2), 1, {"log_probs": torch.full((3, 2), math.nan)}, DataError, "sums to nan"),
        (torch.zeros(3, 2), 1, {"bias": 1}, ConfigError, "bias must be true or false"),
        (torch.zeros(3, 2), 1, {"bias": True}, ConfigError, "bias=True is of gradients, which need log_probs"),
    ],
)
def test_refuses_what_it_cannot_use(pick, x, n, more, error, message):
    with pytest.raises(error, match=message):
        pick(x, n, **more)


@pytest.mark.gpu
@pytest.mark.parametrize("pick", BOTH)
@pytest.mark.parametrize("gradients", [False, True])
def test_cuda_picks_the_same(pick, gradients):
    x = torch.randint(-9, 10, (3000, 8), generator=seeded()).float()
    labeled = torch.arange(3000) % 300 == 0
    p = (2 * normal(3000, 5, seed=1, dtype=torch.float64)).log_softmax(1)
    x = x.double() if gradients else x
    more = {"log_probs": p} if gradients else {}
    want = pick(x, 100, labeled=labeled, **more)
    more = {"log_probs": p.cuda()} if gradients else {}
    found = pick(x.cuda(), 100, labeled=labeled.cuda(), **more)
    assert found.indices.is_cuda
    assert found.scores.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert found.scores.cpu().numpy() == pytest.approx(want.scores.numpy())
    if not gradients:
        assert pick(x, 100, labeled=labeled, device="cuda").indices.equal(want.indices)
