import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.study import summaries
from torchal.study.looks import common_baseline, looks, sampler_order
from torchal.study.page_data import AXES, Arrays, as_script_text, pack


def decode(array):
    """Return an array as the page's script reads it."""
    power, *steps = array
    total, values = 0, []
    for step in steps:
        total += step or 0
        values.append(None if step is None else float(f"{total}e{power}"))
    return values


class TestArrays:
    @given(st.lists(st.none() | st.floats(1e-3, 1.0) | st.just(0.0) | st.just(math.nan), max_size=9))
    def test_are_read_back_with_five_digits(self, values):
        arrays = Arrays()
        found = decode(arrays.written[arrays.add(values, 5)])
        assert len(found) == len(values)
        for before, after in zip(values, found, strict=True):
            if before is None or math.isnan(before):
                assert after is None
            else:
                assert after == pytest.approx(before, rel=5e-5)

    @given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5))
    def test_large_and_small_beside_each_other_keep_the_digits_of_the_large(self, values):
        arrays = Arrays()
        found = decode(arrays.written[arrays.add(values, 5)])
        assert found == pytest.approx(values, abs=5e-5 * max(map(abs, values)) + 1e-290)

    def test_equal_ones_are_written_once(self):
        arrays = Arrays()
        assert [arrays.add(values, 5) for values in ([10.0, 20.0], [10, 20], [10, 21], [10.0, 20.0])] == [0, 0, 1, 0]
        assert len(arrays.written) == 2


class TestPack:
    def test_curves_are_those_of_the_summary(self):
        summary = summaries.rich()
        data = json.loads(as_script_text(pack(summary, looks(sampler_order(summary), common_baseline(summary)))))
        n = 0
        for experiment, packed in zip(summary.experiments, data["experiments"], strict=True):
            for entry in packed["entries"]:
                of = experiment.entries[data["samplers"][entry["s"]]]
                for (k, metric), (j, axis) in itertools.product(enumerate(summary.metrics), enumerate(AXES)):
                    places = entry["curves"][k][j]
                    if metric not in of.curves:
                        assert places is None
                        continue
                    x, mean, below, above = map(decode, (data["arrays"][p] for p in (*places, *places[2:])[:4]))
                    band = of.curves[metric][axis]
                    assert x == pytest.approx(band.x, rel=5e-5)
                    assert mean == pytest.approx(band.mean, rel=5e-5)
                    assert [m - b for m, b in zip(mean, below, strict=True)] == pytest.approx(band.lower, abs=4e-5)
                    assert [m + a for m, a in zip(mean, above, strict=True)] == pytest.approx(band.upper, abs=4e-5)
                    n += 1
        assert n == 4 * 5 * 9 - 3

    def test_an_uneven_interval_keeps_both_its_ends(self):
        summary = summaries.make_summary(data=("a",), n_points=2)
        band = summary.experiments[0].entries["uniform"].curves["accuracy"]["labels"]
        band.upper[:] = [mean + 0.25 for mean in band.mean]
        data = pack(summary, looks(sampler_order(summary), "uniform"))
        entry = next(one for one in data["experiments"][0]["entries"] if data["samplers"][one["s"]] == "uniform")
        assert decode(data["arrays"][entry["curves"][0][0][3]]) == [0.25, 0.25]

    def test_what_is_no_number_is_null_and_nothing_ends_the_script(self):
        summary = summaries.hostile()
        text = as_script_text(pack(summary, looks(sampler_order(summary), common_baseline(summary))))
        assert "<" not in text
        assert "NaN" not in text
        assert json.loads(text)["samplers"]
