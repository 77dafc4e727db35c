"""Where published data sets are kept, and which of their files are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from torchal.data.libsvm import found_file
from torchal.errors import DataError

CONF = Path(__file__).parent / "conf"


def data_folder() -> str:
    """Return the folder of published data sets: TORCHAL_DATA, else torchal in the user's folder for caches."""
    named = os.environ.get("TORCHAL_DATA")
    if named:
        return str(Path(named).expanduser())
    caches = os.environ.get("XDG_CACHE_HOME")
    return str((Path(caches) if caches else Path.home() / ".cache") / "torchal")


OmegaConf.register_new_resolver("data_folder", data_folder, replace=True)


def published() -> dict[str, dict[str, Any]]:
    """Return what the data sets that can be fetched are: `about` of their yaml files, by name."""
    sets = {}
    for path in sorted((CONF / "data").glob("*.yaml")):
        about: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if "about" in about:
            sets[path.stem] = about["about"]
    return sets


def missing_files(about: dict[str, Any]) -> list[Path]:
    """Return the files of a set that are not there, as they are or as .gz."""
    if "instead" in about and found_file(Path(data_folder()) / about["instead"]).exists():
        return []
    paths = [Path(data_folder()) / file["path"] for file in about["files"]]
    return [path for path in paths if not found_file(path).exists()]


def check_fetched(name: str, about: dict[str, Any]) -> None:
    """Require that a set is there.

    Raises:
        DataError: it is not; the message has the command that fetches it.
    """
    missing = missing_files(about)
    if missing:
        raise DataError(
            f"{name} is not in {data_folder()} ({missing[0].name} is missing); fetch it: "
            f"python -m experiments.fetch data={name}"
        )


def as_table() -> str:
    """Return the published data sets as a table in Markdown, which docs/guides/data.md has."""
    lines = [
        "| name | rows | columns | classes | source | licence | SHA-256 of its files, as published |",
        "|---" * 7 + "|",
    ]
    for name, about in published().items():
        sums = "<br>".join(f"`{Path(file['path']).name}` {file['sha256'] or 'unknown'}" for file in about["files"])
        cells = (name, about["rows"], about["columns"], about["classes"], about["source"], about["licence"], sums)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
