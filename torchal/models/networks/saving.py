"""Fitted estimators in files that are read without running code."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchal._records import as_safe_bytes, write_atomically
from torchal.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Self


class SavedState:
    """An estimator whose fitted state is numbers, text and tensors; a child gives `state_dict`, `load_state_dict`."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the fitted state in tensors, numbers and text."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Become as fitted as the estimator whose `state_dict` this is; it had the same settings as this one.

        Raises:
            DataError: the state is damaged, or of an estimator with other settings.
        """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted state to one file, replaced as a whole; `torch.load(path, weights_only=True)` reads it."""
        write_atomically(Path(path), as_safe_bytes(self.state_dict()))

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Become as fitted as the estimator that was saved; it had the same settings as this one.

        Raises:
            DataError: the file is damaged, or of an estimator with other settings.
        """
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise DataError(f"{path} is not a saved classifier, or is damaged: {error}") from error
        try:
            return self.load_state_dict(state)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def check_state(state: object, *names: str) -> None:
    """Require the entries of a saved state."""
    missing = set(names) - set(state if isinstance(state, Mapping) else ())
    if missing:
        raise DataError(f"this is no saved classifier: it has no {', '.join(sorted(missing))}")
