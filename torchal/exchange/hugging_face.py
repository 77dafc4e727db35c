"""Hugging Face: data sets that `datasets` loads, image folders, and records of Argilla, out and in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torchal._checks import check_installed
from torchal._records import as_plain, write_atomically
from torchal.errors import ConfigError, DataError
from torchal.exchange.answers import Answers, Collector, text_of
from torchal.exchange.files import read_bytes, read_json, write_json
from torchal.exchange.questions import Question, check_questions, images_of
from torchal.exchange.tables import as_parquet, rows_of, write_csv

_METADATA = ("rank", "score", "picked_by", "nearest_id", "nearest_label", "distance", "represents", "x", "y")


def write_dataset(questions: Sequence[Question], folder: str | Path) -> Path:
    """Write questions as a folder that `datasets.load_dataset(folder)` reads, and the Hub shows: Parquet inside.

    The columns are those of `write_csv`; "label" is empty. The folder may be there already; the file in it is replaced.

    Returns:
        The folder.

    Raises:
        DataError: no questions, or an id that is empty, repeated, or has blanks around it.
        MissingExtraError: pyarrow is not installed.
    """
    content, folder = as_parquet(questions), Path(folder)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "data" / "train-00000-of-00001.parquet", content)
    return folder


def write_image_folder(questions: Sequence[Question], folder: str | Path) -> Path:
    """Write `metadata.csv` into a folder of images, by which `datasets` loads them as an image folder.

    The columns are "file_name", the image's place in the folder, and those of `write_csv`.

    Args:
        questions: what is asked; each has an image, whose path is from this folder.
        folder: where the images are.

    Returns:
        The file.

    Raises:
        DataError: no questions, ids that are empty or repeated, a question without an image or two with the same, or an
            image that is not in the folder.
    """
    check_questions(questions)
    for name in images_of(questions):
        if not (Path(folder) / name).is_file():
            raise DataError(f"there is no image {name!r} in {folder}")
    return write_csv(questions, Path(folder) / "metadata.csv", renamed={"image": "file_name"})


def read_dataset(folder: str | Path, *, id_column: str = "id", label_column: str = "label") -> Answers:
    """Read the answers in a data set: a folder with Parquet, or one that `Dataset.save_to_disk` wrote.

    Args:
        folder: where it is.
        id_column: the column of ids.
        label_column: the column of labels; numbers of a `ClassLabel` become its names.

    Raises:
        DataError: the folder holds no data set, or its files cannot be read, or contradict each other; one error names
            all that is wrong.
        MissingExtraError: pyarrow is not installed.
    """
    check_installed("pyarrow", extra="tables")
    folder = Path(folder)
    names = (id_column, label_column)
    found = Collector(folder)
    if (folder / "state.json").is_file():
        files = _arrow_files(folder)
        tables: list[Any] = [_arrow_table(file) for file in files]
    else:
        files = sorted(folder.rglob("*.parquet"))
        tables = [_parquet_table(file, names) for file in files]
    if not files:
        raise DataError(f"{folder} holds no data set: no Parquet files, and no state.json as save_to_disk writes it")
    for file, table in zip(files, tables, strict=True):
        missing = [name for name in names if name not in table.column_names]
        if missing:
            there = ", ".join(map(repr, table.column_names[:40]))
            found.problem(f"{file.name} has no column {', '.join(map(repr, missing))}; there are {there}")
            continue
        try:
            rows = list(rows_of(table, names))
        except ValueError as error:  # as text that is none
            found.problem(f"{file.name} cannot be read: {error}")
            continue
        for i, (row, label) in enumerate(rows):
            found.add(row, label, where=f"row {i} of {file.name}")
    return found.answers()


def _arrow_files(folder: Path) -> list[Path]:
    state = read_json(folder / "state.json", dict)
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if wrong or not names or state.get("_indices_data_files"):
        raise DataError(f"{folder} is no plain data set: call flatten_indices() before save_to_disk")
    return [folder / str(name) for name in names]


def _arrow_table(file: Path) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()  # nothing is read before it is looked at
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} is no Arrow file that can be read: {error}") from error


def _parquet_table(file: Path, names: tuple[str, str]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        there = opened.schema_arrow.names
        # beside these may be pictures; with none of them, all are read for their names
        return opened.read(columns=[name for name in there if name in names] or None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} is no Parquet file that can be read: {error}") from error


def write_argilla(
    questions: Sequence[Question], path: str | Path, *, agent: str | None = None, question: str = "label"
) -> Path:
    """Write questions as records of Argilla 2: a list that its `records.from_json` takes (.json), or lines (.jsonl).

    A record has the row's id, its text or image as field, what is known of it as metadata, and the predicted class as a
    suggestion.

    Args:
        questions: what is asked; each has a text or an image (an address).
        path: the file, replaced as a whole or not at all.
        agent: what suggestions are said to come from; "torchal" unless given.
        question: the name of the LabelQuestion in Argilla's settings.

    Returns:
        The path.

    Raises:
        ConfigError: another ending.
        DataError: no questions, ids that are empty or repeated, or a question without a text or an image.
    """
    check_questions(questions)
    ending = Path(path).suffix.lower()
    if ending not in {".json", ".jsonl"}:
        raise ConfigError(f"records are written to .json or .jsonl, got {str(path)!r}")
    records = [_record(one, agent or "torchal", question) for one in questions]
    if ending == ".json":
        return write_json(records, path)
    lines = "".join(json.dumps(as_plain(record), ensure_ascii=False) + "\n" for record in records)
    write_atomically(Path(path), lines.encode())
    return Path(path)


def _record(asked: Question, agent: str, name: str) -> dict[str, Any]:
    fields = {key: getattr(asked, key) for key in ("text", "image") if getattr(asked, key) is not None}
    if not fields:
        raise DataError(f"the question {asked.id!r} has neither a text nor an image")
    suggestions = {}
    if asked.predicted is not None:
        suggestions[name] = {"value": asked.predicted, "score": asked.probability, "agent": agent}
    return {
        "id": asked.id,
        "fields": fields,
        "metadata": {key: getattr(asked, key) for key in _METADATA if getattr(asked, key) is not None},
        "suggestions": suggestions,
        "responses": {},
        "vectors": {},
    }


def read_argilla(path: str | Path, *, question: str = "label") -> Answers:
    """Read the answers in records of Argilla 2, as `records.to_json` writes them (.json), or one in a line (.jsonl).

    Each response is one entry of its user. A record without one is an entry without a label. Argilla's files do not say
    which records were discarded; where a response has the status "discarded", as its server's answers have, it is
    `skipped`.

    Args:
        path: the file.
        question: the name of the LabelQuestion.

    Raises:
        DataError: the file is no such list; one error names all that is wrong with it: records without an id,
            responses that are not one label, several responses of one user that differ.
    """
    path = Path(path)
    found = Collector(path)
    records = _lines(path, found) if path.suffix.lower() == ".jsonl" else enumerate(read_json(path, list))
    for i, record in records:
        where = f"record {i}"
        responses = record.get("responses") or {} if isinstance(record, dict) else None
        given = responses.get(question) or [] if isinstance(responses, dict) else None
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            found.problem(f"{where} is no record with responses to {question!r}: {record!r:.80}")
            continue
        if not given:
            found.add(record.get("id"), None, where=where)
        for response in given:
            by, value = text_of(response.get("user_id")), response.get("value")
            if isinstance(value, list | dict):
                found.problem(f"a response in {where} is not one label: {value!r:.80}")
                continue
            skipped = response.get("status") == "discarded"
            found.add(record.get("id"), None if skipped else value, where=where, by=by, skipped=skipped)
    return found.answers()


def _lines(path: Path, found: Collector) -> Iterator[tuple[int, Any]]:
    for i, line in enumerate(read_bytes(path).splitlines()):
        if line.strip():
            try:
                yield i, json.loads(line)
            except (ValueError, RecursionError) as error:
                found.problem(f"line {i + 1} is no JSON: {error}")
