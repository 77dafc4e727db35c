"""What is written to disk: plain values, bytes that are read back without pickle, whole files or none."""

from __future__ import annotations

import io
import math
import os
import pickle
import reprlib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchal.errors import ConfigError, RunError

_SHORT = reprlib.Repr()  # a difference of thousands of rows is told by the first few
_SHORT.maxstring = _SHORT.maxother = 200


def as_plain(value: Any) -> Any:
    """Return a value as numbers, text, lists and dicts; a number that is not finite becomes None.

    Raises:
        ConfigError: it holds something else.
    """
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [as_plain(item) for item in value]
    raise ConfigError(f"only numbers, text, lists, dicts and arrays can be written down, got {type(value).__name__}")


def differences(old: Any, new: Any) -> str:
    """Return each setting in which two configs differ, as `a.b was 1, is 2`; empty where they are the same."""
    return "; ".join(_differences(old, new))


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield f"{at} was {_SHORT.repr(old)}, is {_SHORT.repr(new)}"


def without(settings: Any, names: Container[str]) -> Any:
    """Return settings, and those inside them, but for some names.

    Example:
        >>> without({"C": 1, "device": "cpu", "members": [{"C": 2, "device": "cpu"}]}, {"device"})
        {'C': 1, 'members': [{'C': 2}]}
    """
    if isinstance(settings, list):
        return [without(one, names) for one in settings]
    if isinstance(settings, dict):
        return {name: without(value, names) for name, value in settings.items() if name not in names}
    return settings


def as_safe_bytes(content: Mapping[str, Any]) -> bytes:
    """Return what `torch.save` writes, after reading it back with `weights_only=True`.

    Raises:
        RunError: it holds more than tensors, numbers, text, lists and dicts.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise RunError(
            "the state of a run (a sampler's state_dict, for one) may hold tensors, numbers, text, lists and dicts; "
            "something else is in it"
        ) from error
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Put whole contents in the place of a file, so that there is never half of it, and wait until it is on disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # a full disk has no use for half of it
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
