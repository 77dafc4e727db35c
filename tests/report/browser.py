"""A headless Chromium for tests of pages, spoken to over a pipe in the DevTools protocol: no package is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WHY_SKIPPED = f"needs a Chromium: {', '.join(NAMES)} on the PATH, or one that `playwright install chromium` brought"

# The protocol wants its pipes as descriptors 3 and 4, which may be taken by each other.
_WITH_PIPES = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for place, pipe in enumerate(pipes):
    os.dup2(pipe, 3 + place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser():
    """Return the path of a Chromium, or None; TORCHAL_BROWSER names one, or is empty for none."""
    if "TORCHAL_BROWSER" in os.environ:
        return os.environ["TORCHAL_BROWSER"] or None
    for name in NAMES:
        if path := shutil.which(name):
            return path
    mac = sys.platform == "darwin"
    cache = Path.home() / ("Library/Caches/ms-playwright" if mac else ".cache/ms-playwright")
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", cache))
    patterns = ("chromium-*/chrome-*/chrome", "chromium_headless_shell-*/*/headless_shell", "chromium-*/*/*/*/Chromium")
    patterns = (*patterns, "chromium_headless_shell-*/*/chrome-headless-shell")
    return next((str(path) for pattern in patterns for path in sorted(cache.glob(pattern), reverse=True)), None)


class Browser:
    """A browser with one tab. It is told to find no host, so that a page cannot reach anything.

    Args:
        hosts: addresses that it may find all the same, as that of a server of one's own.

    Attributes:
        events: all that the browser told, (method, params), since the last page was opened.
    """

    def __init__(self, path, *, hosts=()):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        arguments = [
            path,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._folder.name}",
            ", ".join(["--host-resolver-rules=MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in hosts)]),
            "--no-sandbox",  # root in a container has none
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--force-color-profile=srgb",
            "about:blank",
        ]
        wrapper = [sys.executable, "-c", _WITH_PIPES, str(to_browser), str(from_browser)]
        with Path(self._folder.name, "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*wrapper, *arguments], stdout=log, stderr=log, pass_fds=(to_browser, from_browser)
            )
        os.close(to_browser)
        os.close(from_browser)
        self._read, self._number, self._session = b"", 0, None
        self.events = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self):
        """Take a tab, and hear of what happens in it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    def call(self, method, **params):
        """Return the answer to a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, page, *, width=1280, height=900, dark=False, media=""):
        """Load a file, or an address, in a window of this size, and wait until all of it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events = []
        is_address = isinstance(page, str) and "://" in page
        self.call("Page.navigate", url=page if is_address else Path(page).resolve().as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._next()

    def value(self, expression):
        """Return what a line of JavaScript is in the page, as plain values; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def requests(self):
        """Return the addresses of all that the page asked for, itself among them."""
        return [params["request"]["url"] for method, params in self.events if method == "Network.requestWillBeSent"]

    def complaints(self):
        """Return what the page's scripts threw, and what the browser wrote into its log."""
        thrown = [params for method, params in self.events if method == "Runtime.exceptionThrown"]
        return thrown + [params["entry"] for method, params in self.events if method == "Log.entryAdded"]

    def screenshot(self, *, whole=False):
        """Return the window, or the whole page, as a PNG."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])

    def _next(self, seconds=60):
        end = time.monotonic() + seconds
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self._in, 1 << 20) if ready else b""
            if not more:
                log = Path(self._folder.name, "log").read_text(errors="replace")
                raise RuntimeError(f"the browser {'is gone' if ready else 'does not answer'}: {log[-2000:]}")
            self._read += more
        line, self._read = self._read.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message
