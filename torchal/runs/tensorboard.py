"""Curves in TensorBoard. The horizontal axis is the number of labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from torchal.pool.round_result import RoundResult
from torchal.runs.curves import LearningCurve
from torchal.statistics.curves import area_under_curve


class RunLog:
    """Writes one run's curves into a folder; used with `with`.

    Tags: `test/accuracy`, `validation/log_loss` and so on, `seconds/fit`, `seconds/select`, ...; below `sampler/` the
    numbers of the sampler's report, such as `sampler/probabilities/Margin-1`, and below `model/` those of the model's,
    such as `model/C`.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._results: list[RoundResult] = []
        self._shows_arms = False

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, result: RoundResult) -> None:
        """Write one round."""
        self._results.append(result)
        for part in ("test", "validation", "seconds"):
            for name, value in getattr(result, part).items():
                self._writer.add_scalar(f"{part}/{name}", value, global_step=result.n_labeled)
        if isinstance(result.report.get("probabilities"), Mapping) and not self._shows_arms:
            self._shows_arms = True
            one_chart = ["Multiline", ["sampler/probabilities/.*"]]
            self._writer.add_custom_scalars({"Sampler": {"probabilities of the arms": one_chart}})
        for tag, value in (*_numbers(result.report, "sampler"), *_numbers(result.model, "model")):
            self._writer.add_scalar(tag, value, global_step=result.n_labeled)
        self._writer.flush()

    def add_summary(self, hparams: Mapping[str, Any]) -> None:
        """Write the run's line in the table of hyperparameters: its settings, final metrics and areas.

        Settings that are not numbers or text are written as text, so that no column is hidden.
        """
        from torch.utils.tensorboard.summary import hparams as summaries

        n_labeled = [result.n_labeled for result in self._results]
        metrics = {}
        for name in self._results[-1].test:
            if any(name not in result.test for result in self._results):
                continue  # a metric that was added when the run went on
            values = [result.test[name] for result in self._results]
            metrics[f"summary/final_{name}"] = values[-1]
            metrics[f"summary/area_{name}"] = area_under_curve(n_labeled, values)
        plain = {k: v if isinstance(v, str | int | float) else str(v) for k, v in hparams.items()}
        # The three summaries go into the run's own writer: add_hparams would make a second run of them.
        for summary in summaries(plain, metrics):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step=n_labeled[-1])


def _numbers(report: Mapping[str, Any], at: str) -> Iterator[tuple[str, float]]:
    """Return the numbers of a report with their tags, those in the dicts inside it too; lists are left out."""
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{at}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{at}/{name}", value


def write_aggregate(folder: Path, curve: LearningCurve, *, name: str) -> None:
    """Write the mean of several runs with its 95 % band, as a margin chart and as scalars.

    Tags: `mean/<name>`, `mean/<name>_lower`, `mean/<name>_upper`. Whatever the folder holds of an earlier aggregate is
    removed first.
    """
    from torch.utils.tensorboard import SummaryWriter

    remove_events(folder)
    tags = [f"mean/{name}", f"mean/{name}_lower", f"mean/{name}_upper"]
    with SummaryWriter(str(folder)) as writer:
        writer.add_custom_scalars({"Mean over seeds": {f"{name}, mean and 95 % interval": ["Margin", tags]}})
        for tag, values in zip(tags, (curve.mean, curve.lower, curve.upper), strict=True):
            # A single run has no interval; the band is then the line itself.
            drawn = np.where(np.isfinite(values), values, curve.mean)
            for n_labeled, value in zip(curve.n_labeled.tolist(), drawn.tolist(), strict=True):
                writer.add_scalar(tag, value, global_step=n_labeled)


def remove_events(folder: Path) -> None:
    """Delete the event files in a folder, so that curves written again do not stand there twice."""
    for file in folder.glob("events.out.tfevents.*") if folder.is_dir() else ():
        file.unlink()


def open_log(folder: Path, history: Iterable[RoundResult]) -> RunLog:
    """Return a run's log with the rounds of an earlier process written again, and nothing else in it."""
    remove_events(folder)
    log = RunLog(folder)
    for result in history:
        log.add(result)
    return log
