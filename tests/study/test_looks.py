import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.report.test_looks import _SEEN_BY, contrast, lab, linear
from tests.study import summaries
from torchal.study.looks import COLOURS, common_baseline, looks, sampler_order
from torchal.study.page_style import CSS


def rgb(text):
    return tuple(int(text[place : place + 2], 16) for place in (1, 3, 5))


def variables(block):
    return {name: rgb(value) for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)}


LIGHT, DARK = {}, {}
for place, part in enumerate(re.split(r"@media (?:screen and )?\(prefers-color-scheme: dark\)", CSS)):
    blocks = re.findall(r":root \{(.*?)\}", part, flags=re.S)
    for number, block in enumerate(blocks):
        (DARK if place and not number else LIGHT).update(variables(block))
LIGHT.update(variables(CSS.split("@media (prefers-color-scheme: dark)")[0]))
DARK = {**LIGHT, **DARK}
SCHEMES = {"light": LIGHT, "dark": DARK}


class TestColours:
    @pytest.mark.parametrize("reader", _SEEN_BY)
    @pytest.mark.parametrize("side", [0, 1])
    def test_can_be_told_apart(self, reader, side):
        seen = [lab(np.asarray(_SEEN_BY[reader]) @ linear(rgb(pair[side]))) for pair in COLOURS]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_are_seen_on_their_ground(self, scheme):
        colours = SCHEMES[scheme]
        assert colours["k0"] == rgb(COLOURS[0][scheme == "dark"])
        for ground in ("card", "stripe"):
            for name in [*(f"k{place}" for place in range(8)), *(f"p{place}" for place in range(6)), "heat", "level"]:
                assert contrast(colours[name], colours[ground]) >= 3, (name, ground)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_text_is_legible(self, scheme):
        colours = SCHEMES[scheme]
        for ground in ("card", "stripe", "ground", "good", "bad", "track"):
            assert contrast(colours["text"], colours[ground]) >= 7, ground
        for name in ("quiet", "accent"):
            for ground in ("card", "stripe", "ground"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("warn-text", "accent"):
            assert contrast(colours[name], colours["warn-ground"]) >= 4.5


class TestLooks:
    def test_no_two_samplers_look_alike(self):
        given = looks([f"s{i}" for i in range(57)], "s3")
        assert len(set(given.values())) == 57
        assert given["s3"].colour == 7
        assert sum(look.colour == 7 for look in given.values()) == 1

    def test_the_best_are_first_whether_ranked_or_not(self):
        summary = summaries.rich()
        assert sampler_order(summary) == list(summary.ranking.mean_ranks)
        vars(summary).update(ranking=None)
        order = sampler_order(summary)
        assert sorted(order) == sorted(summaries.SAMPLERS)
        assert order[0] == summary.experiments[0].ordered[0]

    def test_samplers_without_a_finished_run_are_last(self):
        summary = summaries.make_summary(data=("a",), n_points=2, n_runs=2)
        summary.experiments[0].ordered.remove("margin")
        assert sampler_order(summary)[-1] == "margin"

    def test_the_baseline_of_most_experiments(self):
        summary = summaries.make_summary(n_points=2, n_runs=2)
        for experiment, baseline in zip(summary.experiments, ("badge", "uniform", "uniform", None), strict=True):
            vars(experiment).update(baseline=baseline)
        assert common_baseline(summary) == "uniform"
        assert common_baseline(replace(summary, experiments=[])) is None
