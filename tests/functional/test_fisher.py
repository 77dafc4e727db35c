import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import fisher as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import fisher as engine
from torchal.functional import bait, fisher
from torchal.functional.fisher import form_for

FORMS = ["exact", "block_diagonal", "binary"]


def make(n_rows, n_classes, n_columns, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64)
    logits = spread * torch.randn(n_rows, n_classes, generator=generator, dtype=torch.float64)
    return logits.log_softmax(1), features


def test_by_hand():
    # two classes: M = lambda / 2 + sum of p (1 - p) h^2 with no labels, F = (1 + 1/4) / 2
    log_probs, features = torch.full((2, 2), 0.5).log(), torch.tensor([[1.0], [2.0]])
    picks = bait(log_probs, features, 1, regularization=2.0)
    assert picks.indices.tolist() == [1]
    assert picks.scores.tolist() == pytest.approx([0.625 * (1 - 1 / 2)])
    # with row 1 labeled, it and a pick count half each: M = 1 + 1/2, then + 1/8
    labeled = torch.tensor([False, True])
    picks = bait(log_probs, features, 1, regularization=2.0, labeled=labeled)
    assert picks.indices.tolist() == [0]
    assert picks.scores.tolist() == pytest.approx([0.625 * (1 / 1.5 - 1 / 1.625)])


def test_a_doubtful_row_is_wanted_more_than_a_sure_one():
    log_probs = torch.tensor([[0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.98, 0.01, 0.01]]).log()
    for form in FORMS:
        assert bait(log_probs, torch.ones(3, 2), 1, form=form).indices.tolist() == [1]


def test_a_pick_is_not_repeated_by_a_copy_of_it():
    log_probs, features = torch.full((4, 3), 1 / 3).log(), torch.tensor([[3.0, 0], [3, 0], [0, 1], [0, 1]])
    for form in FORMS:
        assert sorted(bait(log_probs, features, 2, regularization=0.01, form=form).indices.tolist()) == [0, 2]


@settings(max_examples=80, deadline=None)
@given(
    n_rows=st.integers(1, 9),
    n_classes=st.integers(1, 4),
    n_columns=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    kinds=st.integers(2, 9),
    sure=st.booleans(),
    regularization=st.sampled_from([0.03, 1.0, 20.0]),
    oversampling=st.integers(1, 3),
    form=st.sampled_from(FORMS),
    data=st.data(),
)
def test_agrees_with_whole_matrices(
    n_rows, n_classes, n_columns, seed, kinds, sure, regularization, oversampling, form, data
):
    log_probs, features = make(n_rows, n_classes, n_columns, seed)
    if sure:  # probabilities of exactly 0 and 1
        some = torch.arange(n_rows) % 3 == 1
        log_probs[some] = torch.eye(n_classes, dtype=torch.float64)[seed % n_classes].log()
        log_probs[torch.arange(n_rows) % 4 == 2, seed % n_classes] = -torch.inf if n_classes > 1 else 0
        log_probs = log_probs.log_softmax(1)
    copies = torch.arange(n_rows) % kinds
    log_probs, features = log_probs[copies], features[copies]
    states = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n_rows, max_size=n_rows)))
    labeled, candidates = states == 0, states >= 2
    candidates[-1], labeled[-1] = True, False
    n = data.draw(st.integers(1, int(candidates.sum())))
    masks = {"labeled": labeled, "candidates": candidates}
    common = {"regularization": regularization, "oversampling": oversampling, "form": form}
    rows, gains = reference.bait(
        log_probs.exp().numpy(), features.numpy(), n, **{k: v.numpy() for k, v in masks.items()}, **common
    )
    picks = bait(log_probs, features, n, **masks, **common)
    assert picks.indices.tolist() == rows
    assert picks.scores.tolist() == pytest.approx(gains, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_chunks_of_a_few_rows_change_nothing(form, monkeypatch):
    log_probs, features = make(60, 4, 3)
    labeled = torch.arange(60) % 7 == 0
    want = bait(log_probs, features, 8, labeled=labeled, form=form)
    monkeypatch.setattr(fisher, "values_per_chunk", lambda _: 40)
    got = bait(log_probs, features, 8, labeled=labeled, form=form)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores, rtol=1e-9)


def test_no_temporary_is_larger_than_a_chunk(monkeypatch):
    sizes = []
    rows = fisher._Pool.features
    monkeypatch.setattr(fisher._Pool, "features", lambda *a: (sizes.append(len(h := rows(*a))), h)[1])
    monkeypatch.setattr(fisher, "values_per_chunk", lambda _: 4000)
    log_probs, features = make(3000, 5, 6)
    bait(log_probs, features, 2)
    assert max(sizes) <= 4000 // 6


@pytest.mark.parametrize("n_classes", [3, 9])
def test_solving_and_eliminating_agree(n_classes, monkeypatch):
    log_probs, features = make(50, n_classes, 3)
    want = bait(log_probs, features, 8, oversampling=1)
    monkeypatch.setattr(engine, "_ELIMINATED", 0)
    got = bait(log_probs, features, 8, oversampling=1)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores, rtol=1e-9)


def test_which_class_is_the_first_does_not_matter_nor_one_never_predicted():
    log_probs, features = make(40, 4, 3)
    want = bait(log_probs, features, 6)
    never = torch.full((40, 1), -torch.inf, dtype=torch.float64)
    for columns in (
        log_probs.flip(1),
        log_probs[:, [2, 0, 3, 1]],
        torch.cat([never, log_probs], 1),
        torch.cat([log_probs, never], 1),
    ):
        got = bait(columns, features, 6)
        assert got.indices.equal(want.indices)
        assert torch.allclose(got.scores, want.scores, rtol=1e-9)


def test_two_classes_are_one_difference():
    log_probs, features = make(40, 2, 3)
    want = bait(log_probs, features, 6, regularization=2.0)
    got = bait(log_probs, features, 6, regularization=1.0, form="binary")
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores, rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_gain_gives_the_lowest_rows(form):
    sure = torch.eye(3)[torch.arange(9) % 3].log()
    one_class = torch.zeros(9, 1)
    doubtful = torch.full((9, 3), 1 / 3).log()
    features = torch.arange(18.0).reshape(9, 2) + 1
    for log_probs, x in ((sure, features), (one_class, features), (doubtful, torch.zeros(9, 2))):
        picks = bait(log_probs, x, 4, labeled=torch.arange(9) == 1, form=form)
        assert picks.indices.tolist() == [0, 2, 3, 4]
        assert picks.scores.tolist() == [0] * 4


@pytest.mark.parametrize("form", FORMS)
def test_equal_rows_go_lowest_first(form):
    log_probs, features = make(1, 4, 5)
    picks = bait(log_probs.expand(700, -1), features.expand(700, -1), 5, form=form)
    assert picks.indices.tolist() == [0, 1, 2, 3, 4]
    assert (picks.scores.diff() < 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_all_the_candidates_and_the_last_row(form):
    log_probs, features = make(12, 3, 2)
    candidates = torch.arange(12) % 3 == 0
    for oversampling in (1, 2, 50):
        picks = bait(log_probs, features, 4, candidates=candidates, form=form, oversampling=oversampling)
        assert sorted(picks.indices.tolist()) == [0, 3, 6, 9]
    assert bait(log_probs, features, 1, labeled=torch.arange(12) != 5, form=form).indices.tolist() == [5]
    assert bait(log_probs[:1], features[:1], 1, form=form).indices.tolist() == [0]


@pytest.mark.parametrize("power", [-300, -100, 100, 300])
@pytest.mark.parametrize("form", FORMS)
def test_features_and_regularization_change_together(power, form):
    log_probs, features = make(60, 3, 4)
    want = bait(log_probs, features, 8, regularization=0.5, form=form)
    got = bait(log_probs, features * 2.0**power, 8, regularization=0.5 * 4.0**power, form=form)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores, rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_features_far_from_the_regularization(form):
    log_probs, features = make(60, 3, 4)
    tiny = bait(log_probs.float(), (features * 1e-30).float(), 8, form=form)
    assert tiny.indices.equal(bait(log_probs, features, 8, regularization=1e60, form=form).indices)
    assert (tiny.scores > 0).all()
    huge = bait(log_probs.float(), (features * 1e30).float(), 8, form=form)
    assert len(huge.indices.unique()) == 8
    assert (huge.scores > 0).all()
    # as many rows as it takes to leave no direction to the regularization
    least = 2.0**-23 * float(features.square().sum(1).max())
    assert huge.indices.equal(bait(log_probs.float(), features.float(), 8, regularization=least, form=form).indices)


def test_half_precision_is_read_and_computed_in_float64():
    log_probs, features = make(80, 5, 4)
    log_probs, features = log_probs.half(), features.half()
    want = bait(log_probs.double().log_softmax(1), features.double(), 9)
    got = bait(log_probs, features, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.dtype == torch.float64


def test_unsure_in_the_last_digits_only():
    # 1 - p is 1e-13 here, far below what a difference would leave of it
    log_probs, features = make(50, 3, 4)
    faint = torch.cat([torch.zeros(50, 1, dtype=torch.float64), log_probs[:, :2] - 30], 1)
    faint = faint.log_softmax(1)
    order = faint[:, [1, 0, 2]]
    for form in FORMS:
        picks = bait(faint, features, 6, regularization=1e-14, form=form)
        again = bait(order, features, 6, regularization=1e-14, form=form)
        assert (picks.scores > 0).all()
        assert picks.indices.equal(again.indices)


def test_how_near_the_approximations_come():
    log_probs, features = make(120, 5, 6, spread=1.5)
    labeled = torch.arange(120) % 10 == 0
    fishers = np.stack([reference.fisher(p, h) for p, h in zip(log_probs.exp().numpy(), features.numpy(), strict=True)])

    def reached(rows):
        return reference.objective(fishers, rows, n=15, labeled=labeled.numpy(), regularization=0.1)

    picks = {form: bait(log_probs, features, 15, labeled=labeled, regularization=0.1, form=form) for form in FORMS}
    left = {form: reached(picks[form].indices.tolist()) for form in FORMS}
    gained = {form: (reached([]) - left[form]) / (reached([]) - left["exact"]) for form in FORMS}
    assert gained["block_diagonal"] > 0.97
    assert gained["binary"] > 0.85


def test_auto_takes_the_first_form_that_is_small_enough(monkeypatch):
    log_probs, features = make(40, 4, 3, seed=1)
    picks = {form: bait(log_probs, features, 9, form=form).indices.tolist() for form in FORMS}
    assert len({tuple(rows) for rows in picks.values()}) == 3, picks
    assert form_for(40, 4, 3, 10) == "exact"
    assert bait(log_probs, features, 9).indices.tolist() == picks["exact"]
    monkeypatch.setattr(fisher, "_EXACT_SIZE", 8)
    assert bait(log_probs, features, 9).indices.tolist() == picks["block_diagonal"]
    monkeypatch.setattr(fisher, "_BLOCK_VALUES", 35)
    assert bait(log_probs, features, 9).indices.tolist() == picks["binary"]
    monkeypatch.undo()
    monkeypatch.setattr(fisher, "_KEPT_VALUES", 2 * 40 * 4)
    assert form_for(40, 4, 3, 10) == "block_diagonal"
    assert form_for(41, 4, 3, 10) == "binary"
    monkeypatch.undo()
    monkeypatch.setattr(fisher, "_PRODUCTS", 40 * 10 * (2 * 9 * 3 + 6 * 27))
    assert [form_for(40, 4, 3, n) for n in (10, 11, 100)] == ["exact", "block_diagonal", "binary"]


LOG_PROBS, X = make(10, 3, 2)


@pytest.mark.parametrize(
    ("log_probs", "features", "n", "arguments", "error", "match"),
    [
        (LOG_PROBS, X, 0, {}, BudgetError, "asked for 0 rows, 10 can be picked"),
        (LOG_PROBS, X, 9, {"labeled": torch.arange(10) < 2}, BudgetError, "asked for 9 rows, 8 can be picked"),
        (LOG_PROBS, X[:9], 1, {}, ShapeError, r"same rows.*\(10, 3\) on cpu and \(9, 2\) on cpu"),
        (LOG_PROBS, X[:, :0], 1, {}, ShapeError, r"features must have at least one column"),
        (LOG_PROBS, X.to("meta"), 1, {}, ShapeError, "on meta"),
        (LOG_PROBS, X.cfloat(), 1, {}, ShapeError, "features must be real numbers"),
        (LOG_PROBS, X[:, 0], 1, {}, ShapeError, "features must have 2 axes"),
        (LOG_PROBS[:, 0], X, 1, {}, ShapeError, "log_probs must have 2 axes"),
        (LOG_PROBS[:, :0], X, 1, {}, ShapeError, "log_probs must have at least one column"),
        (LOG_PROBS.exp(), X, 1, {}, DataError, "row 0 sums to"),
        (LOG_PROBS * torch.nan, X, 1, {}, DataError, "row 0 sums to nan"),
        (LOG_PROBS + torch.inf, X, 1, {}, DataError, "row 0 sums to inf"),
        (LOG_PROBS, X * torch.nan, 1, {}, DataError, "features must be finite: 10 of 10"),
        (LOG_PROBS, X / 0, 1, {}, DataError, "features must be finite"),
        (LOG_PROBS, X, 1, {"labeled": torch.ones(10)}, ShapeError, "labeled must be a bool tensor"),
        (LOG_PROBS, X, 1, {"candidates": torch.ones(9).bool()}, ShapeError, r"candidates must have shape \(10,\)"),
        (LOG_PROBS, X, 1, {"regularization": 0}, ConfigError, "regularization must be a finite number above 0, got 0"),
        (LOG_PROBS, X, 1, {"regularization": -1.0}, ConfigError, "above 0, got -1.0"),
        (LOG_PROBS, X, 1, {"regularization": float("inf")}, ConfigError, "above 0, got inf"),
        (LOG_PROBS, X, 1, {"regularization": float("nan")}, ConfigError, "above 0, got nan"),
        (LOG_PROBS, X, 1, {"regularization": "1"}, ConfigError, "above 0, got '1'"),
        (LOG_PROBS, X, 1, {"oversampling": 0}, ConfigError, "oversampling must be a whole number of at least 1, got 0"),
        (LOG_PROBS, X, 1, {"oversampling": 1.5}, ConfigError, "got 1.5"),
        (LOG_PROBS, X, 1, {"form": "diagonal"}, ConfigError, "auto, exact, block_diagonal, binary, got 'diagonal'"),
    ],
)
def test_refuses(log_probs, features, n, arguments, error, match):
    with pytest.raises(error, match=match):
        bait(log_probs, features, n, **arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_classes", [2, 5, 40])
def test_the_same_picks_on_a_gpu(form, n_classes):
    log_probs, features = make(500, n_classes, 6)
    labeled = torch.arange(500) % 11 == 0
    want = bait(log_probs.float(), features.float(), 12, labeled=labeled, form=form)
    got = bait(log_probs.float().cuda(), features.float().cuda(), 12, labeled=labeled.cuda(), form=form)
    assert got.indices.device.type == "cuda"
    assert got.indices.cpu().equal(want.indices)
    assert torch.allclose(got.scores.cpu(), want.scores, rtol=1e-6)


def test_a_mapped_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 4, generator=generator)
    log_probs = torch.randn(300, 3, generator=generator).log_softmax(1)
    np.save(tmp_path / "x.npy", features.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want, got = bait(log_probs, features, 5), bait(log_probs, mapped, 5)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
