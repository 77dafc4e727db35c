"""What is to be labeled, read from files: embeddings, a table, texts or images, as features with ids."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchal._checks import check_installed
from torchal.data.columns import Encoder, index_column, read_column
from torchal.data.csv_text import BREAK, MISSING, Names, one_line, read_csv_text
from torchal.data.tables import check_encoding
from torchal.errors import ConfigError, DataError
from torchal.exchange.answers import text_of

_SHOWN = 5  # of a long list, in an error
_N_COMPONENTS = 100  # of texts
_MOST_WORDS = 20_000
_MIN_FREQUENCY, _MAX_CATEGORIES = 2, 50  # of a table's words; see torchal.data.tables.TableSettings
_BATCH = 64  # images at once
_HASHED = 1 << 24  # bytes at once
_WHOLE = re.compile(r"-?\d+\.0")


@dataclass
class Source:
    """Rows that may be asked for.

    Attributes:
        kind: features, table, texts or images.
        ids: what each row is called; distinct.
        features: (N, D) float32 or float64.
        digests: of each row as it came in, or one of all rows, to know them again.
        texts: to be read, where rows are texts.
        images: files, where rows are pictures.
        labels: what stands in the target column of a table or of texts, blank where there is none.
        notes: what became of the input, for people.
        left_out: ids of rows that cannot be asked for, and whose labels are not looked at.
        cells: a DataFrame of what stands in each row, where rows are those of a table.
    """

    kind: str
    ids: list[str]
    features: Tensor
    digests: list[str]
    texts: list[str] | None = None
    images: list[str] | None = None
    labels: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cells: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def text_of(self, row: int) -> str | None:
        """Return what a person reads to label a row: its text, or what stands in its columns; None where neither is."""
        if self.texts is not None:
            return self.texts[row]
        if self.cells is None:
            return None
        there = zip(map(str, self.cells.columns), _texts(self.cells.iloc[row]), strict=True)
        return "; ".join(f"{name}: {cell}" for name, cell in there if cell)


def read_features(path: Path, *, ids: Path | None, id_column: str | None) -> Source:
    """Read the features of rows from a .npy file.

    Raises:
        DataError: it is no matrix of finite numbers; ids that repeat, or are not as many.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is no .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "biuf" or 0 in array.shape:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"{path} must have numbers of rows and columns, (N, D), got {found}")
    digest = _digest_of(array)
    dtype = np.float64 if array.dtype.kind in "biuf" and array.dtype.itemsize > 4 else np.float32
    features = torch.from_numpy(np.array(array, dtype=dtype, order="C"))
    if not bool(torch.isfinite(torch.stack(features.aminmax())).all()):
        bad = (~torch.isfinite(features)).any(1)
        raise DataError(
            f"{path} must be finite: {int(bad.sum())} of {len(bad)} rows are not, the first is row "
            f"{int(bad.nonzero()[0])}"
        )
    names = _read_ids(ids, id_column, n_rows=len(features)) if ids is not None else _numbers(len(features))
    return Source("features", names, features, [digest])


def read_table(
    path: Path,
    *,
    target: str | None,
    id_column: str | None,
    columns: Sequence[str] | None,
    categorical: Sequence[str] = (),
    missing: Sequence[str] = (),
    encoding: str = "utf-8",
) -> Source:
    """Read the rows of a CSV or Parquet file, and make numbers of its columns.

    Numbers with blanks get their median and a column that says where; words become columns of 0 and 1. All columns are
    brought to mean 0 and standard deviation 1.

    Args:
        path: of the file.
        target: the column of the labels.
        id_column: the column of the ids; one named id where None.
        columns: those of the features; all others where None.
        categorical: columns whose numbers are names.
        missing: words that stand for a blank, beside the usual ones.
        encoding: of a CSV file.

    Raises:
        MissingExtraError: pandas is not installed.
        DataError: the file cannot be read, no column is left, or ids repeat.
    """
    check_installed("pandas", extra="tables")
    check_encoding(encoding)
    frame, cells, names = _read_frame(path, encoding)
    blanks = frozenset([*MISSING, *missing])
    named = {names.column("--categorical", each) for each in categorical}
    id_at = _id_of(names, id_column)
    target_at = None if target is None else names.column("--target", target)
    left_out: dict[str, str] = {}
    if id_at is not None:
        left_out[names.name_of(id_at)] = "the ids"
    elif target_at != 0:
        left_out |= {names.name_of(i): why for i, why in index_column(frame.iloc[:, 0], names, blanks).items()}
    wanted = None if columns is None else {names.column("--columns", each) for each in columns}
    read = {}
    for i in range(names.n_columns):
        if i in (id_at, target_at) or names.name_of(i) in left_out or (wanted is not None and i not in wanted):
            continue
        read[i] = read_column(frame.iloc[:, i], i, names, blanks, is_text=i in named)
    if not read:
        raise DataError(f"{path}: no column of features is left; {names.known_columns()}")
    encoder = Encoder(names, read, min_frequency=_MIN_FREQUENCY, max_categories=_MAX_CATEGORIES)
    values = encoder(np.arange(len(frame)))
    about = encoder.about(left_out) or {}
    notes = [f"Left out: {name} ({why})." for name, why in about.get("left_out", {}).items()]
    notes += [f"Words made columns of 0 and 1: {name}." for name in about.get("one_hot", {})]
    notes += [
        f"Blanks became the median: {name} ({told['missing']} rows)." for name, told in about.get("imputed", {}).items()
    ]
    labels = None if target_at is None else _labels(_texts(cells.iloc[:, target_at]), blanks)
    digests = _digests_of(cells.iloc[:, [i for i in range(names.n_columns) if i != target_at]])
    shown = cells.iloc[:, [i for i in range(names.n_columns) if i not in (id_at, target_at)]]
    shown.columns = [names.name_of(i) for i in range(names.n_columns) if i not in (id_at, target_at)]
    ids = _numbers(len(frame)) if id_at is None else _distinct(path, names.name_of(id_at), _texts(cells.iloc[:, id_at]))
    return Source("table", ids, _standardized(values), digests, labels=labels, notes=notes, cells=shown)


def read_texts(
    path: Path, *, column: str | None, target: str | None, id_column: str | None, encoding: str = "utf-8"
) -> Source:
    """Read texts from a column of a CSV file, or the lines of a .txt file, as the principal directions of their words.

    A text that is empty is no row; the others keep their ids, and the numbers of their lines.

    Args:
        path: of the file.
        column: that of the texts; the only one that is left where None.
        target: that of the labels.
        id_column: that of the ids; one named id where None.
        encoding: of the file.

    Raises:
        DataError: the file cannot be read, has no such column, or no words; ids repeat.
        ConfigError: it is not clear which column has the texts, or lines are to have labels.
    """
    check_encoding(encoding)
    ids: list[str] | None = None
    labels: list[str] | None = None
    if path.suffix.lower() == ".txt":
        if target is not None:
            raise ConfigError(f"--target is a column, and {path} has lines; give labels of lines by --labels")
        texts = _read_lines(path, encoding)
    else:
        table = read_csv_text(path, header=True, delimiter=None, decimal=".", encoding=encoding)
        id_at = _id_of(table, id_column)
        target_at = None if target is None else table.column("--target", target)
        others = [i for i in range(table.n_columns) if i not in (id_at, target_at)]
        if column is None and len(others) != 1:
            raise ConfigError(f"{path}: say which column has the texts by --column; {table.known_columns()}")
        at = others[0] if column is None else table.column("--column", column)
        if target_at in (at, id_at) and target_at is not None:
            raise ConfigError(f"{path}: --target is to be a column of its own, and {target} has the texts or the ids")
        cells = [line.split(table.delimiter) for line in table.lines]
        texts = [row[at].strip().replace(BREAK, "\n") for row in cells]
        ids = None if id_at is None else _distinct(path, table.name_of(id_at), [row[id_at].strip() for row in cells])
        labels = None if target_at is None else _labels([row[target_at].strip() for row in cells], MISSING)
    ids = ids or _numbers(len(texts))
    there = [row for row, text in enumerate(texts) if text]
    notes: list[str] = []
    left_out: list[str] = []
    if len(there) < len(texts):
        notes.append(f"Left out: {len(texts) - len(there)} of {len(texts)} texts, which are empty.")
        left_out = [name for name, text in zip(ids, texts, strict=True) if not text]
        texts, ids = [texts[row] for row in there], [ids[row] for row in there]
        labels = None if labels is None else [labels[row] for row in there]
    features, note = _words(path, texts)
    digests = [_hash(text) for text in texts]
    notes = [note, *notes]
    return Source("texts", ids, features, digests, texts=texts, labels=labels, notes=notes, left_out=left_out)


def read_images(
    folder: Path, *, weights: Path, backbone: str | None, size: int, normalize: str = "imagenet", cache: Path
) -> Source:
    """Find the images of a folder, and embed them by a network.

    Args:
        folder: with image files in it or further below; their paths from here are the ids.
        weights: a module saved by torch.export or as TorchScript, whose answer is the embedding; or the weights of one
            of torchvision's networks, of which it is what goes into the last linear layer.
        backbone: the name of that network.
        size: the shorter side of images is scaled to so many pixels, and the middle square is taken.
        normalize: "imagenet" has pixels from 0 to 1 brought to the mean and deviation of ImageNet's, as torchvision's
            networks learned from them; "none" leaves them.
        cache: where the embedding is kept; it goes on where it was stopped.

    Raises:
        MissingExtraError: torchvision is not installed.
        DataError: there are no images, one cannot be read, the weights are no network's, or it refuses such images.
    """
    from torchal.data.vision_files import ImageFiles, images_below
    from torchal.embedding import embed

    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files = images_below(folder)
    if not files:
        raise DataError(f"{folder} has no image files")
    ids = [file.relative_to(folder).as_posix() for file in files]
    module = _network(weights, backbone)
    told = "\n".join(
        f"{name} {file.stat().st_size} {file.stat().st_mtime_ns}" for name, file in zip(ids, files, strict=True)
    )
    digests = [_hash(line) for line in told.split("\n")]
    out = cache / f"images-{_hash(told + str(size) + _file_digest(weights) + str(backbone) + normalize)}.npy"
    cache.mkdir(parents=True, exist_ok=True)
    images = ImageFiles(files, transform=_preprocessing(size, normalize))
    outputs = embed(module, images, layer="embedding" if backbone is None else None, batch_size=_BATCH, out=out)
    features = torch.from_numpy(np.array(outputs.features)).flatten(1)
    return Source("images", ids, features, digests, images=[str(file) for file in files])


def reordered(source: Source, ids: Sequence[str]) -> Source:
    """Return a source with the rows of these ids first, in this order, and all others behind them.

    Raises:
        DataError: an id is not in it any more.
    """
    place = {name: row for row, name in enumerate(source.ids)}
    gone = [name for name in ids if name not in place]
    if gone:
        raise DataError(f"{len(gone)} of {len(ids)} rows of before are not there any more: {some(gone)}")
    known = set(ids)
    order = [place[name] for name in ids] + [row for row, name in enumerate(source.ids) if name not in known]
    if order == list(range(len(source))):
        return source

    def pick(values: Any) -> Any:
        return None if values is None else [values[row] for row in order]

    digests = source.digests if len(source.digests) != len(source) else pick(source.digests)
    return replace(
        source,
        ids=pick(source.ids),
        features=source.features[order],
        digests=digests,
        texts=pick(source.texts),
        images=pick(source.images),
        labels=pick(source.labels),
        cells=None if source.cells is None else source.cells.iloc[order],
    )


def read_coordinates(path: Path, *, n_rows: int) -> Tensor:
    """Read where rows lie in a map, (N, 2), from a .npy file.

    Raises:
        DataError: it is no such matrix.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is no .npy file of coordinates: {error}") from error
    if not isinstance(array, np.ndarray) or array.shape != (n_rows, 2) or array.dtype.kind not in "biuf":
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"{path} must have two numbers for each of {n_rows} rows, got {found}")
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _read_frame(path: Path, encoding: str) -> tuple[Any, Any, Names]:
    """Return a table as a DataFrame, its cells as they stand in the file, and its names.

    Numbers of a CSV file are read for features alone: an id or a label of 007 stays as it is.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        import pandas as pd

        check_installed("pyarrow", extra="tables")
        try:
            frame = pd.read_parquet(path)
        except FileNotFoundError as error:
            raise DataError(f"there is no file {path}") from error
        except Exception as error:
            raise DataError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from error
        if not len(frame):
            raise DataError(f"{path} has no rows")
        return frame, frame, Names(str(path), [one_line(str(each)) for each in frame.columns], len(frame.columns))
    table = read_csv_text(path, header=None, delimiter=None, decimal=None, encoding=encoding)
    return table.frame([]), table.frame(range(table.n_columns)), table


def _id_of(names: Names, wanted: str | None) -> int | None:
    """Return the column of the ids: the one that is asked for, or one named id."""
    if wanted is not None:
        return names.column("--id", wanted)
    lower = [name.lower() for name in names.names or ()]
    return lower.index("id") if lower.count("id") == 1 else None


def _read_ids(path: Path, id_column: str | None, *, n_rows: int) -> list[str]:
    """Return the ids in the lines of a .txt file, or in a column of a CSV file."""
    if path.suffix.lower() == ".txt":
        ids = _read_lines(path)
    else:
        table = read_csv_text(path, header=True, delimiter=None, decimal=".", encoding="utf-8")
        at = _id_of(table, id_column)
        if at is None:
            if table.n_columns != 1:
                raise ConfigError(f"{path}: say which column has the ids by --id; {table.known_columns()}")
            at = 0
        ids = [line.split(table.delimiter)[at].strip() for line in table.lines]
    if len(ids) != n_rows:
        raise DataError(f"{path} has {len(ids)} ids, there are {n_rows} rows of features")
    return _distinct(path, "the ids", ids)


def _read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
        lines = text.split("\n")  # as editors count them; splitlines cuts at more
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except (UnicodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} has no lines with anything in them")
    if not lines[-1]:
        lines.pop()  # the file's last line ends, too
    return [line.strip() for line in lines]


def _distinct(path: Path, what: str, ids: Any) -> list[str]:
    listed = [str(name).strip() for name in ids]
    blank = [row for row, name in enumerate(listed) if not name]
    if blank:
        raise DataError(f"{path}: {len(blank)} of {len(listed)} rows have no id in {what}, the first is row {blank[0]}")
    twice = [name for name, times in Counter(listed).items() if times > 1]
    if twice:
        raise DataError(f"{path}: ids in {what} must be distinct: {len(twice)} are not, as {some(twice)}")
    return listed


def _numbers(n_rows: int) -> list[str]:
    return [str(row) for row in range(n_rows)]


def _texts(series: Any) -> list[str]:
    """Return the cells of a column as texts without blanks around them, empty where there is nothing."""
    return series.where(series.notna(), None).map(lambda cell: text_of(cell) or "").tolist()  # type: ignore[no-any-return]


def _labels(cells: Sequence[str], blanks: Collection[str]) -> list[str]:
    """Return the labels of a column, blank where there are none yet."""
    labels = ["" if cell in blanks else cell for cell in cells]
    if all(_WHOLE.fullmatch(label) for label in set(labels) - {""}):  # a gap makes numbers of pandas floats
        return [label.partition(".")[0] for label in labels]
    return labels


def _digests_of(cells: Any) -> list[str]:
    """Return a digest of each row of a DataFrame, which does not depend on the other rows."""
    import pandas as pd

    plain = {
        i: series.astype("float64") if pd.api.types.is_numeric_dtype(series) else _texts(series)
        for i, (_, series) in enumerate(cells.items())
    }
    hashes = pd.util.hash_pandas_object(pd.DataFrame(plain, dtype=None), index=False)
    return [f"{value:016x}" for value in hashes.tolist()]


def _standardized(values: Any) -> Tensor:
    from sklearn.preprocessing import StandardScaler

    return torch.from_numpy(StandardScaler().fit_transform(values).astype(np.float32))


def _words(path: Path, texts: list[str]) -> tuple[Tensor, str]:
    """Return texts as rows of numbers: tf-idf, along its principal directions, scaled to length 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    try:
        words = TfidfVectorizer(max_features=_MOST_WORDS, sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    except ValueError as error:
        raise DataError(f"{path}: the {len(texts)} texts have no words: {error}") from error
    n_components = min(_N_COMPONENTS, min(words.shape) - 1)
    if n_components < 1:
        return torch.from_numpy(words.toarray()), "Texts are read as tf-idf of their words."
    svd = TruncatedSVD(n_components, random_state=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # its share of the variance, where texts are all alike
        features = normalize(svd.fit_transform(words)).astype(np.float32)
    return torch.from_numpy(features), (
        f"Texts are read as tf-idf of {words.shape[1]} words, along {n_components} principal directions."
    )


def _network(weights: Path, backbone: str | None) -> torch.nn.Module:
    """Return a network that is saved as a whole, or one of torchvision with these weights."""
    if not weights.is_file():
        raise DataError(f"there is no file {weights}")
    if backbone is None:
        return _Saved(weights)
    check_installed("torchvision", extra="vision")
    import torchvision

    try:
        module = torchvision.models.get_model(backbone, weights=None)
    except ValueError as error:
        raise ConfigError(f"torchvision has no network {backbone!r}: {error}") from error
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        _take_classes_of(module, state)
        module.load_state_dict(state)
    except Exception as error:
        raise DataError(f"{weights} has no weights of {backbone}: {' '.join(str(error).split())[:300]}") from error
    return module.eval()  # type: ignore[no-any-return]


def _take_classes_of(module: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Give a network last layers of as many classes as the weights have: they are not used, what goes into them is.

    Some have another in a branch for training. A layer that is not the last has one behind it, which then does not fit.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)]
    for name, layer in layers:
        shape = tuple(getattr(state.get(f"{name}.weight"), "shape", ()))
        if len(shape) == 2 and shape[1] == layer.in_features and shape[0] != layer.out_features:
            parent, _, own = name.rpartition(".")
            anew = torch.nn.Linear(layer.in_features, shape[0], layer.bias is not None)
            setattr(module.get_submodule(parent), own, anew)


class _Saved(torch.nn.Module):
    """A module saved by torch.export or as TorchScript, whose answer is the embedding."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self._weights = weights
        self.embedding = torch.nn.Identity()
        try:
            self.saved = _load_script(weights)
        except RuntimeError:
            try:
                self.saved = _load_export(weights)
            except Exception as error:
                raise DataError(
                    f"{weights} is a module neither of torch.export nor of TorchScript; for the weights of one of "
                    "torchvision's networks, name it by --backbone, as --backbone resnet18"
                ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, (n, D).

        Raises:
            DataError: the network refuses the images, or does not answer with numbers for each.
        """
        try:
            answer = self.saved(images)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())[:300]
            raise DataError(
                f"{self._weights} refused {len(images)} images of {' x '.join(map(str, images.shape[1:]))}: {why}. "
                "--size is what it was made for, and torch.export makes it for any number of images by dynamic_shapes"
            ) from error
        if not isinstance(answer, Tensor) or answer.ndim < 2 or len(answer) != len(images):
            what = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
            raise DataError(
                f"{self._weights} is to answer {len(images)} images with their embedding, a tensor ({len(images)}, D), "
                f"and answered with {what}"
            )
        flat: Tensor = self.embedding(answer.flatten(1))
        return flat


def _load_export(weights: Path) -> torch.nn.Module:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # which of a file of another kind would print all that torch tried
    try:
        return torch.export.load(weights).module()
    finally:
        logging.disable(before)


def _load_script(weights: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export follows it; people have such files
        return torch.jit.load(str(weights), map_location="cpu").eval()  # type: ignore[no-any-return]


def _preprocessing(size: int, normalize: str) -> Any:
    """Return what makes of an image what a network takes: a square, for torchvision's with pixels as ImageNet's are."""
    check_installed("torchvision", extra="vision")
    from torchvision.transforms import v2

    steps = [v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.ToDtype(torch.float32, scale=True)]
    if normalize == "imagenet":
        steps.append(v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    return v2.Compose(steps)


def _digest_of(array: Any) -> str:
    """Return a digest of all numbers of a matrix."""
    digest = hashlib.blake2b(f"{array.dtype} {array.shape[1]}".encode(), digest_size=16)
    rows = max(1, _HASHED // max(1, array.shape[1] * array.dtype.itemsize))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(_HASHED):
            digest.update(part)
    return digest.hexdigest()


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def some(names: Iterable[str]) -> str:
    """Return the first few of some names, each once."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(map(repr, distinct[:_SHOWN])) + more
