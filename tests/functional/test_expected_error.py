from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression

from tests.references import expected_error as reference
from torchal import ConfigError, DataError, ShapeError
from torchal.engine import features as reading
from torchal.engine import logistic_rows
from torchal.functional import expected_error_of_refits, expected_error_reduction

FORMS = {"newton": True, "kronecker": False}


def problem(n_rows=14, n_columns=3, n_classes=3, n_labeled=5, seed=0, sharpness=1.0):
    """Return features, probabilities of some last layer, and the labeled rows: the first ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, n_columns))
    probs = reference.softmax(sharpness * x @ rng.normal(size=(n_columns, n_classes)) + rng.normal(size=n_classes))
    return x, probs, np.arange(n_rows) < n_labeled


def tensors(x, probs, labeled, dtype=torch.float64):
    return torch.tensor(x, dtype=dtype), torch.tensor(probs).log().to(dtype), torch.tensor(labeled)


def scores(x, probs, labeled, dtype=torch.float64, **arguments):
    x, log_probs, labeled = tensors(x, probs, labeled, dtype)
    return expected_error_reduction(log_probs, x, labeled=labeled, **arguments)


def trained(x, y, n_labeled, C=1.0):
    """Return probabilities of all rows by a fit on the first ones, and a function that fits with one more row."""
    x, y = np.asarray(x), np.asarray(y)

    @cache
    def refit(row=None, label=None):
        rows = list(range(n_labeled)) + ([] if row is None else [row])
        labels = [*y[:n_labeled], *([] if row is None else [label])]
        return LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(x[rows], labels).predict_proba(x)

    return refit(), refit


class TestByHand:
    def test_one_step_of_one_weight(self):
        # Two classes, one feature, no intercept: H = p (1 - p) + l2 is that of one weight, the difference of the two.
        # At the labeled row p = 1/2, as everywhere: H = 1/4 + 1. The added row at 1 with label y moves the weight to
        # the root of 1.25 w = y - sigmoid(w), which is +-0.3339; the last row's logit is twice that.
        x, log_probs = torch.tensor([[1.0], [1.0], [2.0]]), torch.full((3, 2), 0.5).log()
        labeled = torch.tensor([True, False, False])
        weight = 0.3339
        assert 1.25 * weight == pytest.approx(1 - torch.tensor(weight).sigmoid().item(), abs=1e-4)
        after = torch.tensor(2 * weight).sigmoid().item()
        for loss, want in (("zero_one", 1 - after), ("log", -after * np.log(after) - (1 - after) * np.log(1 - after))):
            got = expected_error_reduction(
                log_probs, x, labeled=labeled, rows=torch.tensor([1]), fit_intercept=False, n_steps=1, loss=loss
            )
            assert got.item() == pytest.approx(-want, abs=1e-3)

    def test_a_row_among_many_like_it_is_wanted_before_one_alone(self):
        x = torch.tensor([[-2.0], [2.0], [-0.3], [-0.2], [-0.1], [0.1], [0.2], [0.3], [-9.0]])
        log_probs = torch.nn.functional.logsigmoid(x * torch.tensor([-1.0, 1.0]))
        found = expected_error_reduction(log_probs, x, labeled=torch.arange(9) < 2)
        assert found.argmin() == 6
        assert found.shape == (7,)

    def test_refits_are_averaged_over_labels_and_rows(self):
        log_probs = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]).log()
        asked = []

        def refit(rows, labels):
            asked.extend(zip(rows.tolist(), labels.tolist(), strict=True))
            sure = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]]).log()
            return torch.where((labels == 0)[:, None, None], sure, log_probs)

        found = expected_error_of_refits(
            log_probs, refit, rows=torch.tensor([1, 2]), pool=torch.arange(3), loss="zero_one"
        )
        first = 0.25 * (0.2 + 0.5) / 2 + 0.75 * (0.5 + 0.1) / 2
        second = 0.9 * (0.2 + 0.4) / 2 + 0.1 * (0.5 + 0.25) / 2
        assert found.tolist() == pytest.approx([-first, -second])
        assert asked == [(1, 0), (1, 1), (2, 0), (2, 1)]
        kept = expected_error_of_refits(
            log_probs, refit, rows=torch.tensor([2]), pool=torch.arange(3), loss="zero_one", leave_out=False
        )
        assert kept.item() == pytest.approx(-(0.9 * (0.2 + 0.4 + 0.5) / 3 + 0.1 * (0.5 + 0.25 + 0.1) / 3))


class TestAgainstTheReference:
    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(2, 4),
        st.integers(1, 6),
        st.integers(1, 6),
        st.sampled_from([1, 2, 3]),
        st.sampled_from(list(FORMS)),
        st.sampled_from(["log", "zero_one"]),
        st.booleans(),
        st.booleans(),
        st.integers(0, 1000),
    )
    def test_values(self, n_classes, n_columns, n_labeled, n_steps, form, loss, fit_intercept, leave_out, seed):
        data = problem(10, n_columns, n_classes, n_labeled, seed)
        rows, pool = [6, 8], [6, 7, 8, 9]
        common = {"l2": 0.5, "fit_intercept": fit_intercept, "n_steps": n_steps, "loss": loss, "leave_out": leave_out}
        want = reference.expected_error_reduction(*data, rows, pool, whole=FORMS[form], **common)
        got = scores(*data, rows=torch.tensor(rows), pool=torch.tensor(pool), form=form, **common)
        np.testing.assert_allclose(got, want, atol=1e-5)

    @pytest.mark.parametrize("n_columns", [3, 30])
    def test_two_classes_have_the_same_value_in_both_forms(self, n_columns):
        data = problem(40, n_columns, n_classes=2, n_labeled=9)
        for n_steps in (1, 2):
            whole, mean = (scores(*data, form=form, n_steps=n_steps) for form in FORMS)
            torch.testing.assert_close(whole, mean, atol=1e-6, rtol=0)

    def test_auto_is_the_whole_hessian_while_it_is_small(self, monkeypatch):
        data = problem()
        whole, mean = (scores(*data, form=form) for form in FORMS)
        assert not torch.allclose(whole, mean)
        assert scores(*data).equal(whole)
        monkeypatch.setitem(expected_error_reduction.__globals__, "_NEWTON_PARAMETERS", 11)
        assert scores(*data).equal(mean)

    @pytest.mark.parametrize("form", list(FORMS))
    @pytest.mark.parametrize("n_steps", [1, 2])
    @pytest.mark.parametrize("n_columns", [4, 20])
    def test_chunks_change_nothing(self, form, n_steps, n_columns, monkeypatch):
        data = problem(30, n_columns, n_labeled=12)
        want = scores(*data, form=form, n_steps=n_steps)
        for module in (expected_error_reduction.__globals__, vars(logistic_rows), vars(reading)):
            monkeypatch.setitem(module, "values_per_chunk", lambda device: 250)
        torch.testing.assert_close(scores(*data, form=form, n_steps=n_steps), want)

    def test_a_mapped_file(self, tmp_path):
        x, probs, labeled = problem()
        np.save(tmp_path / "x.npy", x)
        _, log_probs, labeled = tensors(x, probs, labeled)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        got = expected_error_reduction(log_probs, mapped, labeled=labeled)
        assert got.equal(scores(*problem()))


class TestAgainstRefits:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_blobs_rank_as_by_exact_refits(self, seed):
        x, y = make_blobs(36, n_features=5, centers=3, cluster_std=3.0, random_state=seed)
        y[:3] = np.arange(3)
        probs, refit = trained(x, y, 12)
        rows = range(12, 36)
        labeled = np.arange(36) < 12
        for loss in ("log", "zero_one"):
            want = reference.by_refits(probs, refit, rows, rows, loss=loss)
            assert spearmanr(scores(x, probs, labeled, loss=loss), want)[0] > 0.95
            assert spearmanr(scores(x, probs, labeled, loss=loss, form="kronecker"), want)[0] > 0.8

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_many_steps_end_at_the_exact_refit(self, n_classes):
        x, y = make_blobs(24, n_features=4, centers=n_classes, cluster_std=4.0, random_state=2)
        y[:n_classes] = np.arange(n_classes)
        probs, refit = trained(x, y, 10)
        rows = range(10, 24)
        want = reference.by_refits(probs, refit, rows, rows)
        for form in FORMS:
            np.testing.assert_allclose(scores(x, probs, np.arange(24) < 10, form=form, n_steps=200), want, atol=1e-4)

    def test_digits_rank_as_by_exact_refits(self):
        x, y = load_digits(return_X_y=True)
        first = [int(np.flatnonzero(y == c)[5]) for c in range(10)]
        order = first + [i for i in range(200, 240) if i not in first]
        x, y = x[order] / 16, y[order]
        probs, refit = trained(x, y, 20, C=1.0)
        rows = range(20, 32)
        want = reference.by_refits(probs, refit, rows, range(20, 50))
        pool, rows = torch.arange(20, 50), torch.arange(20, 32)
        for form in FORMS:
            got = scores(x, probs, np.arange(len(x)) < 20, rows=rows, pool=pool, form=form)
            assert spearmanr(got, want)[0] > 0.95

    def test_the_penalty_is_that_of_a_logistic_regression(self):
        x, y = make_blobs(30, n_features=3, centers=2, cluster_std=4.0, random_state=0)
        y[:2] = 0, 1
        for C in (0.1, 10.0):
            probs, refit = trained(x, y, 10, C=C)
            want = reference.by_refits(probs, refit, range(10, 30), range(10, 30))
            labeled = np.arange(30) < 10
            right, wrong = (scores(x, probs, labeled, l2=l2, n_steps=30).numpy() for l2 in (1 / C, 3 / C))
            assert np.abs(right - want).max() < 0.01
            assert np.abs(wrong - want).max() > 2 * np.abs(right - want).max()

    def test_the_loop_over_refits_is_that_of_the_reference(self):
        x, y = make_blobs(16, n_features=3, centers=3, random_state=0)
        y[:3] = np.arange(3)
        probs, refit = trained(x, y, 6)

        def many(rows, labels):
            return torch.tensor(
                np.stack([refit(r, c) for r, c in zip(rows.tolist(), labels.tolist(), strict=True)])
            ).log()[:, 6:]

        rows = torch.arange(6, 16)
        for at_once in (1, 4, 64):
            got = expected_error_of_refits(
                torch.tensor(probs).log().requires_grad_(), many, rows=rows, pool=rows, refits_at_once=at_once
            )
            np.testing.assert_allclose(got, reference.by_refits(probs, refit, rows.tolist(), rows.tolist()), atol=1e-9)


def test_rows_of_a_sampled_pool_have_no_advantage_when_left_out():
    x, probs, labeled = problem(n_rows=200, n_columns=6, n_labeled=20)
    rows = torch.arange(20, 200)
    whole, gaps = scores(x, probs, labeled), {True: [], False: []}
    for seed in range(20):
        pool = rows[torch.randperm(180, generator=torch.Generator().manual_seed(seed))[:30].sort().values]
        inside = torch.isin(rows, pool)
        for leave_out, found in gaps.items():
            off = scores(x, probs, labeled, pool=pool, leave_out=leave_out) - whole
            found.append(float(off[inside].mean() - off[~inside].mean()))
    assert np.mean(gaps[False]) > 10 * abs(np.mean(gaps[True]))


class TestEdges:
    def test_nothing_to_score(self):
        x, probs, labeled = problem()
        assert scores(x, probs, labeled, rows=[]).shape == (0,)
        assert scores(x, probs, np.ones(14, dtype=bool), pool=[0, 1]).shape == (0,)

    def test_one_class(self):
        x, log_probs = torch.rand(4, 2), torch.zeros(4, 1)
        found = expected_error_reduction(log_probs, x, labeled=torch.arange(4) < 1)
        assert found.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("form", list(FORMS))
    def test_one_labeled_row_and_one_row_left(self, form):
        x, probs, _ = problem()
        assert torch.isfinite(scores(x, probs, np.arange(14) < 1, form=form)).all()
        assert scores(x, probs, np.arange(14) < 13, form=form).tolist() == [0]
        kept = scores(x, probs, np.arange(14) < 13, form=form, leave_out=False)
        assert kept.item() < 0

    def test_every_row_labeled(self):
        x, probs, _ = problem()
        assert scores(x, probs, np.ones(14, dtype=bool)).shape == (0,)
        none = scores(x, probs, np.arange(14) < 3, pool=torch.empty(0, dtype=torch.int64))
        assert none.tolist() == [0] * 11

    @pytest.mark.parametrize("loss", ["log", "zero_one"])
    @pytest.mark.parametrize("n_steps", [1, 2])
    @pytest.mark.parametrize("form", list(FORMS))
    @pytest.mark.parametrize("sure", [[0, 1, 2, 3], [6, 7, 8], list(range(14))], ids=["labeled", "others", "all"])
    def test_probabilities_of_exactly_0_and_1(self, sure, form, n_steps, loss):
        x, probs, labeled = problem()
        probs[sure] = np.eye(3)[np.asarray(sure) % 2]  # the last class never
        found = scores(x, probs, labeled, form=form, n_steps=n_steps, loss=loss)
        assert torch.isfinite(found).all()
        assert (found <= 0).all()

    @pytest.mark.parametrize("form", list(FORMS))
    def test_a_sure_row_changes_nothing(self, form):
        x, probs, labeled = problem()
        probs[9] = [0, 1, 0]
        got = scores(x, probs, labeled, rows=torch.tensor([9]), form=form)
        others = [i for i in range(5, 14) if i != 9]
        assert -got.item() == pytest.approx(np.mean([reference.loss_of(probs[i], "log") for i in others]))

    @pytest.mark.parametrize("form", list(FORMS))
    @pytest.mark.parametrize("n_steps", [1, 2])
    def test_a_class_of_no_probability_is_a_class_that_is_not_there(self, form, n_steps):
        x, probs, labeled = problem(n_classes=2)
        three = np.hstack([probs, np.zeros((14, 1))])
        # two classes have one vector of weights, hence half the penalty each
        want = scores(x, probs, labeled, form="newton", n_steps=n_steps)
        if form == "newton":
            torch.testing.assert_close(scores(x, three, labeled, form=form, l2=2.0, n_steps=n_steps), want)
        assert torch.isfinite(scores(x, three, labeled, form=form, n_steps=n_steps)).all()

    @pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
    @pytest.mark.parametrize("form", list(FORMS))
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_scales(self, scale, form, dtype):
        x, probs, labeled = problem()
        found = scores(x * scale, probs, labeled, dtype, form=form)
        assert torch.isfinite(found).all()
        same = scores(x, probs, labeled, dtype, form=form, l2=max(scale, 1e-3) ** -2)
        if 1e-4 < scale < 1e4:  # what is scaled by s has the penalty scaled by s squared
            torch.testing.assert_close(found, same, atol=1e-5, rtol=0)
        if scale < 1e-10:  # the penalty forbids all but a change of the intercept
            assert float(found.max() - found.min()) < float(scores(x, probs, labeled, dtype, form=form).std()) * 10

    def test_a_shift_changes_nothing_where_there_is_an_intercept(self):
        x, probs, labeled = problem()
        for form in FORMS:
            want = scores(x, probs, labeled, form=form)
            torch.testing.assert_close(scores(x + 100, probs, labeled, form=form), want, atol=1e-6, rtol=0)
            unlike = scores(x + 100, probs, labeled, form=form, fit_intercept=False)
            assert not torch.allclose(unlike, want, atol=1e-3)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_low_precision_is_read_and_computed_in_float32(self, dtype):
        x, log_probs, labeled = tensors(*problem())
        want = expected_error_reduction(log_probs, x.to(dtype), labeled=labeled)
        got = expected_error_reduction(log_probs.float(), x.to(dtype), labeled=labeled)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=0)
        coarse = expected_error_reduction(log_probs.to(dtype), x.to(dtype), labeled=labeled)
        torch.testing.assert_close(coarse.double(), want, atol=0.02, rtol=0)

    @pytest.mark.parametrize("form", list(FORMS))
    def test_equal_rows(self, form):
        x, probs, labeled = problem()
        x[6:], probs[6:] = x[5], probs[5]
        found = scores(x, probs, labeled, form=form)
        close = 1e-9 if form == "kronecker" else 1e-7  # of fits that end when their steps are small
        torch.testing.assert_close(found, found[:1].expand(9), atol=close, rtol=0)
        x[:], probs[:] = x[5], probs[5]
        found = scores(x, probs, labeled, form=form)
        torch.testing.assert_close(found, found[:1].expand(9), atol=close, rtol=0)

    def test_labeled_rows_may_be_in_the_pool(self):
        data = problem()
        found = scores(*data, rows=torch.tensor([9]), pool=torch.arange(14))
        want = reference.expected_error_reduction(*data, [9], range(14))
        np.testing.assert_allclose(found, want, atol=1e-6)

    def test_row_order_is_kept(self):
        data = problem()
        found, all_rows = scores(*data, rows=torch.tensor([11, 6])), scores(*data)
        torch.testing.assert_close(found, all_rows[[6, 1]])

    def test_settings_of_torch_are_left_alone_and_nothing_has_a_gradient(self):
        x, log_probs, labeled = tensors(*problem(), torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = expected_error_reduction(log_probs, x.requires_grad_(), labeled=labeled)
        assert not found.requires_grad
        torch.testing.assert_close(found, scores(*problem(), torch.float32))


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"loss": "hinge"}, ConfigError, "loss must be one of log, zero_one; got 'hinge'"),
            ({"form": "exact"}, ConfigError, "form must be one of auto, newton, kronecker"),
            ({"l2": 0}, ConfigError, "l2 must be a finite number above 0, got 0"),
            ({"l2": float("nan")}, ConfigError, "l2 must be a finite number above 0"),
            ({"l2": True}, ConfigError, "l2 must be a finite number above 0"),
            ({"n_steps": 0}, ConfigError, "n_steps must be a whole number of at least 1"),
            ({"fit_intercept": "no"}, ConfigError, "fit_intercept must be true or false"),
            ({"leave_out": 1}, ConfigError, "leave_out must be true or false"),
            ({"rows": torch.tensor([6, 6])}, ShapeError, "rows must be distinct"),
            ({"rows": torch.tensor([14])}, ShapeError, r"rows must lie in \[0, 14\)"),
            ({"pool": torch.tensor([0.5])}, ShapeError, "pool must be"),
            ({"rows": torch.tensor([2, 6])}, DataError, "1 of 2 rows to be scored are labeled already"),
            ({"labeled": torch.zeros(14, dtype=torch.bool)}, DataError, "no row is labeled"),
            ({"labeled": torch.zeros(13, dtype=torch.bool)}, ShapeError, r"labeled must have shape \(14,\)"),
            ({"labeled": torch.zeros(14)}, ShapeError, "labeled must be a bool tensor"),
            ({"log_probs": torch.rand(13, 3)}, ShapeError, r"log_probs must be \(14, C\) on cpu, got \(13, 3\)"),
            ({"log_probs": torch.rand(14)}, ShapeError, "log_probs must have 2 axes"),
            ({"log_probs": torch.ones(14, 3, dtype=torch.int64)}, ShapeError, "log_probs must be floating point"),
            ({"log_probs": torch.full((14, 3), 1 / 3)}, DataError, "row 0 sums to"),
            ({"log_probs": torch.full((14, 3), torch.nan)}, DataError, "row 0 sums to nan"),
            ({"log_probs": torch.full((14, 3), torch.inf)}, DataError, "row 0 sums to inf"),
            ({"log_probs": torch.empty(14, 0)}, ShapeError, "at least one column"),
            ({"features": torch.rand(14)}, ShapeError, "features must have 2 axes"),
            ({"features": torch.ones(14, 3, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
            ({"features": torch.full((14, 3), torch.nan)}, DataError, "features must be finite"),
            ({"features": torch.full((14, 3), torch.inf)}, DataError, "features must be finite"),
            ({"features": torch.empty(14, 0)}, ShapeError, "at least one column"),
        ],
    )
    def test_of_the_closed_form(self, arguments, error, message):
        x, log_probs, labeled = tensors(*problem())
        given_ = {"features": x, "log_probs": log_probs, "labeled": labeled} | arguments
        features, log_probs = given_.pop("features"), given_.pop("log_probs")
        with pytest.raises(error, match=message):
            expected_error_reduction(log_probs, features, **given_)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"loss": "hinge"}, ConfigError, "loss must be one of log, zero_one"),
            ({"refits_at_once": 0}, ConfigError, "refits_at_once must be a whole number"),
            ({"rows": torch.tensor([4])}, ShapeError, r"rows must lie in \[0, 3\)"),
            ({"pool": torch.tensor([1, 1])}, ShapeError, "pool must be distinct"),
            ({"log_probs": torch.zeros(3, 2)}, DataError, "row 0 sums to 2"),
            ({}, ShapeError, r"refit must answer with \(2, 3, 2\) log-probabilities, got \(2, 3\)"),
        ],
    )
    def test_of_refits(self, arguments, error, message):
        given_ = {"log_probs": torch.full((3, 2), 0.5).log(), "rows": torch.tensor([1]), "pool": torch.arange(3)}
        given_ |= arguments
        log_probs = given_.pop("log_probs")
        with pytest.raises(error, match=message):
            expected_error_of_refits(log_probs, lambda rows, labels: torch.zeros(2, 3), **given_)


@pytest.mark.gpu
@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("n_steps", [1, 2])
@pytest.mark.parametrize("n_columns", [3, 20])
def test_the_same_values_on_a_gpu(form, n_steps, n_columns):
    x, log_probs, labeled = tensors(*problem(40, n_columns, n_labeled=8))
    want = expected_error_reduction(log_probs, x, labeled=labeled, form=form, n_steps=n_steps)
    got = expected_error_reduction(log_probs.cuda(), x.cuda(), labeled=labeled.cuda(), form=form, n_steps=n_steps)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), want, atol=1e-7, rtol=0)
    assert (
        got.argsort(descending=True, stable=True)[:5].tolist()
        == want.argsort(descending=True, stable=True)[:5].tolist()
    )
