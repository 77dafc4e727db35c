"""In which order the tutorials stand, and what each of them starts with."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ORDER = (
    "pytorch_loop",
    "sklearn_pandas",
    "texts",
    "images_folder",
    "labeling_week",
    "labeling_tools",
    "compare_strategies",
    "extend",
    "hugging_face",
    "lightning",
    "many_rows",
    "from_playground",
    "from_modal_skactiveml",
)


def start_afresh(gallery_conf: dict[str, Any], file_name: str, when: str) -> None:  # noqa: ARG001 - sphinx-gallery's
    """Give a tutorial what a program of its own begins with."""
    import matplotlib.pyplot as plt

    plt.close("all")
    plt.rcdefaults()
    plt.rcParams.update({"figure.figsize": (6.4, 3.6), "axes.spines.top": False, "axes.spines.right": False})
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that still draw from it
    torch.manual_seed(0)


LONGEST_S = 300.0  # of one tutorial: more than ten times what it takes on a quiet machine
LOGGER = logging.getLogger(__name__)
_BEGUN: dict[str, float] = {}


def keep_to_time(gallery_conf: dict[str, Any], file_name: str, when: str) -> None:  # noqa: ARG001 - sphinx-gallery's
    """Warn of a tutorial that took longer than `LONGEST_S`, and so let the build fail."""
    if when == "before":
        _BEGUN[file_name] = time.monotonic()
        return
    seconds = time.monotonic() - _BEGUN.pop(file_name)
    if seconds > LONGEST_S:
        LOGGER.warning("%s took %.0f s, and a tutorial has %.0f s", file_name, seconds, LONGEST_S, type="tutorials")


def as_reader_sees_it() -> None:
    """Have progress bars say nothing, since a page shows all lines of a terminal."""
    from functools import partialmethod

    from tqdm import tqdm

    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


class InOrder:
    """The key by which sphinx-gallery sorts the tutorials of a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, file_name: str) -> tuple[int, str]:
        """Return the place of a tutorial; those that are not named stand behind, by their names."""
        name = file_name.removeprefix("plot_").removesuffix(".py")
        return (ORDER.index(name) if name in ORDER else len(ORDER)), name


COLOURS = 64  # of a chart; its lines and letters have few, and a page weighs a third


def make_lighter(folder: Path) -> None:
    """Give the pictures below a folder a palette, those that have none yet."""
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as picture:
            if picture.mode == "P":
                continue
            light = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        light.save(path, optimize=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect: behind sphinx-gallery, which makes the pictures when a build begins."""
    app.connect("builder-inited", lambda app: make_lighter(Path(app.srcdir, "learn")), priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
