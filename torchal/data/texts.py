"""Documents as tf-idf, which is fitted on the training part alone and stays sparse."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag, check_whole
from torchal.data.libsvm import found_file
from torchal.data.splits import (
    Splits,
    SplitSettings,
    as_classes,
    check_settings,
    has_explicit_rows,
    split_sparse,
    with_official_test,
)
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def sms_spam(
    path: str | os.PathLike[str], *, max_features: int | None = None, **settings: Unpack[SplitSettings]
) -> Splits:
    """Load the SMS Spam Collection: 5 574 short messages in English, ham or spam, as tf-idf.

    Args:
        path: the file, plain or .gz: a label, a tab and a message in each line.
        max_features: keep only the most frequent words of the training part.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read, or a line has another number of cells.

    Reference:
        Almeida, Gomez Hidalgo & Yamakami, "Contributions to the Study of SMS Spam Filtering: New Collection and
        Results", DocEng 2011.
    """
    check_settings(settings, "max_features")
    lines = _lines(found_file(path), n_cells=2)
    lines = lines[1:] if lines[0] == ("Label", "SMS") else lines  # one of its copies names the columns
    labels, documents = zip(*lines, strict=True)
    return split_documents(documents, labels, name="sms_spam", max_features=max_features, **settings)


def reuters_r8(
    path: str | os.PathLike[str],
    *,
    official_test: bool = False,
    max_features: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load the single-label R8 part of Reuters-21578: 7 674 cleaned news of 8 very unequal topics, as tf-idf.

    Source rows count the 5 485 official training documents first, then the 2 189 official test documents.

    Args:
        path: the folder with r8.tsv (or .gz): `train` or `test`, the topic and the text in each line; or with the two
            files that are published: R8.txt, the parts and topics, beside R8.clean.txt, the texts.
        official_test: take the official test documents as the test part.
        max_features: keep only the most frequent words of the training part.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the files cannot be read, or disagree.

    Reference:
        Cardoso-Cachopo, "Improving Methods for Single-label Text Categorization", PhD thesis, 2007; cleaned by Yao,
        Mao & Luo, "Graph Convolutional Networks for Text Classification", AAAI 2019.
    """
    check_settings(settings, "official_test", "max_features")
    check_flag("official_test", official_test)
    folder = Path(path).expanduser()
    joined = found_file(folder / "r8.tsv")
    if joined.exists() or not (folder / "R8.txt").exists():
        cells = _lines(joined, n_cells=3)
    else:
        about = _lines(folder / "R8.txt", n_cells=3)
        texts = _lines(folder / "R8.clean.txt", n_cells=1)
        if len(about) != len(texts):
            raise DataError(f"{folder}: R8.txt has {len(about)} lines and R8.clean.txt {len(texts)}")
        cells = [(part, topic, text) for (_, part, topic), (text,) in zip(about, texts, strict=True)]
    unknown = {part for part, _, _ in cells} - {"train", "test"}
    if unknown:
        raise DataError(f"{folder}: each document is of train or test, got {', '.join(sorted(unknown))}")
    cells = [cell for cell in cells if cell[0] == "train"] + [cell for cell in cells if cell[0] == "test"]
    n_train = sum(part == "train" for part, _, _ in cells)
    _, labels, documents = zip(*cells, strict=True)
    return split_documents(
        documents,
        labels,
        name="reuters_r8",
        max_features=max_features,
        n_train=n_train if official_test else None,
        **settings,
    )


def split_documents(
    documents: Sequence[str],
    labels: object,
    *,
    name: str,
    max_features: int | None = None,
    n_train: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Cut documents into parts, as tf-idf of words that is fitted on the training part.

    Args:
        documents: M texts.
        labels: one per document.
        name: what the data set is called.
        max_features: keep only the most frequent words of the training part.
        n_train: how many documents are officially for training, the others for testing; all are split alike unless
            given.
        settings: as of `make_splits`; rows have length 1 already.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a document is no text, or no word is in any document for training.
        ShapeError: there is not one label per document.

    Reference:
        `sklearn.feature_extraction.text.TfidfVectorizer` with its defaults.

    Example:
        >>> texts = ["cats purr", "dogs bark", "a cat sleeps", "the dog runs"] * 3
        >>> data = split_documents(texts, ["cat", "dog"] * 6, name="pets")
        >>> len(data.train.inputs), data.class_names
        (8, ('cat', 'dog'))
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    check_settings(settings, "max_features")
    if max_features is not None:
        check_whole("max_features", max_features, least=1)
    if not all(isinstance(document, str) for document in documents):
        raise DataError("documents must be texts")
    classes = as_classes("labels", labels, n_rows=len(documents))
    if n_train is not None:
        if has_explicit_rows(settings):
            raise ConfigError("official_test=True cannot go with explicit rows: they say what the test part is")
        settings = with_official_test(classes, n_train, test_limit=None, settings=settings)

    def tf_idf(train_rows: NDArray[Any]) -> Any:
        vectorizer = TfidfVectorizer(max_features=max_features, dtype=np.float32)
        try:
            vectorizer.fit([documents[row] for row in train_rows])
        except ValueError as error:
            raise DataError(f"{name}: the {len(train_rows)} documents for training have no words: {error}") from error
        return vectorizer.transform(documents)

    return split_sparse(classes, tf_idf, name=name, **settings)


def _lines(path: Path, *, n_cells: int) -> list[tuple[str, ...]]:
    """Return the cells of each line, separated by tabs."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty")
    cells = [tuple(line.split("\t", n_cells - 1)) for line in lines]
    for number, line in enumerate(cells, 1):
        if len(line) != n_cells:
            raise DataError(f"{path}, line {number}: {len(line)} cells, {n_cells} are needed")
    return cells
