"""Documents as tf-idf, which is fitted on the training part alone and stays sparse."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag, check_installed, check_whole
from torchal.data.columns import read_labels
from torchal.data.csv_text import BREAK, MISSING, read_csv_text
from torchal.data.cut import SplitSettings, check_settings, with_official_test
from torchal.data.libsvm import found_file
from torchal.data.splits import Splits, split_fitted
from torchal.data.tables import check_encoding, stem
from torchal.data.values import as_classes
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def sms_spam(
    path: str | os.PathLike[str],
    *,
    max_features: int | None = None,
    n_components: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load the SMS Spam Collection: 5 574 short messages in English, ham or spam, as tf-idf.

    Args:
        path: the file, plain or .gz: a label, a tab and a message in each line.
        max_features: keep only the most frequent words of the training part.
        n_components: give so many principal directions of the training part's words, as dense rows, in their place.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs`, or (N, n_components) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read, or a line has another number of cells.

    Reference:
        Almeida, Gomez Hidalgo & Yamakami, "Contributions to the Study of SMS Spam Filtering: New Collection and
        Results", DocEng 2011.
    """
    check_settings(settings, "max_features", "n_components")
    lines = _lines(found_file(path), n_cells=2)
    lines = lines[1:] if lines[0] == ("Label", "SMS") else lines  # one of its copies names the columns
    labels, documents = zip(*lines, strict=True)
    return split_documents(
        documents, labels, name="sms_spam", max_features=max_features, n_components=n_components, **settings
    )


def reuters_r8(
    path: str | os.PathLike[str],
    *,
    official_test: bool = False,
    max_features: int | None = None,
    n_components: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load the single-label R8 part of Reuters-21578: 7 674 cleaned news of 8 very unequal topics, as tf-idf.

    Source rows count the 5 485 official training documents first, then the 2 189 official test documents.

    Args:
        path: the folder with r8.tsv (or .gz): `train` or `test`, the topic and the text in each line; or with the two
            files that are published: R8.txt, the parts and topics, beside R8.clean.txt, the texts.
        official_test: take the official test documents as the test part.
        max_features: keep only the most frequent words of the training part.
        n_components: give so many principal directions of the training part's words, as dense rows, in their place.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs`, or (N, n_components) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the files cannot be read, or disagree.

    Reference:
        Cardoso-Cachopo, "Improving Methods for Single-label Text Categorization", PhD thesis, 2007; cleaned by Yao,
        Mao & Luo, "Graph Convolutional Networks for Text Classification", AAAI 2019.
    """
    check_settings(settings, "official_test", "max_features", "n_components")
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
        n_components=n_components,
        n_train=n_train if official_test else None,
        **settings,
    )


def texts(
    path: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    text: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    missing: Sequence[str] = MISSING,
    max_features: int | None = None,
    n_components: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load documents of one's own as tf-idf: a column of a CSV file, or files in a folder for each class.

    Args:
        path: a CSV or TSV file, plain or .gz; or a folder of folders, each named after its class, with one document in
            each .txt file.
        target: the column with the labels, by name or number; column 0 unless given, and said where there is a header.
        text: the column with the documents, by name or number; the other one of two columns unless given.
        header: whether the first line of the file names the columns; see `torchal.data.csv`.
        delimiter: between the cells of the file; see `torchal.data.csv`.
        encoding: of the text.
        missing: labels that mark a row as not labeled.
        max_features: keep only the most frequent words of the training part.
        n_components: give so many principal directions of the training part's words, as dense rows, in their place.
        settings: how to choose and split the rows; see `SplitSettings`.

    Returns:
        Splits with `SparseInputs`, or (N, n_components) float32, named after the file or folder. Rows whose label is
            missing are in `unlabeled`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read; a column is not there; no document has words; there is one class.
        MissingExtraError: a file needs pandas.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "pets.csv"
        ...     _ = file.write_text("kind,said\\n" + 'cat,"purr, purr"\\ndog,bark\\n' * 6)
        ...     data = texts(file, target="kind", text="said")
        >>> data.train.inputs.shape, data.class_names
        ((8, 2), ('cat', 'dog'))
    """
    check_settings(
        settings, "target", "text", "header", "delimiter", "encoding", "missing", "max_features", "n_components"
    )
    check_encoding(encoding)
    if Path(path).expanduser().is_dir():
        if target is not None or text is not None or header is not None or delimiter is not None:
            raise ConfigError(f"{path} is a folder: target, text, header and delimiter are of a file")
        documents, labels, has_label = _in_folders(Path(path).expanduser(), encoding)
    else:
        documents, labels, has_label = _in_columns(
            found_file(path), target, text, header=header, delimiter=delimiter, encoding=encoding, missing=missing
        )
    return split_documents(
        documents,
        labels,
        name=stem(path),
        max_features=max_features,
        n_components=n_components,
        has_label=has_label,
        **settings,
    )


def _in_folders(folder: Path, encoding: str) -> tuple[list[str], NDArray[Any], None]:
    """Return the documents in the folders of the classes, by class and name, and the labels."""
    files = sorted(folder.glob("*/**/*.txt"))
    if not files:
        raise DataError(f"{folder} must have a folder for each class, with its documents in .txt files; it has none")
    documents = []
    for file in files:
        try:
            documents.append(file.read_text(encoding=encoding))
        except (UnicodeError, OSError) as error:
            raise DataError(f"{file} cannot be read as {encoding}: {error}") from error
    return documents, np.array([file.relative_to(folder).parts[0] for file in files]), None


def _in_columns(
    path: Path,
    target: str | int | None,
    text: str | int | None,
    *,
    missing: Sequence[str],
    header: bool | None,
    delimiter: str | None,
    encoding: str,
) -> tuple[list[str], NDArray[Any], NDArray[np.bool_]]:
    """Return the documents in a column of a file, the labels that there are, and which rows have one."""
    check_installed("pandas", extra="tables")
    table = read_csv_text(path, header=header, delimiter=delimiter, decimal=".", encoding=encoding)
    if target is None and table.names is not None:
        raise DataError(f"{table.where}: say which column has the labels by target=; {table.known_columns()}")
    labels_at = table.column("target", 0 if target is None else target)
    if text is None and table.n_columns != 2:
        raise DataError(f"{table.where}: say which column has the documents by text=; {table.known_columns()}")
    text_at = 1 - labels_at if text is None else table.column("text", text)
    if text_at == labels_at:
        raise ConfigError(f"{path}: target and text are the same {table.column_name(text_at)}")
    frame = table.frame(range(table.n_columns))
    labels, has_label = read_labels(frame[labels_at], labels_at, table, frozenset(missing), strict=False)
    return [cell.replace(BREAK, "\n") for cell in frame[text_at]], labels, has_label


def split_documents(
    documents: Sequence[str],
    labels: object,
    *,
    name: str,
    max_features: int | None = None,
    n_components: int | None = None,
    n_train: int | None = None,
    has_label: NDArray[np.bool_] | None = None,
    class_names: Sequence[str] | None = None,
    pairs: bool = False,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Cut documents into parts, as tf-idf of words that is fitted on the training part.

    Args:
        documents: M texts.
        labels: one per document.
        name: what the data set is called.
        max_features: keep only the most frequent words of the training part.
        n_components: give so many principal directions of the training part's words, as dense rows, in their place.
        n_train: how many documents are officially for training, the others for testing; all are split alike unless
            given.
        has_label: documents with a label, (M,), where others are without; `labels` leaves those out.
        class_names: as of `make_splits`.
        pairs: count pairs of neighbouring words too.
        settings: as of `make_splits`; rows have length 1 already.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a document is no text, or no word is in any document for training.
        ShapeError: there is not one label per document.

    Reference:
        `sklearn.feature_extraction.text.TfidfVectorizer` with its defaults, and `sklearn.decomposition.TruncatedSVD`.

    Example:
        >>> texts = ["cats purr", "dogs bark", "a cat sleeps", "the dog runs"] * 3
        >>> data = split_documents(texts, ["cat", "dog"] * 6, name="pets")
        >>> len(data.train.inputs), data.class_names
        (8, ('cat', 'dog'))
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    check_settings(settings, "max_features", "n_components")
    if max_features is not None:
        check_whole("max_features", max_features, least=1)
    if n_components is not None:
        check_whole("n_components", n_components, least=1)
    if not all(isinstance(document, str) for document in documents):
        raise DataError("documents must be texts")
    n_labels = len(documents) if has_label is None else int(has_label.sum())
    classes = as_classes("labels", labels, n_rows=n_labels)
    if n_train is not None:
        settings = with_official_test(classes, n_train, test_limit=None, settings=settings)

    def tf_idf(train_rows: NDArray[Any]) -> Any:
        ngrams = (1, 2 if pairs else 1)
        vectorizer = TfidfVectorizer(max_features=max_features, ngram_range=ngrams, dtype=np.float32)
        try:
            vectorizer.fit([documents[row] for row in train_rows])
        except ValueError as error:
            raise DataError(f"{name}: the {len(train_rows)} documents for training have no words: {error}") from error
        words = vectorizer.transform(documents)
        return words if n_components is None else _principal(words, train_rows, n_components, name)

    data = split_fitted(classes, tf_idf, name=name, class_names=class_names, has_label=has_label, **settings)
    return replace(data, documents=[documents[row] for row in data.train_rows.tolist()])


def _principal(words: Any, train_rows: NDArray[Any], n_components: int, name: str) -> NDArray[np.float32]:
    """Return the rows along the principal directions of those for training (latent semantic analysis)."""
    from sklearn.decomposition import TruncatedSVD

    most = min(len(train_rows), words.shape[1]) - 1
    if n_components > most:
        raise ConfigError(
            f"{name}: n_components must be at most {most}, one less than the {len(train_rows)} documents for training "
            f"and their {words.shape[1]} words; got {n_components}"
        )
    svd = TruncatedSVD(n_components, algorithm="arpack", random_state=0).fit(words[train_rows])
    return np.asarray(svd.transform(words), dtype=np.float32)


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
