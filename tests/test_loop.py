import csv
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from tests.contracts import NearestMean, make_pool
from torchal import (
    ActiveLearner,
    BudgetError,
    CapabilityError,
    ConfigError,
    DataError,
    LabeledData,
    Pool,
    RunError,
    Schedule,
    Selection,
    ShapeError,
    rounds,
)
from torchal.metrics import balanced_accuracy
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
            (0, 0, BudgetError, "0 rows"),
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


class TestModels:
    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (LinearRegression(), "LinearRegression is regressor"),
            (KMeans(), "KMeans is clusterer"),
            (StandardScaler(), "StandardScaler is no classifier by its tags"),
            (MultiOutputClassifier(LogisticRegression()), "learns several labels per row"),
            (LogisticRegression, r"got the class LogisticRegression; call it"),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    def test_what_is_no_classifier_of_one_label_is_refused_by_name(self, model, message):
        with pytest.raises(CapabilityError, match=message):
            make(Uniform(), model=model)

    def test_a_model_that_can_predict_only_once_it_is_fitted_is_accepted(self):
        model = StackingClassifier([("a", GaussianNB()), ("b", KNeighborsClassifier(1))], cv=2)
        learner, oracle = make(Uniform(), model=model, n_labeled=12)
        assert list(rounds(learner, oracle, Schedule(batch_size=20, budget=32)))

    def test_predictions_in_a_column_are_labels(self):
        class Column(NearestMean):
            def __sklearn_clone__(self):
                return Column()

            def predict(self, X):
                return super().predict(X)[:, None]

        learner, _ = make(model=Column())
        plain, _ = make()
        assert learner.finish_round().test == plain.finish_round().test

    @pytest.mark.parametrize("answer", [lambda y: y + 0.5, lambda y: torch.stack([y, y], 1)])
    def test_predictions_that_are_no_labels_are_refused(self, answer):
        class Odd(NearestMean):
            def __sklearn_clone__(self):
                return Odd()

            def predict(self, X):
                return answer(super().predict(X))

        with pytest.raises(ShapeError, match=r"Odd\.predict must answer with one whole number per row"):
            make(model=Odd())[0].finish_round()

    @pytest.mark.parametrize("wrap", [lambda model: model, make_pipeline], ids=["alone", "in a pipeline"])
    def test_values_of_pairs_of_classes_are_refused(self, wrap):
        learner, _ = make(Margin(), model=wrap(SVC(decision_function_shape="ovo")))
        with pytest.raises(ShapeError, match="decision_function_shape='ovr'"):
            learner.ask(3)

    def test_columns_must_be_the_classes(self):
        class Wide(NearestMean):
            def __sklearn_clone__(self):
                return Wide()

            def decision_function(self, X):
                return super().decision_function(X).repeat(1, 2)

        with pytest.raises(ShapeError, match="Wide has 6 columns for the 3 classes it has seen"):
            make(Margin(), model=Wide())[0].finish_round()


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


class TestAskTell:
    def test_labels_come_in_any_order_and_in_part(self):
        learner, oracle = make()
        rows = learner.ask(5)
        later = rows.flip(0)
        learner.tell(later[:2], oracle(later[:2]))
        assert learner.asked.tolist() == rows[:3].tolist()
        with pytest.raises(RunError, match="3 rows asked for earlier"):
            learner.ask(1)
        learner.tell(later[2:].tolist(), oracle(later[2:]).tolist())
        assert len(learner.asked) == 0
        learner.ask(2)
        assert [result.n_labeled for result in learner.history] == [6, 11]
        assert sorted(learner.history[1].rows.tolist()) == sorted(rows.tolist())

    def test_gives_what_rounds_gives(self):
        learner, oracle = make()
        for _ in range(3):
            rows = learner.ask(10)
            learner.tell(rows, oracle(rows))
        learner.finish_round()
        other, oracle = make()
        results = list(rounds(other, oracle, Schedule(batch_size=10, budget=36)))
        assert [r.rows.tolist() for r in learner.history] == [r.rows.tolist() for r in results]
        assert [r.test for r in learner.history] == [r.test for r in results]

    def test_what_cannot_be_labeled_is_not_asked_again(self):
        learner, oracle = make()
        rows = learner.ask(3)
        learner.cannot_label(rows[:1])
        learner.tell(rows[1:], oracle(rows[1:]))
        assert not torch.isin(rows[:1], learner.ask(50)).any()

    def test_withdrawn_rows_are_asked_again(self):
        learner, _ = make()
        rows = learner.ask(3)
        learner.withdraw()
        assert learner.ask(3).equal(rows)

    def test_labels_of_rows_that_were_not_asked_are_welcome(self):
        learner, oracle = make()
        row = learner.pool.candidates.nonzero()[0]
        learner.tell(row, oracle(row))
        assert learner.finish_round().n_labeled == 7

    def test_a_refused_label_changes_nothing(self):
        learner, _ = make()
        rows = learner.ask(2)
        with pytest.raises(DataError, match="got 0 to 9"):
            learner.tell(rows, [0, 9])
        assert learner.asked.equal(rows)
        assert learner.pool.n_labeled == 6

    def test_what_the_sampler_thought_of_a_row_is_kept_until_its_label_comes(self):
        learner, oracle = make()
        rows = learner.ask(4)
        learner.tell(rows[:2], oracle(rows[:2]))
        first = learner.finish_round()
        learner.tell(rows[2:], oracle(rows[2:]))
        second = learner.finish_round()
        assert first.picked_by == second.picked_by == "Margin"
        assert not torch.cat([first.scores, second.scores]).isnan().any()

    def test_what_was_withdrawn_is_not_in_the_record(self):
        learner, oracle = make(Recorder())
        rows = learner.ask(4)
        learner.withdraw()
        learner.tell(rows[:1], oracle(rows[:1]))
        result = learner.finish_round()
        assert (result.picked_by, result.report) == ("start", {})
        assert result.scores.isnan().all()

    def test_no_labels_at_all_keep_the_model(self):
        learner, _ = make()
        rows = learner.ask(2)
        model = learner.model
        learner.cannot_label(rows)
        learner.tell([], [])
        assert learner.model is model

    def test_rounds_goes_on_with_rows_that_were_asked_for(self):
        learner, oracle = make(n_labeled=0)
        asked = learner.ask(9)
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=19)))
        assert results[0].rows.equal(asked)

    def test_starts_with_nothing(self):
        learner, oracle = make(n_labeled=0)
        while not learner.can_fit:
            rows = learner.ask(2)
            learner.tell(rows, oracle(rows))
        learner.ask(5)
        assert learner.history[0].picked_by == "start"

    def test_a_round_without_news_is_refused(self):
        learner, _ = make()
        learner.finish_round()
        with pytest.raises(RunError, match="no label came in"):
            learner.finish_round()

    def test_a_state_is_cut_off_from_what_happens_later(self):
        learner, oracle = make(Recorder())
        rows = learner.ask(4)
        learner.tell(rows[:2], oracle(rows[:2]))
        state, history = learner.state_dict(), list(learner.history)
        learner.tell(rows[2:], oracle(rows[2:]))
        other, _ = make(Recorder())
        other.load_state_dict(state, history)
        result = other.finish_round()
        assert result.rows.equal(rows[:2])
        assert result.labels.equal(oracle(rows[:2]))

    def test_scores_and_report_of_asked_rows_are_saved(self, tmp_path):
        first, oracle = make(Recorder())
        rows = first.ask(4)
        first.save(tmp_path / "a.pt")
        second, _ = make(Recorder())
        second.load(tmp_path / "a.pt")
        for learner in (first, second):
            learner.tell(rows, oracle(rows))
        one, two = first.finish_round(), second.finish_round()
        assert one.to_json() | {"seconds": {}} == two.to_json() | {"seconds": {}}
        assert one.report == {"rounds": 1}
        assert not two.scores.isnan().any()

    def test_a_state_that_lacks_something_is_damaged(self):
        learner, _ = make()
        state = learner.state_dict()
        del state["bought"]
        with pytest.raises(RunError, match="it has no bought"):
            make()[0].load_state_dict(state, [])

    def test_goes_on_another_day(self, tmp_path):
        first, oracle = make(Recorder(), seed=5)
        rows = first.ask(6)
        first.cannot_label(rows[:1])
        first.tell(rows[1:3], oracle(rows[1:3]))
        first.save(tmp_path / "day1.pt")
        second, _ = make(Recorder(), seed=5)
        second.load(tmp_path / "day1.pt")
        assert second.asked.equal(first.asked)
        for learner in (first, second):
            learner.tell(rows[3:], oracle(rows[3:]))
        assert second.ask(8).equal(first.ask(8))
        assert [r.to_json()["test"] for r in second.history] == [r.to_json()["test"] for r in first.history]
        assert second.history[-1].rows.equal(first.history[-1].rows)
        assert second.pool.skipped.equal(first.pool.skipped)
        assert len(second.sampler.seen) == len(first.sampler.seen)

    def test_refuses_a_file_of_another_pool_seed_or_sampler(self, tmp_path):
        learner, _ = make()
        learner.save(tmp_path / "a.pt")
        with pytest.raises(RunError, match="another seed: it was 0, is 1"):
            make(seed=1)[0].load(tmp_path / "a.pt")
        with pytest.raises(RunError, match="another sampler: it was 'Margin', is 'Uniform'"):
            make(Uniform())[0].load(tmp_path / "a.pt")
        other = ActiveLearner(NearestMean(), Margin(), Pool.unlabeled(torch.rand(60, 4), n_classes=3))
        with pytest.raises(RunError, match="another pool"):
            other.load(tmp_path / "a.pt")
        (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:100])
        with pytest.raises(RunError, match="is damaged"):
            make()[0].load(tmp_path / "b.pt")

    def test_exports_what_waits_for_a_label(self, tmp_path):
        learner, _ = make()
        rows = learner.ask(3)
        learner.export_asked(tmp_path / "asked.csv")
        with (tmp_path / "asked.csv").open() as file:
            table = list(csv.DictReader(file))
        assert [int(line["row"]) for line in table] == rows.tolist()
        assert all(float(line["score"]) <= 0 and line["label"] == "" for line in table)


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
