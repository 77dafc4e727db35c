"""Images of bytes whose publishers say which of them are for testing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from torchal._checks import check_flag, check_whole
from torchal.data.cut import SplitSettings, has_explicit_rows, with_official_test
from torchal.data.splits import Splits, make_splits
from torchal.errors import ConfigError

_WHITE = 255.0


def check_image_settings(settings: SplitSettings, *, official_test: bool, test_limit: int | None) -> None:
    """Require settings that go together, before anything is read."""
    check_flag("official_test", official_test)
    if test_limit is None:
        return
    check_whole("test_limit", test_limit, least=1)
    listed = has_explicit_rows(settings)
    if listed or not official_test:
        other = "explicit rows: shorten the lists" if listed else "official_test=False: set fractions and max_rows"
        raise ConfigError(f"test_limit={test_limit} cannot go with {other} instead")


def split_images(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    n_train: int,
    *,
    name: str,
    class_names: Sequence[str],
    official_test: bool,
    test_limit: int | None,
    settings: SplitSettings,
) -> Splits:
    """Cut images into parts, in [0, 1] unless they are normalized or standardized.

    Args:
        images: of all parts, (M, ...).
        labels: (M,), places in `class_names`.
        n_train: how many of them, from the first on, are officially for training.
        name: what the data set is called.
        class_names: of all classes.
        official_test: take the others as the test part; explicit rows say what the parts are in any case.
        test_limit: of these, at most.
        settings: how to choose, split and scale the rows.
    """

    def names(labels: NDArray[np.integer]) -> list[str]:
        return [class_names[label] for label in np.unique(labels)]

    if official_test and not has_explicit_rows(settings):
        settings = with_official_test(labels, n_train, test_limit=test_limit, settings=settings, names=names)
    data = make_splits(images, labels, name=name, class_names=names(labels), **settings)
    to_unit_range(data, settings)
    return data


def to_unit_range(data: Splits, settings: SplitSettings) -> None:
    """Divide the inputs by 255, in place, to the effect of a division before they were scaled.

    Dividing first would need all images as floats.
    """
    if settings.get("normalize"):
        return  # a row of unit norm is the same from any range
    parts = [torch.as_tensor(part.inputs) for part in (data.train, data.validation, data.test)]
    divisor = torch.tensor(_WHITE)
    if settings.get("standardize"):
        # So is a column of unit variance; but one that is constant, and so all zeros now, was only centred.
        divisor = torch.where((parts[0] == 0).all(0), divisor, 1.0)
    for inputs in parts:
        inputs.div_(divisor)
