import math

import pytest

from torchal import ConfigError, Schedule


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of batch_size and batch_fraction"),
        ({"batch_size": 2, "batch_fraction": 0.1}, "one of batch_size and batch_fraction"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": -3}, "got -3"),
        ({"batch_size": 2.0}, "got 2.0"),
        ({"batch_size": True}, "got True"),
        ({"batch_fraction": 0.0}, r"\(0, 1\], got 0.0"),
        ({"batch_fraction": 1.5}, "got 1.5"),
        ({"batch_fraction": math.nan}, "got nan"),
        ({"batch_size": 2, "budget": 0}, "budget must be"),
        ({"batch_size": 2, "budget": 9, "budget_fraction": 0.5}, "at most one of budget"),
        ({"batch_size": 2, "max_rounds": -1}, "max_rounds must be"),
        ({"batch_size": 2, "target_value": 0.9}, "go together"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**settings)


@pytest.mark.parametrize(
    ("settings", "n_start", "batches"),
    [
        ({"batch_size": 20, "budget": 400}, 20, 19),
        ({"batch_size": 30, "budget": 400}, 20, 13),
        ({"batch_size": 30, "budget": 400, "max_rounds": 5}, 20, 5),
        ({"batch_fraction": 0.02, "budget_fraction": 0.5}, 20, 24),
        ({"batch_fraction": 0.0001}, 20, 980),
        ({"batch_size": 20, "budget": 10}, 20, 0),
    ],
)
def test_counts_batches_of_a_thousand_rows(settings, n_start, batches):
    assert Schedule(**settings).n_batches(1000, n_start) == batches
