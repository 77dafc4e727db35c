"""The first rows, before any model can be fitted."""

import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.naive_bayes import MultinomialNB

from tests.contracts import NearestMean, make_pool
from tests.runs.test_loop import make
from torchal import ActiveLearner, BudgetError, CapabilityError, ConfigError, Pool, Schedule, Trainer, rounds
from torchal.samplers import (
    ClassBalanced,
    Combine,
    Entropy,
    KCenterGreedy,
    Margin,
    Mixture,
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

    def test_sparse_rows_are_drawn(self):
        pool = Pool.unlabeled(csr_matrix(torch.eye(12).numpy()), n_classes=2)
        learner = ActiveLearner(MultinomialNB(), Uniform(), pool)
        assert len(learner.ask(4).unique()) == 4


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
        with pytest.raises(ConfigError, match="6 rows of the pool are labeled already"):
            rounds(learner, oracle, Schedule(batch_size=10), start=0)

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
