"""COCO: images and the class of each as a whole, out and in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchal.errors import DataError
from torchal.exchange.answers import Answers, Collector, ImageNames
from torchal.exchange.files import read_json, write_json
from torchal.exchange.questions import Question, check_questions, classes_of, images_of

_KNOWN = ("rank", "score", "picked_by", "nearest_id", "nearest_label", "distance", "represents", "predicted")


def write_coco(
    questions: Sequence[Question], path: str | Path, *, classes: Sequence[str], image_folder: str | Path | None = None
) -> Path:
    """Write questions as a COCO file: their images, the classes as categories, and no annotations yet.

    What is known of a row, its predicted class too, stands in the `attributes` of its image; answers are annotations of
    an image and a category without a box, as in the camera trap data sets.

    Args:
        questions: what is asked; each has an image.
        path: the file, replaced as a whole or not at all.
        classes: names of the categories, whose numbers are from 1 in this order.
        image_folder: where the images are, for their widths and heights; those are left out unless given.

    Returns:
        The path.

    Raises:
        DataError: no questions, ids that are empty or repeated, a question without an image or two with the same, or an
            image that cannot be opened.
    """
    check_questions(questions)
    names = images_of(questions)
    images = []
    for i, (question, name) in enumerate(zip(questions, names, strict=True), 1):
        size = (
            {} if image_folder is None else dict(zip(("width", "height"), image_size(image_folder, name), strict=True))
        )
        known = {key: getattr(question, key) for key in (*_KNOWN, "probability") if getattr(question, key) is not None}
        images.append({"id": i, "file_name": name, **size, "attributes": {"row_id": question.id, **known}})
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(classes_of(classes), 1)]
    info = {"description": "Questions to be answered by one category for each image", "version": "1.0"}
    return write_json(
        {"info": info, "licenses": [], "images": images, "categories": categories, "annotations": []}, path
    )


def image_size(folder: str | Path, name: str) -> tuple[int, int]:
    """Return the width and height of an image, of which only the first bytes are read.

    Raises:
        DataError: there is no such image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(folder) / name) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"the image {Path(folder) / name} cannot be opened: {error}") from error
    return width, height


def read_coco(path: str | Path, *, questions: Sequence[Question] | None = None) -> Answers:
    """Read the category of each image in a COCO file.

    Annotations with a box count as those without. An image without an annotation is an entry without a label.

    Args:
        path: the file.
        questions: those that were asked, to find a row by its image's name or the end of it, where the tool dropped the
            attributes of images; without them, the id is the attribute "row_id", else the name of the file.

    Raises:
        DataError: the file is no COCO; one error names all that is wrong with it: images without a name, annotations of
            unknown images or categories, an image of two categories.
    """
    found, names = Collector(Path(path)), ImageNames(questions)
    content = read_json(path, dict)
    lists = {key: content.get(key) for key in ("images", "categories", "annotations")}
    for key, entries in lists.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            found.problem(f"{key!r} must be a list of objects, got {entries!r:.80}")
    if found.n_problems:
        return found.answers()
    images = _named(lists["images"] or [], "image", "file_name", found)
    categories = _named(lists["categories"] or [], "category", "name", found)
    rows: dict[Any, str] = {}
    for entry in lists["images"] or []:
        name, attributes = images.get(_key(entry)), entry.get("attributes")
        if name is None:
            continue
        where = f"image {entry['id']}"
        kept = attributes.get("row_id") if questions is None and isinstance(attributes, dict) else None
        row = str(kept) if kept is not None else names.id_of(name, where=where, found=found)
        if row is not None:
            rows[_key(entry)] = row
            found.add(row, None, where=where)
    for i, entry in enumerate(lists["annotations"] or []):
        where = f"annotation {entry.get('id', i)}"
        image, category = _key(entry, "image_id"), _key(entry, "category_id")
        if image not in images:
            found.problem(f"{where} is of the image {image!r}, which is not there")
        elif category not in categories:
            found.problem(f"{where} is of the category {category!r}, which is not there")
        elif image in rows:
            found.add(rows[image], categories[category], where=where)
    return found.answers()


def _named(entries: list[dict[str, Any]], kind: str, name: str, found: Collector) -> dict[Any, str]:
    """Return names by their numbers."""
    names: dict[Any, str] = {}
    for i, entry in enumerate(entries):
        key = _key(entry)
        if key is None or not isinstance(entry.get(name), str) or not entry[name].strip():
            found.problem(f"{kind} {i} has no id or no {name}: {entry!r:.100}")
        elif key in names:
            found.problem(f"two entries are the {kind} {key!r}")
        else:
            names[key] = entry[name]
    return names


def _key(entry: dict[str, Any], name: str = "id") -> int | str | None:
    key = entry.get(name)
    return key if isinstance(key, int | str) and not isinstance(key, bool) else None
