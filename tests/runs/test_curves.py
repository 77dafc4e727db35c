import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.runs.test_results import make_result
from torchal import DataError, Run
from torchal.runs.curves import learning_curve


def make_run(points):
    rounds = [make_result(i, n_labeled=n, test={"accuracy": value}) for i, (n, value) in enumerate(points)]
    return Run(Path("run"), {}, rounds, finished=True)


def test_learning_curve_of_runs_with_the_same_labels():
    curve = learning_curve([make_run([(10, 0.4), (20, 0.6)]), make_run([(10, 0.6), (20, 0.8)])])
    assert curve.n_labeled.tolist() == [10, 20]
    assert curve.mean.tolist() == pytest.approx([0.5, 0.7])
    half = stats.t.ppf(0.975, 1) * np.std([0.4, 0.6], ddof=1) / math.sqrt(2)
    assert (curve.upper - curve.mean).tolist() == pytest.approx([half, half])


def test_learning_curve_of_runs_with_other_labels_is_interpolated_where_all_have_some():
    curve = learning_curve([make_run([(10, 0.4), (30, 0.6)]), make_run([(20, 0.6), (30, 0.8), (40, 0.9)])])
    assert curve.n_labeled.tolist() == [20, 30]
    assert curve.mean.tolist() == pytest.approx([0.55, 0.7])


def test_learning_curve_refuses_runs_without_anything_in_common():
    with pytest.raises(DataError, match="no number of labels in common"):
        learning_curve([make_run([(10, 0.4)]), make_run([(20, 0.6)])])
    with pytest.raises(DataError, match="at least one run"):
        learning_curve([])
