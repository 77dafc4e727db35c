"""What many runs come to: read from their folders, summed up in plain values, and written as a page and as tables."""

from torchal.study.reading import Runs, StudyRun, read_runs
from torchal.study.report import write_report
from torchal.study.summary import Summary
from torchal.study.summing_up import Wanted, sum_up

__all__ = ["Runs", "StudyRun", "Summary", "Wanted", "read_runs", "sum_up", "write_report"]
