"""What is told of each epoch of a network's training: a progress bar, TensorBoard, or your own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

if TYPE_CHECKING:
    from torch import nn


class Epoch(NamedTuple):
    """One pass over the training rows.

    The accuracy is counted while the weights change, with dropout on; the validation figures are of the end of the
    epoch, and None without a validation part.

    Attributes:
        number: from 1.
        epochs: how many there are at most.
        loss, accuracy: means over the training rows.
        validation_loss, validation_accuracy: of the validation part.
        learning_rate: of its last step.
        seconds: it took.
        module: the network.
    """

    number: int
    """From 1."""
    epochs: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    """Of the first parameter group, in this epoch's last step."""
    seconds: float
    module: nn.Module
    """The network itself, in training mode."""


class Callback:
    """Does nothing. Inherit from it and override what you need.

    One that only looks on says so by `watches_only = True`: it is left out where a fit is but a trial, as in the fits
    of a strategy that tries labels out.

    An estimator that is cloned gets a copy (`copy.deepcopy`) of each callback, so one that collects results for you
    does it in something shared, or defines `__deepcopy__`. What a callback raises ends the fit.
    """

    watches_only = False

    def on_round(self, round: int) -> None:  # noqa: A002 - the loop's word
        """Be told by the active-learning loop which round the next fit belongs to."""

    def on_fit_start(self, *, epochs: int, n_rows: int) -> None:
        """Be told that a fit begins.

        Args:
            epochs: at most.
            n_rows: of the training part.
        """

    def on_epoch_end(self, epoch: Epoch) -> bool | None:
        """Be told of a finished epoch; True ends the training after it."""

    def on_fit_end(self) -> None:
        """Be told that the fit is over, also after an error."""


class ProgressBar(Callback):
    """Shows a bar of epochs, with loss and accuracy."""

    watches_only = True

    def __init__(self) -> None:
        self._bar: Any = None

    def on_fit_start(self, *, epochs: int, n_rows: int) -> None:
        """Open the bar."""
        self._bar = tqdm(total=epochs, unit="epoch", desc=f"fit {n_rows} rows", leave=False)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Move the bar."""
        shown = {"loss": epoch.loss, "accuracy": epoch.accuracy, "validation": epoch.validation_accuracy}
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items() if value is not None})
        self._bar.update()

    def on_fit_end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class TensorBoardLog(Callback):
    """Writes each epoch's loss, accuracy, learning rate and seconds as TensorBoard scalars below `fit/`.

    The x axis is the epoch. Inside the loop of active learning each round is a run of its own, `round=003`, so that
    TensorBoard lays the curves of all rounds over each other; a fit by itself is written to `log_dir`. A fit that is
    repeated, as after a kill, takes the place of what it had written.

    Args:
        log_dir: the folder.
    """

    watches_only = True

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = Path(log_dir)
        self._round: int | None = None
        self._writer: Any = None

    def on_round(self, round: int) -> None:  # noqa: A002
        """Remember the round."""
        self._round = round

    def on_fit_start(self, *, epochs: int, n_rows: int) -> None:
        """Open the file."""
        del epochs, n_rows
        from torch.utils.tensorboard import SummaryWriter

        folder = self.log_dir if self._round is None else self.log_dir / f"round={self._round:03}"
        self._writer = SummaryWriter(str(folder), purge_step=0)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Write the epoch."""
        names = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate", "seconds")
        for name in names:
            value = getattr(epoch, name)
            if value is not None:
                self._writer.add_scalar(f"fit/{name}", value, epoch.number)

    def on_fit_end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
