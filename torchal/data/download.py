"""Fetch published files: whole and as they were published, or not at all."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from tqdm import tqdm

from torchal._checks import check_flag, check_whole
from torchal._records import write_atomically
from torchal.errors import ConfigError, DataError

_BLOCK = 1 << 20
_SCHEMES = ("http", "https")
_NOW_AND_THEN = (408, 425, 429)  # answers that may be others a moment later, as all from 500 up
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_WAIT_SECONDS = 60.0


class _TryAgainError(Exception):
    """The transfer broke; what has arrived is kept."""


class _NextSourceError(Exception):
    """This source will not give the file."""


def fetch_file(
    urls: Sequence[str],
    path: str | os.PathLike[str],
    *,
    sha256: str | None,
    n_bytes: int | None = None,
    progress: bool = True,
    attempts: int = 4,
    timeout_seconds: float = 30.0,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Fetch a file from the first source that serves it, and put it in its place only when all of it is right.

    A file that is there already is checked and left as it is. What a broken transfer left behind, in a hidden file
    beside the path, is continued by the next one, also by that of another process, where the hash of the whole is known
    to tell whether that went well. Two processes that want the same file fetch it once.

    Args:
        urls: where it is served, over http or https; the later ones are asked when the earlier ones fail.
        path: where to put it; the folders above are made.
        sha256: of the bytes as served, in hexadecimal digits. None where nobody has published it: it is then written
            beside the file, to `NAME.sha256`, so that a later change is noticed.
        n_bytes: how many there are, to see before the end that a source serves another file.
        progress: show a bar.
        attempts: how often each source is asked, with twice the pause each time, from one second.
        timeout_seconds: how long a source may be silent.
        sleep: waits for so many seconds.

    Returns:
        The SHA-256 of the file.

    Raises:
        ConfigError: a setting is impossible.
        DataError: no source serves the file, the file that is there is another one, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "here.txt").write_bytes(b"torchal")
        ...     digest = hashlib.sha256(b"torchal").hexdigest()
        ...     fetch_file(["https://localhost/here.txt"], Path(folder, "here.txt"), sha256=digest) == digest
        True
    """
    path = Path(path)
    check_flag("progress", progress)
    check_whole("attempts", attempts, least=1)
    sha256 = _checked(urls, sha256, n_bytes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():
                return _check_present(path, sha256)
            digest = _fetch(urls, path, sha256, n_bytes, progress, attempts, timeout_seconds, sleep)
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(path, n_bytes) from error
        raise DataError(f"{path} cannot be written: {error}") from error
    return digest


def digest_of(path: Path, *, unpacked: bool = False) -> str:
    """Return the SHA-256 of a file, or of what a .gz holds.

    Raises:
        DataError: it cannot be read, or is no whole .gz.
    """
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") if unpacked else path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()


def _checked(urls: Sequence[str], sha256: str | None, n_bytes: int | None) -> str | None:
    if isinstance(urls, str) or not urls:
        raise ConfigError(f"urls must be a list of one or more, got {urls!r}")
    for url in urls:
        if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
            raise ConfigError(f"only http and https are fetched, not {url}")
    if n_bytes is not None:
        check_whole("n_bytes", n_bytes, least=0)
    if sha256 is None:
        return None
    sha256 = sha256.lower()
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ConfigError(f"sha256 must be 64 hexadecimal digits, got {len(sha256)}: {sha256}")
    return sha256


def _check_present(path: Path, sha256: str | None) -> str:
    """Return the SHA-256 of a file that is there."""
    found = digest_of(path)
    noted = _note_of(path)
    wanted = sha256
    if sha256 is None and noted.exists():
        wanted = noted.read_text(encoding="utf-8").split(maxsplit=1)[0]
    if wanted not in (None, found):
        what = "published" if sha256 else "once fetched"
        raise DataError(
            f"{path} is not what was {what}: its SHA-256 is {found[:12]}..., not {wanted[:12]}...; remove it to fetch "
            "it again"
        )
    return found


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _fetch(  # noqa: PLR0917
    urls: Sequence[str],
    path: Path,
    sha256: str | None,
    n_bytes: int | None,
    progress: bool,
    attempts: int,
    timeout_seconds: float,
    sleep: Callable[[float], object],
) -> str:
    part = path.with_name(f".{path.name}.part")
    if sha256 is None or (n_bytes is not None and part.exists() and part.stat().st_size > n_bytes):
        part.unlink(missing_ok=True)  # nothing could tell whether the rest fits it
    _check_space(path, part, n_bytes)
    reasons = []
    for url in urls:
        for attempt in range(attempts):
            if attempt:
                sleep(min(2.0 ** (attempt - 1), _LONGEST_WAIT_SECONDS))
            try:
                _transfer(url, part, n_bytes, timeout_seconds, progress, path.name, may_resume=sha256 is not None)
                found = _accept(part, sha256, n_bytes, path)
            except _NextSourceError as error:
                reasons.append(f"{url}: {error}")
                break
            except _TryAgainError as error:
                reason = f"{url}: {error}, {attempt + 1} times"
                continue
            return found
        else:
            reasons.append(reason)
    if sha256 is None:
        part.unlink(missing_ok=True)
    raise DataError(f"{path.name} cannot be fetched. " + "; ".join(reasons))


def _accept(part: Path, sha256: str | None, n_bytes: int | None, path: Path) -> str:
    """Put what has arrived in its place if it is right, else remove it."""
    found, size = digest_of(part), part.stat().st_size
    if (sha256 is not None and found != sha256) or (n_bytes is not None and size != n_bytes):
        part.unlink()
        sizes = "" if n_bytes is None else f"{size} bytes where {n_bytes} were published, "
        wanted = "" if sha256 is None else f", not {sha256[:12]}..."
        raise _NextSourceError(f"it serves another file: {sizes}SHA-256 {found[:12]}...{wanted}")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    if sha256 is None:
        write_atomically(_note_of(path), f"{found}  {path.name}\n".encode())
    part.replace(path)
    return found


def _transfer(  # noqa: PLR0917
    url: str, part: Path, n_bytes: int | None, timeout_seconds: float, progress: bool, name: str, *, may_resume: bool
) -> None:
    """Bring the rest of a file, or all of it, into `part`.

    Raises:
        _TryAgainError: the transfer broke off.
        _NextSourceError: asking again is of no use.
    """
    start = part.stat().st_size if may_resume and part.exists() else 0
    if start and start == n_bytes:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "torchal"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with _OPENER.open(request, timeout=timeout_seconds) as answer:
            if start and not _continues(answer, start):
                start = 0
            _read(answer, part, start, n_bytes, progress, name)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            part.unlink()  # it has less than is here already, so that was of something else
            raise _TryAgainError("it has no such rest of the file") from error
        if error.code >= 500 or error.code in _NOW_AND_THEN:
            raise _TryAgainError(f"it answers {error.code} {error.reason}") from error
        raise _NextSourceError(f"it answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _TryAgainError(str(error.reason)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _TryAgainError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error


def _continues(answer: Any, start: int) -> bool:
    """Tell whether an answer begins where the file so far ends."""
    return answer.status == http.client.PARTIAL_CONTENT and (answer.headers.get("Content-Range") or "").startswith(
        f"bytes {start}-"
    )


def _read(answer: Any, part: Path, start: int, n_bytes: int | None, progress: bool, name: str) -> None:  # noqa: PLR0917
    promised = answer.headers.get("Content-Length", "")
    total = start + int(promised) if promised.isdigit() else None
    if n_bytes is not None and total not in (None, n_bytes):
        part.unlink(missing_ok=True)
        raise _NextSourceError(f"it serves another file: {total} bytes where {n_bytes} were published")
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(part.open("ab" if start else "wb"))
        bar = stack.enter_context(
            tqdm(total=n_bytes or total, initial=start, unit="B", unit_scale=True, desc=name, disable=not progress)
        )
        size = start
        while block := answer.read(_BLOCK):
            size += len(block)
            if n_bytes is not None and size > n_bytes:
                break
            file.write(block)
            bar.update(len(block))
    if n_bytes is not None and size > n_bytes:
        part.unlink()
        raise _NextSourceError(f"it serves another file: more than the {n_bytes} bytes that were published")
    if total is not None and size < total:
        raise _TryAgainError(f"it broke off after {size} of {total} bytes")
    if n_bytes is not None and size < n_bytes:
        raise _TryAgainError(f"it broke off after {size} of {n_bytes} bytes")


def _check_space(path: Path, part: Path, n_bytes: int | None) -> None:
    if n_bytes is None:
        return
    missing = n_bytes - (part.stat().st_size if part.exists() else 0)
    if shutil.disk_usage(path.parent).free < missing:
        raise _disk_full(path, n_bytes)


def _disk_full(path: Path, n_bytes: int | None) -> DataError:
    needs = "" if n_bytes is None else f" of {n_bytes} bytes"
    free = shutil.disk_usage(path.parent).free
    return DataError(
        f"the disk is full: {path.name}{needs} does not fit into {path.parent}, where {free} bytes are free; nothing "
        "that was there has changed, so make room and fetch again"
    )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects over http and https only, and from https to https only."""

    def redirect_request(  # noqa: PLR0917 - urllib's
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in _SCHEMES or (req.type == "https" and scheme != "https"):
            raise _NextSourceError(f"it sends on to {newurl}, which is not fetched from {req.type}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # keeps the Range


_OPENER = urllib.request.build_opener(_SafeRedirects)
