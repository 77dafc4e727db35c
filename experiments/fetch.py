"""Fetch published data sets once: `python -m experiments.fetch data=mnist,letter`, `data=all`, or `--list`.

They go to the folder that TORCHAL_DATA names, else to torchal in the user's folder for caches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.folders import data_folder, missing_files, published
from torchal.data.download import digest_of, fetch_file
from torchal.data.libsvm import found_file
from torchal.errors import ConfigError, TorchalError

_USAGE = "python -m experiments.fetch data=NAME,NAME or data=all, or --list"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what is named; a set that cannot be had does not stop the others."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words == ["--list"]:
            print("\n".join(listed()))
            return 0
        names = _named(words)
    except TorchalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    problems = 0
    for name in names:
        try:
            print(f"{name}: {fetch(name)}", flush=True)
        except TorchalError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            problems += 1
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            return 130
    return 2 if problems else 0


def fetch(name: str) -> str:
    """Fetch the files of a set that are not there, and return what was done.

    Raises:
        DataError: a file cannot be had; those that could are there.
    """
    about = published()[name]
    missing = missing_files(about)
    folder = Path(data_folder())
    for file in about["files"]:
        path = folder / file["path"]
        if path in missing:
            fetch_file(file["urls"], path, sha256=file["sha256"], n_bytes=file["bytes"])
    done = f"{len(missing)} of {len(about['files'])} files fetched into {folder}" if missing else f"is in {folder}"
    others = [file["path"] for file in about["files"] if not _is_published(folder / file["path"], file["sha256"])]
    return (
        f"{done}; not the bytes that were published, though they may say the same: {', '.join(others)}"
        if others
        else done
    )


def _is_published(path: Path, sha256: str | None) -> bool:
    """Tell whether a file that is there, as it is or as .gz, has the bytes that were published; unknown ones may be."""
    found = found_file(path)
    return sha256 is None or not found.exists() or digest_of(found, unpacked=found != path) == sha256


def listed() -> Iterator[str]:
    """Return a table of all sets, and what is there of each."""
    rows = [("name", "there", "rows", "columns", "classes", "size", "licence")]
    for name, about in published().items():
        n_files, n_missing = len(about["files"]), len(missing_files(about))
        partly = f"{n_files - n_missing} of {n_files} files"
        there = "yes" if not n_missing else "no" if n_missing == n_files else partly
        columns = about["columns"] if isinstance(about["columns"], int) else "words"
        size = _size(about["files"])
        rows.append((name, there, str(about["rows"]), str(columns), str(about["classes"]), size, about["licence"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    yield f"data sets in {data_folder()}"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _size(files: Sequence[dict[str, Any]]) -> str:
    n_bytes = 0
    for file in files:
        path = found_file(Path(data_folder()) / file["path"])
        n_bytes += path.stat().st_size if path.exists() else file["bytes"] or 0
    return f"{n_bytes / 1e6:.1f} MB"


def _named(words: Sequence[str]) -> list[str]:
    if len(words) != 1 or not words[0].startswith("data="):
        raise ConfigError(f"got {' '.join(words) or 'nothing'}; use {_USAGE}")
    known = published()
    names = [name.strip() for name in words[0].partition("=")[2].strip("[]").split(",")]
    if names == ["all"]:
        return list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"no data set to fetch is named {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
        )
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
