import csv

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.cluster import KMeans
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tests.contracts import NearestMean
from tests.runs.test_loop import Recorder, make
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    DataError,
    Pool,
    RunError,
    Schedule,
    ShapeError,
    SparseInputs,
    functional,
    rounds,
)
from torchal.samplers import KCenterGreedy, Margin, Uniform


class TestModels:
    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (LinearRegression(), "LinearRegression is a regressor"),
            (KMeans(), "KMeans is a clusterer"),
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


class TestAskTell:
    def test_labels_come_in_any_order_and_in_part(self):
        learner, oracle = make()
        rows = learner.ask(5)
        later = rows.flip(0)
        learner.tell(later[:2], oracle(later[:2]))
        assert learner.asked.tolist() == rows[:3].tolist()
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
        measured = {"seconds": {}, "peak_mib": {}}
        assert one.to_json() | measured == two.to_json() | measured
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


class TestRepresents:
    def test_the_record_says_what_each_pick_stands_for(self):
        learner, oracle = make(KCenterGreedy(), represents=True)
        start, first, _ = rounds(learner, oracle, Schedule(batch_size=5, max_rounds=2))
        assert "represents" not in start.report
        assert start.seconds.get("represents") is None
        found = first.report["represents"]
        assert found["features"] == first.report["features"] == "embedding"
        features = NearestMean().transform(learner.pool.inputs)
        unlabeled = torch.ones(len(learner.pool), dtype=torch.bool).index_fill(0, start.rows, False)
        want = functional.represents(features, first.rows, among=unlabeled)
        assert found["counts"] == want.counts.tolist()
        assert sum(found["counts"]) == int(unlabeled.sum())
        assert found["farthest"] == want.farthest.tolist()
        assert found["largest_distance"] == max(found["farthest"])
        assert 0 < found["mean_distance"] < found["largest_distance"]
        assert first.seconds["represents"] > 0

    def test_it_changes_no_pick_and_is_not_there_unless_wanted(self):
        asked = []
        for represents in (True, False):
            learner, oracle = make(Margin(), represents=represents)
            results = list(rounds(learner, oracle, Schedule(batch_size=5, max_rounds=2)))
            asked.append([result.rows.tolist() for result in results])
            assert ("represents" in results[1].report) == represents
        assert asked[0] == asked[1]

    def test_what_has_no_distances_is_refused_at_once(self):
        words = scipy.sparse.csr_array(np.eye(6))
        pool = Pool.unlabeled(SparseInputs(words), n_classes=2)
        with pytest.raises(CapabilityError, match=r"represents=True .* LogisticRegression has no embedding of sparse"):
            ActiveLearner(LogisticRegression(), Margin(), pool, represents=True)
        with pytest.raises(ConfigError, match="represents must be true or false, got 'no'"):
            make(Margin(), represents="no")
