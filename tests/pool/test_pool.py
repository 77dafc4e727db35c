import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

from tests.contracts import NearestMean, make_pool, make_view
from torchal import UNLABELED, CapabilityError, DataError, LabeledData, Pool, PoolView, ShapeError
from torchal.pool import interop
from torchal.protocols import HasDecisionFunction, HasEmbedding, HasPosterior, HasProbabilities, provides

GENERATOR = torch.Generator().manual_seed(0)


class TestPool:
    def test_starts_without_labels(self):
        pool = Pool.unlabeled(torch.zeros(4, 2), n_classes=3)
        assert pool.targets.tolist() == [UNLABELED] * 4
        assert pool.candidates.all()
        assert (len(pool), pool.n_labeled, pool.n_classes) == (4, 0, 3)
        assert pool.source_rows.tolist() == [0, 1, 2, 3]

    def test_buying_labels_gives_a_new_pool(self):
        old = Pool.unlabeled(torch.zeros(4, 2), n_classes=3)
        new = old.with_labels(torch.tensor([3, 0]), torch.tensor([2, 1]))
        assert new.targets.tolist() == [1, -1, -1, 2]
        assert new.labeled.tolist() == [True, False, False, True]
        assert old.n_labeled == 0

    def test_training_data_is_in_row_order(self):
        inputs = torch.arange(4.0)[:, None]
        pool = Pool.unlabeled(inputs, n_classes=3).with_labels(torch.tensor([3, 0]), torch.tensor([2, 1]))
        x, y = pool.training_data()
        assert x.squeeze(1).tolist() == [0.0, 3.0]
        assert y.tolist() == [1, 2]

    @given(st.permutations(range(6)), st.integers(0, 6))
    def test_the_order_of_buying_does_not_matter(self, rows, cut):
        targets = torch.tensor([0, 1, 2, 0, 1, 2])
        pool = Pool.unlabeled(torch.zeros(6, 1), n_classes=3)
        for part in (rows[:cut], rows[cut:]):
            pool = pool.with_labels(torch.tensor(part, dtype=torch.int64), targets[part])
        assert pool.targets.equal(targets)
        assert not pool.candidates.any()

    def test_skipped_rows_are_no_candidates_until_they_are_labeled(self):
        pool = Pool.unlabeled(torch.zeros(3, 1), n_classes=2).without(torch.tensor([1]))
        assert pool.candidates.tolist() == [True, False, True]
        assert pool.with_labels(torch.tensor([1]), torch.tensor([0])).skipped.tolist() == [False, False, False]

    def test_takes_numpy_and_lists(self):
        pool = Pool.unlabeled(np.zeros((3, 2)), n_classes=2).with_labels([1], [0])
        assert pool.targets.tolist() == [-1, 0, -1]

    def test_classes_are_counted_from_labels_unless_given(self):
        targets = torch.tensor([0, 2, -1])
        assert Pool(torch.zeros(3, 1), targets, targets >= 0).n_classes == 3

    @pytest.mark.parametrize(
        ("rows", "labels", "error", "message"),
        [
            ([0], [1], DataError, "1 of 1 rows are labeled already, the first is row 0"),
            ([1, 1], [0, 0], ShapeError, "1 of 2 are repeats"),
            ([4], [0], ShapeError, r"\[0, 4\), got 4 to 4"),
            ([-1], [0], ShapeError, r"got -1 to -1"),
            ([1], [3], DataError, r"labels must lie in \[0, 3\), got 3 to 3"),
            ([1], [-1], DataError, "got -1 to -1"),
            ([1, 2], [0], ShapeError, "one label for each of 2 rows, got 1"),
            ([1], [0.5], DataError, r"whole numbers in \[0, 3\), got 0.5"),
            ([1.0], [0], ShapeError, "integers, got torch.float32"),
        ],
    )
    def test_refuses_what_cannot_be_bought(self, rows, labels, error, message):
        pool = Pool.unlabeled(torch.zeros(4, 2), n_classes=3).with_labels([0], [1])
        with pytest.raises(error, match=message):
            pool.with_labels(torch.tensor(rows), torch.tensor(labels))

    def test_refuses_labels_that_were_not_bought(self):
        with pytest.raises(DataError, match="2 rows that are not labeled have a target"):
            Pool(torch.zeros(3, 1), torch.tensor([0, 1, 1]), torch.tensor([True, False, False]))

    @pytest.mark.parametrize("value", [math.inf, -math.inf])
    def test_refuses_inputs_that_are_infinite(self, value):
        inputs = torch.zeros(3, 2)
        inputs[0, 0], inputs[2, 1] = math.nan, value
        with pytest.raises(DataError, match="1 of 3 rows are not, the first is row 2"):
            Pool.unlabeled(inputs, n_classes=2)

    @pytest.mark.parametrize("n_classes", [0, 1, -1, 2.0, True, "3"])
    def test_refuses_less_than_two_classes(self, n_classes):
        with pytest.raises(DataError, match="n_classes must be a whole number of at least 2"):
            Pool.unlabeled(torch.zeros(3, 1), n_classes=n_classes)

    def test_takes_arrays_of_every_kind(self):
        rows = np.arange(6.0).reshape(3, 2)
        read_only = rows.copy()
        read_only.setflags(write=False)
        for inputs in (rows.tolist(), rows[::-1], read_only):
            assert Pool(inputs, np.array([0, -1, 1])).inputs.tolist() == np.asarray(inputs).tolist()

    def test_source_rows_are_whole_numbers(self):
        pool = Pool.unlabeled(torch.zeros(2, 1), n_classes=2, source_rows=np.array([7, 5], dtype=np.int32))
        assert pool.source_rows.dtype == torch.int64
        with pytest.raises(ShapeError, match="source_rows must be"):
            Pool.unlabeled(torch.zeros(2, 1), n_classes=2, source_rows=torch.tensor([1.5, 2.0]))

    def test_counts_follow_the_labels(self):
        pool = Pool.unlabeled(torch.zeros(4, 1), n_classes=2)
        assert (pool.n_labeled, int(pool.candidates.sum())) == (0, 4)
        more = pool.with_labels([1], [0]).without([2])
        assert (more.n_labeled, more.candidates.tolist()) == (1, [True, False, False, True])

    def test_refuses_an_empty_pool(self):
        with pytest.raises(DataError, match="at least one row"):
            Pool.unlabeled(torch.zeros(0, 2), n_classes=2)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"targets": torch.zeros(2, dtype=torch.int64)},
            {"targets": torch.zeros(3)},
            {"targets": torch.zeros(3, dtype=torch.int64, device="meta")},
            {"targets": torch.full((3,), -1), "labeled": torch.zeros(4, dtype=torch.bool)},
            {"targets": torch.full((3,), -1), "source_rows": torch.zeros(4)},
        ],
    )
    def test_refuses_masks_that_do_not_fit(self, wrong):
        with pytest.raises(ShapeError):
            Pool(torch.zeros(3, 2), n_classes=2, **wrong)

    def test_takes_inputs_that_are_no_tensor(self):
        class Rows:
            def __len__(self):
                return 5

            def __getitem__(self, rows):
                return torch.stack([rows.float(), -rows.float()], 1)

        pool = Pool.unlabeled(Rows(), n_classes=2).with_labels(torch.tensor([0, 4]), torch.tensor([0, 1]))
        view = make_view(pool)
        assert view.scores.shape == (5, 2)
        assert view.log_probs.argmax(1).tolist() == [0, 0, 0, 1, 1]


class CountingMean(NearestMean):
    calls = 0

    def decision_function(self, X):
        CountingMean.calls += 1
        return super().decision_function(X)


class TestPoolView:
    def test_outputs_are_computed_once(self):
        pool = make_pool()[0]
        model = CountingMean()
        model.fit(*pool.training_data())
        view = pool.view(model, generator=GENERATOR)
        CountingMean.calls = 0
        assert view.scores is view.scores
        assert CountingMean.calls == 1

    def test_the_generator_starts_anew_at_each_read_and_is_cut_off_from_its_source(self):
        source = torch.Generator().manual_seed(3)
        view = make_pool()[0].view(NearestMean(), generator=source)
        first = torch.rand(3, generator=view.generator)
        torch.rand(3, generator=source)
        assert torch.rand(3, generator=view.generator).equal(first)

    @pytest.mark.parametrize(
        ("model", "columns"), [(LogisticRegression(), 3), (SVC(decision_function_shape="ovr"), 3)], ids=["lr", "svc"]
    )
    def test_scikit_learn_models_are_models(self, model, columns):
        pool = make_pool()[0]
        interop.fit(model, *pool.training_data())
        view = pool.view(model, generator=GENERATOR)
        assert view.scores.shape == (60, columns)
        assert view.scores.numpy() == pytest.approx(model.decision_function(pool.inputs.numpy()))

    def test_a_binary_decision_function_is_one_column(self):
        pool, _, _ = make_pool(n_classes=2)
        model = LinearSVC()
        interop.fit(model, *pool.training_data())
        assert pool.view(model, generator=GENERATOR).scores.shape == (60, 1)

    def test_images_are_flattened_for_scikit_learn(self):
        images = torch.rand(10, 1, 3, 3)
        pool = Pool.unlabeled(images, n_classes=2).with_labels(torch.arange(4), torch.arange(4) % 2)
        model = LogisticRegression()
        interop.fit(model, *pool.training_data())
        view = pool.view(model, generator=GENERATOR)
        assert view.log_probs.shape == (10, 2)
        assert view.features.equal(images.flatten(1))

    def test_features_are_the_embedding_where_the_model_has_one(self):
        view = make_view(make_pool()[0])
        assert view.features.equal(view.model.transform(view.inputs))

    def test_classes_are_those_the_model_has_seen(self):
        pool = Pool.unlabeled(torch.rand(6, 2), n_classes=5).with_labels(torch.tensor([0, 1]), torch.tensor([4, 2]))
        view = make_view(pool)
        assert view.classes.tolist() == [2, 4]
        assert view.scores.shape == (6, 2)
        assert view.n_classes == 5

    def test_posterior_log_probs(self):
        assert make_view(make_pool()[0]).posterior_log_probs(4).shape == (60, 4, 3)

    def test_validation_score(self):
        pool, _, validation = make_pool()
        view = make_view(pool, validation)
        expected = (view.model.predict(validation.inputs) == validation.targets).double().mean()
        assert view.validation_score() == pytest.approx(float(expected))
        with pytest.raises(CapabilityError, match="validation part"):
            pool.view(view.model, generator=torch.Generator()).validation_score()

    @pytest.mark.parametrize(
        ("capability", "name"),
        [(HasDecisionFunction, "scores"), (HasProbabilities, "log_probs"), (HasEmbedding, "features")],
    )
    def test_from_tensors_has_what_it_was_given_and_refuses_the_rest(self, capability, name):
        view = PoolView.from_tensors(**{name: torch.full((3, 2), 0.5).log()})
        assert view.has(capability)
        assert getattr(view, name).shape == (3, 2)
        for other in {"scores", "log_probs", "features"} - {name}:
            with pytest.raises(CapabilityError, match=f"{other} needs a model.*has {name}"):
                getattr(view, other)
        assert not view.has(HasPosterior)

    def test_from_tensors_fills_in_masks(self):
        view = PoolView.from_tensors(scores=torch.zeros(3, 4), targets=torch.tensor([-1, 5, -1]))
        assert view.labeled.tolist() == [False, True, False]
        assert view.candidates.tolist() == [True, False, True]
        assert view.n_classes == 6

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"scores": torch.zeros(3, 2), "log_probs": torch.zeros(4, 2)},
            {"features": torch.zeros(3, 2, 2)},
            {"scores": torch.zeros(3, 2), "labeled": torch.zeros(2, dtype=torch.bool)},
            {"scores": torch.zeros(3, 2), "targets": torch.zeros(3)},
            {"labeled": torch.tensor([True]), "candidates": torch.tensor([True])},
            {"scores": torch.zeros(0, 2)},
        ],
    )
    def test_from_tensors_refuses_what_does_not_fit(self, wrong):
        with pytest.raises(ShapeError):
            PoolView.from_tensors(**wrong)


class TestRefit:
    def test_is_as_if_the_labels_had_been_bought(self):
        pool, targets, validation = make_pool()
        view = make_view(pool, validation)
        before = view.scores.clone()
        rows = view.candidates.nonzero().squeeze(1)[:10]
        after = view.refit(rows, targets[rows])
        bought = make_view(pool.with_labels(rows, targets[rows]), validation)
        assert after.scores.equal(bought.scores)
        assert after.targets.equal(bought.targets)
        assert after.candidates.equal(bought.candidates)
        assert after.validation_score() == bought.validation_score()
        assert view.scores.equal(before)
        assert pool.n_labeled == 6

    def test_several_at_once_are_each_as_if_alone(self):
        pool, targets, validation = make_pool()
        view = make_view(pool, validation)
        rows = view.candidates.nonzero().squeeze(1)[:12].reshape(3, 4)
        many = view.refit(rows, targets[rows])
        alone = [view.refit(r, targets[r]) for r in rows]
        assert many.scores.shape == (3, 60, 3)
        for name in ("scores", "log_probs", "features", "labeled", "candidates", "targets"):
            assert getattr(many, name).equal(torch.stack([getattr(v, name) for v in alone]))
        assert many.posterior_log_probs(2).shape == (3, 60, 2, 3)
        assert many.validation_score() == pytest.approx(sum(v.validation_score() for v in alone) / 3)

    def test_refuses_fits_with_different_classes(self):
        pool = Pool.unlabeled(torch.rand(6, 2), n_classes=3).with_labels([0, 1], [0, 1])
        with pytest.raises(DataError, match="different classes"):
            make_view(pool).refit(torch.tensor([[2], [3]]), torch.tensor([[0], [2]]))

    def test_refuses_shapes_that_are_no_refits(self):
        view = make_view(make_pool(n_labeled=6)[0])
        with pytest.raises(ShapeError, match="T at least 1"):
            view.refit(torch.empty(0, 2), torch.empty(0, 2))
        with pytest.raises(ShapeError, match=r"\(1, 2\) and \(2, 1\)"):
            view.refit(torch.tensor([[1, 2]]), torch.tensor([[0], [1]]))
        rows = view.candidates.nonzero().squeeze(1)[:2].reshape(1, 2)
        with pytest.raises(ShapeError, match="of 1 refits already"):
            view.refit(rows, torch.tensor([[0, 1]])).refit(rows, torch.tensor([[0, 1]]))

    def test_needs_a_model_that_can_be_cloned(self):
        class Once:
            def fit(self, X, y):
                return self

            def predict(self, X):
                return np.zeros(len(X), dtype=int)

        view = make_pool()[0].view(Once(), generator=GENERATOR)
        with pytest.raises(CapabilityError, match="Once cannot be cloned"):
            view.refit(torch.tensor([1]), torch.tensor([0]))
        with pytest.raises(CapabilityError, match="refit needs a model"):
            PoolView.from_tensors(scores=torch.zeros(2, 2)).refit(torch.tensor([1]), torch.tensor([0]))

    def test_refuses_a_row_that_is_labeled(self):
        with pytest.raises(DataError, match="labeled already"):
            make_view(make_pool()[0]).refit(torch.tensor([0]), torch.tensor([0]))


class TestProvides:
    def test_asks_the_instance_not_the_class(self):
        from sklearn.model_selection import GridSearchCV

        assert provides(SVC(), HasDecisionFunction)
        assert not provides(GridSearchCV(LinearSVC(), {}), HasProbabilities)
        assert provides(GridSearchCV(LogisticRegression(), {}), HasProbabilities)

    def test_a_model_that_answers_too_few_rows_is_named(self):
        class Short(NearestMean):
            def predict(self, X):
                return super().predict(X)[1:]

        pool = make_pool()[0]
        model = Short()
        model.fit(*pool.training_data())
        with pytest.raises(ShapeError, match="Short answered 60 rows with 59"):
            interop.predictions(model, pool.inputs)


def test_labeled_data_is_a_pair():
    inputs, targets = LabeledData(torch.zeros(2, 1), torch.tensor([0, 1]))
    assert inputs.shape == (2, 1)
    assert targets.tolist() == [0, 1]
