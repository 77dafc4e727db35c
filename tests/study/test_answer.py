from dataclasses import replace

import pytest

from tests.study import summaries
from torchal.study.answer import answer, flipped, with_baseline
from torchal.study.summary import Comparison, Estimate

MINUS = "\N{MINUS SIGN}"


def comparison(a, b, mean, *, verdict=0, p=0.5, pairs=10):
    reach = None if pairs == 1 else 0.01
    ends = (None, None) if reach is None else (mean - reach, mean + reach)
    return Comparison(a, b, pairs, Estimate(mean, *ends), 6, 1, 3, p, p, p, verdict)


def said(*comparisons, lower=(), **values):
    summary = summaries.make_summary(
        data=("a", "b"), samplers=("uniform", "margin", "badge"), n_runs=2, n_points=2, n_examples=0
    )
    summary = replace(summary, comparisons={"accuracy": list(comparisons)}, lower_is_better=list(lower), **values)
    return answer(summary)


class TestAnswer:
    def test_the_best_against_the_baseline(self):
        text = said(
            comparison("uniform", "margin", -0.02, verdict=-1, p=0.0123),
            comparison("uniform", "badge", 0.03, verdict=1, p=1e-9),
            comparison("margin", "badge", 0.05, verdict=1),
        )
        assert text == (
            "On 2 experiments, margin is ahead of uniform by +0.0200 [+0.0100, +0.0300] (area of accuracy, 10 pairs, "
            "p = 0.012, Holm). Of 2 samplers that are compared with uniform, 1 is ahead and 1 is behind."
        )

    def test_less_is_better(self):
        text = said(
            comparison("margin", "uniform", -0.02, verdict=1, p=1e-5),
            comparison("badge", "uniform", 0.03, verdict=-1, p=1e-5),
            lower=["accuracy"],
        )
        assert text.startswith(f"On 2 experiments, margin is ahead of uniform by {MINUS}0.0200 [{MINUS}0.0300, ")
        assert "(area of accuracy, of which less is better, 10 pairs, p below 0.0001, Holm)" in text

    def test_no_difference_is_significant(self):
        text = said(comparison("margin", "uniform", 0.003), comparison("badge", "uniform", -0.001))
        assert "no difference to uniform is significant; the best mean is that of margin: +0.0030" in text
        assert text.endswith("10 pairs, p = 1.00, Holm).")

    def test_nobody_is_ahead_and_somebody_is_behind(self):
        text = said(comparison("margin", "uniform", 0.003), comparison("badge", "uniform", -0.1, verdict=-1, p=0.001))
        assert "no sampler is significantly ahead of uniform; the best is margin" in text

    def test_one_pair_tells_nothing_from_chance(self):
        text = said(comparison("margin", "uniform", 0.003, p=None, pairs=1))
        assert text == (
            "On 2 experiments, margin is best against uniform: +0.0030 (area of accuracy, 1 pair). "
            "So few pairs do not tell it from chance."
        )

    def test_without_comparisons(self):
        assert "has the best mean area of accuracy in" in said()
        assert answer(summaries.minimal()).endswith("uniform is the only sampler: there is nothing to compare it with.")
        assert answer(summaries.unfinished()) == "No run is finished yet."

    def test_names_go_through_quote(self):
        text = answer(summaries.hostile(), quote=lambda text: f"«{len(text)}»")
        assert "script" not in text


def test_a_comparison_turned_twice_is_itself():
    one = comparison("a", "b", 0.25, verdict=1)
    back = flipped(one)
    assert (back.a, back.wins, back.losses, back.verdict) == ("b", 3, 6, -1)
    assert back.difference.lower == pytest.approx(-0.26)
    assert flipped(back) == one


def test_pairs_without_a_number_are_not_compared():
    summary = summaries.make_summary(data=("a",), n_points=2)
    values = [comparison("margin", "uniform", float("nan")), comparison("badge", "uniform", 0.1, pairs=0)]
    assert with_baseline(replace(summary, comparisons={"accuracy": values}), "accuracy", "uniform") == []
