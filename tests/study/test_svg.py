import itertools
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.study import summaries
from torchal.errors import DataError
from torchal.study.looks import looks
from torchal.study.summary import Band, Ranking
from torchal.study.svg import critical_difference_svg, curves_svg, shorten, tick_texts, ticks, value_range

NAN = float("nan")


def ranking(n=5, **values):
    ranks = {f"s{i}": 1.0 + i for i in range(n)}
    return replace(Ranking(ranks, 9, 0.01, 1.5, [["s0", "s1"], ["s1", "s2"]], []), **values)


class TestTicks:
    @given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
    def test_are_round_few_and_inside(self, low, width, most):
        assume(abs(low) < 1e6 * width)
        high = low + width
        found = ticks(low, high, most)
        slack = 1e-6 * width + 1e-9 * abs(low)
        assert all(low - slack <= value <= high + slack for value in found)
        assert len(found) <= most + 1
        steps = [b - a for a, b in itertools.pairwise(found)]
        for step in steps:
            digits = step / 10 ** math.floor(math.log10(step) + 1e-6)
            assert any(math.isclose(digits, round_one, rel_tol=1e-3) for round_one in (1, 2, 5, 10))

    def test_texts_tell_them_apart(self):
        for low, high in ((0.123, 0.124), (0, 1), (17, 98765), (-3, 3)):
            texts = tick_texts(ticks(low, high))
            assert len(set(texts)) == len(texts) > 1

    def test_of_no_width_is_the_place_itself(self):
        assert ticks(3.0, 3.0) == [3.0]
        assert tick_texts([3.0]) == ["3"]


class TestShorten:
    @settings(max_examples=50)
    @given(st.text(max_size=40), st.integers(6, 30))
    def test_is_no_longer_and_keeps_what_fits(self, text, letters):
        short = shorten(text, letters)
        assert len(short) <= letters
        if text.isascii() and text.isprintable() and len(text) <= letters and text == " ".join(text.split()):
            assert short == text

    def test_keeps_the_end(self):
        assert shorten("sampler_of_a_long_name_17", 14) == "sampler_o…e_17"
        assert shorten("名前" * 9, 10) == "…名前名前"


class TestCurves:
    def test_a_line_for_each_sampler_and_a_gap_where_there_is_no_number(self):
        bands = {
            "a": Band([1, 2, 3, 4], [0.1, NAN, 0.3, 0.4], [None] * 4, [None] * 4, 1),
            "b": Band([1, 2], [0.2, 0.2], [0.1, 0.1], [0.3, 0.3], 3),
        }
        text = curves_svg(bands, looks(list(bands), "b"), metric="accuracy", axis="labels", level=0.5)
        root = ElementTree.fromstring(text)
        lines = [path for path in root.iter("path") if path.get("class") == "line"]
        assert [line.get("d").count("M") for line in lines] == [1, 2]  # the first is drawn last
        assert [line.get("d").count("L") for line in lines] == [1, 1]
        assert len([path for path in root.iter("path") if path.get("class") == "band"]) == 1
        assert len([path for path in root.iter("path") if path.get("class") == "level"]) == 1

    def test_values_stand_where_the_ticks_say(self):
        band = Band([0, 50, 100], [0.0, 0.5, 1.0], [None] * 3, [None] * 3, 1)
        text = curves_svg({"a": band}, looks(["a"], None), metric="m", axis="labels")
        root = ElementTree.fromstring(text)
        line = next(path.get("d") for path in root.iter("path") if path.get("class") == "line")
        points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", line)[1:]]
        heights = {t.text: float(t.get("y")) - 4 - 24 for t in root.iter("text") if t.get("text-anchor") == "end"}
        middle = (heights["0.0"] + heights["1.0"]) / 2
        assert [y for _, y in points] == pytest.approx([heights["0.0"], middle, heights["1.0"]], abs=0.11)
        across = {t.text: float(t.get("x")) - 46 for t in root.iter("text") if t.get("text-anchor") == "middle"}
        assert [points[0][0], points[2][0]] == pytest.approx([across["0"], across["100"]], abs=0.11)

    @pytest.mark.parametrize("curves", [{}, {"a": Band([1.0], [NAN], [None], [None], 1)}])
    def test_nothing_to_draw_is_said(self, curves):
        assert "No values of <bdi>&lt;m&gt;</bdi>" in curves_svg(curves, looks(["a"], None), metric="<m>", axis="x")

    def test_wide_bands_do_not_flatten_the_lines(self):
        band = Band([1, 2], [0.4, 0.6], [-9.0, -9.0], [9.0, 9.0], 2)
        low, high = value_range([band], None)
        assert 0.2 < low < 0.4
        assert 0.6 < high < 0.8
        assert value_range([Band([1], [0.5], [None], [None], 1)], None) == pytest.approx((0.48, 0.52))


class TestCriticalDifference:
    def test_samplers_stand_at_their_ranks_and_bars_over_the_cliques(self):
        root = ElementTree.fromstring(critical_difference_svg(ranking()))
        text = " ".join("".join(one.itertext()) for one in root.iter("text"))
        for place in range(5):
            assert f"s{place}: mean rank {place + 1:.2f}" in text
        bars = [path.get("d") for path in root.iter("path") if path.get("stroke-width") == "4"]
        ends = [list(map(float, re.match(r"M([\d.]+) [\d.]+H([\d.]+)", bar).groups())) for bar in bars]
        left, second, third = (ends[0][0] + 4, ends[0][1] - 4, ends[1][1] - 4)
        assert ends[1][0] + 4 == pytest.approx(second)
        assert second - left == pytest.approx(third - second) == pytest.approx(75)  # 300 over five ranks
        difference = root.find("path").get("d")
        start, end = map(float, re.match(r"M([\d.]+) 26v8m0-4H([\d.]+)", difference).groups())
        assert end - start == pytest.approx(1.5 * 75)

    def test_a_difference_longer_than_the_axis_is_said(self):
        assert "longer than the axis" in critical_difference_svg(ranking(2, critical_difference=9.0, cliques=[]))

    @pytest.mark.parametrize("n", [2, 3, 11, 30])
    def test_no_two_names_overlap(self, n):
        root = ElementTree.fromstring(critical_difference_svg(ranking(n, cliques=[])))
        named = [one for one in root.iter("text") if one.find("title") is not None]
        names = [(one.get("text-anchor"), float(one.get("y"))) for one in named]
        assert len(set(names)) == n
        for side in ("start", "end"):
            heights = sorted(y for anchor, y in names if anchor == side)
            assert all(b - a >= 18 for a, b in itertools.pairwise(heights))

    def test_hostile_names_are_text(self):
        text = critical_difference_svg(Ranking(dict.fromkeys(summaries.HOSTILE_NAMES, 4.0), 3, 0.5, 1.0, [], []))
        root = ElementTree.fromstring(text)
        assert not list(root.iter("script"))
        titles = [one.text for one in root.iter("title")]
        assert titles == [f"{name}: mean rank 4.00" for name in summaries.HOSTILE_NAMES]

    @pytest.mark.parametrize("ranks", [{}, {"a": 1.0}, {"a": 1.0, "b": NAN}])
    def test_refuses_what_has_no_ranks(self, ranks):
        with pytest.raises(DataError, match=r"at least two samplers with a finite mean rank"):
            critical_difference_svg(Ranking(ranks, 1, 1.0, 1.0, [], []))
