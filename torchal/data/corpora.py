"""Large published collections of documents."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag, check_installed
from torchal.data.cut import SplitSettings, check_settings, with_official_test
from torchal.data.libsvm import found_file
from torchal.data.splits import Splits, split_fitted
from torchal.data.texts import split_documents
from torchal.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_RCV1_FILES = ("lyrl2004_vectors_train.dat", *(f"lyrl2004_vectors_test_pt{i}.dat" for i in range(4)))
_RCV1_TOPICS = "rcv1v2.topics.qrels"
_RCV1_TOP = ("CCAT", "ECAT", "GCAT", "MCAT")
_RCV1_COLUMNS = 47_236
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, UnicodeDecodeError, ValueError)


def newsgroup(
    path: str | os.PathLike[str],
    *,
    official_test: bool = False,
    max_features: int | None = None,
    n_components: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load 20 Newsgroups: 18 846 messages of 20 groups, without their headers, as tf-idf.

    Source rows count the 11 314 official training messages first, by group and number, then the 7 532 official test
    messages.

    Args:
        path: 20news-bydate.tar.gz, which is read as it is.
        official_test: take the official test messages as the test part.
        max_features: keep only the most frequent words of the training part.
        n_components: give so many principal directions of the training part's words, as dense rows, in their place.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the archive is missing, damaged or another one.

    Reference:
        Lang, "NewsWeeder: Learning to Filter Netnews", ICML 1995. Deviation from google/active-learning: tf-idf is
        fitted on the training part, not on all messages.
    """
    check_settings(settings, "official_test", "max_features", "n_components")
    check_flag("official_test", official_test)
    path = Path(path).expanduser()
    found: dict[tuple[str, ...], str] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.name.count("/") == 2 else None
                if opened is not None:
                    text = opened.read().decode("latin-1").replace("\r\n", "\n")
                    found[tuple(member.name.split("/"))] = text.partition("\n\n")[2]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged or not a .tar.gz archive: {error}") from error
    train = sorted(key for key in found if key[0] == "20news-bydate-train")
    test = sorted(key for key in found if key[0] == "20news-bydate-test")
    if not train or not test:
        raise DataError(f"{path} must have messages in 20news-bydate-train and 20news-bydate-test")
    return split_documents(
        [found[key] for key in (*train, *test)],
        np.array([key[1] for key in (*train, *test)]),
        name="newsgroup",
        max_features=max_features,
        n_components=n_components,
        n_train=len(train) if official_test else None,
        **settings,
    )


def rcv1(path: str | os.PathLike[str], *, official_test: bool = False, **settings: Unpack[SplitSettings]) -> Splits:
    """Load RCV1-v2: news as tf-idf of 47 236 words, those with a single one of the four topics at the top.

    The topics are CCAT (companies), ECAT (economics), GCAT (government, society) and MCAT (markets). Of the 804 414
    documents, which have several topics, those with none or several of the four are left out.

    Args:
        path: the folder with lyrl2004_vectors_train.dat, lyrl2004_vectors_test_pt0.dat to pt3.dat and
            rcv1v2.topics.qrels, each plain or .gz.
        official_test: take the official test documents, those after the first file, as the test part.
        settings: how to choose and split the rows; see `SplitSettings`. Source rows count the documents that are left,
            in the order of the files.

    Returns:
        Splits with `SparseInputs`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file is missing, damaged or another one.

    Reference:
        Lewis, Yang, Rose & Li, "RCV1: A New Benchmark Collection for Text Categorization Research", JMLR 2004.
    """
    check_settings(settings, "official_test")
    check_flag("official_test", official_test)
    folder = Path(path).expanduser()
    topics = _top_topics(found_file(folder / _RCV1_TOPICS))
    parts = [_vectors(found_file(folder / name)) for name in _RCV1_FILES]
    labels = [np.array([topics.get(int(each), "") for each in numbers]) for _, numbers in parts]
    single = [np.isin(each, _RCV1_TOP) for each in labels]
    if not any(each.any() for each in single):
        raise DataError(f"{folder} has no document with a single one of the topics {', '.join(_RCV1_TOP)}")
    from scipy.sparse import vstack

    matrix = vstack([part[is_one] for (part, _), is_one in zip(parts, single, strict=True)], format="csr")
    classes = np.concatenate([each[is_one] for each, is_one in zip(labels, single, strict=True)])
    if official_test:
        settings = with_official_test(classes, int(single[0].sum()), test_limit=None, settings=settings)
    return split_fitted(classes, lambda _: matrix, name="rcv1", **settings)


def wikipedia_attack(
    path: str | os.PathLike[str],
    *,
    max_features: int | None = 30_000,
    n_components: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load Wikipedia's talk pages: 115 864 comments, personal attacks or not, as tf-idf of words and pairs of words.

    A comment is an attack where more than half of those who rated it say so.

    Args:
        path: the folder with attack_annotated_comments.tsv and attack_annotations.tsv, each plain or .gz.
        max_features: keep only the most frequent words and pairs of the training part.
        n_components: give so many principal directions of the training part's words, as dense rows, in their place.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs` and the classes "no" and "attack".

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file is missing, damaged or another one, or a comment was not rated.
        MissingExtraError: pandas is not installed.

    Reference:
        Wulczyn, Thain & Dixon, "Ex Machina: Personal Attacks Seen at Scale", WWW 2017. Deviations from
        google/active-learning: ratings are joined to comments by their number, not by their order, and tf-idf is fitted
        on the training part.
    """
    check_settings(settings, "max_features", "n_components")
    check_installed("pandas", extra="tables")
    folder = Path(path).expanduser()
    comments = _tsv(found_file(folder / "attack_annotated_comments.tsv"), ("rev_id", "comment"))
    ratings = _tsv(found_file(folder / "attack_annotations.tsv"), ("rev_id", "attack"))
    try:
        is_attack = ratings["attack"].astype(float).groupby(ratings["rev_id"]).mean() > 0.5
    except ValueError as error:
        raise DataError(f"{folder}/attack_annotations.tsv: attack must be a number: {error}") from error
    unrated = ~comments["rev_id"].isin(is_attack.index)
    if unrated.any():
        raise DataError(
            f"{folder}: {int(unrated.sum())} comments were not rated, as {comments['rev_id'][unrated].iloc[0]}"
        )
    labels = is_attack[comments["rev_id"]].to_numpy().astype(np.int64)
    documents = [
        text.replace("NEWLINE_TOKEN", " ").replace("TAB_TOKEN", " ") for text in comments["comment"].astype(str)
    ]
    return split_documents(
        documents,
        np.array(["0 no", "1 attack"])[labels],
        name="wikipedia_attack",
        max_features=max_features,
        n_components=n_components,
        class_names=("no", "attack"),
        pairs=True,
        **settings,
    )


def _top_topics(path: Path) -> dict[int, str]:
    """Return the topic at the top of each document that has a single one."""
    found: dict[int, str] = {}
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("ascii")
        for line in text.splitlines():
            topic, number, *_ = line.split()
            if topic in _RCV1_TOP:
                found[int(number)] = "" if int(number) in found else topic
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged, or not of topic, document and 1 in each line: {error}") from error
    return found


def _vectors(path: Path) -> tuple[Any, NDArray[np.float64]]:
    """Return the rows of a file, and the numbers of their documents."""
    from sklearn.datasets import load_svmlight_file

    try:
        matrix, numbers = load_svmlight_file(str(path), dtype=np.float32, n_features=_RCV1_COLUMNS, zero_based=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (*_DAMAGED, OverflowError, IndexError, MemoryError, TypeError) as error:
        raise DataError(f"{path} is not in LIBSVM's format, or damaged: {' '.join(str(error).split())}") from error
    if not (np.isfinite(numbers).all() and np.isfinite(matrix.data).all()):
        raise DataError(f"{path} has numbers that are not finite")
    return matrix, numbers


def _tsv(path: Path, columns: tuple[str, ...]) -> Any:
    """Return some columns of a table that is separated by tabs."""
    import pandas as pd

    try:
        return pd.read_csv(path, sep="\t", usecols=list(columns), keep_default_na=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (*_DAMAGED, OverflowError) as error:  # pandas' errors of parsing are ValueErrors
        raise DataError(f"{path} is damaged, or has no columns {', '.join(columns)}: {error}") from error
