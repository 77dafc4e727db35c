"""CVAT for images 1.1: images and the tag of each, out and in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from torchal._records import write_atomically
from torchal.errors import DataError
from torchal.exchange.answers import Answers, Collector, ImageNames
from torchal.exchange.coco import image_size
from torchal.exchange.files import read_xml, to_xml
from torchal.exchange.questions import Question, check_questions, classes_of, images_of

SKIPPED = "cannot label"
"""The tag that says of an image that no class is right."""


def write_cvat(
    questions: Sequence[Question],
    path: str | Path,
    *,
    classes: Sequence[str],
    image_folder: str | Path,
    with_predictions: bool = False,
) -> Path:
    """Write questions as an annotations file of CVAT for images 1.1: their images, and the classes as tags.

    The labels in it are those that the task in CVAT is to be made with: the classes, and "cannot label". The file is
    only uploaded where predicted classes are to be tags from the start; CVAT finds its images by their names.

    Args:
        questions: what is asked; each has an image.
        path: the file, replaced as a whole or not at all.
        classes: names of the tags.
        image_folder: where the images are: their widths and heights are in the file.
        with_predictions: whether the predicted class is a tag already, which people then change or leave: what is left
            counts as an answer.

    Returns:
        The path.

    Raises:
        DataError: no questions, ids that are empty or repeated, a question without an image or two with the same, an
            image that cannot be opened, or a predicted class that is none of the classes.
    """
    check_questions(questions)
    names, labels = images_of(questions), [*classes_of(classes), SKIPPED]
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for key, value in (("name", "torchal"), ("size", str(len(questions))), ("mode", "annotation")):
        ElementTree.SubElement(task, key).text = value
    known = ElementTree.SubElement(task, "labels")
    for name in labels:
        label = ElementTree.SubElement(known, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "tag"
        ElementTree.SubElement(label, "attributes")
    for i, (question, name) in enumerate(zip(questions, names, strict=True)):
        width, height = image_size(image_folder, name)
        size = {"width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", {"id": str(i), "name": name, **size})
        if with_predictions and question.predicted is not None:
            if question.predicted not in labels:
                raise DataError(f"{question.predicted!r}, predicted for {question.id!r}, is none of the classes")
            ElementTree.SubElement(image, "tag", {"label": question.predicted, "source": "auto"})
    write_atomically(Path(path), f'<?xml version="1.0" encoding="utf-8"?>\n{to_xml(root)}\n'.encode())
    return Path(path)


def read_cvat(path: str | Path, *, questions: Sequence[Question] | None = None, skipped: str = SKIPPED) -> Answers:
    """Read the tag of each image in an export of CVAT for images 1.1 (`annotations.xml`).

    An image without a tag is an entry without a label.

    Args:
        path: the file.
        questions: those that were asked, to find a row by its image's name or the end of it; without them, the name of
            the image is the id.
        skipped: the tag that says of an image that no class is right.

    Raises:
        DataError: the file is no such export; one error names all that is wrong with it: images without a name, tags
            without a label, an image of two tags.
    """
    found, names = Collector(Path(path)), ImageNames(questions)
    for i, image in enumerate(read_xml(path, "annotations").iter("image")):
        where, name = f"image {image.get('id', i)}", image.get("name", "").strip()
        if not name:
            found.problem(f"{where} has no name")
            continue
        row = names.id_of(name, where=where, found=found)
        labels = {tag.get("label", "").strip() for tag in image.iter("tag")}
        if "" in labels:
            found.problem(f"{where}, {name!r}, has a tag without a label")
        elif len(labels) > 1:
            found.problem(f"{where}, {name!r}, has {len(labels)} tags, {', '.join(map(repr, sorted(labels)))}")
        elif row is not None:
            label = next(iter(labels), None)
            found.add(row, None if label == skipped else label, where=where, skipped=label == skipped)
    return found.answers()
