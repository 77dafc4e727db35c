import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import make_pool
from torchal import ActiveLearner, BudgetError, CapabilityError, ConfigError, PoolView, functional
from torchal.samplers import BALD, QueryByCommittee

# three members' probability of the first class: sure and of one mind; one votes against, faintly; one is opposed
ROWS = [[0.9, 0.9, 0.9], [0.6, 0.6, 0.45], [0.95, 0.95, 0.05], [0.8, 0.3, 0.8]]


def a_view(**masks):
    first = torch.tensor(ROWS)
    return PoolView.from_tensors(posterior_log_probs=torch.stack([first, 1 - first], 2).log(), **masks)


@pytest.mark.parametrize(
    ("disagreement", "order"),
    [("vote_entropy", [1, 2, 3, 0]), ("variation_ratio", [1, 2, 3, 0]), ("consensus_kl", [2, 3, 1, 0])],
)
def test_picks_in_the_order_of_the_disagreement_equal_votes_by_row(disagreement, order):
    view = a_view()
    picked = QueryByCommittee(disagreement).select(view, 4)
    assert picked.indices.tolist() == order
    scores = getattr(functional, disagreement)(view.posterior_log_probs(3))
    assert picked.scores.equal(scores[picked.indices])


def test_the_committee_may_be_a_part():
    picked = QueryByCommittee("consensus_kl", k=2).select(a_view(), 2)
    assert picked.indices.tolist() == [3, 0]  # the third member alone was against the others elsewhere
    assert picked.scores[1] == 0


def test_consensus_kl_picks_what_bald_picks():
    view = a_view()
    first, second = QueryByCommittee("consensus_kl").select(view, 3), BALD().select(view, 3)
    assert first.indices.equal(second.indices)
    assert first.scores.equal(second.scores)


@pytest.mark.parametrize("disagreement", ["vote_entropy", "consensus_kl", "variation_ratio"])
def test_all_candidates_and_no_other(disagreement):
    view = a_view(candidates=torch.tensor([True, True, False, True]))
    assert sorted(QueryByCommittee(disagreement).select(view, 3).indices.tolist()) == [0, 1, 3]
    with pytest.raises(BudgetError, match="asked for 4 rows, 3 can be picked"):
        QueryByCommittee(disagreement).select(view, 4)


def test_a_committee_of_one_mind_is_warned_of():
    view = PoolView.from_tensors(posterior_log_probs=torch.tensor([[[0.9, 0.1]] * 3, [[0.6, 0.4]] * 3]).log())
    with pytest.warns(UserWarning, match="all 2 candidates have the same QueryByCommittee score, 0"):
        assert QueryByCommittee().select(view, 1).indices.tolist() == [0]


def test_refuses_what_is_no_committee():
    with pytest.raises(CapabilityError, match="QueryByCommittee needs a model with sample_log_probs"):
        ActiveLearner(GaussianNB(), QueryByCommittee(), make_pool()[0]).ask(3)
    with pytest.raises(ConfigError, match="vote_entropy, consensus_kl, variation_ratio; got 'entropy'"):
        QueryByCommittee("entropy")
    with pytest.raises(ConfigError, match="k must be a whole number of at least 2, got 1"):
        QueryByCommittee(k=1)
    alone = PoolView.from_tensors(posterior_log_probs=torch.tensor([[[0.9, 0.1]], [[0.6, 0.4]]]).log())
    with pytest.raises(CapabilityError, match="there is only 1"):
        QueryByCommittee().select(alone, 1)
