"""A run in TensorBoard. The horizontal axis is the number of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchal._checks import check_flag, check_whole
from torchal.errors import ConfigError
from torchal.pool import interop
from torchal.pool.inputs import gather
from torchal.pool.round_result import RoundResult
from torchal.runs.loggers import RunLog, final_scalars, scalars

if TYPE_CHECKING:
    from torchal.runs.learner import ActiveLearner
    from torchal.runs.pictures import Encoded

_PICTURES = ("asked/rows", "asked/classes", "test/calibration")


@dataclass(frozen=True)
class TensorBoard:
    """Writes a run into the folder `tb` of its own, for `tensorboard --logdir`.

    Scalars against the number of labels: see `torchal.runs.loggers.scalars`. Images of each round:
    `asked/classes`, how many labels of each class there are, and came in this round; `asked/rows`, the first rows that
    were asked for, where they are pictures, with their labels and what the model had said before it had them;
    `test/calibration`, how often the model is right against how sure it is. At the end the run's line in the table of
    hyperparameters, and rows of the pool for the projector (`torchal.runs.projector`).

    A run that goes on after a kill writes its scalars again from its record, and keeps the images of its rounds.

    Args:
        thumbnails: most rows in the picture of a round; 0 for none.
        charts: whether to draw the classes and the calibration.
        projector_rows: most rows for the projector; 0 for none.
        image_shape: (channels, height, width) of rows that are pictures made flat.

    Raises:
        ConfigError: a number that is not whole and at least 0; a shape that no picture has.

    Example:
        >>> TensorBoard(projector_rows=0)
        TensorBoard(thumbnails=16, charts=True, projector_rows=0, image_shape=None)
    """

    thumbnails: int = 16
    charts: bool = True
    projector_rows: int = 5000
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        check_whole("thumbnails", self.thumbnails, least=0)
        check_flag("charts", self.charts)
        check_whole("projector_rows", self.projector_rows, least=0)
        if self.image_shape is not None:
            if len(self.image_shape) != 3:
                raise ConfigError(f"image_shape must be (channels, height, width), got {self.image_shape!r}")
            for size in self.image_shape:
                check_whole("image_shape", size, least=1)

    @property
    def place(self) -> str:
        """What it writes in the run's folder."""
        return "tb"

    def open_run(self, folder: Path, learner: ActiveLearner) -> RunLog:
        """Return the run's log with the rounds of an earlier process in it, and nothing else.

        Args:
            folder: of the run.
            learner: whose rounds they are.
        """
        return _TensorBoardRun(folder / self.place, learner, self)


class _TensorBoardRun:
    """The events of one run. Pictures need the model of their round, so those of an earlier process are kept."""

    def __init__(self, folder: Path, learner: ActiveLearner, settings: TensorBoard) -> None:
        from torch.utils.tensorboard import SummaryWriter

        from torchal.runs.pictures import are_pictures

        self._folder, self._learner, self._settings = folder, learner, settings
        earlier = list(folder.glob("events.out.tfevents.*"))
        steps = {result.n_labeled for result in learner.history}
        kept = dict(_kept_pictures(earlier, steps))
        self._writer = SummaryWriter(str(folder))
        self._shows_arms = False
        self._has_thumbnails = bool(settings.thumbnails) and are_pictures(learner.pool.inputs, settings.image_shape)
        for result in learner.history:
            self._add_scalars(result)
        for (_, step), value in kept.items():
            self._add_values([value], step)
        self._writer.flush()
        for file in earlier:
            file.unlink()

    def add(self, result: RoundResult) -> None:
        self._add_scalars(result)
        self._add_values([_as_value(tag, picture) for tag, picture in self._pictures(result)], result.n_labeled)
        self._writer.flush()

    def _add_scalars(self, result: RoundResult) -> None:
        if isinstance(result.report.get("probabilities"), Mapping) and not self._shows_arms:
            self._shows_arms = True
            one_chart = ["Multiline", ["sampler/probabilities/.*"]]
            self._writer.add_custom_scalars({"Sampler": {"probabilities of the arms": one_chart}})
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(result)]
        self._add_values(values, result.n_labeled)

    def _add_values(self, values: list[Any], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # All of a round in one event: an event for each, as add_scalar makes them, takes ten times as long
        self._writer._get_file_writer().add_summary(Summary(value=values), step)

    def _pictures(self, result: RoundResult) -> Iterator[tuple[str, Encoded]]:
        from torchal.runs import pictures

        if self._settings.charts:
            pool = self._learner.pool
            now = result.labels.bincount(minlength=pool.n_classes)
            total = pool.targets[pool.labeled].cpu().bincount(minlength=pool.n_classes)
            names = self._names(torch.arange(pool.n_classes))
            yield "asked/classes", pictures.class_bars(now, (total - now).clamp(min=0), names)
            if result.calibration.get("rows"):
                yield "test/calibration", pictures.reliability_diagram(result.calibration)
        if self._has_thumbnails and len(result.rows):
            yield "asked/rows", self._sheet(result)

    def _sheet(self, result: RoundResult) -> Encoded:
        from torchal.runs import pictures

        pool = self._learner.pool
        rows = result.rows[: self._settings.thumbnails].to(pool.device)
        images = pictures.pictures_of(pool.inputs, rows, side=128, shape=self._settings.image_shape)
        labels = self._names(result.labels[: self._settings.thumbnails])
        said: list[Any] = [None] * len(labels)
        if self._learner.model_before is not None:
            said = self._names(interop.predictions(self._learner.model_before, gather(pool.inputs, rows)).cpu())
        captions = [pictures.Caption(label, answer) for label, answer in zip(labels, said, strict=True)]
        return pictures.sheet(images, captions)

    def _names(self, codes: Tensor) -> list[str]:
        named = self._learner.pool.labels.decode(codes)
        return [str(name) for name in (named.tolist() if isinstance(named, Tensor) else named)]

    def finish(self, hparams: Mapping[str, Any]) -> None:
        history = self._learner.history
        if not history:
            return
        found = final_scalars(history)
        write_hparams(self._writer, hparams, found)
        for name, value in found.items():
            self._writer.add_scalar(name, value, global_step=history[-1].n_labeled)
        self._writer.flush()
        if self._settings.projector_rows:
            from torchal.runs.projector import write_projector

            settings = self._settings
            write_projector(
                self._folder, self._learner, most_rows=settings.projector_rows, image_shape=settings.image_shape
            )

    def close(self) -> None:
        self._writer.close()


def write_hparams(writer: Any, hparams: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Write a line of the table of hyperparameters into a `SummaryWriter`'s own run; the metrics are its scalars.

    Settings that are not numbers or text are written as text, so that no column is hidden.
    """
    from torch.utils.tensorboard.summary import hparams as summaries

    plain = {k: v if isinstance(v, str | int | float) else str(v) for k, v in hparams.items()}
    # The three summaries go into the run's own writer: add_hparams would make a second run of them.
    for summary in summaries(plain, dict(metrics)):
        writer._get_file_writer().add_summary(summary)


def _as_value(tag: str, picture: Encoded) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    size = {"height": picture.height, "width": picture.width, "colorspace": 3}
    return Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=picture.content, **size))


def _kept_pictures(files: list[Path], steps: set[int]) -> Iterator[tuple[tuple[str, int], Any]]:
    """Return the pictures of these steps in event files, by tag and step; records that were cut off are left out."""
    if not steps:
        return
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for file in files:
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                if value.tag in _PICTURES and event.step in steps:
                    yield (value.tag, event.step), value
