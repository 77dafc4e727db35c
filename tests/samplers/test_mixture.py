import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from tests.references import composite as reference
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    DataError,
    PoolView,
    Sampler,
    Selection,
    ShapeError,
    samplers,
)
from torchal.samplers import Entropy, GraphDensity, Hierarchical, InformativeDiverse, Margin, Mixture, Uniform


@dataclass
class Fixed(Sampler):
    """Wants rows in a fixed order, and remembers what it was asked and told."""

    order: tuple[int, ...]
    asked: list[int] = field(default_factory=list, init=False, compare=False)
    told: list[object] = field(default_factory=list, init=False, compare=False)

    def select(self, view, n):
        self.asked.append(n)
        rows = torch.tensor(self.order)
        rows = rows[view.candidates[rows]][:n]
        return Selection(rows, -torch.arange(n).float())

    def observe(self, result):
        self.told.append(result)
        return {"rows": len(result.rows)} if len(self.order) % 2 else None


def plain_view(n_rows=10):
    return PoolView.from_tensors(features=torch.zeros(n_rows, 1))


class TestNested(SamplerContract):
    """A mixture of everything that has state or randomness, another mixture among them."""

    @pytest.fixture
    def sampler(self):
        inner = Mixture([GraphDensity(), Uniform()], weights=[0.5, 0.5])
        return Mixture([inner, Hierarchical(), Uniform(), InformativeDiverse()], weights=[0.4, 0.3, 0.1, 0.2])


def test_literal_case():
    # size 4: two rows each; 0 is wanted by both, so one is missing. Size 5: two each, nothing new. Size 6: three each.
    first, second = Fixed((0, 1, 2, 3)), Fixed((0, 5, 6, 7))
    picked = Mixture([first, second]).select(plain_view(), 4)
    assert picked.indices.tolist() == [0, 1, 5, 2]
    assert picked.scores.tolist() == [0, -1, -1, -2]
    assert (first.asked, second.asked) == ([2, 3], [2])


def test_a_small_weight_still_brings_one_row_and_weight_0_is_never_asked():
    first, second, never = Fixed((0, 1, 2)), Fixed((5, 6)), Fixed((9,))
    picked = Mixture([first, second, never], weights=[0.99, 0.01, 0.0]).select(plain_view(), 3)
    assert picked.indices.tolist() == [0, 1, 5]
    assert never.asked == []


def test_the_record_has_no_report_of_a_member_that_was_not_asked():
    view, idle = make_view(make_pool()[0]), Mixture([Margin()])
    idle.select(view, 3)  # long ago
    mixture = Mixture([Uniform(), idle], weights=[1.0, 0.0])
    mixture.select(view, 5)
    assert mixture.report()["members"]["Mixture"] == {"rows": [], "n_rows": 0}


@given(data=st.data(), n_members=st.integers(1, 4), n=st.integers(1, 12))
def test_agrees_with_the_loop(data, n_members, n):
    orders = [data.draw(st.permutations(range(12))) for _ in range(n_members)]
    weights = data.draw(st.lists(st.integers(0, 4), min_size=n_members, max_size=n_members).filter(any))
    weights = [weight / sum(weights) for weight in weights]
    picked = Mixture([Fixed(tuple(order)) for order in orders], weights=weights).select(plain_view(12), n)
    assert picked.indices.tolist() == reference.mix(lambda i, k: orders[i][:k], weights, n)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1], "Fixed_2 was asked for 3 rows and picked 1, 0 of them"),
        ([1, 1, 2], "the rows that Fixed_2 picked must be distinct"),
        ([0, 1, 2], "Fixed_2 was asked for 3 rows and picked 3, 1 of them no candidates"),
    ],
    ids=["short", "repeated", "labeled"],
)
def test_a_member_that_breaks_its_promise_is_named(rows, message):
    class Broken(Fixed):
        def select(self, view, n):
            return Selection(torch.tensor(rows), torch.zeros(len(rows)))

    Broken.__name__ = "Fixed"
    view = PoolView.from_tensors(features=torch.zeros(9, 1), labeled=torch.arange(9) == 0)
    with pytest.raises(ShapeError, match=message):
        Mixture([Fixed((5, 6, 7)), Broken(())], weights=[0.0, 1.0]).select(view, 3)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ([0.0, 0.0], ShapeError, "Scored picked 2 rows with scores of list"),
        (torch.zeros(3), ShapeError, r"with scores of shape \(3,\)"),
        (torch.tensor([0.0, math.nan]), DataError, "Scored gave 1 of 2 rows the score NaN"),
    ],
)
def test_a_member_without_scores_is_named(scores, error, message):
    class Scored(Fixed):
        def select(self, view, n):
            return Selection(torch.tensor([1, 2]), scores)

    with pytest.raises(error, match=message):
        Mixture([Scored(())]).select(plain_view(), 2)


def test_mixing_nothing_is_refused():
    with pytest.raises(ConfigError, match="sum to 1"):
        Mixture([Margin(), Uniform()]).mix(plain_view(), 3, [0.0, 0.0])


def test_one_forward_pass_serves_all_members():
    calls = {"decision_function": 0, "predict_proba": 0, "transform": 0}

    class Counting(NearestMean):
        def decision_function(self, X):
            calls["decision_function"] += 1
            return super().decision_function(X)

        def predict_log_proba(self, X):
            calls["predict_proba"] += 1
            return NearestMean.decision_function(self, X).log_softmax(1)

        def transform(self, X):
            calls["transform"] += 1
            return super().transform(X)

    view = make_view(make_pool()[0], model=Counting())
    members = [Margin(), Entropy(), Margin(), samplers.KCenterGreedy(), samplers.LeastConfidence(), Entropy()]
    Mixture(members).select(view, 30)
    assert calls == {"decision_function": 1, "predict_proba": 1, "transform": 1}


def test_members_with_the_same_randomness_draw_apart():
    view = make_view(make_pool(n_rows=600)[0])
    mixture = Mixture([Uniform(), Uniform()])
    mixture.select(view, 20)
    told = mixture.report()["members"]
    assert list(told) == ["Uniform", "Uniform_2"]
    assert told["Uniform"]["rows"] != told["Uniform_2"]["rows"]


def test_members_learn_which_of_the_bought_rows_they_named():
    pool, targets, _ = make_pool()
    first, second = Fixed((20, 21, 23, 24)), Fixed((21, 31, 32))
    learner = ActiveLearner(NearestMean(), Mixture([first, second]), pool)
    rows = learner.ask(4)
    assert rows.tolist() == [20, 21, 31, 23]
    learner.tell(rows[1:], targets[rows[1:]])
    result = learner.finish_round()
    assert [r.rows.tolist() for r in first.told[1:]] == [[21, 31, 23]] == [r.rows.tolist() for r in second.told[1:]]
    assert first.told[1].scores.isnan().tolist() == [False, True, False]
    assert second.told[1].scores.isnan().tolist() == [False, False, True]
    assert first.told[0].scores.isnan().all()
    assert result.report["members"]["Fixed"] == {"rows": [20, 21, 23], "n_rows": 3}
    assert result.report["members"]["Fixed_2"] == {"rows": [21, 31], "n_rows": 2}
    assert result.report["learned"] == {"members": {"Fixed_2": {"rows": 3}}}


def test_a_member_with_state_goes_on_as_if_alone():
    pool, targets, _ = make_pool()
    mixture = Mixture([GraphDensity(), Fixed((0, 1))], weights=[1.0, 0.0])
    learners = [ActiveLearner(NearestMean(), sampler, pool) for sampler in (mixture, GraphDensity())]
    for _ in range(5):
        rows = [learner.ask(4) for learner in learners]
        assert rows[0].equal(rows[1])
        for learner in learners:
            learner.tell(rows[0], targets[rows[0]])


def test_a_pattern_names_members_and_weights():
    spec = "margin-0.33-informative_diverse-0.33-uniform-0.34"
    expected = Mixture([Margin(), InformativeDiverse(), Uniform()], weights=[0.33, 0.33, 0.34])
    for name in (spec, f"mixture_of_samplers-{spec}"):
        assert samplers.from_name(name) == expected == samplers.mixture_from_spec(name)
    assert samplers.from_name("mixture-margin-1.0") == Mixture([Margin()])
    for same in ("kcenter-.5-mixture-0.50", "mixture_of_samplers-k_center-5e-1-mixture-0.5"):
        assert samplers.normal_spec(same) == "k_center-0.5-mixture-0.5"
    assert samplers.from_name("kcenter-1e0").samplers == (samplers.KCenterGreedy(),)
    assert samplers.from_name("mixture_of_samplers") == samplers.from_name("mixture")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("margin", "NAME-WEIGHT-NAME-WEIGHT"),
        ("margin-0.5-uniform", "NAME-WEIGHT-NAME-WEIGHT"),
        ("margin-half-uniform-half", "NAME-WEIGHT-NAME-WEIGHT"),
        ("margin-0.5-uniform--0.5", "NAME-WEIGHT-NAME-WEIGHT"),
        ("margin-1.2.3", "weights of a mixture are numbers"),
        ("margin-0.5-uniform-0.6", "sum to 1, got .* 1.1"),
        ("margin-0.5-unifrom-0.5", "no sampler is named 'unifrom'; there are alfa_mix"),
        ("", "NAME-WEIGHT-NAME-WEIGHT"),
    ],
)
def test_refuses_other_patterns(spec, message):
    with pytest.raises(ConfigError, match=message):
        samplers.mixture_from_spec(spec)


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ([], None, "at least one sampler"),
        ("margin", None, "list of at least one sampler, got 'margin'"),
        (["margin"], None, r"Sampler objects, got 'margin'; by name: from_name"),
        ([Margin, Uniform()], None, r"got the class Margin: Margin\(\)"),
        ([Margin(), Uniform()], [0.5, 0.6], "sum to 1"),
        ([Margin(), Uniform()], [0.5, 0.5 + 1e-5], "sum to 1"),
        ([Margin(), Uniform()], [1.5, -0.5], "at least 0, got -0.5"),
        ([Margin(), Uniform()], [math.nan, 1.0], "finite numbers of at least 0, got nan"),
        ([Margin(), Uniform()], [math.inf, 0.0], "finite"),
        ([Margin(), Uniform()], [1.0], "one weight for each of 2 samplers"),
        ([Margin(), Uniform()], "ab", "one weight for each of 2 samplers"),
        ([Margin(), Uniform()], [True, 0.0], "got True"),
    ],
)
def test_refuses_members_and_weights(members, weights, message):
    with pytest.raises(ConfigError, match=message):
        Mixture(members, weights=weights)


@pytest.mark.parametrize(
    "weights", [np.array([0.25, 0.75]), torch.tensor([0.25, 0.75]), [np.float32(0.25), np.float64(0.75)]]
)
def test_weights_of_any_kind_of_number(weights):
    assert Mixture([Margin(), Uniform()], weights=weights).weights == (0.25, 0.75)


def test_weights_that_sum_to_1_but_for_rounding_are_taken():
    assert Mixture([Margin(), Uniform(), Entropy()], weights=[1 / 3, 1 / 3, 1 / 3 + 5e-7]).weights[2] > 1 / 3


def test_refuses_one_object_twice_at_any_depth():
    shared = GraphDensity()
    with pytest.raises(ConfigError, match="one object is a member 2 times: GraphDensity"):
        Mixture([Margin(), Mixture([shared]), shared])


def test_refuses_a_model_that_a_member_cannot_use():
    with pytest.raises(CapabilityError, match="Entropy needs a model with predict_proba"):
        Mixture([Uniform(), Mixture([Entropy()])]).check_model(object())
