"""Downloads from a server on this machine that does what servers do."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from torchal import ConfigError, DataError
from torchal.data import download
from torchal.data.download import fetch_file, sha256_of

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if "Range" in self.headers else 0
        times = sum(path == self.path for path, _ in server.asked)
        getattr(self, self.path.strip("/"))(start, times)

    def answer(self, content, *, status=200, length=None, start=0, sent=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(content[:sent])
        self.close_connection = True

    def good(self, start, times):
        self.answer(CONTENT)

    def resumes(self, start, times):
        if start >= len(CONTENT):
            self.send_error(416)
        else:
            self.answer(CONTENT[start:], status=206 if start else 200, start=start, sent=300_000)

    def never_resumes(self, start, times):
        self.answer(CONTENT, sent=300_000 if times < 3 else None)

    def always_breaks_off(self, start, times):
        self.answer(CONTENT, sent=300_000)

    def says_more(self, start, times):
        self.answer(CONTENT, length=len(CONTENT) + 100)

    def says_less(self, start, times):
        self.answer(CONTENT, length=1000)

    def changed(self, start, times):
        self.answer(CONTENT[:-1] + b"x")

    def busy_twice(self, start, times):
        if times < 3:
            self.send_error(503)
        else:
            self.answer(CONTENT)

    def gone(self, start, times):
        self.send_error(404)

    def redirects(self, start, times):
        self.send_response(302)
        self.send_header("Location", "/good")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def redirects_to_a_file(self, start, times):
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def in_circles(self, start, times):
        self.send_response(302)
        self.send_header("Location", "/in_circles")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def silent(self, start, times):
        self.server.stop.wait(5)

    def other_range(self, start, times):
        """Breaks off, and then goes on from the start though it says that it does not."""
        if start:
            self.answer(CONTENT, status=206, start=0)
        else:
            self.answer(CONTENT, sent=300_000)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.asked, httpd.stop = [], threading.Event()
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.stop.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def fetch(server, tmp_path):
    pauses = []

    def call(*names, sha256=SHA256, **settings):
        urls = [name if ":" in name else f"http://127.0.0.1:{server.server_port}/{name}" for name in names]
        return fetch_file(
            urls, tmp_path / "a" / "set.gz", sha256=sha256, progress=False, sleep=pauses.append, **settings
        )

    call.path = tmp_path / "a" / "set.gz"
    call.pauses = pauses
    return call


def left(path):
    return {file.name for file in path.parent.iterdir()} - {path.name + ".lock"}


@pytest.mark.parametrize("way", ["good", "resumes", "never_resumes", "busy_twice", "redirects", "other_range"])
def test_the_file_arrives_whole(way, fetch):
    assert fetch(way) == SHA256
    assert fetch.path.read_bytes() == CONTENT
    assert left(fetch.path) == {"set.gz"}


def test_a_download_that_broke_off_is_gone_on_with(fetch, server):
    fetch("resumes")
    assert [start for _, start in server.asked] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert fetch.pauses == [1.0, 4.0, 16.0]


def test_and_so_it_is_by_the_next_command(fetch, server):
    with pytest.raises(DataError, match="broke off after 300000 of 1024000 bytes"):
        fetch("always_breaks_off")
    assert left(fetch.path) == {"set.gz.part"}
    server.asked.clear()
    assert fetch("resumes") == SHA256
    assert server.asked[0][1] == "bytes=300000-"


def test_what_is_there_is_not_fetched_again(fetch, server):
    fetch("good")
    fetch("good")
    assert len(server.asked) == 1


def test_a_damaged_file_is_replaced(fetch):
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(b"half")
    assert fetch("good") == SHA256


def test_a_damaged_file_stays_where_nothing_better_is_to_be_had(fetch):
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(b"half")
    with pytest.raises(DataError, match="404"):
        fetch("gone")
    assert fetch.path.read_bytes() == b"half"


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("changed", rf"its 1024000 bytes have the SHA-256 \w+, not {SHA256}"),
        ("says_less", r"its 1000 bytes have the SHA-256"),
        ("says_more", r"broke off after 1024000 of 1024100 bytes"),
        ("gone", "404 Not Found"),
        ("redirects_to_a_file", r"302 .*not allowed|not allowed"),
        ("in_circles", "302"),
        ("ftp://example.org/a", "only http and https"),
        ("file:///etc/hostname", "only http and https"),
    ],
)
def test_what_is_not_the_file_is_refused(way, message, fetch):
    with pytest.raises((DataError, ConfigError), match=message):
        fetch(way)
    assert not fetch.path.exists()


def test_the_next_source_is_tried(fetch, server):
    assert fetch("gone", "changed", "always_breaks_off", "good") == SHA256
    assert fetch.path.read_bytes() == CONTENT


def test_all_sources_are_named_where_none_has_it(fetch):
    with pytest.raises(DataError, match=r"set\.gz cannot be fetched\. http.*/gone: 404 .*; http.*/changed: its"):
        fetch("gone", "changed")


def test_a_server_that_says_nothing_is_dead(fetch, monkeypatch):
    monkeypatch.setattr(download, "_PAUSES", ())
    with pytest.raises(DataError, match="timed out"):
        fetch("silent", timeout=0.2)


def test_nobody_listens(fetch, monkeypatch):
    with pytest.raises(DataError, match="refused"):
        fetch("http://127.0.0.1:9/a")


def test_without_a_known_hash_any_bytes_are_right_and_the_hash_is_told(fetch):
    assert fetch("changed", sha256=None) == sha256_of(fetch.path) != SHA256


def test_two_at_a_time_fetch_once(fetch, server):
    threads = [threading.Thread(target=fetch, args=("good",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert fetch.path.read_bytes() == CONTENT


def test_a_full_disk_says_what_is_kept(fetch, monkeypatch):
    whole = download.Path.open

    class Full:
        def __init__(self, file):
            self.file, self.n = file, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, block):
            self.n += 1
            if self.n > 2:
                raise OSError(28, "No space left on device")
            self.file.write(block)

    def opened(self, mode="r", *arguments, **settings):
        file = whole(self, mode, *arguments, **settings)
        return Full(file) if self.name.endswith(".part") and mode != "rb" else file

    monkeypatch.setattr(download.Path, "open", opened)
    with pytest.raises(DataError, match="No space left on device; what has come so far is kept"):
        fetch("good")
    monkeypatch.undo()
    assert left(fetch.path) == {"set.gz.part"}
    assert fetch("good") == SHA256


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fetch_file(["http://127.0.0.1:9/a"], tmp_path / "file" / "a", sha256=None)
