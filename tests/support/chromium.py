"""A real browser driven from tests: headless Chromium over its debugging port, by a small websocket client of our own.

One page at a time. ``Page`` keeps what it said on its console, what it threw, and every address it asked for.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds for the browser to start, or to answer


def found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Socket:
    """The client side of RFC 6455, text frames alone."""

    def __init__(self, address: str):
        parts = urlsplit(address)
        self.stream = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.file = self.stream.makefile("rb")
        assert b" 101 " in self.file.readline()
        while self.file.readline().strip():
            pass

    def send(self, text: str) -> None:
        content, mask = text.encode(), os.urandom(4)
        size = len(content)
        head = bytes([0x81, 0x80 | size]) if size < 126 else struct.pack(">BBH", 0x81, 0xFE, size)
        head = head if size < 1 << 16 else struct.pack(">BBQ", 0x81, 0xFF, size)
        self.stream.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(content)))

    def receive(self) -> str:
        content, last = b"", False
        while not last:
            first, size = self.file.read(2)
            last, size = bool(first & 0x80), size & 0x7F
            if size > 125:
                (size,) = struct.unpack(">H" if size == 126 else ">Q", self.file.read(2 if size == 126 else 8))
            content += self.file.read(size)
        return content.decode()

    def close(self) -> None:
        self.file.close()
        self.stream.close()


class Page:
    """``said``: errors and warnings of the console and what was thrown; ``asked``: addresses that were requested."""

    def __init__(self, address: str):
        self.socket, self.count = Socket(address), 0
        self.said: list[str] = []
        self.asked: list[str] = []
        self.loaded = False
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given):
        """The answer of a command of the DevTools protocol."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": given}))
        while True:
            answer = json.loads(self.socket.receive())
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.note(answer)

    def note(self, event: dict) -> None:
        name, given = event.get("method"), event.get("params", {})
        if name == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.said.append(json.dumps(given["args"]))
        elif name == "Runtime.exceptionThrown":
            self.said.append(json.dumps(given["exceptionDetails"]))
        elif name == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.said.append(given["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.asked.append(given["request"]["url"])
        elif name == "Page.loadEventFired":
            self.loaded = True

    def open(self, url: str) -> None:
        self.load("about:blank")  # from the same page with another fragment nothing would be loaded
        self.asked.clear()
        self.load(url)

    def load(self, url: str) -> None:
        self.loaded = False
        self.call("Page.navigate", url=url)
        while not self.loaded:
            self.note(json.loads(self.socket.receive()))

    def run(self, expression: str):
        """The JSON value of a JavaScript expression (a promise is waited for)."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        given = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            given["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browser():
    """A page of a browser with a profile of its own, ended with the block."""
    folder = Path(tempfile.mkdtemp(prefix="chromium-"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen([found(), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    page = None
    try:
        port = answered(lambda: int((folder / "DevToolsActivePort").read_text().split()[0]))
        pages = answered(lambda: [p for p in ask(port) if p["type"] == "page"][0:1] or 1 / 0)
        page = Page(pages[0]["webSocketDebuggerUrl"])
        yield page
    finally:
        if page:
            page.socket.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def ask(port: int) -> list[dict]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/json", timeout=PATIENCE) as answer:
        return json.load(answer)


def answered(attempt):
    """The first answer of a question that fails until the browser is ready."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
