"""The published finding on repeated rows, through the whole chain: data, noise, network, draws, samplers, table."""

import re

import pytest

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from tests.experiments.test_run import run  # noqa: F401 - a fixture

# the pixels as they are: divided by their deviations, those of the border are all that a network sees
WORDS = ["data=digits", "data.standardize=false", "repeat=3", "full_data=false", "trials=5", "progress=false"]
MODEL = ["model=mlp", "model.module.dropout=0.5", "model.epochs=100"]
LABELS = ["start.n=20", "start.min_per_class=1", "schedule.batch_size=10", "schedule.budget=100"]


@pytest.mark.slow
def test_bald_asks_for_the_same_thing_again_and_batch_bald_and_badge_do_not(run):  # noqa: F811
    """On rows that are there three times BALD is worse than chance: Kirsch et al., NeurIPS 2019, section 4."""
    samplers = "sampler=uniform,bald,batch_bald,badge"
    code, out, err = run(*WORDS, *MODEL, *LABELS, samplers, "-m")
    assert code == 0, err
    found = re.findall(r"^(\w+) - uniform: area ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]", out, re.MULTILINE)
    areas = {name: tuple(map(float, numbers)) for name, *numbers in found}
    assert areas["bald"][2] < 0
    for name in ("batch_bald", "badge"):
        mean, low, _ = areas[name]
        assert mean > 0, name
        assert low > areas["bald"][2], name
