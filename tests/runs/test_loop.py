import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean, make_pool
from torchal import (
    ActiveLearner,
    BudgetError,
    CapabilityError,
    ConfigError,
    DataError,
    LabeledData,
    Pool,
    Schedule,
    Selection,
    ShapeError,
    rounds,
)
from torchal.runs.metrics import balanced_accuracy
from torchal.samplers import Entropy, Margin, Sampler, Uniform


def make(sampler=None, *, n_labeled=6, model=None, **settings):
    pool, targets, validation = make_pool(n_labeled=n_labeled)
    settings = {"validation": validation, "test": LabeledData(pool.inputs, targets)} | settings
    learner = ActiveLearner(model or NearestMean(), sampler or Margin(), pool, **settings)
    return learner, lambda rows: targets[rows]


class TestRounds:
    def test_scores_before_the_first_query_and_after_every_batch_the_last_one_included(self):
        learner, oracle = make()
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=31)))
        assert [result.n_labeled for result in results] == [6, 16, 26, 31]
        assert [result.round for result in results] == [0, 1, 2, 3]
        assert [len(result.rows) for result in results] == [6, 10, 10, 5]
        for result in results:
            assert set(result.test) == set(result.validation) == {"accuracy", "log_loss"}
        assert {"fit", "score"} <= results[0].seconds.keys()
        assert results[1].seconds.keys() == {"select", "label", "fit", "score"}
        assert [result.picked_by for result in results] == ["start", "Margin", "Margin", "Margin"]
        assert torch.isnan(results[0].scores).all()
        assert (results[1].scores <= 0).all()

    def test_the_record_maps_picks_to_the_source(self):
        pool, targets, _ = make_pool(n_labeled=0)
        source = torch.randperm(1000)[:60]
        pool = Pool.unlabeled(pool.inputs, n_classes=3, source_rows=source)
        learner = ActiveLearner(NearestMean(), Uniform(), pool)
        for result in rounds(learner, lambda rows: targets[rows], Schedule(batch_size=7, budget=40), start=12):
            assert result.source_rows.equal(source[result.rows])
            assert result.labels.equal(targets[result.rows])
        assert torch.cat([result.rows for result in learner.history]).unique().shape == (40,)

    def test_the_pool_runs_dry_cleanly(self):
        learner, oracle = make()
        results = list(rounds(learner, oracle, Schedule(batch_size=25)))
        assert [result.n_labeled for result in results] == [6, 31, 56, 60]
        with pytest.raises(BudgetError, match="0 can be picked"):
            learner.ask(1)

    def test_one_row_left(self):
        learner, oracle = make()
        results = list(rounds(learner, oracle, Schedule(batch_size=53)))
        assert [result.n_labeled for result in results] == [6, 59, 60]

    @pytest.mark.parametrize("sampler", [Margin(), Uniform()])
    def test_the_same_seed_gives_the_same_rounds(self, sampler):
        def picks(seed):
            learner, oracle = make(sampler, n_labeled=0, seed=seed)
            schedule = Schedule(batch_size=5, budget=40)
            return [result.rows.tolist() for result in rounds(learner, oracle, schedule, start=10)]

        assert picks(1) == picks(1)
        assert picks(1) != picks(2)

    def test_stops_after_max_rounds(self):
        learner, oracle = make()
        assert len(list(rounds(learner, oracle, Schedule(batch_size=1, max_rounds=3)))) == 4

    def test_stops_at_the_target_of_the_validation_part(self):
        learner, oracle = make(metrics={"balanced": balanced_accuracy})
        schedule = Schedule(batch_size=1, target_metric="balanced", target_value=0.0)
        assert len(list(rounds(learner, oracle, schedule))) == 1
        with pytest.raises(ConfigError, match="'auc'; there are accuracy, log_loss"):
            rounds(make()[0], oracle, Schedule(batch_size=1, target_metric="auc", target_value=1.0))
        learner, oracle = make(validation=None)
        with pytest.raises(ConfigError, match="there is none"):
            rounds(learner, oracle, Schedule(batch_size=1, target_metric="accuracy", target_value=1.0))

    @pytest.mark.parametrize(
        ("start", "n_labeled", "error", "message"),
        [
            (None, 0, ConfigError, "no row of the pool is labeled"),
            (61, 0, BudgetError, "61 rows, the pool has 60"),
            (-1, 0, BudgetError, "-1 rows"),
            (31, 0, BudgetError, "31 rows, the budget is 30"),
            (torch.tensor([1, 1]), 0, ShapeError, "repeats"),
            (torch.tensor([60]), 0, ShapeError, "got 60"),
            (3, 6, ConfigError, "6 rows of the pool are labeled already"),
        ],
    )
    def test_refuses_a_start_set_before_the_oracle_is_asked(self, start, n_labeled, error, message):
        def oracle(rows):
            raise AssertionError("asked")

        learner, _ = make(n_labeled=n_labeled)
        with pytest.raises(error, match=message):
            rounds(learner, oracle, Schedule(batch_size=5, budget=30), start=start)

    def test_an_oracle_may_be_unable_to_label(self):
        learner, truth = make()

        def oracle(rows):
            return torch.where(rows % 2 == 0, truth(rows), -1)

        results = list(rounds(learner, oracle, Schedule(batch_size=10)))
        bought = torch.cat([result.rows for result in results[1:]])
        assert (bought % 2 == 0).all()
        assert not learner.pool.candidates.any()
        assert learner.pool.skipped.sum() == 60 - learner.pool.n_labeled

    def test_an_oracle_that_answers_too_few_labels_is_refused(self):
        learner, _ = make()
        with pytest.raises(DataError, match=r"asked for 5 labels and answered with shape \(2,\)"):
            list(rounds(learner, lambda rows: [0, 1], Schedule(batch_size=5)))

    def test_buys_at_random_until_there_are_two_classes(self):
        inputs = torch.arange(50.0)[:, None]
        targets = (torch.arange(50) >= 45).long()
        learner = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(inputs, n_classes=2), seed=3)
        results = list(rounds(learner, lambda rows: targets[rows], Schedule(batch_size=4, budget=40), start=[1, 2]))
        assert results[0].n_labeled > 2
        assert results[0].labels.unique().tolist() == [0, 1]
        assert results[0].picked_by == "start"

    def test_one_class_in_all_is_an_error_that_says_so(self):
        learner = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(torch.rand(9, 2), n_classes=2))
        with pytest.raises(DataError, match="8 labels of 1 classes are there; a classifier needs 2"):
            list(rounds(learner, lambda rows: torch.zeros_like(rows), Schedule(batch_size=3, budget=8), start=2))

    def test_a_model_without_clone_is_fitted_again_in_place(self):
        class Plain:
            fits = 0

            def fit(self, X, y):
                self.fits += 1
                self.label = np.bincount(y).argmax()

            def predict(self, X):
                return np.full(len(X), self.label)

        model = Plain()
        learner, oracle = make(Uniform(), model=model)
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=26)))
        assert model.fits == len(results) == 3
        assert set(results[0].test) == {"accuracy"}


@dataclass
class Recorder(Sampler):
    seen: list = field(default_factory=list, init=False)

    def select(self, view, n):
        return Uniform().select(view, n)

    def observe(self, result):
        self.seen.append(result)

    def report(self):
        return {"rounds": len(self.seen)}

    def state_dict(self):
        return {"rounds": len(self.seen)}

    def load_state_dict(self, state):
        self.seen = [None] * state["rounds"]


class TestSamplersInTheLoop:
    def test_see_validation_scores_and_never_test_scores(self):
        recorder = Recorder()
        learner, oracle = make(recorder)
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=26)))
        assert [seen.round for seen in recorder.seen] == [0, 1, 2]
        for seen, result in zip(recorder.seen, results, strict=True):
            assert seen.test == {}
            assert seen.calibration == {}
            assert seen.validation == result.validation
            assert seen.rows.equal(result.rows)
            assert result.test

    def test_a_report_may_hold_arrays_and_is_refused_where_it_cannot_be_written(self):
        class Reports(Recorder):
            said = {"a": np.float64(1.5), "b": torch.arange(2), "c": [np.int64(3)]}

            def report(self):
                return self.said

        sampler = Reports()
        learner, oracle = make(sampler)
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=16)))
        assert results[1].report == {"a": 1.5, "b": [0, 1], "c": [3]}
        assert type(results[1].report["a"]) is float
        sampler.said = {"a": {1, 2}}
        with pytest.raises(ConfigError, match="can be written down, got set"):
            learner.ask(1)

    def test_reports_go_into_the_record(self):
        learner, oracle = make(Recorder())
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=26)))
        assert [result.report for result in results] == [{}, {"rounds": 1}, {"rounds": 2}]

    @pytest.mark.parametrize(
        ("sampler", "model", "error"),
        [(Entropy(), LinearSVC(), "predict_proba"), (Margin(), object(), "fit and predict; object has no fit")],
        ids=["no probabilities", "no model"],
    )
    def test_capabilities_are_checked_before_the_first_fit(self, sampler, model, error):
        with pytest.raises(CapabilityError, match=error):
            make(sampler, model=model)

    def test_a_model_with_decision_values_only_works_with_margin(self):
        learner, oracle = make(Margin(), model=LinearSVC(random_state=0))
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=36)))
        assert results[-1].test.keys() == {"accuracy"}

    @pytest.mark.filterwarnings("ignore:all .* candidates have the same .* score")
    def test_a_model_with_probabilities_only_works_with_margin(self):
        learner, oracle = make(Margin(), model=KNeighborsClassifier(3))
        assert len(list(rounds(learner, oracle, Schedule(batch_size=10, budget=36)))) == 4

    @pytest.mark.parametrize("part", ["validation", "test"])
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (LabeledData(torch.zeros(2, 4), torch.tensor([0, 3])), r"\[0, 3\), got 0 to 3"),
            (LabeledData(torch.zeros(0, 4), torch.tensor([])), "0 inputs and 0 targets"),
            (LabeledData(torch.full((2, 4), math.nan), torch.tensor([0, 1])), "finite"),
        ],
    )
    def test_refuses_parts_that_cannot_be_scored(self, part, data, message):
        with pytest.raises(DataError, match=message):
            make(**{part: data})


class Bad(Sampler):
    """Picks whatever it is told to."""

    def __init__(self, pick):
        self.pick = pick

    def select(self, view, n):
        picked = torch.as_tensor(self.pick(view.candidates.nonzero().squeeze(1), n))
        return Selection(picked, torch.zeros(len(picked)))


def test_scores_must_be_one_a_row():
    class Short(Bad):
        def select(self, view, n):
            picked = super().select(view, n)
            return picked._replace(scores=picked.scores[1:])

    with pytest.raises(ShapeError, match=r"Short picked 5 rows with scores of shape \(4,\)"):
        make(Short(lambda rows, n: rows[:n]))[0].ask(5)


def test_a_sampler_that_writes_into_its_view_does_not_reach_the_pool():
    class Scribbles(Bad):
        def select(self, view, n):
            picked = super().select(view, n)
            view.candidates[:], view.labeled[:], view.targets[:] = False, True, 0
            return picked

    learner, oracle = make(Scribbles(lambda rows, n: rows[:n]))
    results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=26)))
    assert [len(result.rows) for result in results] == [6, 10, 10]


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        (lambda rows, n: rows[:0], "Bad was asked for 5 rows and picked 0"),
        (lambda rows, n: rows[: n - 1], "asked for 5 rows and picked 4"),
        (lambda rows, n: rows[:1].repeat(n), "Bad picked must be distinct"),
        (lambda rows, n: torch.arange(n), "picked 5, 1 of them no candidates"),
        (lambda rows, n: rows[:n].double(), "Bad picked must be .* integers"),
        (lambda rows, n: rows[:n] + 60, r"Bad picked must lie in \[0, 60\)"),
    ],
)
def test_a_bad_selection_is_refused_before_anybody_is_asked(pick, message):
    learner, _ = make(Bad(pick))

    def oracle(rows):
        raise AssertionError("asked")

    with pytest.raises(ShapeError, match=message):
        list(rounds(learner, oracle, Schedule(batch_size=5)))


class TestBadInput:
    def test_a_sampler_is_an_object(self):
        for sampler in ("margin", Margin):
            with pytest.raises(ConfigError, match="sampler must be a Sampler"):
                ActiveLearner(NearestMean(), sampler, make_pool()[0])

    @pytest.mark.parametrize("metrics", [{"accuracy": balanced_accuracy}, {"mine": None}])
    def test_metrics_are_new_names_of_callables(self, metrics):
        with pytest.raises(ConfigError, match="new names to callables"):
            make(metrics=metrics)

    def test_parts_may_be_arrays_and_lists(self):
        pool, targets, _ = make_pool()
        for part in ((pool.inputs.numpy(), targets.numpy()), (pool.inputs.tolist(), targets.tolist())):
            learner, _ = make(model=GaussianNB(), test=LabeledData(*part))
            assert learner.finish_round().test["accuracy"] > 0.3

    def test_an_oracle_that_answers_with_text_is_refused(self):
        with pytest.raises(ShapeError, match="the oracle's labels must be"):
            list(rounds(make()[0], lambda rows: ["cat"] * len(rows), Schedule(batch_size=5)))

    def test_numpy_numbers_are_numbers(self):
        learner, oracle = make(n_labeled=0)
        schedule = Schedule(batch_size=np.int64(5), budget=np.int32(20))
        assert len(list(rounds(learner, oracle, schedule, start=np.int64(10)))) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", [Margin(), Entropy(), Uniform()])
def test_a_pool_on_cuda_gives_the_picks_of_the_cpu(sampler):
    def picks(device):
        pool, targets, validation = make_pool(n_labeled=0)
        targets = targets.to(device)
        pool = Pool.unlabeled(pool.inputs.double().to(device), n_classes=3)
        parts = LabeledData(validation.inputs.double().to(device), validation.targets.to(device))
        learner = ActiveLearner(NearestMean(), sampler, pool, validation=parts, test=parts)
        schedule = Schedule(batch_size=5, budget=40)
        results = list(rounds(learner, lambda rows: targets[rows], schedule, start=torch.arange(6)))
        return [(result.rows.tolist(), result.test["accuracy"]) for result in results]

    assert picks("cuda") == picks("cpu")


class TestBatches:
    def test_of_a_list_end_the_run(self):
        learner, oracle = make()
        results = list(rounds(learner, oracle, Schedule(batch_sizes=[3, 7, 2])))
        assert [result.n_labeled for result in results] == [6, 9, 16, 18]

    def test_that_grow(self):
        learner, oracle = make()
        results = list(rounds(learner, oracle, Schedule(batch_size=4, batch_growth=2, budget=50)))
        assert [result.n_labeled for result in results] == [6, 10, 18, 34, 50]


class Scripted(NearestMean):
    """Answers by a script: after each fit another share of rows is of class 1, which has another probability."""

    script: list = []
    fits = 0

    def __sklearn_clone__(self):
        copy = type(self)()
        copy.answer = type(self).script[min(Scripted.fits, len(type(self).script) - 1)]
        return copy

    def fit(self, X, y):
        Scripted.fits += 1
        return super().fit(X, y)

    def predict(self, X):
        return (torch.linspace(0, 1, len(X)) < self.answer).long()

    def predict_log_proba(self, X):
        one = torch.full((len(X), 1), self.answer)
        return torch.cat([one, (1 - one) / 2, (1 - one) / 2], 1).log()


@pytest.fixture
def scripted(monkeypatch):
    def say(*answers):  # the model's answer after each fit, and its last one from then on
        monkeypatch.setattr(Scripted, "script", list(answers))
        monkeypatch.setattr(Scripted, "fits", 0)
        return Scripted()

    return say


class TestStopping:
    def test_on_a_plateau_of_the_validation_accuracy(self):
        learner, oracle = make(Uniform())
        watched = list(rounds(learner, oracle, Schedule(batch_size=3, plateau_rounds=4)))
        values = [result.validation["accuracy"] for result in watched]
        ends = next(i for i in range(4, len(values)) if max(values[i - 3 : i + 1]) <= max(values[: i - 3]))
        assert ends == len(values) - 1 < 17

    def test_a_gain_below_delta_is_none(self):
        learner, oracle = make(Uniform())
        assert len(list(rounds(learner, oracle, Schedule(batch_size=3, plateau_rounds=2, plateau_delta=1.0)))) == 3

    def test_a_plateau_needs_a_validation_part(self):
        learner, oracle = make(validation=None)
        with pytest.raises(ConfigError, match="plateau_rounds is of the validation part, and there is none"):
            rounds(learner, oracle, Schedule(batch_size=3, plateau_rounds=2))

    def test_after_some_time(self, monkeypatch):
        learner, oracle = make()
        for result in rounds(learner, oracle, Schedule(batch_size=3, max_seconds=10)):
            result.seconds["fit"] = 4.0
        assert len(learner.history) == 3

    def test_no_time_at_all_is_the_start_set(self):
        learner, oracle = make()
        assert len(list(rounds(learner, oracle, Schedule(batch_size=3, max_seconds=0)))) == 1

    def test_once_predictions_are_stable(self, scripted):
        model = scripted(0.1, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8)
        learner, oracle = make(Uniform(), model=model, validation=None)
        results = list(rounds(learner, oracle, Schedule(batch_size=3, stable_kappa=0.99)))
        kappas = [result.pool.get("kappa") for result in results]
        assert kappas[0] is None
        assert [kappa == 1.0 for kappa in kappas[1:]] == [False, True, True, False, True, True, True]

    def test_the_last_rounds_kappas_are_averaged(self, scripted):
        learner, oracle = make(Uniform(), model=scripted(0.9, 0.9, 0.8), validation=None)
        results = list(rounds(learner, oracle, Schedule(batch_size=3, stable_kappa=0.7, stable_rounds=2)))
        kappas = [result.pool["kappa"] for result in results[1:]]
        assert kappas[0] == 1
        assert 0.4 < kappas[1] < 1
        assert len(kappas) == 2

    def test_once_the_pool_is_no_longer_uncertain(self, scripted):
        learner, oracle = make(Uniform(), model=scripted(0.5, 0.6, 0.8, 0.95), validation=None)
        results = list(rounds(learner, oracle, Schedule(batch_size=3, min_uncertainty=0.1)))
        assert [result.pool["uncertainty"] for result in results] == pytest.approx([0.5, 0.4, 0.2, 0.05])

    def test_uncertainty_needs_probabilities(self):
        learner, oracle = make(model=LinearSVC())
        with pytest.raises(CapabilityError, match="predict_proba; LinearSVC has none"):
            rounds(learner, oracle, Schedule(batch_size=3, min_uncertainty=0.1))

    def test_what_is_watched_goes_on_after_a_save(self, tmp_path):
        schedule = Schedule(batch_size=3, budget=30, stable_kappa=1.0, stable_rounds=9, min_uncertainty=0.0)
        whole, oracle = make(Uniform())
        expected = [result.pool for result in rounds(whole, oracle, schedule)]
        part, _ = make(Uniform())
        for result in rounds(part, oracle, schedule):
            if result.round == 3:
                part.save(tmp_path / "saved.pt")
        rest, _ = make(Uniform())
        rest.load(tmp_path / "saved.pt")
        list(rounds(rest, oracle, schedule))
        assert [result.pool for result in rest.history] == expected
        assert all(0 <= pool["uncertainty"] < 1 for pool in expected)


class Noted(NearestMean):
    """Notes what was asked of it."""

    asked: list = []

    def __sklearn_clone__(self):
        return type(self)()

    def decision_function(self, X):
        Noted.asked.append(type(self).__name__)
        return NearestMean.decision_function(self, X)

    def predict(self, X):
        return self.classes_[NearestMean.decision_function(self, X).argmax(1)]

    def predict_log_proba(self, X):
        return NearestMean.decision_function(self, X).log_softmax(1)


class Selecting(Noted):
    def fit_report(self):
        return {"who": "selecting"}


class TestSelectModel:
    def test_the_first_chooses_and_the_second_is_scored(self):
        alone, oracle = make(model=LogisticRegression(C=1e-3))
        by_itself = list(rounds(alone, oracle, Schedule(batch_size=5, budget=30)))
        pair, _ = make(model=GaussianNB(), select_model=LogisticRegression(C=1e-3))
        results = list(rounds(pair, oracle, Schedule(batch_size=5, budget=30)))
        assert all(one.rows.equal(other.rows) for one, other in zip(results, by_itself, strict=True))
        for result in results:
            labeled = torch.cat([r.rows for r in results[: result.round + 1]]).sort().values
            model = GaussianNB().fit(pair.pool.inputs[labeled], oracle(labeled))
            assert result.test["accuracy"] == model.score(pair.test.inputs, pair.test.targets)
            assert {"fit", "fit_select"} <= result.seconds.keys() or result.round == 0

    def test_only_the_first_is_looked_at_and_both_are_in_the_record(self, monkeypatch):
        monkeypatch.setattr(Noted, "asked", [])
        learner, oracle = make(model=Noted(), select_model=Selecting())
        results = list(rounds(learner, oracle, Schedule(batch_size=5, budget=16)))
        assert set(Noted.asked) == {"Selecting"}
        assert all(result.select_model == {"who": "selecting"} for result in results)
        assert all(result.model == {} for result in results)

    def test_it_must_have_what_the_sampler_needs(self):
        make(Entropy(), model=LinearSVC(), select_model=NearestMean())
        with pytest.raises(CapabilityError, match="Entropy needs a model with predict_proba; LinearSVC has none"):
            make(Entropy(), model=NearestMean(), select_model=LinearSVC())


class TestCosts:
    def test_of_all_labels_the_ones_that_nobody_could_give_too(self):
        costs = torch.arange(60.0)
        learner, oracle = make(Uniform(), costs=costs)
        results = list(rounds(learner, lambda rows: oracle(rows).where(rows % 5 != 0, -1), Schedule(batch_size=9)))
        paid = learner.pool.labeled | learner.pool.skipped
        assert learner.pool.skipped.any()
        assert results[-1].cost == learner.spent == float(costs[paid].sum())
        assert all(a.cost < b.cost for a, b in itertools.pairwise(results))

    def test_are_1_each_unless_given(self):
        learner, oracle = make()
        for result in rounds(learner, oracle, Schedule(batch_size=9, budget=40)):
            assert result.cost == result.n_labeled

    @pytest.mark.parametrize(
        ("costs", "message"),
        [
            (torch.ones(59), r"one for each of 60 rows, got shape \(59,\)"),
            (-1.0, "not negative, got -1"),
            (math.nan, "finite"),
            ("much", "a number or one for each row, got 'much'"),
        ],
    )
    def test_refused(self, costs, message):
        with pytest.raises(ConfigError, match=message):
            make(costs=costs)


class TestTruth:
    def test_is_in_the_record_and_nowhere_else(self):
        recorder = Recorder()
        _, targets, _ = make_pool()
        wrong = (targets + 1) % 3
        learner, _ = make(recorder, truth=targets, n_labeled=0)
        results = list(rounds(learner, lambda rows: wrong[rows], Schedule(batch_size=9, budget=40), start=12))
        for result in results:
            assert result.true_labels.equal(targets[result.rows])
            assert result.labels.equal(wrong[result.rows])
            assert type(result).from_json(result.to_json()).true_labels.equal(result.true_labels)
        assert all(len(seen.true_labels) == 0 for seen in recorder.seen)

    def test_must_be_of_all_rows(self):
        with pytest.raises(DataError, match="one label for each of 60 rows, got 5"):
            make(truth=torch.zeros(5, dtype=torch.int64))
