"""Label Studio: tasks with predictions out, its exports in, and the page on which people choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from torchal._records import write_atomically
from torchal.errors import DataError
from torchal.exchange.answers import Answers, Collector, text_of
from torchal.exchange.files import read_json, to_xml, write_json
from torchal.exchange.questions import Question, check_questions, classes_of

ROW_ID = "row_id"
"""The field of a task's data with the row's id: "id" is what Label Studio calls its own tasks in JSON-MIN."""

_ELSEWHERE = ("id", "text", "image", "label")  # what of a question is not in a task under its name, or only once


def write_label_studio(
    questions: Sequence[Question],
    path: str | Path,
    *,
    model_version: str | None = None,
    from_name: str = "label",
    to_name: str = "item",
) -> Path:
    """Write questions as tasks that Label Studio imports (JSON), with the predicted class as a prediction.

    What is known of a row stands in its task's data, where the page can show it: rank, picked_by, nearest_label and the
    rest, as they are called in `Question`; the row's id as "row_id". The order of the tasks is the order of the picks.

    Args:
        questions: what is asked; all have a text, or all an image (an address that Label Studio can open).
        path: the file, replaced as a whole or not at all.
        model_version: what predictions are said to come from; "torchal" unless given.
        from_name: the name of the Choices on the page, and of the column in JSON-MIN.
        to_name: the name of what is shown there.

    Returns:
        The path.

    Raises:
        DataError: no questions, ids that are empty or repeated, or a question without a text or an image.
    """
    check_questions(questions)
    kind = _kind_of(questions)
    tasks = []
    for question in questions:
        known = {name: value for name, value in vars(question).items() if value is not None and name not in _ELSEWHERE}
        data = {ROW_ID: question.id, kind: getattr(question, kind), **known}
        tasks.append({"data": data, "predictions": _predictions(question, model_version, from_name, to_name)})
    return write_json(tasks, path)


def _kind_of(questions: Sequence[Question]) -> str:
    for kind in ("text", "image"):
        if all(getattr(question, kind) is not None for question in questions):
            return kind
    lacks = [question.id for question in questions if question.text is None and question.image is None]
    told = f"{len(lacks)} have neither, the first is {lacks[0]!r}" if lacks else "some have the one, some the other"
    raise DataError(f"all questions must have a text, or all an image: {told}")


def _predictions(question: Question, model_version: str | None, from_name: str, to_name: str) -> list[dict[str, Any]]:
    if question.predicted is None:
        return []
    choice = {
        "id": "predicted",
        "from_name": from_name,
        "to_name": to_name,
        "type": "choices",
        "value": {"choices": [question.predicted]},
    }
    score = {} if question.probability is None else {"score": question.probability}
    return [{"model_version": model_version or "torchal", **score, "result": [choice]}]


def label_studio_config(
    classes: Sequence[str], *, shows: str = "text", from_name: str = "label", to_name: str = "item"
) -> str:
    """Return the labeling configuration (XML) of a page with one choice among classes.

    Args:
        classes: their names.
        shows: what the tasks hold, "text" or "image".
        from_name: as in `write_label_studio`.
        to_name: as in `write_label_studio`.

    Raises:
        DataError: no classes, repeated or empty ones, or something else to be shown.

    Example:
        >>> print(label_studio_config(["cat", "dog"]))
        <View>
          <Text name="item" value="$text" />
          <Choices name="label" toName="item" choice="single" required="true">
            <Choice value="cat" />
            <Choice value="dog" />
          </Choices>
        </View>
    """
    if shows not in {"text", "image"}:
        raise DataError(f"shows must be 'text' or 'image', got {shows!r}")
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, shows.capitalize(), {"name": to_name, "value": f"${shows}"})
    settings = {"name": from_name, "toName": to_name, "choice": "single", "required": "true"}
    choices = ElementTree.SubElement(view, "Choices", settings)
    for name in classes_of(classes):
        ElementTree.SubElement(choices, "Choice", {"value": name})
    return to_xml(view)


def write_label_studio_config(
    classes: Sequence[str],
    path: str | Path,
    *,
    shows: str = "text",
    from_name: str = "label",
    to_name: str = "item",
) -> Path:
    """Write what `label_studio_config` returns into a file, and return its path.

    All but the path is as there: `classes`, `shows`, `from_name`, `to_name`.
    """
    config = label_studio_config(classes, shows=shows, from_name=from_name, to_name=to_name)
    write_atomically(Path(path), config.encode())
    return Path(path)


def read_label_studio(path: str | Path, *, from_name: str = "label", row_id: str = ROW_ID) -> Answers:
    """Read the answers in an export of Label Studio, JSON or JSON-MIN.

    Each annotation is one entry of its annotator. A skipped one is `skipped`. A task that nobody has answered is an
    entry without a label, as is an annotation without a choice. JSON-MIN leaves both out, and skipped ones too.

    Args:
        path: the file.
        from_name: the name of the Choices on the page.
        row_id: the field of a task's data with the row's id.

    Raises:
        DataError: the file is no such export; one error names all that is wrong with it: tasks without an id, several
            choices in one annotation, several answers of one person that differ.
    """
    found = Collector(Path(path))
    tasks = read_json(path, list)
    for i, task in enumerate(tasks):
        where = f"task {i}"
        if not isinstance(task, dict):
            found.problem(f"{where} is no object: {task!r:.80}")
        elif "data" in task:
            _read_task(task, where, from_name, row_id, found)
        elif row_id in task:
            choice = _choice(task.get(from_name), where, found)
            found.add(task[row_id], choice, where=where, by=_name_of(task.get("annotator")))
        else:
            found.problem(f"{where} has no {row_id!r}; there are {', '.join(map(repr, list(task)[:20]))}")
    return found.answers()


def _read_task(task: dict[str, Any], where: str, from_name: str, row_id: str, found: Collector) -> None:
    data, annotations = task["data"], task.get("annotations", [])
    if not isinstance(data, dict) or row_id not in data:
        there = ", ".join(map(repr, list(data)[:20])) if isinstance(data, dict) else repr(data)[:80]
        found.problem(f"the data of {where} has no {row_id!r}; there are {there}")
        return
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        found.problem(f"the annotations of {where} are no list of objects")
        return
    if not annotations:
        found.add(data[row_id], None, where=where)
    for j, annotation in enumerate(annotations):
        place = f"annotation {j} of {where}"
        by = _name_of(annotation.get("completed_by"))
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            found.add(data[row_id], None, where=place, by=by, skipped=True)
            continue
        results = annotation.get("result") or []
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            found.problem(f"the result of {place} is no list of objects")
            continue
        ours = [result.get("value") for result in results if result.get("from_name") == from_name]
        if results and not ours:
            others = ", ".join(repr(result.get("from_name")) for result in results[:5])
            found.problem(f"{place} has no result called {from_name!r}; there are {others}")
            continue
        found.add(data[row_id], _choice(ours, place, found), where=place, by=by)


def _choice(value: Any, where: str, found: Collector) -> str | None:
    """Return the one choice in a value of JSON or JSON-MIN; None, and a problem noted, if there are several."""
    chosen = list(_choices(value))
    if len(set(chosen)) > 1:
        found.problem(f"{where} has {len(chosen)} choices, {', '.join(map(repr, chosen[:5]))}; one is wanted")
    return chosen[0] if len(set(chosen)) == 1 else None


def _choices(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        part = left.pop(0)
        if isinstance(part, dict):
            left.insert(0, part.get("choices"))
        elif isinstance(part, list):
            left[:0] = part
        elif part is not None:
            yield str(part)


def _name_of(person: Any) -> str | None:
    """Return what a person is called: the address where it is exported, else the number."""
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return text_of(person)
