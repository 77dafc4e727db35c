"""Files of other tools: JSON and XML, written whole, and read with one error of ours whatever is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from torchal._records import as_plain, write_atomically
from torchal.errors import DataError

Kind = TypeVar("Kind", list[Any], dict[str, Any])

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_bytes(path: str | Path) -> bytes:
    """Return what is in a file.

    Raises:
        DataError: there is no such file, or nothing in it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content.strip():
        raise DataError(f"{path} is empty")
    return content


def read_json(path: str | Path, kind: type[Kind]) -> Kind:
    """Return what is in a file of JSON, a list or an object.

    Raises:
        DataError: there is no such file, or something else in it.
    """
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, kind):
        wanted = "a list" if kind is list else "an object"
        raise DataError(f"{path} must hold {wanted}, got {content!r:.80}")
    return content


def write_json(content: Any, path: str | Path) -> Path:
    """Write a file of JSON; a number that is not finite becomes null, which JSON has in its place."""
    write_atomically(Path(path), json.dumps(as_plain(content), ensure_ascii=False, indent=1).encode())
    return Path(path)


def read_xml(path: str | Path, root: str) -> ElementTree.Element:
    """Return the root of a file of XML, which must be called so.

    Raises:
        DataError: there is no such file, it is no XML, has another root, or declares entities, which could make a few
            bytes into gigabytes.
    """
    content = read_bytes(path)
    if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16 too
        raise DataError(f"{path} declares a document type, which no labeling tool writes")
    try:
        found = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} is no XML: {error}") from error
    if found.tag != root:
        raise DataError(f"{path} must have the root <{root}>, got <{found.tag}>")
    return found


def to_xml(root: ElementTree.Element) -> str:
    """Return the text of an element and all in it, indented.

    Raises:
        DataError: a text in it has characters that XML has no place for.
    """
    for element in root.iter():
        for text in (element.text or "", *element.attrib.values()):
            if _NOT_IN_XML.search(text):
                raise DataError(f"XML has no place for some characters in {text!r:.100}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")
