"""Data sets that need no file: those that ship inside scikit-learn, and made ones."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from torchal._checks import check_whole
from torchal.data.cut import SplitSettings, check_settings
from torchal.data.libsvm import found_file
from torchal.data.splits import Splits, make_splits
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_WAVEFORM_COLUMNS = 22


def digits(**settings: Unpack[SplitSettings]) -> Splits:
    """Load handwritten digits: 1797 rows of 8 x 8 grey values from 0 to 16, flat, in 10 classes.

    Args:
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 64) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.

    Reference:
        Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998: its test
        set, as `sklearn.datasets.load_digits`.

    Example:
        >>> data = digits(keep=[4, 9])
        >>> data.train.inputs.shape, data.class_names
        (torch.Size([240, 64]), ('4', '9'))
    """
    return replace(_from_sklearn("digits", settings), image_shape=(1, 8, 8))


def iris(**settings: Unpack[SplitSettings]) -> Splits:
    """Load iris: 150 flowers of 3 species by 4 lengths in centimetres.

    Args:
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 4) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.

    Reference:
        Fisher, "The Use of Multiple Measurements in Taxonomic Problems", Annals of Eugenics, 1936, as
        `sklearn.datasets.load_iris`.

    Example:
        >>> iris().class_names
        ('setosa', 'versicolor', 'virginica')
    """
    return _from_sklearn("iris", settings)


def wine(**settings: Unpack[SplitSettings]) -> Splits:
    """Load wine: 178 wines of 3 growers by 13 chemical measurements, of very different scales.

    Args:
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 13) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.

    Reference:
        Aeberhard & Forina, "Wine", UCI Machine Learning Repository, 1991, as `sklearn.datasets.load_wine`.

    Example:
        >>> wine(standardize=True).train.inputs.shape
        torch.Size([118, 13])
    """
    return _from_sklearn("wine", settings)


def breast_cancer(**settings: Unpack[SplitSettings]) -> Splits:
    """Load breast cancer: 569 tumours, malignant (0) or benign (1), by 30 measurements of very different scales.

    Args:
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 30) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.

    Reference:
        Wolberg et al., "Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning Repository, 1993, as
        `sklearn.datasets.load_breast_cancer`.

    Example:
        >>> breast_cancer().class_names
        ('malignant', 'benign')
    """
    return _from_sklearn("breast_cancer", settings)


def waveform(path: str | os.PathLike[str], **settings: Unpack[SplitSettings]) -> Splits:
    """Load waveform: 5 000 made rows of 3 classes, each a mixture of two of three waves, by 21 values with noise.

    Args:
        path: the file, plain or .gz: 21 numbers and the class, separated by commas, in each line.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 21) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read, or is no such table.

    Reference:
        Breiman, Friedman, Olshen & Stone, "Classification and Regression Trees", 1984, pages 49-55 and 169.
    """
    check_settings(settings)
    file = found_file(path)
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        # some copies have tabs inside of cells
        lines = content.decode("ascii").replace("\t", "").split()
        table = np.loadtxt(lines, delimiter=",", ndmin=2) if lines else np.empty((0, 0))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{file} is damaged, or no table of numbers: {error}") from error
    if table.shape[1] != _WAVEFORM_COLUMNS:
        raise DataError(f"{file} must have {_WAVEFORM_COLUMNS} columns, got {table.shape[1]}")
    return make_splits(table[:, :-1], table[:, -1], name="waveform", **settings)


def checkerboard(
    *,
    n_rows: int = 10_000,
    grid_size: int = 4,
    positive_fraction: float = 0.8,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Make a checkerboard: points in the plane, class 1 on one colour of its squares and class 0 on the other.

    `seed` draws the points as well as the split. In source order the rows of class 0 come first.

    Args:
        n_rows: number of points.
        grid_size: number of squares along a side; each has side 1.
        positive_fraction: share of class 1, rounded to whole rows. A class is spread evenly over its squares.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 2) float32 in [0, grid_size].

    Raises:
        ConfigError: a setting is unknown or impossible, or a class would have no row.

    Reference:
        google/active-learning, `utils.create_checker_unbalanced`, whose `split` is (1 - positive_fraction,
        positive_fraction). Deviations: exactly n_rows rows, where it rounds down in every square; the share holds for
        an odd grid_size too; the points come from the seed.

    Example:
        >>> data = checkerboard(n_rows=600, grid_size=2, positive_fraction=0.25)
        >>> data.train.inputs.shape, data.n_classes
        (torch.Size([400, 2]), 2)
    """
    check_settings(settings, "n_rows", "grid_size", "positive_fraction")
    for what, value, least in (("n_rows", n_rows, 2), ("grid_size", grid_size, 2)):
        check_whole(what, value, least=least)
    n_positive = round(n_rows * positive_fraction) if 0 < positive_fraction < 1 else 0
    if not 0 < n_positive < n_rows:
        raise ConfigError(
            f"positive_fraction must give each class at least one of {n_rows} rows, got {positive_fraction!r}"
        )
    seed = settings.get("seed", 0)
    check_whole("seed", seed, least=0)
    generator = np.random.default_rng([seed, 1])  # another stream than the split, which is drawn from the seed alone
    labels = np.repeat([0, 1], [n_rows - n_positive, n_positive])
    i, j = np.indices((grid_size, grid_size)).reshape(2, -1)
    corners = []
    for label, count in ((0, n_rows - n_positive), (1, n_positive)):
        squares = np.stack([i, j], axis=1)[(i - j) % 2 == 1 - label]
        corners.append(squares[np.arange(count) % len(squares)])
    inputs = np.concatenate(corners) + generator.random((n_rows, 2))
    return make_splits(inputs, labels, name="checkerboard", **settings)


def _from_sklearn(name: str, settings: SplitSettings) -> Splits:
    check_settings(settings)
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    return make_splits(
        bunch.data, bunch.target, name=name, class_names=[str(each) for each in bunch.target_names], **settings
    )
