"""Labels from the files of labeling tools, and rows to label for these."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from torchal.errors import ConfigError, DataError
from torchal.exchange.answers import Answers
from torchal.exchange.coco import read_coco, write_coco
from torchal.exchange.cvat import read_cvat, write_cvat
from torchal.exchange.hugging_face import read_argilla, read_dataset, write_argilla, write_dataset
from torchal.exchange.label_studio import read_label_studio, write_label_studio, write_label_studio_config
from torchal.exchange.questions import Question
from torchal.exchange.tables import read_answers

_HERE = Path()  # what the paths of images are relative to


def write_for(tool: str, questions: Sequence[Question], out: Path, *, classes: Sequence[str]) -> list[Path]:
    """Write the rows to label for a tool, beside a table; return the files.

    Raises:
        ConfigError: there is no class to choose from yet.
        DataError: the tool takes texts or images, and rows are neither.
    """
    if not classes and tool in {"label-studio", "coco", "cvat"}:
        raise ConfigError(f"{tool} is told the classes, and no label has named one yet: give --classes")
    if tool == "label-studio":
        shows = "image" if questions[0].image is not None else "text"
        tasks = write_label_studio(questions, out.with_suffix(".label-studio.json"))
        return [tasks, write_label_studio_config(classes, out.with_suffix(".label-studio.xml"), shows=shows)]
    if tool == "coco":
        return [write_coco(questions, out.with_suffix(".coco.json"), classes=classes, image_folder=_HERE)]
    if tool == "cvat":
        return [write_cvat(questions, out.with_suffix(".cvat.xml"), classes=classes, image_folder=_HERE)]
    if tool == "argilla":
        return [write_argilla(questions, out.with_suffix(".argilla.jsonl"))]
    return [write_dataset(questions, out.with_suffix(".dataset"))]


def read_labels(path: Path, *, id_column: str, label_column: str) -> Answers:
    """Read labels from a table, or from the export of a tool, which is known by what is in it.

    A .json file is COCO's if it is an object, Argilla's if its records have fields, and else Label Studio's; .jsonl is
    Argilla's, .xml CVAT's, and a folder one of Hugging Face.

    Raises:
        DataError: the file cannot be read; all that is wrong with it is said.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return read_dataset(path, id_column=id_column, label_column=label_column)
    readers: dict[str, Callable[[Path], Answers]] = {".jsonl": read_argilla, ".xml": read_cvat, ".json": _read_json}
    if ending in readers:
        return readers[ending](path)
    return read_answers(path, id_column=id_column, label_column=label_column)


def _read_json(path: Path) -> Answers:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None  # the reader says what is wrong
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if isinstance(content, dict):
        return read_coco(path)
    records = content if isinstance(content, list) else []
    if records and all(isinstance(record, dict) and "fields" in record for record in records):
        return read_argilla(path)
    return read_label_studio(path)
