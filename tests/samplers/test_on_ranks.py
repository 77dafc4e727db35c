"""What a sampler picks from rows on several ranks is what it picks from all of them, however they are split."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import parts_of, run_ranks
from torchal import BudgetError, CapabilityError, ConfigError, DataError, PoolView
from torchal.errors import GroupError
from torchal.functional.selection import Selection
from torchal.samplers import KCenterGreedy, Margin, ScoreSampler, from_name, names, names_on_ranks

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of a single candidate, say

CASES = {
    **{name: from_name(name) for name in names_on_ranks()},
    "k_center by margin": KCenterGreedy(weights="margin"),
    "k_center, cosine": KCenterGreedy(metric="cosine"),
    "margin of probabilities": Margin(on="probabilities"),
}


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(n_rows, seed):
    """Return what there is to know of rows, some of them labeled and some no candidates."""
    share = torch.rand(n_rows, generator=torch.Generator().manual_seed(seed))
    labeled = share < 0.2
    candidates = (share > 0.25) | (torch.arange(n_rows) == n_rows // 2)
    return {
        "features": drawn(n_rows, 3, seed=seed),
        "log_probs": drawn(n_rows, 4, seed=seed + 1).log_softmax(1),
        "scores": drawn(n_rows, 4, seed=seed + 2),
        "labeled": labeled & ~candidates,
        "candidates": candidates,
    }


def select(sampler, of_rows, n, group=None):
    view = PoolView.from_tensors(**of_rows, generator=torch.Generator().manual_seed(3), group=group)
    return copy.deepcopy(sampler).select(view, n)  # each rank has its own


def on_ranks(sampler, cuts, of_rows, n):
    parts = {name: parts_of(tensor, cuts) for name, tensor in of_rows.items()}

    def one(group):
        return select(sampler, {name: each[group.rank] for name, each in parts.items()}, n, group)

    return run_ranks(len(cuts) + 1, one)


def some_cuts(n_rows):
    """Draw where parts begin: of 2 to 6 ranks, some of them without a row."""
    return st.lists(st.integers(0, n_rows), min_size=1, max_size=5).map(sorted)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None)
@given(st.data(), st.integers(2, 60), st.integers(0, 99))
def test_as_in_one_process(name, data, n_rows, seed):
    of_rows = outputs(n_rows, seed)
    n = data.draw(st.integers(1, min(10, int(of_rows["candidates"].sum()))))
    want = select(CASES[name], of_rows, n)
    for got in on_ranks(CASES[name], data.draw(some_cuts(n_rows)), of_rows, n):
        assert isinstance(got, Selection), got
        assert got.indices.equal(want.indices)
        torch.testing.assert_close(got.scores, want.scores)


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_on_one_rank_is_wrong_on_all(name):
    for error in on_ranks(CASES[name], [10, 10, 30], outputs(40, 0), 41):
        assert isinstance(error, BudgetError), error


@pytest.mark.parametrize("name", sorted(set(CASES) - {"uniform"}))
def test_bad_rows_of_one_rank_are_told_to_all(name):
    of_rows = outputs(40, 0)
    row = int(of_rows["candidates"].nonzero()[-1])
    of_scores = isinstance(CASES[name], ScoreSampler)
    for output in ("log_probs", "scores") if of_scores else ("features",):
        of_rows[output][row] = torch.nan
    first, second = on_ranks(CASES[name], [20], of_rows, 5)
    assert isinstance(first, GroupError), first
    assert "rank 1 failed with DataError" in str(first)
    assert isinstance(second, DataError), second


def test_scores_that_are_all_the_same_are_warned_of_as_in_one_process():
    scores = torch.zeros(12, 2)
    scores[0, 0] = 3  # of a row that is no candidate
    candidates = torch.arange(12) > 0

    def one(group):
        rows = slice(group.rank * 4, group.rank * 4 + 4)
        view = PoolView.from_tensors(scores=scores[rows], candidates=candidates[rows], group=group)
        return Margin().select(view, 3).indices.tolist()

    with pytest.warns(UserWarning, match="all 11 candidates have the same Margin score, 0: the picks are the first"):
        assert run_ranks(3, one) == [[1, 2, 3]] * 3


@pytest.mark.parametrize("cuts", [[30], [0, 30]])
def test_k_center_begins_anew_where_rows_changed_on_some_ranks_alone(cuts):
    begun, changed = drawn(60, 3, seed=0), drawn(60, 3, seed=0)
    changed[30:] = drawn(30, 3, seed=1)
    first = torch.arange(60) < 2

    def rounds(part, group=None):
        sampler, labeled, found = KCenterGreedy(), first, []
        for features in (begun, changed):
            view = PoolView.from_tensors(features=part(features).clone(), labeled=part(labeled), group=group)
            picks = sampler.select(view, 4).indices
            labeled = labeled.index_fill(0, picks, True)
            found.append(picks.tolist())
        return found

    def one(group):
        return rounds(lambda rows: parts_of(rows, cuts)[group.rank], group)

    assert run_ranks(len(cuts) + 1, one) == [rounds(lambda rows: rows)] * (len(cuts) + 1)


@pytest.mark.parametrize("name", sorted(set(CASES) & {"badge", "hierarchical_kmeans", "typiclust", "uniform"}))
def test_generators_and_budgets_that_differ_are_refused(name):
    def one(group, n, seed):
        of_rows = {what: parts_of(tensor, [20])[group.rank] for what, tensor in outputs(40, 0).items()}
        generator = torch.Generator().manual_seed(seed)
        return copy.deepcopy(CASES[name]).select(PoolView.from_tensors(**of_rows, generator=generator, group=group), n)

    for found, told in (
        (run_ranks(2, lambda group: one(group, 3, group.rank)), "generator=a generator in state "),
        (run_ranks(2, lambda group: one(group, 3 + group.rank, 0)), "n=3; rank 1 for n=4"),
    ):
        for error in found:
            assert isinstance(error, ConfigError)
            assert f"different things: rank 0 for {told}" in str(error)


class OfAll(ScoreSampler):
    """A strategy of somebody who thinks of all rows."""

    def score(self, view):
        return view.features[:, 0] - view.features[:, 0].mean()


@pytest.mark.parametrize("name", ["of all", *sorted(set(names()) - set(names_on_ranks()))])
def test_a_sampler_that_cannot_refuses_a_part_of_the_pool(name):
    sampler = OfAll() if name == "of all" else from_name(name)
    for error in on_ranks(sampler, [20], outputs(40, 0), 3):
        assert isinstance(error, CapabilityError)
        assert f"{type(sampler).__name__} cannot pick from rows on 2 ranks" in str(error)


def test_a_subclass_that_can_is_not_refused():
    class OfEach(OfAll):
        on_ranks = True

        def score(self, view):
            return view.features[:, 0]

    of_rows = outputs(40, 0)
    want = select(OfEach(), of_rows, 3).indices
    assert [got.indices.tolist() for got in on_ranks(OfEach(), [20], of_rows, 3)] == [want.tolist()] * 2


def test_k_center_keeps_what_it_knows_of_files_on_each_rank(tmp_path):
    import numpy as np

    from torchal import ActiveLearner, FileRows, LogisticRegression, Pool, samplers

    x = drawn(60, 3, seed=0)
    np.save(tmp_path / "x.npy", x.numpy())
    made = []
    whole = samplers.k_center.Cover

    class Counted(whole):
        def __init__(self, *arguments, **given):
            made.append(self)
            super().__init__(*arguments, **given)

    def ask(group):
        pool = Pool.unlabeled(FileRows(tmp_path / "x.npy"), n_classes=2).with_labels([0, 1], [0, 1])
        learner = ActiveLearner(LogisticRegression(C=1.0), KCenterGreedy(), pool, group=group)
        found = []
        for _ in range(3):
            rows = learner.ask(4)
            learner.tell(rows, rows % 2)
            found += rows.tolist()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KCenterGreedy._cover_of.__globals__, "Cover", Counted)
        alone = run_ranks(1, ask)[0]
        assert run_ranks(2, ask) == [alone] * 2
    assert len(made) == 3  # one a process, and none for the later rounds
    assert len(set(alone)) == 12


def test_the_names_are_of_those_that_say_so():
    assert set(names_on_ranks()) == {
        *("badge", "entropy", "facility_location", "hierarchical_kmeans", "k_center", "least_confidence", "margin"),
        *("saturated_coverage", "typiclust", "uniform"),
    }
    assert set(names_on_ranks()) < set(names())
    assert not KCenterGreedy(outliers=0.1).can_be_on_ranks
    assert KCenterGreedy().can_be_on_ranks
