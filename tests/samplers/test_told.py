import copy

import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, ConfigError, DataError, PoolView, Selection, ShapeError, samplers
from torchal.pool.labels import LabeledData
from torchal.samplers import (
    Bandit,
    ByGroup,
    ClusterMargin,
    Combine,
    Entropy,
    GraphDensity,
    Hierarchical,
    Margin,
    Mixture,
    SimulateBatch,
    SubPool,
    Switch,
    Uniform,
)

NOT_TOLD = "was not told of {} of {} labeled rows: in a loop of your own call sampler.tell"
LEARN = {
    "graph_density": GraphDensity,
    "hierarchical": Hierarchical,
    "cluster_margin": ClusterMargin,
    "bandit": lambda: Bandit([Margin(), GraphDensity()]),
}
MADE_OF_THEM = {
    "mixture": lambda: Mixture([GraphDensity(), Hierarchical(), Uniform()]),
    "switch": lambda: Switch([GraphDensity(), Hierarchical()], after=15),
    "sub_pool": lambda: SubPool(Hierarchical(), n_rows=30),
    "mixture of mixtures": lambda: Mixture([SubPool(GraphDensity(), n_rows=40), Bandit([Hierarchical(), Margin()])]),
}
STATELESS = {
    "margin": Margin,
    "combine": lambda: Combine([Margin()]),
    "by_group": lambda: ByGroup(Entropy(), groups=torch.arange(60) // 4),
}


def named(cases):
    return pytest.mark.parametrize("make", cases.values(), ids=cases.keys())


def features(n_rows=60):
    return torch.randn(n_rows, 3, generator=torch.Generator().manual_seed(0))


def view_of(targets, seed=0):
    """Return a view as one makes it in a loop of one's own, all tensors new each time."""
    x = features(len(targets))
    generator = torch.Generator().manual_seed(seed)
    return PoolView.from_tensors(features=x, scores=x.clone(), targets=targets.clone(), generator=generator)


def bought(targets, rows):
    targets = targets.clone()
    targets[rows] = rows % 3
    return targets


START = bought(torch.full((60,), -1), torch.arange(4))


@named(LEARN | MADE_OF_THEM | STATELESS)
def test_a_loop_of_ones_own_that_tells_picks_what_a_learner_does(make):
    pool, targets, validation = make_pool()
    learner = ActiveLearner(NearestMean(), make(), pool, validation=validation)
    sampler = make()
    start = learner.finish_round()
    sampler.tell(start.rows, start.labels, picked=False, validation_accuracy=start.validation["accuracy"])
    for _ in range(5):
        rows = learner.ask(5)
        view = learner.pool.view(learner.model, generator=learner._generator(), validation=validation)
        picks = sampler.select(view, 5)
        assert picks.indices.equal(rows)
        learner.tell(rows, targets[rows])
        accuracy = learner.finish_round().validation["accuracy"]
        learned = sampler.tell(picks, targets[rows], validation_accuracy=accuracy)
        assert learned == learner.history[-1].report.get("learned")
    assert str(sampler.state_dict()) == str(learner.sampler.state_dict())


@named(LEARN | MADE_OF_THEM)
def test_warns_of_rows_that_it_was_not_told_of(make):
    sampler, targets = make(), START
    for n_others in (0, 5, 10):
        view = view_of(targets)
        if not n_others:
            rows = sampler.select(view, 5).indices  # the start set is no news
        else:
            with pytest.warns(UserWarning, match=NOT_TOLD.format(n_others, 4 + n_others)):
                rows = sampler.select(view, 5).indices
        targets = bought(targets, rows)


def test_the_warning_points_at_the_select():
    sampler = GraphDensity()
    rows = sampler.select(view_of(START), 5).indices
    with pytest.warns(UserWarning, match="GraphDensity learns from the labels of its picks") as seen:
        sampler.select(view_of(bought(START, rows)), 5)
    assert [warning.filename for warning in seen] == [__file__]


@named(LEARN | MADE_OF_THEM)
def test_is_silent_after_each_tell_and_after_a_resume(make):
    sampler, targets = make(), START
    for number in range(4):
        picks = sampler.select(view_of(targets, seed=number), 5)
        targets = bought(targets, picks.indices)
        sampler.tell(picks, picks.indices % 3, validation_accuracy=0.5)
        if number == 1:
            state, sampler = sampler.state_dict(), make()
            sampler.load_state_dict(state)
        if number == 2:
            sampler = copy.deepcopy(sampler)


@named({"graph_density": GraphDensity, "mixture": lambda: Mixture([GraphDensity(), Uniform()])})
def test_a_start_label_taken_back_is_no_other_pool(make):
    sampler = make()
    targets = bought(START, sampler.select(view_of(START), 5).indices)
    targets[0] = -1
    with pytest.warns(UserWarning, match=NOT_TOLD.format(5, 8)):
        sampler.select(view_of(targets), 5)
    targets[0] = 0  # and has come again, which nobody told it of
    with pytest.warns(UserWarning, match=NOT_TOLD.format(6, 9)):
        sampler.select(view_of(targets), 5)


def test_another_pool_has_a_start_set_of_its_own():
    sampler = Bandit([Margin(), Uniform()])
    sampler.select(view_of(START), 5)
    sampler.select(view_of(bought(torch.full((60,), -1), torch.arange(10, 20))), 5)
    sampler.select(view_of(torch.full((70,), -1)), 5)
    sampler.select(view_of(bought(torch.full((50,), -1), torch.arange(10, 20))), 5)


def test_hypothetical_labels_are_none_to_tell_of():
    pool, targets, validation = make_pool()
    sampler = SimulateBatch([GraphDensity(), Hierarchical()], n_sims=2, train_per_sim=3)
    learner = ActiveLearner(NearestMean(), sampler, pool, validation=validation)
    for _ in range(3):
        rows = learner.ask(5)
        learner.tell(rows, targets[rows])
    view = make_view(pool)
    assert not view.is_hypothetical
    assert not view.narrowed(view.candidates).is_hypothetical
    refit = view.refit(rows[:2], targets[rows[:2]])
    assert refit.is_hypothetical
    several = view.refit(rows[:2, None], targets[rows[:2, None]])
    assert several.is_hypothetical
    assert all(trial.fork(1).is_hypothetical for trial in several.trials)


def test_rows_of_others_are_known_and_take_nothing_off():
    sampler = GraphDensity()
    picks = sampler.select(view_of(START), 5)
    others = torch.tensor([58, 59])
    others = others[~torch.isin(others, picks.indices)]
    targets = bought(bought(START, picks.indices), others)
    sampler.tell(picks, picks.indices % 3)
    sampler.tell(others, others % 3, picked=False)
    sampler.select(view_of(targets), 5)
    assert sampler.state_dict()["bought"] == picks.indices.tolist()


@named({"graph_density": GraphDensity, "mixture": lambda: Mixture([GraphDensity(), Uniform()])})
@pytest.mark.parametrize("picked", [True, False])
def test_rows_told_before_the_first_select_are_a_start_set(make, picked):
    sampler, whole = make(), make()
    sampler.tell(torch.arange(4), START[:4], picked=picked)
    picks = sampler.select(view_of(START), 5)
    assert picks.indices.equal(whole.select(view_of(START), 5).indices)
    sampler.tell(picks, picks.indices % 3)
    whole.tell(picks, picks.indices % 3)
    assert str(sampler.state_dict()) == str(whole.state_dict())


SAY_WHOSE = MADE_OF_THEM | {
    "bandit": LEARN["bandit"],
    "combine": STATELESS["combine"],
    "by_group": lambda: ByGroup(Margin()),
}


@named(SAY_WHOSE)
def test_refuses_a_batch_after_the_next_was_picked(make):
    sampler = make()
    first = sampler.select(view_of(START), 5)
    view = view_of(START)
    second = sampler.select(view.narrowed(view.candidates.index_fill(0, first.indices, False)), 4)
    state = str(sampler.state_dict())
    name = type(sampler).__name__
    with pytest.raises(
        DataError, match=f"5 of 5 rows, the first of them row {first.indices[0]}, .* 4 that {name} pick"
    ):
        sampler.tell(first, first.indices % 3, validation_accuracy=0.5)
    with pytest.raises(DataError, match=r"1 of 2 rows.* tell it each batch before the next select"):
        sampler.tell(torch.stack([first.indices[0], second.indices[0]]), torch.zeros(2).long(), validation_accuracy=0.5)
    assert str(sampler.state_dict()) == state
    sampler.tell(first, first.indices % 3, picked=False, validation_accuracy=0.5)
    sampler.tell(second, second.indices % 3, validation_accuracy=0.5)


@named(LEARN | SAY_WHOSE)
def test_a_batch_may_be_told_after_a_resume(make):
    whole = make()
    picks = whole.select(view_of(START), 5)
    resumed = make()
    resumed.load_state_dict(whole.state_dict())
    learned = [one.tell(picks, picks.indices % 3, validation_accuracy=0.75) for one in (whole, resumed)]
    assert learned[0] == learned[1]
    assert str(resumed.state_dict()) == str(whole.state_dict())


@named(SAY_WHOSE)
def test_a_state_without_a_report_is_read(make):
    sampler = make()
    sampler.select(view_of(START), 5)
    state = sampler.state_dict()
    del state["report"]
    sampler.load_state_dict(state)
    assert sampler.report() == {}


@pytest.mark.parametrize("how", ["at once", "in parts", "rows alone", "in a list", "twice"])
def test_labels_come_as_they_come(how):
    sampler = GraphDensity()
    picks = sampler.select(view_of(START), 6)
    rows, labels = picks.indices, picks.indices % 3
    if how == "in parts":
        sampler.tell(Selection(rows[:2], picks.scores[:2]), labels[:2])
        sampler.tell(rows[2:2], labels[2:2])
        sampler.tell(rows[2:], labels[2:])
    elif how == "rows alone":
        sampler.tell(rows, labels)
    elif how == "in a list":
        sampler.tell(rows.tolist(), labels.tolist())
    else:
        for _ in range(1 + (how == "twice")):
            sampler.tell(picks, labels)
    whole = GraphDensity()
    whole.tell(whole.select(view_of(START), 6), labels)
    view = view_of(bought(START, rows))
    assert sampler.select(view, 9).indices.equal(whole.select(view, 9).indices)


def test_a_bandit_learns_from_the_accuracy():
    sampler = samplers.from_name("bandit_discrete")
    picks = sampler.select(view_of(START), 5)
    with pytest.raises(DataError, match=r"learns from the validation accuracy: tell\(..., validation_accuracy=...\)"):
        sampler.tell(picks, picks.indices % 3)
    learned = sampler.tell(picks, picks.indices % 3, validation_accuracy=0.75)
    assert learned["reward"] == 0.75
    assert sum(learned["pulls"].values()) == 1


def test_refuses_what_is_no_labels_of_rows():
    for sampler in (Margin(), GraphDensity()):
        with pytest.raises(ShapeError, match="one label for each of 2 rows, got 3"):
            sampler.tell(torch.tensor([1, 2]), torch.tensor([0, 0, 0]))
        with pytest.raises(ShapeError, match="picks must be distinct: 1 of 2 are repeats"):
            sampler.tell(torch.tensor([1, 1]), torch.tensor([0, 0]))
        with pytest.raises(DataError, match="labels must be at least 0: 1 of 2 are not"):
            sampler.tell(torch.tensor([1, 2]), torch.tensor([0, -1]))
        with pytest.raises(ShapeError, match=r"labels must be .* integers"):
            sampler.tell(torch.tensor([1, 2]), torch.tensor([0.0, 1.0]))
        with pytest.raises(ConfigError, match="picked must be true or false, got 'no'"):
            sampler.tell(torch.tensor([1]), torch.tensor([0]), picked="no")
    assert sampler.state_dict()["bought"] == []


def test_the_samplers_of_a_run_are_told_by_it():
    pool, targets, _ = make_pool()
    for make in (LEARN | MADE_OF_THEM).values():
        learner = ActiveLearner(NearestMean(), make(), pool, validation=LabeledData(pool.inputs, targets))
        for _ in range(4):
            rows = learner.ask(4)
            learner.tell(rows[:3], targets[rows[:3]])
            others = learner.pool.candidates.nonzero().squeeze(1)[-2:]
            learner.tell(others[~torch.isin(others, rows)], targets[others[~torch.isin(others, rows)]])
            learner.withdraw()


@pytest.mark.gpu
@named({"graph_density": GraphDensity, "hierarchical": Hierarchical})
def test_a_view_on_cuda(make):
    sampler, targets = make(), START.cuda()
    for _ in range(3):
        view = PoolView.from_tensors(features=features().cuda(), targets=targets.clone())
        picks = sampler.select(view, 5)
        targets = bought(targets, picks.indices)
        sampler.tell(picks, targets[picks.indices])
    with pytest.warns(UserWarning, match=NOT_TOLD.format(2, 21)):
        sampler.select(
            PoolView.from_tensors(features=features().cuda(), targets=bought(targets, (targets < 0).nonzero()[:2, 0])),
            5,
        )
