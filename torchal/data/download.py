"""Fetch published files once, and know them by their SHA-256."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from torchal.errors import ConfigError, DataError

_BLOCK = 2**18  # bytes
_TIMEOUT = 60.0  # seconds without a byte
_PAUSES = (1.0, 4.0, 16.0)  # seconds before a source is tried again
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others soon


def fetch_file(
    urls: Sequence[str],
    path: Path,
    *,
    sha256: str | None,
    progress: bool = True,
    timeout: float = _TIMEOUT,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Download a file unless it is there, and return its SHA-256.

    What has come of a download that broke off is kept beside the file, as `.part`, and gone on with where the server
    can do that. The file appears as a whole and only with the right SHA-256. Two processes fetch it once.

    Args:
        urls: where it is published, http or https; the next one is tried where one fails.
        path: where it is to be.
        sha256: of its bytes, in hexadecimal; None where nobody has published it, and any bytes are right.
        progress: show a progress bar.
        timeout: seconds without a byte after which a server counts as dead.
        sleep: waits some seconds between two tries.

    Raises:
        ConfigError: there is no URL, or one is neither http nor https.
        DataError: no source has the file; the message says what each of them did. Or it cannot be written. Whatever
            was there before is still there.
    """
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConfigError(f"only http and https are fetched, got {url}")
    if not urls:
        raise ConfigError(f"{path.name} has no URL to be fetched from")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if path.exists():
                found = sha256_of(path)
                if sha256 in (None, found):
                    return found
            return _fetch(urls, path, sha256, progress=progress, timeout=timeout, sleep=sleep)
    except OSError as error:
        left = "; what has come so far is kept, and the same command goes on with it" if _part(path).exists() else ""
        raise DataError(f"{path} cannot be written: {error.strerror or error}{left}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _fetch(
    urls: Sequence[str],
    path: Path,
    sha256: str | None,
    *,
    progress: bool,
    timeout: float,
    sleep: Callable[[float], object],
) -> str:
    complaints = []
    part = _part(path)
    for url in urls:
        for pause in (*_PAUSES, None):
            try:
                _download(url, part, name=path.name, progress=progress, timeout=timeout)
            except _BrokenOffError as problem:
                if pause is None or not problem.may_pass:
                    complaints.append(f"{url}: {problem}")
                    break
                sleep(pause)
                continue
            found = sha256_of(part)
            if sha256 in (None, found):
                part.replace(path)
                return found
            complaints.append(f"{url}: its {part.stat().st_size} bytes have the SHA-256 {found}, not {sha256}")
            part.unlink()  # of another file: nothing to go on with
            break
        if sha256 is None:
            part.unlink(missing_ok=True)  # another source may have another file
    raise DataError(f"{path.name} cannot be fetched. {'; '.join(complaints)}")


class _BrokenOffError(Exception):
    """A download that did not come to its end."""

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def _download(url: str, part: Path, *, name: str, progress: bool, timeout: float) -> None:
    """Download a URL into a file, from where the file ends."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "torchal", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing after what has come
            part.unlink()
            raise _BrokenOffError("what had come was no part of it", may_pass=True) from error
        raise _BrokenOffError(f"{error.code} {error.reason}", may_pass=error.code in _AGAIN) from error
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise _BrokenOffError(str(getattr(error, "reason", error)), may_pass=True) from error
    with response:
        if urlsplit(response.url).scheme not in ("http", "https"):
            raise _BrokenOffError(f"it leads to {response.url}", may_pass=False)
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        with (
            part.open("ab" if goes_on else "wb") as file,
            tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            while block := _read(response):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    if total is not None and have != total:
        raise _BrokenOffError(f"it broke off after {have} of {total} bytes", may_pass=True)


def _read(response: object) -> bytes:
    try:
        block: bytes = response.read(_BLOCK)  # type: ignore[attr-defined]
    except (HTTPException, OSError) as error:
        raise _BrokenOffError(f"it broke off: {error or type(error).__name__}", may_pass=True) from error
    return block
