import numpy as np
import pytest
import torch

from tests import forks, killed_run
from tests.contracts import NearestMean
from torchal import RoundResult
from torchal.runs.memory import peak_mib, start_counting


def peaks_around_a_block():
    """Return the peak of a phase before a block of memory, with it, and of another phase after it."""
    cpu = torch.device("cpu")
    before = peak_mib("fit", cpu)["fit"]
    block = np.ones(int((before + 64) * 2**20), dtype=np.uint8)  # more than the process ever had
    after = peak_mib("fit", cpu)["fit"]
    del block
    return before, after, peak_mib("select", cpu)


def test_the_peak_rises_with_what_a_phase_took_and_never_falls():
    before, after, later = forks.answer(peaks_around_a_block)  # in a process that is small yet
    assert after - before > 64
    assert after <= later["select"] < after + 16
    assert later.keys() == {"select"}


def test_each_round_records_the_phases_that_it_had(tmp_path):
    run = killed_run.run(tmp_path)
    for result in run.rounds:
        assert result.peak_mib.keys() >= result.seconds.keys()
        assert all(peak > 10 for peak in result.peak_mib.values())


def test_a_record_of_before_has_none():
    rows = torch.tensor([3])
    record = RoundResult(0, 1, rows, rows, rows, rows.double(), "Margin").to_json()
    del record["peak_mib"], record["calibration"]
    old = RoundResult.from_json(record)
    assert (old.peak_mib, old.calibration) == ({}, {})


class Hungry(NearestMean):
    def __sklearn_clone__(self):
        return Hungry()

    def fit(self, X, y):
        block = torch.empty(256 * 2**20, dtype=torch.uint8, device=X.device)
        super().fit(X, y)
        del block


@pytest.mark.gpu
def test_on_a_gpu_each_phase_has_a_peak_of_its_own():
    from torchal import ActiveLearner, Pool
    from torchal.samplers import Margin

    device = torch.device("cuda")
    pool = Pool.unlabeled(torch.randn(500, 4, device=device), n_classes=2)
    learner = ActiveLearner(Hungry(), Margin(), pool)
    learner.tell([0, 1], [0, 1])
    learner.tell(rows := learner.ask(3), [0, 1, 0])
    assert len(rows) == 3
    peaks = learner.finish_round().peak_mib
    assert peaks["cuda_fit"] >= 256
    assert peaks["cuda_select"] < 200
    start_counting(device)
    assert peak_mib("fit", device)["cuda_fit"] < 200
