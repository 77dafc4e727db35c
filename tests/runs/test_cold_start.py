"""The first rows, before any model can be fitted."""

import contextlib
import copy
import math

import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.naive_bayes import GaussianNB, MultinomialNB

from tests.contracts import NearestMean, make_pool
from tests.runs.test_loop import make
from torchal import (
    ActiveLearner,
    BudgetError,
    CapabilityError,
    ConfigError,
    DataError,
    Pool,
    RunError,
    Schedule,
    Trainer,
    rounds,
)
from torchal.samplers import (
    Bandit,
    ClassBalanced,
    Combine,
    Entropy,
    GraphDensity,
    Hierarchical,
    KCenterGreedy,
    Margin,
    Mixture,
    SimulateBatch,
    SubPool,
    Switch,
    TypiClust,
    Uniform,
)


def cold_view(seed=0):
    pool, _, _ = make_pool(n_labeled=0)
    return pool.view(None, generator=torch.Generator().manual_seed(seed))


class TestView:
    def test_has_the_inputs_as_features_and_nothing_of_a_model(self):
        view = cold_view()
        assert view.features.equal(view.inputs.flatten(1))
        assert view.flat_inputs is view.features
        assert view.features_from == "inputs"
        assert not view.labeled.any()
        for read in ("log_probs", "scores", "last_layer"):
            with pytest.raises(CapabilityError, match=rf"{read} needs a model; none can be fitted before labels"):
                getattr(view, read)

    def test_those_made_from_it_are_cold_too(self):
        view = cold_view()
        assert view.fork(1).features is view.features
        assert view.narrowed(view.candidates).features_from == "inputs"


class TestLearner:
    def test_a_sampler_that_reads_no_model_picks_the_first_rows(self):
        learner, _ = make(KCenterGreedy(), n_labeled=0)
        rows = learner.ask(5)
        assert rows.equal(KCenterGreedy().select(cold_view(), 5).indices)
        assert learner.asked.equal(rows)

    def test_and_goes_on_so_while_there_is_one_class(self):
        learner, _ = make(KCenterGreedy(), n_labeled=0)
        first = learner.ask(3)
        learner.tell(first, torch.zeros(3, dtype=torch.int64))
        together = KCenterGreedy().select(cold_view(), 5).indices
        assert torch.cat([first, learner.ask(2)]).equal(together)

    def test_the_record_has_it_as_the_samplers_pick(self):
        learner, oracle = make(TypiClust(), n_labeled=0)
        rows = learner.ask(6)
        learner.tell(rows, oracle(rows))
        result = learner.finish_round()
        assert (result.round, result.n_labeled, result.picked_by) == (0, 6, "TypiClust")
        assert not result.scores.isnan().any()

    @pytest.mark.parametrize("sampler", [Margin(), Entropy(), ClassBalanced(Uniform()), Mixture([Uniform(), Margin()])])
    def test_others_are_asked_once_there_is_a_model_and_first_rows_drawn(self, sampler):
        learner, oracle = make(sampler, n_labeled=0)
        drawn, _ = make(Uniform(), n_labeled=0)
        rows = learner.ask(8)
        assert rows.equal(drawn.ask(8))
        learner.tell(rows, oracle(rows))
        assert learner.finish_round().picked_by == "start"

    def test_drawn_rows_are_the_same_by_name_and_by_the_uniform_sampler(self):
        one, two = make(TypiClust(), n_labeled=0)[0], make(Uniform(), n_labeled=0)[0]
        assert one.ask_at_random(7).equal(two.ask(7))
        with pytest.raises(BudgetError):
            make(n_labeled=0)[0].ask_at_random(0)

    def test_a_switch_needs_what_the_one_whose_turn_it_is_needs(self):
        switch = Switch([TypiClust(), Margin()], after=10)
        assert [switch.needs_model(n) for n in (0, 9, 10)] == [False, False, True]
        assert not SubPool(switch).needs_model(9)
        assert SubPool(switch).needs_model(10)
        learner, oracle = make(switch, n_labeled=0)
        rows = learner.ask(10)
        assert len(rows) == 10
        learner.tell(rows, oracle(rows))
        learner.ask(2)
        assert learner.history[0].report["turn"] == "TypiClust"

    def test_a_combination_needs_a_model_to_balance_classes_by(self):
        assert Combine([Margin()]).needs_model(0)
        assert Combine([Margin()], balance=1.0).needs_model(0)

    @pytest.mark.parametrize(
        "sampler", [Mixture([Uniform(), Margin()], weights=[1, 0]), Combine([Margin()], strengths=[0])]
    )
    def test_members_that_do_not_count_need_no_model(self, sampler):
        assert not sampler.needs_model(0)
        learner, oracle = make(sampler, n_labeled=0)
        rows = learner.ask(5)
        learner.tell(rows, oracle(rows))
        assert not learner.finish_round().scores.isnan().any()

    @pytest.mark.parametrize(
        "sampler", [Bandit([GraphDensity(), Uniform()]), SubPool(Bandit([Uniform()])), SimulateBatch([Uniform()])]
    )
    def test_what_learns_from_a_model_needs_one_whatever_its_members(self, sampler):
        assert sampler.needs_model(0)
        learner, oracle = make(sampler, n_labeled=0)
        rows = learner.ask(8)
        assert rows.equal(make(n_labeled=0)[0].ask_at_random(8))
        learner.tell(rows, oracle(rows))
        assert learner.finish_round().picked_by == "start"

    def test_sparse_rows_are_drawn(self):
        pool = Pool.unlabeled(csr_matrix(torch.eye(12).numpy()), n_classes=2)
        learner = ActiveLearner(MultinomialNB(), Uniform(), pool)
        assert len(learner.ask(4).unique()) == 4

    @pytest.mark.parametrize("sampler", [KCenterGreedy(), TypiClust(), Switch([TypiClust(), Margin()])])
    def test_rows_that_are_no_points_are_drawn(self, sampler):
        for inputs in (Texts(60), torch.randint(30_000, (60, 8))):
            learner = ActiveLearner(ReadsTexts(), sampler, Pool.unlabeled(inputs, n_classes=2))
            rows = learner.ask(5)
            assert rows.equal(ActiveLearner(ReadsTexts(), Margin(), learner.pool).ask_at_random(5))
            learner.tell(rows, rows * 0)
            assert len(learner.ask(5)) == 5
        pixels = torch.randint(256, (60, 1, 4, 4), dtype=torch.uint8)
        learner = ActiveLearner(GaussianNB(), sampler, Pool.unlabeled(pixels, n_classes=2))
        rows = learner.ask(5)
        learner.tell(rows, torch.arange(5) % 2)
        assert learner.finish_round().picked_by == type(sampler).__name__


class Texts:
    """Rows that are no tensors."""

    def __init__(self, n_rows):
        self.texts = ["word " * (i % 7 + 1) for i in range(n_rows)]

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, rows):
        return [self.texts[int(row)] for row in rows]


class ReadsTexts:
    """A model of these that has an embedding."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return torch.zeros(len(X), dtype=torch.int64)

    def predict_proba(self, X):
        return torch.full((len(X), 2), 0.5)

    decision_function = predict

    def transform(self, X):
        return torch.tensor([[float(len(text)), 1.0] for text in X])


def two_batches(sampler, **settings):
    """Return a learner whose first batch has one class, its rows, and the oracle."""
    learner, oracle = make(sampler, n_labeled=0, **settings)
    batches = []
    for _ in range(2):
        rows = learner.ask(6)
        labels = torch.zeros(6, dtype=torch.int64)
        labels[-1] = len(batches)
        learner.tell(rows, labels)
        batches.append(rows)
    return learner, batches, oracle


STATEFUL = {
    "graph_density": GraphDensity,
    "hierarchical": Hierarchical,
    "mixture": lambda: Mixture([GraphDensity(), Hierarchical()]),
    "wrapped": lambda: SubPool(GraphDensity(), n_rows=40),
    "switch": lambda: Switch([GraphDensity(), Bandit([Hierarchical(), Margin()])], after=15),
}


class TestBatchesOfOneClass:
    @pytest.mark.parametrize("make_sampler", STATEFUL.values(), ids=STATEFUL.keys())
    def test_each_is_learned_from_once(self, make_sampler):
        learner, batches, _ = two_batches(make_sampler())
        result = learner.finish_round()
        assert result.rows.equal(torch.cat(batches))
        assert not result.scores.isnan().any()
        assert [batch["rows"] for batch in result.report["batches"]] == [rows.tolist() for rows in batches]

    def test_the_second_knows_of_the_first(self):
        learner, batches, _ = two_batches(GraphDensity())
        sampler, targets = GraphDensity(), torch.full((60,), -1)
        for rows in batches:
            pool = make_pool(n_labeled=0)[0].with_labels((targets >= 0).nonzero()[:, 0], targets[targets >= 0])
            view = pool.view(None, generator=torch.Generator().manual_seed(0))
            picks = sampler.select(view, 6)
            assert picks.indices.equal(rows)
            targets[rows] = 0
            sampler.tell(picks, targets[rows])
        result = learner.finish_round()
        assert learner.sampler.state_dict() == sampler.state_dict()
        assert learner.sampler.report()["n_picks"] == 12
        assert result.scores[6:].equal(picks.scores.double())

    def test_each_has_a_report_of_its_own(self):
        learner, *_ = two_batches(KCenterGreedy(), represents=True)
        result = learner.finish_round()
        assert result.report.keys() == {"batches"}
        for batch in result.report["batches"]:
            assert len(batch["report"]["represents"]["counts"]) == len(batch["rows"]) == 6
        learner.ask(4)
        assert learner.history[0] is result
        assert len(learner._asks[-1]["report"]["represents"]["counts"]) == 4

    @pytest.mark.parametrize("make_sampler", STATEFUL.values(), ids=STATEFUL.keys())
    @pytest.mark.parametrize("where", ["asked", "told", "asked again", "told again"])
    def test_a_saved_learner_goes_on_as_one_left_alone(self, make_sampler, where, tmp_path):
        def go_on(at=None):
            learner, oracle = make(make_sampler(), n_labeled=0)
            places = []
            for number in range(4):
                rows = learner.ask(6)
                labels = oracle(rows) if number > 1 else torch.eye(6, dtype=torch.int64)[-1] * number
                for place in ("asked", "told"):
                    places.append(f"{place}{' again' * number}")
                    if places[-1] == at:
                        learner.save(tmp_path / "learner.pt")
                        learner, _ = make(make_sampler(), n_labeled=0)
                        learner.load(tmp_path / "learner.pt")
                    if place == "asked":
                        learner.tell(rows, labels)
            learner.finish_round()
            return learner

        whole, cut = go_on(), go_on(where)
        for one, other in zip(whole.history, cut.history, strict=True):
            assert one.rows.equal(other.rows)
            assert one.scores.equal(other.scores)
            assert one.report == other.report
        assert str(whole.sampler.state_dict()) == str(cut.sampler.state_dict())

    def test_a_batch_that_could_not_be_learned_from_is_tried_again(self, monkeypatch):
        learner, _ = make(GraphDensity(), n_labeled=0)
        rows = learner.ask(4)
        learner.tell(rows, rows * 0)
        observe = GraphDensity.observe

        def fails(self, result):
            observe(self, result)
            raise RuntimeError("once")

        with monkeypatch.context() as patch:
            patch.setattr(GraphDensity, "observe", fails)
            with pytest.raises(RuntimeError, match="once"):
                learner.ask(4)
        assert not learner.sampler.state_dict()["bought"]
        learner.ask(4)
        assert learner.sampler.state_dict()["bought"] == rows.tolist()

    def test_labels_that_others_brought_are_a_batch_without_scores(self):
        pool, targets, _ = make_pool(n_labeled=0)
        start = (targets == 1).nonzero()[:3, 0]
        learner = ActiveLearner(NearestMean(), GraphDensity(), pool.with_labels(start, targets[start]))
        rows = learner.ask(5)
        learner.tell(rows, targets[rows])
        result = learner.finish_round()
        assert result.scores.isnan().tolist() == [True] * 3 + [False] * 5
        assert [batch["report"] == {} for batch in result.report["batches"]] == [True, False]
        assert learner.sampler.state_dict()["bought"] == rows.tolist()

    def test_a_state_of_before_there_were_batches_is_read(self):
        learner, *_ = two_batches(GraphDensity())
        state = learner.state_dict()
        del state["batches"], state["began_with"]
        other, _ = make(GraphDensity(), n_labeled=0)
        other.load_state_dict(state, [])
        assert len(other.finish_round().rows) == 12
        with pytest.raises(RunError, match="it has no bought"):
            other.load_state_dict({name: value for name, value in state.items() if name != "bought"}, [])


class TestRounds:
    def test_with_no_start_set_the_first_batch_is_the_samplers(self):
        learner, oracle = make(TypiClust(), n_labeled=0)
        results = list(rounds(learner, oracle, Schedule(batch_size=10, budget=30), start=0))
        assert [(result.n_labeled, result.picked_by) for result in results] == [
            (10, "TypiClust"),
            (20, "TypiClust"),
            (30, "TypiClust"),
        ]

    @pytest.mark.parametrize("sampler", [TypiClust(), Margin()])
    def test_batches_count_from_the_first(self, sampler):
        learner, oracle = make(sampler, n_labeled=0)
        results = list(rounds(learner, oracle, Schedule(batch_sizes=[8, 3, 5]), start=0))
        assert [len(result.rows) for result in results] == [8, 3, 5]
        learner, oracle = make(sampler, n_labeled=0)
        results = list(rounds(learner, oracle, Schedule(batch_size=9, max_rounds=2), start=0))
        assert [result.n_labeled for result in results] == [9, 18]

    def test_a_number_is_still_drawn_at_random(self):
        learner, oracle = make(TypiClust(), n_labeled=0)
        first = next(rounds(learner, oracle, Schedule(batch_size=10, budget=30), start=12))
        assert first.picked_by == "start"
        assert first.rows.equal(make(Uniform(), n_labeled=0)[0].ask(12))

    def test_an_empty_list_is_no_start_set(self):
        learner, oracle = make(n_labeled=0)
        with pytest.raises(BudgetError, match="start=0 lets the sampler"):
            rounds(learner, oracle, Schedule(batch_size=10), start=torch.tensor([], dtype=torch.int64))
        learner, oracle = make(n_labeled=6)
        with pytest.raises(ConfigError, match=r"start=0, .* was given, and 6 rows of the pool are labeled already"):
            rounds(learner, oracle, Schedule(batch_size=10), start=0)

    @pytest.mark.parametrize("sampler", [GraphDensity(), Margin()])
    @pytest.mark.parametrize("start", [0, 7, [3, 1, 40]])
    @pytest.mark.parametrize("given", [True, False], ids=["the same start", "none"])
    def test_a_learner_saved_after_each_label_goes_on_as_one_left_alone(self, sampler, start, given, tmp_path):
        schedule = Schedule(batch_sizes=[5, 3, 6])

        def new():
            learner, _ = make(copy.deepcopy(sampler), n_labeled=0)
            return learner, lambda rows: (rows == 13).long() if learner.pool.n_labeled < 9 else rows % 3

        class Stopped(Exception):
            pass

        whole, oracle = new()
        list(rounds(whole, oracle, schedule, start=start))
        for n_saved in range(1, 5):
            learner, oracle = new()
            n_left = [n_saved]

            def save(learner=learner, n_left=n_left):
                learner.save(tmp_path / "learner.pt")
                n_left[0] -= 1
                if not n_left[0]:
                    raise Stopped

            with contextlib.suppress(Stopped):
                list(rounds(learner, oracle, schedule, start=start, on_labels=save))
            learner, oracle = new()
            learner.load(tmp_path / "learner.pt")
            list(rounds(learner, oracle, schedule, start=start if given else None))
            for one, other in zip(whole.history, learner.history, strict=True):
                assert one.rows.equal(other.rows)
                assert one.report == other.report

    def test_a_learner_goes_on_with_its_own_start_only(self):
        for start, other in ((0, 5), (5, 0), ([1, 2], 2), ([1, 2], [2, 1])):
            learner, oracle = make(TypiClust(), n_labeled=0)
            next(rounds(learner, oracle, Schedule(batch_size=20), start=start))
            with pytest.raises(ConfigError, match=r"goes on with the start that it began with.*start.* was "):
                rounds(learner, oracle, Schedule(batch_size=20), start=other)

    def test_a_start_set_that_nobody_could_label_is_not_asked_for_twice(self):
        learner, oracle = make(n_labeled=0)
        steps = rounds(
            learner, lambda rows: rows * 0 - 1, Schedule(batch_size=20), start=[4, 2], on_labels=lambda: 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            next(steps)
        assert learner.pool.skipped.nonzero()[:, 0].tolist() == [2, 4]
        assert len(next(rounds(learner, oracle, Schedule(batch_size=20), start=[4, 2])).rows) == 20

    def test_no_round_is_none_with_no_start_set_either(self, tmp_path):
        schedule = Schedule(batch_size=20, max_rounds=0)
        learner, oracle = make(TypiClust(), n_labeled=0)
        assert not list(rounds(learner, oracle, schedule, start=0))
        assert not learner.pool.n_labeled
        trainer = Trainer(NearestMean(), TypiClust(), schedule=schedule, run_dir=tmp_path / "run", progress=False)
        run = trainer.fit(make_pool(n_labeled=0)[0], oracle, start=0)
        assert (run.rounds, run.finished) == ([], True)

    def test_one_class_to_the_end_is_an_error(self):
        learner, _ = make(TypiClust(), n_labeled=0)
        with pytest.raises(DataError, match="20 labels of 1 classes"):
            list(rounds(learner, lambda rows: rows * 0, Schedule(batch_size=10, budget=20), start=0))

    @pytest.mark.parametrize("sampler", [GraphDensity(), Mixture([GraphDensity(), Hierarchical()])])
    def test_a_run_stopped_while_there_is_one_class_goes_on_as_one_left_alone(self, sampler, tmp_path):
        def run(name, n_answers=math.inf):
            pool, left = make_pool(n_labeled=0)[0], [n_answers]

            def oracle(rows):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return rows * 0 + (rows == later)

            schedule = Schedule(batch_size=6, max_rounds=3)
            trainer = Trainer(NearestMean(), sampler, schedule=schedule, run_dir=tmp_path / name, progress=False)
            return trainer.fit(pool, oracle, start=0)

        probe, _ = make(copy.deepcopy(sampler), n_labeled=0)
        for _ in range(3):
            rows = probe.ask(6)
            probe.tell(rows, rows * 0)
        later = int(rows[0])  # the first row of another class is in the third batch
        whole = run("whole")
        assert [len(result.rows) for result in whole.rounds] == [18, 6, 6]
        for n_answers in range(1, 5):
            with pytest.raises(KeyboardInterrupt):
                run(str(n_answers), n_answers)
            again = run(str(n_answers))
            assert str(again.sampler_state) == str(whole.sampler_state)
            for one, other in zip(whole.rounds, again.rounds, strict=True):
                assert one.rows.equal(other.rows)
                assert one.scores.equal(other.scores)
                assert one.report == other.report

    @pytest.mark.parametrize("sampler", [TypiClust(), Margin()])
    def test_a_run_that_was_stopped_goes_on_as_one_left_alone(self, sampler, tmp_path):
        pool, targets, _ = make_pool(n_labeled=0)
        schedule = Schedule(batch_sizes=[8, 3, 5, 4])

        def trainer(name):
            return Trainer(NearestMean(), sampler, schedule=schedule, run_dir=tmp_path / name, progress=False)

        whole = trainer("whole").fit(pool, lambda rows: targets[rows], start=0)
        assert [len(result.rows) for result in whole.rounds] == [8, 3, 5, 4]

        for n_answers in range(4):
            answers = iter(range(n_answers))

            def oracle(rows, answers=answers):
                if next(answers, None) is None:
                    raise KeyboardInterrupt
                return targets[rows]

            with pytest.raises(KeyboardInterrupt):
                trainer(f"stopped {n_answers}").fit(pool, oracle, start=0)
            again = trainer(f"stopped {n_answers}").fit(pool, lambda rows: targets[rows], start=0)
            for one, other in zip(whole.rounds, again.rounds, strict=True):
                assert one.rows.equal(other.rows)
                assert one.n_labeled == other.n_labeled
