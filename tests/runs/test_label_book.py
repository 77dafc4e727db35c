import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import torchal
from tests.contracts import NearestMean
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    DataError,
    DatasetInputs,
    FitError,
    LabeledData,
    Pool,
    RunError,
    Schedule,
    ShapeError,
    TorchClassifier,
    rounds,
    samplers,
)
from torchal.functional import cluster_tree
from torchal.runs.opinions import Opinions
from torchal.samplers import (
    Bandit,
    ByGroup,
    ClusterMargin,
    GraphDensity,
    Hierarchical,
    KCenterGreedy,
    Margin,
    Mixture,
    TypiClust,
    Uniform,
)

WORDS = ("ham", "spam")


def data(n_rows=60, n_classes=2):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, 3, generator=generator)
    codes = torch.bucketize(x[:, 0].contiguous(), torch.linspace(-1, 1, n_classes + 1)[1:-1])
    return x, codes


def make(sampler=None, *, words=True, n_labeled=12, model=None, **settings):
    """Return a learner with some labels, and what every row is."""
    x, codes = data()
    truth = [WORDS[code] for code in codes] if words else codes.tolist()
    pool = Pool.unlabeled(x, **({"classes": WORDS} if words else {"n_classes": 2}))
    learner = ActiveLearner(model or GaussianNB(), sampler or Margin(), pool, **settings)
    if n_labeled:
        learner.tell(range(n_labeled), truth[:n_labeled])
    return learner, truth


def answer(learner, rows, truth, **more):
    learner.tell(rows, [truth[row] for row in rows.tolist()], **more)


class TestWords:
    def test_answers_are_in_the_words_of_the_pool(self):
        learner, _ = make()
        x, codes = data()
        model = GaussianNB().fit(x[:12].numpy(), [WORDS[code] for code in codes[:12]])
        assert learner.predict() == model.predict(x.numpy()).tolist()
        assert learner.predict(x[:3].numpy()) == learner.predict()[:3]
        assert np.allclose(learner.predict_proba(), model.predict_proba(x.numpy()))
        numbers, _ = make(words=False)
        assert numbers.predict().tolist() == [WORDS.index(word) for word in learner.predict()]

    def test_picks_are_those_of_the_numbers(self):
        (words, a), (numbers, b) = make(), make(words=False)
        for _ in range(3):
            rows = words.ask(4)
            assert rows.equal(numbers.ask(4))
            answer(words, rows, a)
            answer(numbers, rows, b)

    def test_parts_have_the_same_words(self):
        x, codes = data()
        words = [WORDS[code] for code in codes]
        learner, _ = make(validation=LabeledData(x, words), test=LabeledData(x, pd.Series(words)))
        plain, _ = make(words=False, validation=LabeledData(x, codes), test=LabeledData(x, codes))
        assert learner.finish_round().test == plain.finish_round().test
        with pytest.raises(DataError, match="1 of 60 targets of the test part are missing"):
            make(test=LabeledData(x, [*words[:-1], None]))
        with pytest.raises(DataError, match="none of the 2 classes"):
            make(validation=LabeledData(x, ["eggs"] * 60))

    def test_classes_that_are_learned_come_back_with_a_saved_learner(self, tmp_path):
        x, codes = data(n_classes=3)
        learner = ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x))
        learner.tell(range(20), [("c", "b", "a")[code] for code in codes[:20]])
        learner.ask(3)
        learner.save(tmp_path / "learner.pt")
        again = ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x))
        again.load(tmp_path / "learner.pt")
        assert again.pool.classes == learner.pool.classes
        assert again.predict() == learner.predict()
        with pytest.raises(RunError, match="of another pool"):
            ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x, classes=["a", "c"])).load(tmp_path / "learner.pt")

    def test_a_simulation_learns_the_classes_of_its_truth(self):
        x, codes = data()
        truth = [WORDS[code] for code in codes]
        learner = ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x), truth=truth)
        rows = [*sorted(range(60), key=lambda row: truth[row] == truth[0])[:20], 0]  # the other class comes first
        learner.tell(rows, [truth[row] for row in rows])
        result = learner.finish_round()
        assert result.labels.equal(result.true_labels)

    def test_parts_follow_the_classes_that_a_saved_learner_has_learned(self):
        x, codes = data()
        truth = [WORDS[code] for code in codes]
        told = sorted(range(40), key=lambda row: truth[row] == truth[40])[:25]  # the classes in another order
        parts = [{}, {name: LabeledData(x[40:], truth[40:]) for name in ("validation", "test")}]
        plain, scored = (ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x[:40]), **part) for part in parts)
        plain.tell(told, [truth[row] for row in told])
        assert plain.pool.classes != scored.pool.classes
        scored.load_state_dict(plain.state_dict(), [])
        result = scored.finish_round()
        right = [a == b for a, b in zip(plain.predict(x[40:]), truth[40:], strict=True)]
        assert result.test["accuracy"] == result.validation["accuracy"] == pytest.approx(sum(right) / len(right))

    def test_an_oracle_answers_in_the_words_of_the_pool(self):
        learner, truth = make(n_labeled=0)
        plain, codes = make(n_labeled=0, words=False)
        schedule = Schedule(batch_size=5, budget=20)

        def unsure(rows, labels, nothing):
            return [nothing if row % 7 == 3 else labels[row] for row in rows.tolist()]

        words = list(rounds(learner, lambda rows: unsure(rows, truth, None), schedule, start=10))
        numbers = list(rounds(plain, lambda rows: unsure(rows, codes, -1), schedule, start=10))
        assert [sorted(r.rows.tolist()) for r in words] == [sorted(r.rows.tolist()) for r in numbers]
        assert learner.pool.skipped.equal(plain.pool.skipped)

    def test_who_cannot_tell_is_not_asked_again(self):
        learner, _ = make(n_labeled=0)
        rows = learner.ask(4)
        learner.tell(rows, ["ham", None, math.nan, "spam"])
        assert learner.pool.skipped[rows].tolist() == [False, True, True, False]
        assert not len(learner.asked)
        assert learner.pool.n_labeled == 2

    def test_nothing_is_taken_of_an_answer_that_is_wrong(self):
        learner, _ = make(n_labeled=0)
        rows = learner.ask(3)
        with pytest.raises(DataError, match="none of the 2 classes"):
            learner.tell(rows, ["ham", "spam", "eggs"])
        assert learner.asked.equal(rows)
        assert learner.pool.n_labeled == 0


class Insists(LogisticRegression):
    """As estimators of other libraries that know classes 0 to K - 1 only."""

    def fit(self, X, y):
        if sorted(set(y)) != list(range(len(set(y)))):
            raise ValueError(f"Invalid classes inferred from unique values of `y`, got {sorted(set(y))}")
        return super().fit(X, y)


class Silent:
    """A classifier without classes_, of numbers from 0."""

    def fit(self, X, y):
        self.model = Insists().fit(X, y)

    def predict(self, X):
        return self.model.predict(X)

    def predict_proba(self, X):
        return self.model.predict_proba(X)


class TestGapsInTheClasses:
    @pytest.mark.parametrize("model", [Insists(), Silent(), GaussianNB()], ids=["insists", "silent", "any"])
    def test_a_model_of_0_to_k_is_fitted_and_read(self, model):
        x, codes = data(n_classes=3)
        rows = [row for row in range(40) if codes[row] != 1]
        learner = ActiveLearner(model, Margin(), Pool.unlabeled(x, n_classes=3))
        learner.tell(rows, codes[rows])
        other = LogisticRegression() if not isinstance(model, GaussianNB) else GaussianNB()
        plain = other.fit(x[rows].numpy(), codes[rows].numpy())
        assert learner.predict().tolist() == plain.predict(x.numpy()).tolist()
        assert np.allclose(learner.predict_proba()[:, [0, 2]], plain.predict_proba(x.numpy()))
        assert not learner.predict_proba()[:, 1].any()
        assert learner.model.predict(x[:2].numpy()).tolist() == plain.predict(x[:2].numpy()).tolist()
        assert len(learner.ask(3)) == 3
        learner.tell(learner.asked, codes[learner.asked])
        assert learner.finish_round().n_labeled == len(rows) + 3


class TestTrained:
    @pytest.mark.parametrize("names", [WORDS, None], ids=["named", "learned"])
    def test_a_frozen_estimator_is_asked_without_a_label_and_never_fitted(self, names):
        x, codes = data()
        model = GaussianNB().fit(x[30:].numpy(), np.array(WORDS)[codes[30:]])
        learner = ActiveLearner(FrozenEstimator(model), Margin(), Pool.unlabeled(x, classes=names))
        rows = learner.ask(5)
        log_probs = torch.from_numpy(model.predict_proba(x.numpy())).log()
        gaps = log_probs.exp().topk(2).values.diff()[:, 0].abs()
        assert sorted(rows.tolist()) == sorted(gaps.argsort()[:5].tolist())
        before = learner.predict()
        assert before == model.predict(x.numpy()).tolist()
        learner.tell(rows, [WORDS[code] for code in codes[rows]])
        learner.ask(5)
        assert learner.predict() == before
        assert learner.history[0].n_labeled == 5

    def test_a_trained_model_is_used_until_there_are_labels_to_fit_it_on(self):
        x, codes = data()
        model = GaussianNB().fit(x[30:].numpy(), codes[30:].numpy())
        learner = ActiveLearner(model, Margin(), Pool.unlabeled(x, n_classes=2), pretrained=True)
        learner.ask(5)
        assert learner.predict().tolist() == model.predict(x.numpy()).tolist()
        learner.tell(range(12), codes[:12])
        assert (
            learner.predict().tolist()
            == GaussianNB().fit(x[:12].numpy(), codes[:12].numpy()).predict(x.numpy()).tolist()
        )

    def test_classes_in_no_order(self):
        class Threshold:
            """A model of no library, whose classes are as they came."""

            classes_ = ("spam", "ham")

            def fit(self, X, y):
                raise AssertionError

            def predict(self, X):
                return np.array(["eggs" if x > 9 else "ham" if x > 0 else "spam" for x in X[:, 0]])

        x, _ = data()
        pool = Pool.unlabeled(x, classes=["spam", "ham"])
        learner = ActiveLearner(Threshold(), Uniform(), pool, pretrained=True)
        assert learner.predict() == ["ham" if value > 0 else "spam" for value in x[:, 0]]
        with pytest.raises(DataError, match=r"Threshold predicts .*eggs.*, which is none of its classes_"):
            learner.predict(torch.full((2, 3), 10.0))

    def test_a_trained_network_of_other_numbers_is_itself_after_loading(self):
        x, codes = data()
        model = TorchClassifier(epochs=2, warm_start=True).fit(x, codes * 10)
        learners = [
            ActiveLearner(model, Uniform(), Pool.unlabeled(x, classes=[0, 10]), pretrained=True) for _ in range(2)
        ]
        assert learners[0].predict() == model.predict(x).tolist()
        learners[1].load_state_dict(learners[0].state_dict(), [])
        assert learners[1].predict() == learners[0].predict()

    @pytest.mark.parametrize("frozen", [True, False])
    def test_a_trained_network(self, frozen, tmp_path):
        x, codes = data()
        model = TorchClassifier(epochs=2, warm_start=not frozen).fit(x[30:], codes[30:])
        make = lambda: ActiveLearner(  # noqa: E731
            FrozenEstimator(model) if frozen else model,
            Margin(),
            Pool.unlabeled(x, n_classes=2),
            pretrained=not frozen,
        )
        learner = make()
        rows = learner.ask(5)
        assert learner.predict().equal(model.predict(x))
        learner.tell(rows, codes[rows])
        learner.tell([0, 1, 2, 3], codes[:4])
        learner.save(tmp_path / "learner.pt")
        again = make()
        again.load(tmp_path / "learner.pt")
        assert again.ask(5).equal(learner.ask(5))
        assert learner.predict().equal(model.predict(x)) == frozen

    def test_what_is_not_trained_or_of_other_classes(self):
        x, codes = data()
        with pytest.raises(CapabilityError, match="has no classes_: it is not fitted"):
            ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x, n_classes=2), pretrained=True)
        model = FrozenEstimator(GaussianNB().fit(x.numpy(), np.array(WORDS)[codes]))
        with pytest.raises(DataError, match="order ham, spam, those of the pool are not"):
            ActiveLearner(model, Margin(), Pool.unlabeled(x, classes=["spam", "ham"]))
        with pytest.raises(DataError, match="none of the 2 classes"):
            ActiveLearner(model, Margin(), Pool.unlabeled(x, classes=["a", "b"]))


class TestUnfit:
    def learner(self, **settings):
        x, codes = data()
        model = CalibratedClassifierCV(GaussianNB(), cv=5)
        learner = ActiveLearner(model, Margin(), Pool.unlabeled(x, classes=WORDS), **settings)
        few = [*(codes == 0).nonzero()[:2, 0].tolist(), *(codes == 1).nonzero()[:2, 0].tolist()]
        learner.tell(few, [WORDS[codes[row]] for row in few])
        return learner, codes

    def test_says_which_model_refused_and_why_and_keeps_what_was_told(self):
        learner, _ = self.learner()
        words = r"(?s)CalibratedClassifierCV refused to be fitted on 4 labels \(2 of ham, 2 of spam\): .*What was told"
        with pytest.raises(FitError, match=words):
            learner.ask(3)
        assert learner.pool.n_labeled == 4
        assert not len(learner.asked)
        assert not learner.history

    def test_rows_are_drawn_at_random_until_it_can_be_fitted(self):
        learner, codes = self.learner(on_unfit="random")
        n_rounds = 0
        while not learner.history:
            rows = learner.ask(5)
            learner.tell(rows, [WORDS[code] for code in codes[rows]])
            n_rounds += 1
        assert n_rounds > 1
        assert min(codes[learner.history[0].rows].bincount()) >= 5
        assert learner.history[0].rows.tolist()[:4] == sorted(learner.history[0].rows.tolist()[:4])

    def test_a_sampler_that_reads_no_model_picks_meanwhile(self):
        x, codes = data()
        model = CalibratedClassifierCV(GaussianNB(), cv=5)
        learner = ActiveLearner(model, GraphDensity(), Pool.unlabeled(x, n_classes=2), on_unfit="random")
        learner.tell([0, 1, 2], codes[:3])
        picks = GraphDensity().select(learner.pool.view(None, generator=torch.Generator()), 4)
        assert learner.ask(4).equal(picks.indices)

    def test_settings(self):
        with pytest.raises(ConfigError, match="on_unfit must be 'raise' or 'random', got 'ignore'"):
            make(on_unfit="ignore")
        with pytest.raises(ConfigError, match="consensus must be 'majority' or 'unanimous', got 'all'"):
            make(consensus="all")


class TestReserve:
    def test_two_people_at_once_get_other_rows(self):
        learner, truth = make()
        first = learner.ask(4)
        second = learner.ask(4)
        plain, _ = make()
        assert torch.cat([first, second]).sort().values.equal(plain.ask(8).sort().values)
        assert learner.asked.equal(torch.cat([first, second]))
        answer(learner, second, truth)
        answer(learner, first, truth)
        result = learner.finish_round()
        assert result.report.keys() == {"batches"}
        assert [batch["rows"] for batch in result.report["batches"]] == [first.tolist(), second.tolist()]
        assert not result.scores.isnan().any()

    def test_rows_are_given_back(self):
        learner, _ = make()
        rows = learner.ask(4)
        learner.release(rows[:2])
        assert learner.asked.equal(rows[2:])
        assert set(rows[:2].tolist()) <= set(learner.ask(2).tolist())
        with pytest.raises(DataError, match="1 of 1 rows wait for no answer, the first is row 0"):
            learner.release([0])

    def test_a_row_given_back_and_asked_again_is_of_the_later_batch(self):
        learner, _ = make(TypiClust(), n_labeled=0)
        first = learner.ask(3)
        others = learner.pool.candidates.nonzero().squeeze(1)
        others = others[~torch.isin(others, first)]
        learner.release(first[:1])
        learner.cannot_label(others)
        again = learner.ask(1)
        assert again.equal(first[:1])
        learner.tell(first, ["ham"] * 3)
        learner.relabel(first[1:2], ["spam"])
        batches = learner.finish_round().report["batches"]
        assert [batch["rows"] for batch in batches] == [first[1:].tolist(), again.tolist()]

    def test_a_bandit_waits(self):
        x, codes = data()
        learner, truth = make(Bandit([Margin(), Uniform()]), validation=LabeledData(x, [WORDS[c] for c in codes]))
        rows = learner.ask(4)
        with pytest.raises(RunError, match=r"4 rows asked for earlier are not .* Bandit learns of each"):
            learner.ask(2)
        answer(learner, rows, truth)
        assert len(learner.ask(2)) == 2

    @pytest.mark.parametrize("sampler", [lambda: GraphDensity(), lambda: Mixture([Margin(), GraphDensity()])])
    def test_a_saved_learner_goes_on(self, sampler, tmp_path):
        def go_on(save):
            learner, truth = make(sampler())
            first, second = learner.ask(4), learner.ask(4)
            answer(learner, second[:2], truth)
            if save:
                learner.save(tmp_path / "learner.pt")
                learner, _ = make(sampler(), n_labeled=0)
                learner.load(tmp_path / "learner.pt")
            answer(learner, first, truth)
            learner.finish_round()
            answer(learner, second[2:], truth)
            return learner.ask(4), str(learner.state_dict())

        alone, saved = go_on(save=False), go_on(save=True)
        assert alone[0].equal(saved[0])


class TestCorrections:
    def test_the_record_keeps_both(self):
        learner, truth = make()
        learner.finish_round()
        wrong = "spam" if truth[3] == "ham" else "ham"
        learner.relabel([3, 4], [wrong, truth[4]])
        assert [tuple(c) for c in learner.corrections] == [(1, 3, truth[3], wrong)]
        assert learner.history[0].labels[3] == WORDS.index(truth[3])
        assert learner.pool.targets[3] == WORDS.index(wrong)
        other, _ = make()
        other.relabel([3], [wrong])
        assert learner.predict() == other.predict()

    def test_the_model_is_as_if_it_had_been_told_so_at_once(self):
        learner, truth = make()
        learner.finish_round()
        learner.relabel([0, 1], [truth[1], truth[0]])
        learner.unlabel([2])
        x, _ = data()
        told = [truth[1], truth[0], *truth[3:12]]
        model = GaussianNB().fit(x[[0, 1, *range(3, 12)]].numpy(), told)
        assert learner.predict() == model.predict(x.numpy()).tolist()
        assert bool(learner.pool.candidates[2])

    def test_what_nobody_can_tell_after_all(self):
        learner, _ = make()
        learner.relabel([5], [None])
        assert bool(learner.pool.skipped[5])
        learner.unlabel([5])
        assert bool(learner.pool.candidates[5])
        assert [c.after for c in learner.corrections] == [None]

    def test_what_cannot_be_changed(self):
        learner, truth = make()
        for call in (lambda: learner.relabel([0, 20], ["ham", "ham"]), lambda: learner.unlabel([0, 20])):
            with pytest.raises(DataError, match=r"1 of 2 rows have no label.*, the first is row 20"):
                call()
        with pytest.raises(DataError, match="none of the 2 classes"):
            learner.relabel([0], ["eggs"])
        with pytest.raises(DataError, match="2 of 2 rows are labeled already"):
            learner.tell([0, 1], truth[:2])
        assert not learner.corrections
        assert learner.pool.n_labeled == 12

    def test_a_label_of_the_round_that_is_going_on(self):
        learner, truth = make()
        learner.finish_round()
        rows = learner.ask(4)
        answer(learner, rows, truth)
        learner.unlabel(rows[:1])
        result = learner.finish_round()
        assert result.rows.equal(rows[1:])
        assert result.n_labeled == 15

    @pytest.mark.parametrize(
        "sampler",
        [Margin, GraphDensity, Hierarchical, ClusterMargin, lambda: Mixture([GraphDensity(), Hierarchical()])],
        ids=["margin", "graph_density", "hierarchical", "cluster_margin", "mixture"],
    )
    def test_samplers_with_a_state_follow(self, sampler, tmp_path):
        def go_on(save):
            learner, truth = make(sampler())
            for _ in range(2):
                answer(learner, learner.ask(4), truth)
            rows = learner.history[-1].rows if len(learner.history) > 1 else learner.history[0].rows
            learner.ask(2)
            learner.withdraw()
            learner.unlabel(rows[:2])
            learner.relabel([0, 1], [truth[1], truth[0]])
            if save:
                learner.save(tmp_path / "learner.pt")
                learner, _ = make(sampler(), n_labeled=0)
                learner.load(tmp_path / "learner.pt")
            return learner.ask(4).tolist(), learner.corrections

        alone = go_on(save=False)
        assert alone == go_on(save=True)
        assert len(alone[0]) == 4

    def test_a_tree_is_pruned_by_the_labels_as_they_are(self):
        learner, truth = make(Hierarchical())
        answer(learner, learner.ask(4), truth)
        learner.ask(4)
        learner.withdraw()
        learner.relabel([0, 1, 2], ["spam", "spam", "spam"])
        other, _ = make(Hierarchical(), n_labeled=0)
        rows = learner.pool.labeled.nonzero().squeeze(1)
        other.tell(rows, learner.pool.labels.decode(learner.pool.targets[rows]))
        other.ask(4)
        assert learner.sampler.propagated_labels().equal(other.sampler.propagated_labels())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pools as small as these
@pytest.mark.parametrize("name", sorted(samplers._BY_NAME))
def test_every_sampler_takes_what_people_do(name):
    x, codes = data(120, n_classes=3)
    sampler = samplers.from_name(name)
    model = torchal.LogisticRegression(posterior="laplace")
    validation = LabeledData(x[100:], codes[100:])
    learner = ActiveLearner(model, sampler, Pool.unlabeled(x[:80], n_classes=3), validation=validation)
    learner.tell(range(20), codes[:20])
    rows = learner.ask(4)
    others = learner.ask(3) if sampler.picks_ahead else rows[:0]
    assert not set(rows.tolist()) & set(others.tolist())
    learner.tell(rows, codes[rows])
    learner.finish_round()
    learner.unlabel(rows[:2])
    learner.relabel([0], (codes[:1] + 1) % 3)
    learner.extend(x[80:100])
    learner.withdraw()
    rows = learner.ask(6)
    learner.tell(rows, codes[rows])
    assert len(learner.ask(5).unique()) == 5


class TestSeveralPeople:
    def test_the_majority_decides_and_a_tie_changes_nothing(self):
        learner, _ = make(n_labeled=0)
        learner.tell([0, 1], ["ham", "ham"], by="Anna")
        learner.tell([0, 1], ["spam", "ham"], by="Ben")
        assert learner.pool.labels.decode(learner.pool.targets[[0, 1]]) == ["ham", "ham"]
        assert [tuple(d) for d in learner.disagreements()] == [(0, {"Anna": "ham", "Ben": "spam"}, "ham")]
        learner.tell([0], ["spam"], by="Cleo")
        assert learner.pool.labels.decode(learner.pool.targets[[0]]) == ["spam"]
        assert [(c.row, c.before, c.after) for c in learner.corrections] == [(0, "ham", "spam")]

    def test_all_must_agree_if_that_is_the_rule(self):
        learner, _ = make(n_labeled=0, consensus="unanimous")
        learner.tell([0, 1], ["ham", "ham"], by="Anna")
        learner.tell([0, 1], ["spam", "ham"], by="Ben")
        assert learner.pool.labeled[:2].tolist() == [False, True]
        learner.tell([0], ["ham"], by="Ben")  # a later answer takes the place of an earlier one
        assert learner.pool.labeled[:2].tolist() == [True, True]
        assert not learner.disagreements()

    @pytest.mark.parametrize("label", ["spam", None])
    def test_a_label_of_nobody_in_particular_ends_it(self, label):
        learner, _ = make(n_labeled=0, consensus="unanimous")
        learner.tell([0], ["ham"], by="ann")
        learner.tell([0], ["spam"], by="bob")
        learner.tell([0], [label])
        assert learner.disagreements() == []
        if label:
            with pytest.raises(DataError, match="labeled already, by nobody"):
                learner.tell([0], ["ham"], by="cy")
            assert learner.pool.targets[0] == 1
        else:
            assert bool(learner.pool.skipped[0])

    def test_rows_at_odds_are_asked_again(self):
        learner, _ = make()
        learner.tell([20, 21], ["ham", "ham"], by="Anna")
        learner.tell([20, 21], ["spam", "ham"], by="Ben")
        learner.finish_round()
        assert learner.ask_again().tolist() == [20]
        assert learner.asked.tolist() == [20]
        assert not bool(learner.pool.labeled[20])
        assert 20 not in learner.ask(5).tolist()
        learner.tell([20], ["spam"], by="Cleo")
        assert learner.pool.labels.decode(learner.pool.targets[[20]]) == ["spam"]
        assert 20 not in learner.asked.tolist()
        with pytest.raises(DataError, match="nobody has labeled 1 of 1 rows by name, the first is 0"):
            learner.ask_again([0])

    def test_somebody_who_cannot_tell_has_no_vote(self):
        learner, _ = make(n_labeled=0)
        rows = learner.ask(2)
        learner.tell(rows, [None, None], by="Anna")
        assert learner.pool.skipped[rows].all()
        learner.tell(rows[:1], ["ham"], by="Ben")
        assert learner.pool.labeled[rows].tolist() == [True, False]
        assert not learner.disagreements()

    def test_what_cannot_be_told(self):
        learner, _ = make()
        with pytest.raises(DataError, match="1 of 2 rows are labeled already, by nobody in particular"):
            learner.tell([20, 3], ["ham", "ham"], by="Anna")
        with pytest.raises(ConfigError, match="by must name who says so, got 1"):
            learner.tell([20], ["ham"], by=1)
        with pytest.raises(DataError, match="none of the 2 classes"):
            learner.tell([20, 21], ["ham", "eggs"], by="Anna")
        assert learner.pool.n_labeled == 12
        assert not learner.agreement().n_rows

    def test_votes_are_saved(self, tmp_path):
        learner, _ = make()
        learner.tell([20, 21], ["ham", "ham"], by="Anna")
        learner.tell([20, 21], ["spam", "ham"], by="Ben")
        learner.save(tmp_path / "learner.pt")
        again, _ = make(n_labeled=0)
        again.load(tmp_path / "learner.pt")
        assert again.disagreements() == learner.disagreements()
        assert again.agreement() == learner.agreement()

    def test_agreement(self):
        # Krippendorff's example of nominal data with missing values: four observers, twelve units, alpha 0.743
        a, n = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None], None
        b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3]
        c = [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n]
        d = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n]
        opinions = Opinions()
        for who, said in {"a": a, "b": b, "c": c, "d": d}.items():
            opinions = opinions.with_votes(range(12), [-1 if code is None else code for code in said], who)
        agreement = opinions.agreement()
        assert agreement.n_rows == 11
        assert agreement.alpha == pytest.approx(0.743, abs=5e-4)
        assert math.isnan(Opinions().agreement().alpha)

    @given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ABC"), st.integers(-1, 1)), max_size=25))
    @settings(max_examples=60, deadline=None)
    def test_labels_are_what_the_votes_say(self, told):
        x, _ = data(6)
        learner = ActiveLearner(NearestMean(), Margin(), Pool.unlabeled(x, n_classes=2))
        votes, now = {}, {}
        for row, who, code in told:
            learner.tell([row], [None if code < 0 else code], by=who)
            said = votes.setdefault(row, {})
            said[who] = code
            counts = [sum(vote == c for vote in said.values()) for c in (0, 1)]
            if sum(counts) == 0:
                now[row] = -1
            elif counts[0] != counts[1]:
                now[row] = int(counts[1] > counts[0])
            else:
                now.setdefault(row, -1)
        assert learner.pool.targets.tolist() == [now.get(row, -1) for row in range(6)]
        nobody = {row for row, said in votes.items() if set(said.values()) == {-1}}
        assert learner.pool.skipped.nonzero().squeeze(1).tolist() == sorted(nobody)


class TestFiles:
    def fill_in(self, path, answers, *, order=None):
        """Fill in the file of what was asked, as a person does: some rows, in another order, with a column more."""
        table = pd.read_csv(path, dtype=str)
        table["label"] = [answers.get(int(row), "") for row in table["row"]]
        table["who"] = "me"
        table = table if order is None else table.iloc[order]
        table.to_csv(path, index=False)

    def test_comes_back_filled_in(self, tmp_path):
        learner, truth = make()
        rows = learner.ask(5)
        path = tmp_path / "to_label.csv"
        learner.export_asked(path)
        self.fill_in(path, {int(row): truth[row] for row in rows[:3]}, order=[4, 2, 0, 1, 3])
        assert sorted(learner.tell_csv(path).tolist()) == sorted(rows[:3].tolist())
        assert learner.asked.equal(rows[3:])
        assert not len(learner.tell_csv(path))  # the same file again says nothing new
        self.fill_in(path, {int(row): truth[row] for row in rows})
        assert sorted(learner.tell_csv(path).tolist()) == sorted(rows[3:].tolist())
        assert learner.pool.labels.decode(learner.pool.targets[rows]) == [truth[row] for row in rows]

    def test_numbers_and_other_columns(self, tmp_path):
        x, _ = data()
        pool = Pool.unlabeled(x, n_classes=2, source_rows=torch.arange(100, 160))
        learner = ActiveLearner(GaussianNB(), Margin(), pool)
        path = tmp_path / "labels.csv"
        path.write_text("source_row;label\n159;1\n100;0.0\n130;\n")
        assert learner.tell_csv(path, column="source_row").tolist() == [59, 0]
        assert learner.pool.targets[[59, 0, 30]].tolist() == [1, 0, -1]
        pool = Pool.unlabeled(x, n_classes=2, source_rows=torch.zeros(60).long())
        twice = ActiveLearner(GaussianNB(), Margin(), pool)
        with pytest.raises(DataError, match="several rows of the pool have the same source_row"):
            twice.tell_csv(path, column="source_row")

    def test_all_that_is_wrong_is_listed_and_nothing_taken(self, tmp_path):
        learner, truth = make()
        other = "spam" if truth[0] == "ham" else "ham"
        path = tmp_path / "labels.csv"
        path.write_text(f"row,label\n0,{other}\n20,ham\n21,eggs\n60,ham\nx,\n")
        with pytest.raises(DataError) as caught:
            learner.tell_csv(path)
        said = str(caught.value)
        assert "4 problems" in said
        assert f"row 0 was told {truth[0]!r}, the file says {other!r} (see relabel)" in said
        assert "row 21: 1 of 1 labels are none of the 2 classes" in said
        assert "there is no row 60" in said
        assert "there is no row x" in said
        assert learner.pool.n_labeled == 12

    def test_of_several_people(self, tmp_path):
        learner, _ = make()
        path = tmp_path / "labels.csv"
        for who, label in (("Anna", "ham"), ("Ben", "spam")):
            path.write_text(f"row,label\n20,{label}\n21,ham\n")
            learner.tell_csv(path, by=who)
        assert [d.row for d in learner.disagreements()] == [20]


class TestMoreRows:
    SAMPLERS = {
        "margin": Margin,
        "k_center": KCenterGreedy,
        "graph_density": GraphDensity,
        "hierarchical": Hierarchical,
        "cluster_margin": ClusterMargin,
    }

    @pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
    @pytest.mark.parametrize("saved", [False, True])
    def test_come_behind_and_nothing_before_changes(self, sampler, saved, tmp_path):
        x, codes = data()
        learner = ActiveLearner(GaussianNB(), sampler(), Pool.unlabeled(x[:40], n_classes=2))
        learner.tell(range(12), codes[:12])
        rows = learner.ask(4)
        learner.tell(rows, codes[rows])
        waiting = learner.ask(4)
        history = [result.to_json() for result in learner.history]
        if saved:
            learner.save(tmp_path / "learner.pt")
            learner = ActiveLearner(GaussianNB(), sampler(), Pool.unlabeled(x, n_classes=2))
            learner.load(tmp_path / "learner.pt")
        else:
            assert learner.extend(x[40:]).tolist() == list(range(40, 60))
        assert [result.to_json() for result in learner.history] == history
        assert learner.asked.equal(waiting)
        assert learner.pool.inputs.equal(x)
        assert learner.pool.source_rows.tolist() == list(range(60))
        learner.tell(waiting, codes[waiting])
        rows = learner.ask(20)
        assert bool((rows >= 40).any())
        if sampler is KCenterGreedy:
            labeled = learner.pool.labeled
            other = ActiveLearner(GaussianNB(), sampler(), Pool.unlabeled(x, n_classes=2))
            other.tell(labeled.nonzero().squeeze(1), codes[labeled])
            assert rows.equal(other.ask(20))

    def test_of_every_kind(self):
        import scipy.sparse
        from torch.utils.data import TensorDataset

        x, codes = data()
        sparse = scipy.sparse.csr_array(x.numpy())
        kinds = {
            "array": (x[:40].numpy(), x[40:].numpy()),
            "table": (pd.DataFrame(x[:40].numpy()), pd.DataFrame(x[40:].numpy())),
            "sparse": (sparse[:40], sparse[40:]),
            "data set": (DatasetInputs(TensorDataset(x[:40])), DatasetInputs(TensorDataset(x[40:]))),
        }
        asked = set()
        for old, new in kinds.values():
            learner = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(old, n_classes=2))
            learner.tell(range(12), codes[:12])
            learner.extend(new)
            asked.add(tuple(learner.ask(6).tolist()))
        assert len(asked) == 1

    @pytest.mark.parametrize(
        "sampler",
        [
            lambda: ByGroup(Margin(), groups=torch.arange(60)),
            lambda: Hierarchical(tree=cluster_tree(data()[0], generator=torch.Generator())),
        ],
        ids=["groups", "a tree"],
    )
    def test_a_setting_of_the_old_rows_refuses_new_ones(self, sampler):
        learner, _ = make(sampler())
        with pytest.raises(ConfigError, match="60 rows, and the pool is to have 61"):
            learner.extend(torch.zeros(1, 3))
        assert len(learner.pool) == 60
        assert len(learner.ask(3)) == 3

    def test_agreement_with_the_round_before_is_of_the_same_rows(self):
        learner, truth = make()
        learner.watch("kappa")
        learner.finish_round()
        answer(learner, learner.ask(3), truth)
        assert "kappa" in learner.finish_round().pool
        learner.extend(torch.zeros(2, 3))
        learner.tell([60], ["ham"])
        found = [learner.finish_round().pool]
        rows = learner.ask(3)
        learner.tell(rows, ["ham"] * 3)
        found.append(learner.finish_round().pool)
        assert ["kappa" in watched for watched in found] == [False, True]

    def test_of_several_samplers_none_takes_them_up_where_one_cannot(self):
        members = [GraphDensity(), ByGroup(Margin(), groups=torch.arange(60))]
        learner, _ = make(Mixture(members, weights=[0.5, 0.5]))
        learner.ask(3)
        before = learner.sampler.state_dict()
        with pytest.raises(ConfigError, match="60 rows, and the pool is to have 61"):
            learner.extend(torch.zeros(1, 3))
        assert repr(learner.sampler.state_dict()) == repr(before)

    def test_that_do_not_fit(self, tmp_path):
        x, _ = data()
        learner, _ = make()
        with pytest.raises(ShapeError, match=r"rows of the pool have shape \(3,\), the new ones \(2,\)"):
            learner.extend(torch.zeros(4, 2))
        with pytest.raises(DataError, match="a pool of Tensor cannot take rows of TableInputs"):
            learner.extend(["a", "b"])
        with pytest.raises(DataError, match="inputs must be finite"):
            learner.extend(torch.full((4, 3), math.nan))
        np.save(tmp_path / "x.npy", x.numpy())
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        other = ActiveLearner(NearestMean(), Margin(), Pool.unlabeled(mapped, n_classes=2))
        with pytest.raises(DataError, match=r"a pool of memmap cannot grow.* load its state"):
            other.extend(x)
        costly, _ = make(costs=torch.arange(60.0))
        with pytest.raises(ConfigError, match="give costs= of the 4 new rows"):
            costly.extend(torch.zeros(4, 3))
        costly.extend(torch.zeros(4, 3), costs=2.0)
        assert costly.costs[-4:].tolist() == [2.0] * 4
        with pytest.raises(ConfigError, match="knows the truth of the rows that it began with"):
            make(truth=["ham"] * 60)[0].extend(torch.zeros(4, 3))
        assert len(learner.pool) == 60
