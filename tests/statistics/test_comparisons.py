import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.references import statistics as reference
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.statistics.comparisons import (
    compare,
    compare_all,
    holm,
    penalty_matrix,
    runs_needed,
    signed_rank_probabilities,
)
from torchal.statistics.paired import power_of_t

few_scores = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.7])
"""With many ties; and in floats 0.3 - 0.2 is not 0.2 - 0.1."""


class TestCompare:
    def test_by_hand(self):
        found = compare([3.0, 5.0, 4.0, 1.0], [1.0, 2.0, 3.0, 1.0])
        assert (found["pairs"], found["unpaired"], found["difference"]) == (4, 0, 1.5)
        assert (found["wins"], found["ties"], found["losses"]) == (3, 1, 0)
        # one zero is dropped; three differences, all positive: 2 of the 8 signs are as far out
        assert found["p_wilcoxon"] == 0.25

    @given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
    def test_agrees_with_scipy(self, pairs):
        a, b = np.array(pairs).T
        found = compare(a, b, confidence=0.9)
        if np.ptp(a - b) > 1e-9:
            expected = stats.ttest_rel(a, b)
            assert found["p"] == pytest.approx(expected.pvalue)
            ends = expected.confidence_interval(0.9)
            assert (found["lower"], found["upper"]) == pytest.approx((ends.low, ends.high))
        assert found["difference"] == pytest.approx((a - b).mean())

    @given(pairs=st.lists(st.tuples(few_scores, few_scores), min_size=2, max_size=8))
    def test_signed_ranks_agree_with_all_signs(self, pairs):
        whole = [round(10 * a) - round(10 * b) for a, b in pairs]
        found = compare(*zip(*pairs, strict=True))["p_wilcoxon"]
        assert found == pytest.approx(reference.signed_rank(whole) if any(whole) else 1.0)

    @pytest.mark.parametrize("n", [2, 13, 50])
    def test_signed_ranks_without_ties_are_exact(self, n):
        a = np.random.default_rng(n).normal(0.3, 1, n)
        found = compare(a, np.zeros(n))["p_wilcoxon"]
        assert found == pytest.approx(stats.wilcoxon(a, method="exact").pvalue, abs=1e-12)

    def test_signed_ranks_of_many_pairs_are_approximate(self):
        a = np.round(np.random.default_rng(0).normal(0.2, 1, 200), 1)
        expected = stats.wilcoxon(np.rint(10 * a[np.abs(a) > 0.01])).pvalue
        assert compare(a, np.zeros(200))["p_wilcoxon"] == pytest.approx(expected)

    @given(pairs=st.lists(st.tuples(few_scores, few_scores), max_size=8))
    def test_exchanged_it_is_the_other_way_round(self, pairs):
        a, b = np.array(pairs or np.empty((0, 2))).T
        one, other = compare(a, b), compare(b, a)
        assert one["difference"] == pytest.approx(-other["difference"], nan_ok=True)
        assert (one["wins"], one["ties"], one["losses"]) == (other["losses"], other["ties"], other["wins"])
        assert (one["p"], one["p_wilcoxon"]) == pytest.approx((other["p"], other["p_wilcoxon"]))

    def test_lower_is_better_exchanges_who_won_and_nothing_else(self):
        a, b = [0.1, 0.2, 0.5], [0.3, 0.4, 0.4]
        higher, lower = compare(a, b), compare(a, b, lower_is_better=True)
        assert (higher["wins"], higher["losses"]) == (lower["losses"], lower["wins"]) == (1, 2)
        for name in ("difference", "lower", "upper", "p", "p_wilcoxon"):
            assert higher[name] == lower[name]

    def test_tolerance(self):
        # 0.3 - 0.2 is a little less than 0.1, 0.4 - 0.3 a little more
        found = compare([0.3, 0.4, 0.8], [0.2, 0.3, 0.3], tolerance=0.1)
        assert (found["wins"], found["ties"], found["losses"]) == (1, 2, 0)

    def test_one_pair_says_nothing_of_how_much_runs_differ(self):
        found = compare([0.9], [0.8])
        assert [found[name] for name in ("lower", "upper", "p", "p_wilcoxon")] == [None] * 4
        assert (found["pairs"], found["wins"]) == (1, 1)

    def test_no_pair(self):
        found = compare([], [])
        assert math.isnan(found["difference"])
        assert [found[name] for name in ("pairs", "lower", "p", "p_wilcoxon")] == [0, None, None, None]

    def test_the_same_scores(self):
        found = compare([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])
        assert [found[name] for name in ("difference", "lower", "upper", "ties")] == [0, 0, 0, 3]
        assert (found["p"], found["p_wilcoxon"]) == (1, 1)

    def test_differences_that_are_all_equal_have_no_t(self):
        # also where they are so up to rounding: no warning, and no p of 1e-40
        found = compare([0.3, 0.4, 0.8, 0.9], [0.2, 0.3, 0.7, 0.8])
        assert [found[name] for name in ("lower", "upper", "p")] == [None] * 3
        assert found["p_wilcoxon"] == 0.125
        assert found["wins"] == 4

    def test_a_pair_with_a_nan_is_none(self):
        found = compare([0.9, math.nan, 0.7, 0.6], [0.8, 0.8, math.nan, 0.3])
        assert (found["pairs"], found["unpaired"]) == (2, 2)
        assert found["difference"] == pytest.approx(0.2)

    @pytest.mark.parametrize("scale", [1e-300, 1e100])
    def test_numbers_of_any_size(self, scale):
        a, b = np.array([0.5, 0.6, 0.9]), np.array([0.3, 0.5, 0.6])
        small, plain = compare(a * scale, b * scale), compare(a, b)
        assert (small["p_wilcoxon"], small["wins"]) == (plain["p_wilcoxon"], 3)

    def test_refuses_what_is_not_paired(self):
        with pytest.raises(ShapeError, match="got 2 and 1"):
            compare([0.1, 0.2], [0.1])
        with pytest.raises(ShapeError, match=r"a must have 1 axes, got shape \(1, 2\)"):
            compare([[0.1, 0.2]], [0.1])
        with pytest.raises(ShapeError, match="b must be numbers"):
            compare([0.1], ["none"])
        with pytest.raises(DataError, match="b must be finite: 1 of 2 are not, the first at 1"):
            compare([0.1, 0.2], [0.1, math.inf])
        with pytest.raises(ConfigError, match="confidence"):
            compare([0.1], [0.1], confidence=95)
        with pytest.raises(ConfigError, match="tolerance"):
            compare([0.1], [0.1], tolerance=-1)


class TestHolm:
    @given(p_values=st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.5, 1.0]), max_size=8))
    def test_agrees_with_the_loop(self, p_values):
        assert holm(p_values) == pytest.approx(reference.holm(p_values))

    def test_none_does_not_count(self):
        assert holm([None, 0.04, None]) == [None, 0.04, None]
        assert holm([]) == []
        assert holm([None]) == [None]

    @pytest.mark.parametrize("p", [-0.1, 1.1])
    def test_refuses_what_is_no_probability(self, p):
        with pytest.raises(DataError, match="between 0 and 1"):
            holm([0.5, p])


def sweep(rng, samplers, shifts=None, *, data_sets=4, seeds=5):
    """Return scores of samplers in runs that share their data set's difficulty and their seed's luck."""
    difficulty, luck = rng.normal(0, 0.1, data_sets), rng.normal(0, 0.02, (data_sets, seeds))
    scores = {}
    for i, sampler in enumerate(samplers):
        noise = rng.normal(0, 0.01, (data_sets, seeds)) + (shifts[i] if shifts else 0)
        whole = 0.8 + difficulty[:, None] + luck + noise
        scores[sampler] = {(d, s): float(whole[d, s]) for d in range(data_sets) for s in range(seeds)}
    return scores


class TestCompareAll:
    def test_all_pairs_in_order_each_on_the_keys_that_both_have(self):
        scores = {
            "a": {0: 0.5, 1: 0.6, 2: 0.9, 3: math.nan},
            "b": {2: 0.8, 0: 0.45, 3: 0.7},
            "c": {9: 0.1},
        }
        found = compare_all(scores)
        assert [(one["a"], one["b"], one["pairs"], one["unpaired"]) for one in found] == [
            ("a", "b", 2, 2),
            ("a", "c", 0, 4),
            ("b", "c", 0, 4),
        ]
        expected = compare([0.5, 0.9], [0.45, 0.8])
        assert {name: found[0][name] for name in expected if name != "unpaired"} == pytest.approx(
            {name: value for name, value in expected.items() if name != "unpaired"}
        )
        assert found[0]["p_holm"] == found[0]["p"]  # the other two are no tests
        assert [one["p_holm"] for one in found[1:]] == [None, None]

    def test_the_verdict_minds_which_way_is_better_and_how_many_tests_there_are(self):
        scores = sweep(np.random.default_rng(0), ["low", "high"], [0.0, 0.05])
        assert compare_all(scores)[0]["verdict"] == -1
        assert compare_all(scores, lower_is_better=True)[0]["verdict"] == 1
        for one in compare_all(sweep(np.random.default_rng(1), list("abcdef"), [0, 0.004, 0.008, 0, 0, 0.006])):
            better = 0 if one["p_holm"] >= 0.05 else (1 if one["difference"] > 0 else -1)
            assert one["verdict"] == better

    def test_p_holm_is_over_all_pairs(self):
        found = compare_all(sweep(np.random.default_rng(0), list("abcd")))
        assert [one["p_holm"] for one in found] == holm([one["p"] for one in found])

    def test_one_method_has_nobody_to_be_compared_with(self):
        assert compare_all({"a": {0: 1.0}}) == []

    @pytest.mark.parametrize(("shifts", "n_sweeps"), [([0, 0, 0, 0], 1000), ([0, 0, 0, 0.02], 200)])
    def test_copies_of_a_sampler_are_rarely_told_apart(self, shifts, n_sweeps):
        """In at most 5 % of sweeps is there any significant difference between samplers that do not differ."""
        rng, names = np.random.default_rng(0), ["uniform", "copy", "another", "margin"]
        same = {name for name, shift in zip(names, shifts, strict=True) if not shift}
        false = 0
        for _ in range(n_sweeps):
            found = compare_all(sweep(rng, names, shifts))
            false += any(one["verdict"] for one in found if {one["a"], one["b"]} <= same)
        assert false <= 0.06 * n_sweeps


def blocks(rng, n_blocks=3, n_runs=5, n_points=4, samplers=("a", "b", "c")):
    return {
        f"data {i}": {
            name: rng.normal(0.8 + 0.02 * place, 0.02, (n_runs, n_points)) for place, name in enumerate(samplers)
        }
        for i in range(n_blocks)
    }


class TestPenaltyMatrix:
    def test_by_hand(self):
        # b - a is 1, 2, 3 at the first number of labels (t = 3.46, p = 0.07) and 2, 2.1, 2.2 at the second (t = 36)
        a = np.zeros((3, 2))
        b = np.array([[1.0, 2.0], [2.0, 2.1], [3.0, 2.2]])
        found = penalty_matrix({"x": {"a": a, "b": b}, "y": {"b": a, "a": b}, "z": {"a": a, "b": b}})
        assert found == {
            "samplers": ["a", "b"],
            "matrix": [[0.0, 0.5], [1.0, 0.0]],
            "compared": [[0, 3], [3, 0]],
            "blocks": 3,
            "left_out": [],
        }

    @pytest.mark.parametrize("lower_is_better", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_the_loop(self, seed, lower_is_better):
        curves = blocks(np.random.default_rng(seed))
        del curves["data 1"]["b"]
        found = penalty_matrix(curves, lower_is_better=lower_is_better)
        expected = reference.penalties(curves, ["a", "b", "c"], lower_is_better=lower_is_better)
        np.testing.assert_allclose(found["matrix"], expected)
        assert expected.any()
        assert found["compared"] == [[0, 2, 3], [2, 0, 2], [3, 2, 0]]

    def test_five_runs_have_the_critical_value_of_the_paper(self):
        for t, beats in ((2.77, 0.0), (2.78, 1.0)):
            noise = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
            wins = noise + t * noise.std(ddof=1) / math.sqrt(5)
            found = penalty_matrix({"x": {"a": wins[:, None], "b": np.zeros((5, 1))}})
            assert found["matrix"] == [[0.0, beats], [0.0, 0.0]]

    def test_where_nothing_can_be_tested(self):
        one = np.zeros((1, 3))
        found = penalty_matrix({"x": {"a": one, "b": one + 1}, "y": {"a": np.zeros((3, 1)), "b": np.ones((3, 1))}})
        assert (found["blocks"], found["left_out"]) == (1, ["x"])
        assert found["matrix"] == [[0.0, 0.0], [0.0, 0.0]]  # equal differences: no spread to test by

    def test_a_nan_is_a_run_that_is_not_there(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(1, 0.1, (6, 1)), rng.normal(0, 0.1, (6, 1))
        b[2] = np.nan
        assert penalty_matrix({"x": {"a": a, "b": b}})["matrix"][0][1] == 1.0
        b[1:] = np.nan
        assert penalty_matrix({"x": {"a": a, "b": b}})["matrix"][0][1] == 0.0

    def test_refuses_runs_that_are_not_paired(self):
        with pytest.raises(ShapeError, match=r"x has a \(3, 2\), b \(2, 2\)"):
            penalty_matrix({"x": {"a": np.zeros((3, 2)), "b": np.zeros((2, 2))}})
        with pytest.raises(ShapeError, match="x: a must have 2 axes"):
            penalty_matrix({"x": {"a": np.zeros(3)}})

    def test_nothing(self):
        assert penalty_matrix({})["matrix"] == []


class TestRunsNeeded:
    def test_known_values(self):
        # half a standard deviation at 80 %: 34 pairs, in every table
        differences = np.array([-1.0, 1.0]) / math.sqrt(2)
        assert runs_needed(differences, difference=0.5)["pairs"] == 34
        assert runs_needed(differences, difference=0.8)["pairs"] == 15
        assert runs_needed(differences, difference=-0.5, power=0.9)["pairs"] == 44

    @given(
        effect=st.floats(0.02, 30) | st.sampled_from([1e-6, 1e3, 1e11]),
        power=st.floats(0.1, 0.99),
        alpha=st.floats(0.001, 0.2),
        n=st.integers(2, 40),
    )
    @settings(max_examples=40)
    def test_it_is_the_smallest_number_with_that_power(self, effect, power, alpha, n):
        differences = np.random.default_rng(n).normal(0, 1, n)
        found = runs_needed(differences, difference=effect * differences.std(ddof=1), power=power, alpha=alpha)
        assert power_of_t(effect, found["pairs"], alpha) >= power - 1e-9
        assert found["pairs"] == 2 or power_of_t(effect, found["pairs"] - 1, alpha) < power + 1e-9
        assert found["more"] == max(0, found["pairs"] - n)

    def test_the_test_finds_it_as_often_as_that(self):
        needed = runs_needed([0.0, 1.0, 2.0], difference=0.9)["pairs"]
        samples = np.random.default_rng(0).normal(0.9, 1, (4000, needed))
        found = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
        assert 0.78 < found < 0.87

    def test_the_mean_so_far_unless_given(self):
        differences = [0.01, 0.03, -0.01, 0.02]
        assert runs_needed(differences) == runs_needed(differences, difference=np.mean(differences))

    @pytest.mark.parametrize("differences", [[0.1], [0.3 - 0.2, 0.2 - 0.1, 0.8 - 0.7], [-0.1, 0.1], [0.0, 0.0]])
    def test_no_answer(self, differences):
        found = runs_needed(differences)
        assert (found["pairs"], found["more"], found["power"]) == (None, None, None)

    def test_refuses_what_has_no_difference(self):
        with pytest.raises(DataError, match="got neither"):
            runs_needed([])
        with pytest.raises(DataError, match="differences must be finite"):
            runs_needed([0.1, math.nan])
        with pytest.raises(ConfigError, match="power"):
            runs_needed([0.1, 0.2], power=1)
        with pytest.raises(ConfigError, match=r"alpha must be .* at least"):
            runs_needed([0.1, 0.2], alpha=1e-6)


class TestSignedRankProbabilities:
    @given(
        tenths=st.lists(st.integers(-4, 6), min_size=1, max_size=4),
        rope=st.integers(0, 3),
        prior_strength=st.sampled_from([0.5, 1.0, 3.0]),
    )
    @settings(max_examples=25)
    def test_agrees_with_the_loop(self, tenths, rope, prior_strength):
        # quarters are exact in floats, so that the loop finds the ties on the edge
        differences, n = np.array(tenths) / 4, 60
        found = signed_rank_probabilities(
            differences, rope=rope / 4, prior_strength=prior_strength, n_samples=4000, seed=1
        )
        expected = reference.signed_rank_probabilities(differences, rope / 4, prior_strength, n, seed=2)
        # by the spread of so few draws: a chance of 1 in 10 000 each time
        assert list(found.values()) == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(n))

    def test_a_sum_on_the_edge_is_on_it_whatever_floats_make_of_it(self):
        # in tenths, 0.1 + 0.2 is no 0.3; in quarters all sums are exact
        tenths, quarters = (
            np.array([3.0, -1.0, 2.0, -1.0, 1.0, 0.0]) / 10,
            np.array([3.0, -1.0, 2.0, -1.0, 1.0, 0.0]) / 4,
        )
        for rope in (0, 1, 1.5, 2):
            found = signed_rank_probabilities(tenths, rope=rope / 10, n_samples=500)
            assert found == signed_rank_probabilities(quarters, rope=rope / 4, n_samples=500)

    def test_sure_things(self):
        assert signed_rank_probabilities([0.1] * 9, rope=0.01)["right"] > 0.99
        assert signed_rank_probabilities([-0.1] * 9, rope=0.01)["left"] > 0.99
        assert signed_rank_probabilities([0.001, -0.002, 0.0], rope=0.01)["rope"] == 1

    def test_zero_differences_without_a_rope_are_for_both(self):
        assert signed_rank_probabilities([0.0, 0.0], rope=0) == {"left": 0.5, "rope": 0.0, "right": 0.5}

    def test_the_prior_weighs(self):
        weak = signed_rank_probabilities([0.1, 0.2], rope=0.05, prior_strength=0)
        strong = signed_rank_probabilities([0.1, 0.2], rope=0.05, prior_strength=10)
        assert (weak["right"], weak["rope"]) == (1, 0)
        assert strong["rope"] > 0.9

    def test_the_same_seed_gives_the_same_answer_in_any_chunks(self, monkeypatch):
        arguments = {"rope": 0.1, "n_samples": 500, "seed": 3}
        whole = signed_rank_probabilities([0.1, 0.3, -0.2], **arguments)
        monkeypatch.setattr("torchal.statistics.comparisons._CHUNK", 40)
        assert signed_rank_probabilities([0.1, 0.3, -0.2], **arguments) == whole
        assert signed_rank_probabilities([0.1, 0.3, -0.2], **{**arguments, "seed": 4}) != whole

    def test_refuses_settings_that_are_none(self):
        with pytest.raises(DataError, match="at least one difference"):
            signed_rank_probabilities([], rope=0.1)
        with pytest.raises(ConfigError, match="rope"):
            signed_rank_probabilities([0.1], rope=-0.1)
        with pytest.raises(ConfigError, match="prior_strength"):
            signed_rank_probabilities([0.1], rope=0.1, prior_strength=-1)
        with pytest.raises(ConfigError, match="n_samples"):
            signed_rank_probabilities([0.1], rope=0.1, n_samples=0)


def test_no_warning_where_numbers_hardly_differ():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rng = np.random.default_rng(0)
        for spread in 10.0 ** np.arange(-18, -8):
            b = rng.random(4)
            compare(b + 0.1 + spread * rng.random(4), b)
            runs_needed(0.1 + spread * rng.random(4))
