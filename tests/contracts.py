"""What every sampler and every model must do. Inherit from the contract, or let a yaml file bring it in."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import has_fit_parameter
from torch.utils._python_dispatch import TorchDispatchMode

from torchal import ActiveLearner, BudgetError, Schedule, rounds
from torchal.pool.interop import fit
from torchal.pool.labels import LabeledData
from torchal.pool.pool import Pool
from torchal.protocols import LastLayer
from torchal.samplers import Margin


def check_name(value):
    """Return the name of one of scikit-learn's checks, or of an estimator, as the id of a test."""
    function = getattr(value, "func", value)
    return getattr(function, "__name__", type(value).__name__)


WEIGHTS_SEARCHES = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7)
"""Whether GridSearchCV weights its scores too where it is given weights."""


def scikit_learn_checks(estimator, *, without=()):
    """Return pairs of estimator and check. Left out are checks of weights as repeated rows on data of some kinds.

    To repeat a row changes the folds of a search, and the variance that sets a kernel's width; a weight does not.
    """
    if not estimator.__sklearn_tags__().input_tags.sparse:
        without = {*without, "sparse"}  # scikit-learn 1.6 asks for it all the same
    left_out = {f"check_sample_weight_equivalence_on_{kind}_data" for kind in without}
    return [pair for pair in estimator_checks_generator(estimator) if check_name(pair[1]) not in left_out]


class NearestMean:
    """A classifier with every capability, made of nothing but means: tests of samplers train no model."""

    takes_tensors = True

    def __init__(self, sharpness=1.0):
        self.sharpness = sharpness

    def get_params(self, deep=True):
        return {"sharpness": self.sharpness}

    def __sklearn_clone__(self):
        return NearestMean(self.sharpness)

    def fit(self, X, y):
        self.classes_ = y.unique()
        self.means_ = torch.stack([X[y == label].mean(0) for label in self.classes_])

    def decision_function(self, X):
        return -self.sharpness * torch.cdist(X, self.means_)

    def predict_log_proba(self, X):
        return self.decision_function(X).log_softmax(1)

    def predict_proba(self, X):
        return self.predict_log_proba(X).exp()

    def predict(self, X):
        return self.classes_[self.decision_function(X).argmax(1)]

    def transform(self, X):
        return X.flip(1).exp()  # far from the inputs: a sampler must not take one for the other

    def last_layer(self, X):
        return LastLayer(self.means_.flip(1), self.means_.new_zeros(len(self.means_)))  # of some other model

    def sample_log_probs(self, X, k):
        return torch.stack([NearestMean.predict_log_proba(self, X + 0.01 * i) for i in range(k)], 1)


class HostCopies(TorchDispatchMode):
    """While open, notes how many numbers each copy from an accelerator to the CPU has."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket
        if name in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[0] if name is torch.ops.aten._to_copy else args[1]
            if source.device.type != "cpu" and result.device.type == "cpu":
                self.sizes.append(source.numel())
        return result

    @property
    def largest(self):
        return max(self.sizes, default=0)


def make_pool(n_rows=60, n_labeled=6, n_classes=3, seed=0):
    """Return a pool of blobs with some labels bought, its oracle, and a validation part."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n_rows) % n_classes
    inputs = torch.randn(n_rows, 4, generator=generator) + 2 * targets[:, None]
    pool = Pool.unlabeled(inputs, n_classes=n_classes)
    if n_labeled:
        rows = torch.arange(n_labeled) * (n_rows // n_labeled) + torch.arange(n_labeled) % n_classes
        pool = pool.with_labels(rows, targets[rows])
    return pool, targets, LabeledData(inputs[:20] + 0.1, targets[:20])


def make_view(pool, validation=None, seed=0, model=None):
    model = NearestMean() if model is None else model
    validation = make_pool()[2] if validation is None else validation
    fit(model, *pool.training_data())
    return pool.view(model, generator=torch.Generator().manual_seed(seed), validation=validation)


def snapshot(view):
    outputs = (view.labeled, view.candidates, view.targets, view.inputs, view.scores, view.log_probs, view.features)
    return [tensor.clone() for tensor in (*outputs, view.generator_state.get_state())]


class SamplerContract:
    """Subclasses say what to test by a method or fixture `sampler`."""

    @pytest.mark.parametrize("n", [1, 7, 54])
    def test_picks_distinct_candidates_in_the_right_number(self, sampler, n):
        view = make_view(make_pool()[0])
        selection = sampler.select(view, n)
        assert selection.indices.shape == selection.scores.shape == (n,)
        assert selection.indices.dtype == torch.int64
        assert selection.scores.is_floating_point()
        assert len(selection.indices.unique()) == n
        assert view.candidates[selection.indices].all()

    def test_the_same_view_gives_the_same_answer_and_is_left_as_it_was(self, sampler):
        view = make_view(make_pool()[0])
        before = snapshot(view)
        first, second = sampler.select(view, 9), sampler.select(view, 9)
        assert first.indices.equal(second.indices)
        assert first.scores.equal(second.scores)
        assert all(old.equal(new) for old, new in zip(before, snapshot(view), strict=True))

    def test_global_randomness_is_neither_used_nor_changed(self, sampler):
        view = make_view(make_pool()[0])
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global one is what is tested
        states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        first = sampler.select(view, 9).indices
        assert torch.get_rng_state().equal(states[0])
        assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
        torch.manual_seed(2)
        assert sampler.select(view, 9).indices.equal(first)

    @pytest.mark.parametrize("n", [0, -1, 55])
    def test_refuses_what_the_pool_cannot_give(self, sampler, n):
        with pytest.raises(BudgetError, match="54 can be picked"):
            sampler.select(make_view(make_pool()[0]), n)

    def test_never_picks_a_skipped_row(self, sampler):
        pool = make_pool()[0]
        skipped = pool.candidates.nonzero().squeeze(1)[:50]
        view = make_view(pool.without(skipped))
        assert not torch.isin(sampler.select(view, 4).indices, skipped).any()

    def test_takes_the_last_row_left(self, sampler):
        pool, targets, _ = make_pool()
        rows = pool.candidates.nonzero().squeeze(1)
        view = make_view(pool.with_labels(rows[1:], targets[rows[1:]]))
        assert sampler.select(view, 1).indices.tolist() == rows[:1].tolist()

    def test_the_first_rows_are_picked_without_a_model_or_drawn(self, sampler):
        pool, _, validation = make_pool(n_labeled=0)
        learner = ActiveLearner(NearestMean(), sampler, pool, validation=validation)
        rows = learner.ask(5)
        assert len(rows.unique()) == 5
        if sampler.needs_model(0):
            assert rows.equal(ActiveLearner(NearestMean(), sampler, pool, validation=validation).ask_at_random(5))

    @pytest.mark.filterwarnings("ignore:all .* candidates have the same .* score")
    @pytest.mark.filterwarnings("ignore:every candidate lies on a centre")
    def test_takes_duplicate_rows(self, sampler):
        pool = make_pool()[0]
        same = Pool.unlabeled(torch.ones_like(pool.inputs), n_classes=3)
        view = make_view(same.with_labels(torch.arange(3), torch.arange(3)))
        assert len(sampler.select(view, 5).indices.unique()) == 5

    @pytest.mark.filterwarnings("ignore:all .* candidates have the same .* score")  # votes
    def test_a_resume_in_the_middle_gives_the_same_picks(self, sampler, tmp_path):
        pool, targets, validation = make_pool()

        def learner():
            return ActiveLearner(NearestMean(), copy.deepcopy(sampler), pool, validation=validation)

        def go_on(learner, rounds):
            """Ask and tell, and return all that was asked."""
            asked = [learner.asked.tolist()] if len(learner.asked) else []
            for _ in range(rounds):
                if len(learner.asked):
                    learner.tell(learner.asked, targets[learner.asked])
                asked.append(learner.ask(6).tolist())
            return asked

        whole = learner()
        asked = go_on(whole, 5)
        cut = learner()
        assert go_on(cut, 3) == asked[:3]
        cut.save(tmp_path / "learner.pt")  # with rows that nobody has answered yet
        resumed = learner()
        resumed.load(tmp_path / "learner.pt")
        assert go_on(resumed, 2) == asked[2:]
        ends = [one.finish_round() for one in (whole, resumed) if one.tell(one.asked, targets[one.asked]) is None]
        assert ends[0].report == ends[1].report
        assert str(whole.sampler.state_dict()) == str(resumed.sampler.state_dict())

    @pytest.mark.filterwarnings("ignore:all .* candidates have the same .* score")  # votes
    def test_state_goes_through_a_file(self, sampler, tmp_path):
        fresh = copy.deepcopy(sampler)
        sampler = copy.deepcopy(sampler)
        pool, targets, validation = make_pool()
        learner = ActiveLearner(NearestMean(), sampler, pool, validation=validation)
        for _ in rounds(learner, lambda rows: targets[rows], Schedule(batch_size=9, max_rounds=3)):
            pass  # each round is observed
        torch.save(sampler.state_dict(), tmp_path / "state.pt")
        fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        view = make_view(learner.pool)
        assert fresh.select(view, 5).indices.equal(sampler.select(view, 5).indices)


class ModelContract:
    """What every model must do. Subclasses say what to test by the fixtures `model` and `inputs`.

    `model` is unfitted; `inputs` are rows (n, ...) float32 that three classes can be told from, and `targets` their
    labels 0, 1, 2.
    """

    def answers(self, model, x):
        names = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")
        return {name: getattr(model, name)(x) for name in names if hasattr(model, name)}

    def test_answers_have_the_right_shapes(self, model, inputs, targets):
        for n_classes in (2, 3):
            rows = targets < n_classes
            x, y = inputs[rows].numpy(), targets[rows].numpy()
            fitted = clone(model).fit(x, y)
            found = self.answers(fitted, x)
            assert found["predict"].shape == (len(x),)
            assert set(found["predict"]) <= set(range(n_classes))
            assert fitted.classes_.tolist() == list(range(n_classes))
            if "decision_function" in found:
                assert found["decision_function"].shape == ((len(x),) if n_classes == 2 else (len(x), n_classes))
            if "predict_proba" in found:
                assert found["predict_proba"].shape == (len(x), n_classes)
                np.testing.assert_allclose(found["predict_proba"].sum(1), 1, rtol=1e-5)
                np.testing.assert_array_equal(found["predict_proba"].argmax(1), found["predict"])
            if "transform" in found:
                assert found["transform"].shape[0] == len(x)
                assert found["transform"].ndim == 2
            assert 0 <= fitted.score(x, y) <= 1

    def test_the_same_seed_the_same_answers_cold_each_time(self, model, inputs, targets):
        x, y = inputs.numpy(), targets.numpy()
        first = self.answers(clone(model).fit(x, y), x)
        again = clone(model).fit(x[::-1].copy(), y[::-1].copy()).fit(x, y)
        for name, answer in self.answers(again, x).items():
            np.testing.assert_array_equal(answer, first[name])

    def test_global_generators_stay(self, model, inputs, targets):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        self.answers(clone(model).fit(inputs.numpy(), targets.numpy()), inputs.numpy())
        assert torch.get_rng_state().equal(before[0])
        assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002

    def test_labels_that_are_text(self, model, inputs, targets):
        names = np.array(["pear", "apple", "fig"])
        fitted = clone(model).fit(inputs.numpy(), names[targets])
        assert list(fitted.classes_) == ["apple", "fig", "pear"]
        assert set(fitted.predict(inputs.numpy())) <= set(names)
        assert 0 <= fitted.score(inputs.numpy(), names[targets]) <= 1

    def test_weights_count(self, model, inputs, targets):
        if not has_fit_parameter(model, "sample_weight"):
            pytest.skip(f"{type(model).__name__}.fit takes no weights")
        x, y = inputs.numpy(), targets.numpy()
        kept = np.arange(len(x)) % 4 != 0
        weighted = clone(model).fit(x, y, sample_weight=kept.astype(float))
        dropped = clone(model).fit(x[kept], y[kept])
        np.testing.assert_allclose(
            weighted.decision_function(x), dropped.decision_function(x), rtol=self.rtol, atol=self.rtol
        )

    rtol = 1e-3

    def test_goes_through_pickle(self, model, inputs, targets):
        fitted = clone(model).fit(inputs.numpy(), targets.numpy())
        copied = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(copied.predict(inputs.numpy()), fitted.predict(inputs.numpy()))

    def test_tensors_give_tensors(self, model, inputs, targets):
        if not getattr(model, "takes_tensors", False):
            pytest.skip(f"{type(model).__name__} is not one of torchal's")
        fitted = clone(model).fit(inputs, targets)
        arrays = self.answers(clone(model).fit(inputs.numpy(), targets.numpy()), inputs.numpy())
        for name, answer in self.answers(fitted, inputs).items():
            assert isinstance(answer, torch.Tensor)
            assert isinstance(arrays[name], np.ndarray)
            np.testing.assert_array_equal(answer.numpy(), arrays[name])

    def test_refuses_what_it_cannot_learn_from(self, model, inputs, targets):
        x, y = inputs.numpy(), targets.numpy()
        with pytest.raises(ValueError, match="class"):
            clone(model).fit(x, np.zeros_like(y))
        with pytest.raises(ValueError, match=r"NaN|finite"):
            clone(model).fit(np.where(np.arange(x.size).reshape(x.shape) == 5, np.nan, x), y)
        with pytest.raises(ValueError, match=r"0 sample|at least one row|minimum of 1"):
            clone(model).fit(x[:0], y[:0])
        fitted = clone(model).fit(x, y)
        with pytest.raises(ValueError, match=r"features|shape"):
            fitted.predict(x[..., :-1])

    def test_selects_in_a_pool(self, model, inputs, targets):
        pool = Pool.unlabeled(inputs, n_classes=3)
        learner = ActiveLearner(model, Margin(), pool)
        learner.tell(torch.arange(9), targets[:9])
        asked = learner.ask(4)
        assert len(asked.unique()) == 4
        assert not bool((asked < 9).any())
