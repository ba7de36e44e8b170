"""A web server on this machine, for tests: it logs what it is asked, breaks off, changes files, lies."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """``files`` by name; ``log`` of (name, Range, If-Range); ``cuts``: bytes of the body after which the next answers
    break off; ``statuses``: of the next answers; ``versioned``: sends an ETag; ``ranges``: answers with parts."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    log: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    versioned: bool = True
    ranges: bool = True
    honest: bool = True  # False: answers with a part even where the version is another one

    def asked(self) -> list[str]:
        return [name for name, _, _ in self.log]

    def put(self, name: str, body: bytes) -> str:
        self.files[name] = body
        return f"{self.address}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        site, name = self.server.site, self.path.lstrip("/")
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        site.log.append((name, wanted, version))
        status = site.statuses.pop(0) if site.statuses else 200
        body = site.files.get(name, b"")
        if name not in site.files or status != 200:
            return self.give(404 if status == 200 else status, b"nothing here", {"Content-Type": "text/plain"}, None)
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        headers = {"Content-Type": site.types.get(name, "application/octet-stream")}
        if site.versioned:
            headers["ETag"] = tag
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        same = version in (None, tag) or not site.honest
        cut = site.cuts.pop(0) if site.cuts else None
        if not (wanted and site.ranges and same):
            return self.give(200, body, headers, cut)
        if start >= len(body):
            return self.give(416, b"", {"Content-Range": f"bytes */{len(body)}"}, None)
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.give(206, body[start:], headers, cut)

    def give(self, status, body, headers, cut):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[:cut])
        self.close_connection = True


@contextlib.contextmanager
def serve():
    """A site at ``site.address`` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
