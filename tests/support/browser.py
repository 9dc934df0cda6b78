"""A real browser without a window, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 60.0
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--disable-extensions", "--mute-audio", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)


@functools.cache
def find_browser() -> str | None:
    """Return the path of a Chromium, None where there is none: Ubuntu has one that only says where to get it."""
    found = [path for name in NAMES if (path := shutil.which(name)) is not None]
    return next((path for path in found if subprocess.run([path, "--version"], capture_output=True).returncode == 0), None)


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        """What the tab told unasked: also what its console shows."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=_SECONDS))
            if "method" in message:
                self.events.append(message)
            elif message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def wait_for_event(self) -> None:
        """Take in one message that nobody asked for."""
        self.events.append(json.loads(self._connection.recv(timeout=_SECONDS)))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = _SECONDS) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} did not become true in {seconds:g} s"
            time.sleep(0.05)
        return value

    def resize(self, width: int, height: int, scale: float = 1, mobile: bool = False) -> None:
        """Show the page in a window of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def screenshot(self, path: Path) -> None:
        """Write a PNG of what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """A running browser; each page is a tab of its own, in front of the others."""

    def __init__(self, port: int, stack: contextlib.ExitStack) -> None:
        self._port = port
        self._stack = stack

    def open(self, address: str) -> Page:
        # Headless tabs are all visible at once, and each draws.
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            where = json.load(answer)["webSocketDebuggerUrl"]
        page = Page(self._stack.enter_context(connect(where, max_size=None, open_timeout=_SECONDS, compression=None)))
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in page.events):
            page.wait_for_event()
        return page


@contextlib.contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with `folder`, new, as its profile."""
    executable = find_browser()
    assert executable is not None
    command = [executable, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(process.kill)
        file, end = folder / "DevToolsActivePort", time.monotonic() + _SECONDS
        while not (file.exists() and file.read_text().strip()):
            assert process.poll() is None, f"the browser ended with {process.returncode}"
            assert time.monotonic() < end, "the browser does not start"
            time.sleep(0.05)
        yield Browser(int(file.read_text().split()[0]), stack)
