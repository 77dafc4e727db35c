"""Pages as files, which change only where what they say does: so Sphinx reads again only what is new."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_if_new(path: Path, text: str) -> None:
    """Write a file unless it says so already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_folder(folder: Path, pages: Mapping[str, str], *, suffix: str) -> None:
    """Write pages by their names into a folder, and delete those of before that are no more."""
    for page in folder.glob(f"*{suffix}"):
        if page.name.removesuffix(suffix) not in pages:
            page.unlink()
    for name, text in pages.items():
        write_if_new(folder / f"{name}{suffix}", text)
