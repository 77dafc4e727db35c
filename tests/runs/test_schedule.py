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
        ({"batch_size": 2, "batch_sizes": [2]}, "one of batch_size and batch_fraction, or batch_sizes"),
        ({"batch_sizes": []}, r"batch_sizes must be a list of whole numbers, got \[\]"),
        ({"batch_sizes": "20"}, "batch_sizes must be a list"),
        ({"batch_sizes": [3, 0]}, "each of batch_sizes must be a whole number of at least 1, got 0"),
        ({"batch_sizes": [3], "batch_growth": 2}, "cannot go with batch_sizes"),
        ({"batch_size": 2, "batch_growth": 0.5}, "batch_growth must be a finite number from 1"),
        ({"batch_size": 2, "max_seconds": -1}, "max_seconds must be a finite number of at least 0, got -1"),
        ({"batch_size": 2, "max_seconds": math.inf}, "got inf"),
        ({"batch_size": 2, "plateau_rounds": 0}, "plateau_rounds must be"),
        ({"batch_size": 2, "plateau_delta": 0.1}, "plateau_delta=0.1 needs plateau_rounds"),
        ({"batch_size": 2, "stable_rounds": 3}, "stable_rounds=3 needs stable_kappa"),
        ({"batch_size": 2, "stable_kappa": 1.1}, "stable_kappa must be a finite number from -1 to 1, got 1.1"),
        ({"batch_size": 2, "min_uncertainty": "low"}, "min_uncertainty must be a finite number from 0 to 1, got 'low'"),
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
        ({"batch_sizes": [20, 40, 80]}, 20, 3),
        ({"batch_sizes": [20, 40, 80], "budget": 70}, 20, 2),
        ({"batch_size": 10, "batch_growth": 2, "budget": 170}, 20, 4),
        ({"batch_size": 10, "batch_growth": 1.0, "budget": 60}, 20, 4),
    ],
)
def test_counts_batches_of_a_thousand_rows(settings, n_start, batches):
    assert Schedule(**settings).n_batches(1000, n_start) == batches


def test_batches_that_grow():
    schedule = Schedule(batch_size=10, batch_growth=1.5)
    assert [schedule.batch(1000, number) for number in range(5)] == [10, 15, 22, 34, 51]
    assert schedule.batch(1000, 10**6) == 1000  # and no overflow


def test_batches_of_a_list():
    schedule = Schedule(batch_sizes=[5, 1, 9])
    assert [schedule.batch(1000, number) for number in range(3)] == [5, 1, 9]
    assert schedule.most_rounds == 3
    assert Schedule(batch_sizes=[5, 1, 9], max_rounds=2).most_rounds == 2
