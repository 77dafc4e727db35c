"""Downloads from a server on this machine that behaves well, badly, or not at all."""

import errno
import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from torchal.data import download
from torchal.data.download import digest_of, fetch_file
from torchal.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves /file by a list of behaviours, one for each request; the last one stays."""

    def __init__(self):
        self.behaviours = ["whole"]
        self.ranges = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.ranges.append(self.headers.get("Range"))
                behaviour = outer.behaviours.pop(0) if len(outer.behaviours) > 1 else outer.behaviours[0]
                getattr(outer, f"serve_{behaviour}")(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def send(self, handler, content, *, status=200, promised=None, **headers):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if promised is None else promised))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    def serve_whole(self, handler):
        wanted = handler.headers.get("Range")
        if wanted is None:
            return self.send(handler, CONTENT)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            return self.send(handler, b"", status=416)
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return self.send(handler, CONTENT[start:], status=206, Content_Range=place)

    def serve_half(self, handler):
        self.send(handler, CONTENT[: len(CONTENT) // 2], promised=len(CONTENT))

    def serve_no_range(self, handler):
        self.send(handler, CONTENT)

    def serve_wrong_range(self, handler):
        self.send(handler, CONTENT[7:], status=206, Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")

    def serve_short_promise(self, handler):
        self.send(handler, CONTENT, promised=1000)

    def serve_no_length(self, handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    def serve_half_no_length(self, handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT[:5000])

    def serve_changed(self, handler):
        self.send(handler, CONTENT[:-1] + b"!")

    def serve_longer(self, handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT + b"more")

    def serve_error(self, handler):
        self.send(handler, b"", status=500)

    def serve_missing(self, handler):
        self.send(handler, b"", status=404)

    def serve_moved(self, handler):
        self.send(handler, b"", status=302, Location="/elsewhere")

    def serve_to_a_file(self, handler):
        self.send(handler, b"", status=302, Location="file:///etc/hostname")

    def serve_loop(self, handler):
        self.send(handler, b"", status=302, Location=handler.path)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_OPENER", direct_opener())
    one = Server()
    yield one
    one.close()


def direct_opener():
    """Return the opener without the proxy that the surroundings may name."""
    import urllib.request

    return urllib.request.build_opener(urllib.request.ProxyHandler({}), download._SafeRedirects)


@pytest.fixture
def get(server, tmp_path):
    def fetch(*behaviours, urls=None, **settings):
        server.behaviours = list(behaviours) or server.behaviours
        fetch.pauses = []
        options = {"sha256": SHA256, "n_bytes": len(CONTENT), "progress": False, "sleep": fetch.pauses.append}
        return fetch_file(urls or [server.url], fetch.path, **(options | settings))

    fetch.path = tmp_path / "a" / "b" / "file.bin"
    return fetch


def left_over(path):
    """Return what is beside the file, but for the lock."""
    return sorted(each.name for each in path.parent.iterdir() if each != path and each.suffix != ".lock")


def dead_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file"


@pytest.mark.parametrize("settings", [{}, {"n_bytes": None}, {"progress": True}, {"sha256": SHA256.upper()}])
def test_a_file_arrives_whole(settings, get, capsys):
    assert get("whole", **settings) == SHA256
    assert get.path.read_bytes() == CONTENT
    assert left_over(get.path) == []
    assert ("file.bin" in capsys.readouterr().err) == ("progress" in settings)


def test_a_file_that_is_there_is_not_fetched(get, server):
    get("whole")
    assert get("error") == SHA256
    assert len(server.ranges) == 1


def test_another_file_that_is_there_stays_and_is_named(get):
    get.path.parent.mkdir(parents=True)
    get.path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"file\.bin is not what was published: its SHA-256 is .*; remove it to"):
        get("whole")
    assert get.path.read_bytes() == b"mine"


@pytest.mark.parametrize("n_bytes", [None, len(CONTENT)])
def test_a_transfer_that_breaks_off_goes_on_where_it_was(n_bytes, get, server):
    assert get("half", "whole", n_bytes=n_bytes) == SHA256
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert get.pauses == [1.0]
    assert left_over(get.path) == []


def test_the_next_process_goes_on_too(get, server):
    with pytest.raises(DataError, match=r"file\.bin cannot be fetched\. .*broke off after 128000 of 256000 bytes, 1"):
        get("half", attempts=1)
    assert not get.path.exists()
    assert get("whole") == SHA256
    assert server.ranges[-1] == "bytes=128000-"


@pytest.mark.parametrize("second", ["no_range", "wrong_range"])
def test_a_server_that_does_not_continue_sends_all_again(second, get):
    follow = ["whole"] if second == "wrong_range" else []
    if follow:  # 206 of another place: what was sent is no beginning of the file, and its length says so
        with pytest.raises(DataError, match="serves another file"):
            get("half", second)
        assert left_over(get.path) == []
    assert get("half" if not follow else "whole", *([second] if not follow else [])) == SHA256


def test_a_wrong_beginning_is_thrown_away(get, server):
    get.path.parent.mkdir(parents=True)
    part = get.path.with_name(".file.bin.part")
    part.write_bytes(b"wrong")
    second = [server.url, server.url + "/mirror"]
    assert get("whole", urls=second) == SHA256  # the first answer completes the wrong half, the second is whole
    assert server.ranges == ["bytes=5-", None]
    part.write_bytes(CONTENT + b"longer")
    get.path.unlink()
    assert get("whole") == SHA256


def test_a_rest_that_the_server_does_not_have_is_asked_for_from_the_start(get, server):
    get.path.parent.mkdir(parents=True)
    get.path.with_name(".file.bin.part").write_bytes(CONTENT + b"longer")
    assert get("whole", n_bytes=None) == SHA256
    assert server.ranges == [f"bytes={len(CONTENT) + 6}-", None]


@pytest.mark.parametrize(
    ("behaviour", "settings", "words"),
    [
        ("short_promise", {}, "1000 bytes where 256000 were published"),
        ("short_promise", {"n_bytes": None}, "SHA-256"),
        ("changed", {}, "SHA-256"),
        ("longer", {}, "more than the 256000 bytes"),
        ("missing", {}, "404"),
        ("to_a_file", {}, "file:///etc/hostname"),
    ],
)
def test_what_asking_again_does_not_mend_is_asked_once(behaviour, settings, words, get, server):
    with pytest.raises(DataError, match=words):
        get(behaviour, **settings)
    assert len(server.ranges) == 1
    assert not get.path.exists()
    assert left_over(get.path) == []


def test_the_second_source_serves_when_the_first_does_not(get, server):
    for behaviours in (["missing", "whole"], ["changed", "whole"], ["error"] * 4 + ["whole"]):
        get.path.unlink(missing_ok=True)
        assert get(*behaviours, urls=[server.url, server.url + "/mirror"]) == SHA256


def test_a_server_in_trouble_is_asked_again(get):
    assert get("error", "error", "whole") == SHA256
    assert get.pauses == [1.0, 2.0]


def test_an_answer_without_a_length_is_read_to_its_end(get):
    assert get("no_length", n_bytes=None) == SHA256
    get.path.unlink()
    assert get("half_no_length", "whole") == SHA256


def test_redirects_are_followed_but_not_for_ever(get):
    assert get("moved", "whole") == SHA256
    get.path.unlink()
    with pytest.raises(DataError, match="302"):
        get("loop")


def test_the_range_is_kept_through_a_redirect(get, server):
    assert get("half", "moved", "whole") == SHA256
    assert server.ranges[-1] == "bytes=128000-"


def test_a_dead_server_is_said_in_one_line(get):
    with pytest.raises(DataError, match=r"refused, 3 times") as caught:
        get(urls=[dead_url()], attempts=3)
    assert "\n" not in str(caught.value)
    assert get.pauses == [1.0, 2.0]


def test_a_silent_server_is_left(get):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(DataError, match=r"timed out|TimeoutError"):
            get(urls=[url], attempts=1, timeout_seconds=0.1)


class TestWithoutAHash:
    def test_the_one_found_is_kept_beside_the_file(self, get):
        assert get("whole", sha256=None) == SHA256
        note = get.path.with_name("file.bin.sha256")
        assert note.read_text() == f"{SHA256}  file.bin\n"
        assert get("error", sha256=None) == SHA256

    def test_a_later_change_is_noticed(self, get):
        get("whole", sha256=None)
        get.path.write_bytes(b"changed")
        with pytest.raises(DataError, match="is not what was once fetched"):
            get("whole", sha256=None)

    def test_a_broken_transfer_starts_over(self, get, server):
        assert get("half", "whole", sha256=None) == SHA256
        assert server.ranges == [None, None]
        get.path.unlink()
        with pytest.raises(DataError, match="broke off"):
            get("half", sha256=None)
        assert left_over(get.path) == ["file.bin.sha256"]


def test_two_at_once_fetch_once(get, server):
    found = []
    threads = [threading.Thread(target=lambda: found.append(get("whole"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SHA256] * 4
    assert len(server.ranges) == 1


def test_a_disk_without_room_is_seen_before(get, server, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"disk is full: file\.bin of 256000 bytes .* 1000 bytes are free; nothing"):
        get("whole")
    assert server.ranges == []


def test_a_disk_that_fills_up_is_said(get, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_read", write)
    with pytest.raises(DataError, match="nothing that was there has changed, so make room and fetch again"):
        get("whole")
    assert not get.path.exists()


def test_a_folder_that_cannot_be_made_is_said(get, tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        get("whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"urls": ["ftp://a/b"]}, "only http and https are fetched, not ftp://a/b"),
        ({"urls": ["file:///etc/hostname"]}, "only http and https"),
        ({"urls": []}, "urls must be a list"),
        ({"urls": "http://a/b"}, "urls must be a list"),
        ({"sha256": "abc"}, "64 hexadecimal digits, got 3"),
        ({"n_bytes": -1}, "n_bytes"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_impossible_settings_are_refused(change, words, tmp_path):
    urls = change.pop("urls", ["http://127.0.0.1/x"])
    with pytest.raises(ConfigError, match=words):
        fetch_file(urls, tmp_path / "x", **({"sha256": SHA256} | change))


def test_the_hash_of_what_is_packed(tmp_path):
    import gzip

    packed = Path(tmp_path, "x.gz")
    packed.write_bytes(gzip.compress(CONTENT))
    assert digest_of(packed, unpacked=True) == SHA256 != digest_of(packed)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        digest_of(packed, unpacked=True)
