"""Download one file: resumed where it broke off, checked by size and checksum, refused where it is a web page.

What has come lies in ``NAME.part``, and ``NAME.part.json`` says from where and of which version it is, so that a file
that changed in the meantime is never spliced. ``NAME`` appears only when it is whole and right.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit

from carryover.bench.errors import UserError, quoted

AGENT = "carryover-prepare"  # some servers turn away urllib's own name
TIMEOUT = 60.0  # seconds without a byte
TRIES = 5  # in a row without CHUNK bytes of progress
LASTING_TRIES = 2  # where no server of that name is found or it takes no connection
PAUSE = 1.0  # seconds before the second try, doubled for each further one
CHUNK = 1 << 20
KEPT = "%/:@!$&'()*+,;=?~"  # what an address may hold as it is
HEAD = 512  # enough for every signature, tar's at byte 257 too
Progress = Callable[[str, int, "int | None"], None]  # name, bytes that are there, bytes in all where known


class Broken(Exception):
    """The transfer broke off in a way that another try may mend; ``lasting``: hardly."""

    def __init__(self, reason: str, lasting: bool = False):
        super().__init__(reason)
        self.lasting = lasting


class Part:
    """The piece of ``path`` that is there, of the version that ``url`` named by ``validator``."""

    def __init__(self, path: Path, url: str):
        self.path, self.about = (path.with_name(path.name + ending) for ending in (".part", ".part.json"))
        self.url, self.validator, self.total = url, "", None
        try:
            known = json.loads(self.about.read_text(encoding="utf-8"))
            if known["url"] == url:
                self.validator, self.total = str(known["validator"]), known["total"]
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.drop()

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def start(self, validator: str, total: int | None) -> None:
        self.drop()
        self.validator, self.total = validator, total
        # Half-written, after a crash, it is no JSON, and the piece counts for nothing.
        self.about.write_text(json.dumps({"url": self.url, "validator": validator, "total": total}), encoding="utf-8")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)
        self.validator, self.total = "", None


def download(
    url: str, path: Path, *, size: int | None = None, digest: str = "", page: str = "", progress: Progress | None = None
) -> None:
    """Fetch ``url`` to ``path``, going on from what an earlier call left.

    size    bytes that the file must have
    digest  "sha256:…" or "md5:…" that it must have; a file with another one is removed, for resuming it cannot help
    page    the address to name where the file must be fetched by hand

    Raises UserError for a web page in place of the file, another size or checksum, too little room on the disk, and a
    server that does not answer or breaks off ``TRIES`` times in a row; what has come is then kept.
    """
    page, failures, again = page or url, 0, True
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{path.name}: address {quoted(url)}: expected http:// or https://")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Part(path, url)
    except OSError as error:
        raise UserError(f"cannot write in '{path.parent}' ({error.strerror or error}); make it writable") from error
    while True:
        before = part.size
        try:
            resumed = receive(part, path, size, digest, page, progress)
        except Broken as error:
            failures = 1 if part.size - before >= CHUNK else failures + 1
            if failures >= (LASTING_TRIES if error.lasting else TRIES):
                kept = "what has come is kept and the same command goes on from it" if part.size else "try again later"
                raise UserError(
                    f"{path.name}: {url}: {error}, after {failures} tries; {kept}, or fetch {page} by hand to '{path}'"
                ) from error
            time.sleep(PAUSE * 2 ** (failures - 1))
            continue
        wrong = check_file(part.path, size, digest)
        if not wrong:
            break
        part.drop()
        if not (resumed and again):
            raise UserError(
                f"{path.name}: {url} gives {wrong}; it is removed: run again, and if it stays so, the file there is "
                f"another one now: fetch the right one by hand ({page}) to '{path}'"
            )
        again = False  # pieces that do not fit together: once more from the start
    try:
        os.replace(part.path, path)
        part.about.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write '{path}' ({error.strerror or error}); make it writable") from error


def receive(part: Part, path: Path, size: int | None, digest: str, page: str, progress: Progress | None) -> bool:
    """One request; whether it went on from a piece that was there. Raises Broken or UserError."""
    if not (part.validator or digest):  # nothing would tell that the file has changed
        part.drop()
    have = part.size
    if have and have == part.total:
        return True
    try:
        request = urllib.request.Request(
            sendable(part.url), headers={"User-Agent": AGENT, "Accept-Encoding": "identity"}
        )
    except ValueError as error:
        raise no_address(path, part.url, error) from error
    if have:
        request.add_header("Range", f"bytes={have}-")
        if part.validator:
            request.add_header("If-Range", part.validator)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            begun = begin(part, answer, have)
            first = b"" if begun else answer.read(HEAD)
            total = part.total if begun else length(answer)
            if not begun:
                if len(first) < min(HEAD, total or 0):
                    raise Broken(f"broke off at {len(first)} of {total} bytes")
                refuse_other_kind(path, part.url, page, first, answer.headers.get_content_type())
                if None not in (size, total) and size != total:
                    raise UserError(
                        f"{path.name}: {part.url} offers {total} bytes, expected {size}: it is another file; fetch the "
                        f"right one by hand ({page}) to '{path}'"
                    )
                start(part, answer, total)
            need_room(path, 0 if total is None else total - part.size, total or size or 0)
            append(part, path.name, answer, first, size, total, progress)
    except HTTPError as error:
        if error.code == 416:
            part.drop()
        if error.code in (408, 416, 429) or error.code >= 500:
            raise Broken(f"answers {error.code} {error.reason}") from error
        raise UserError(
            f"{path.name}: {part.url} answers {error.code} {error.reason}; fetch {page} by hand to '{path}'"
        ) from error
    except (InvalidURL, UnicodeError) as error:
        raise no_address(path, part.url, error) from error
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        lasting = isinstance(reason, (socket.gaierror, ConnectionRefusedError))
        raise Broken(" ".join(str(reason).split()), lasting) from error
    if total is not None and part.size != total:
        raise Broken(f"broke off at {part.size} of {total} bytes")
    return begun


def sendable(url: str) -> str:
    """The address with what a request cannot hold, spaces and letters outside ASCII, as %XX; given %XX stay."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=quote(parts.path, KEPT), query=quote(parts.query, KEPT)))


def no_address(path: Path, url: str, error: Exception) -> UserError:
    """For what no further try would mend."""
    return UserError(
        f"{path.name}: {quoted(url, 200)} is no address that can be asked ({quoted(str(error))}); expected "
        "http://HOST/PATH or https://HOST/PATH: mend the address"
    )


def start(part: Part, answer: HTTPResponse, total: int | None) -> None:
    """A new piece. Raises UserError where its note cannot be written."""
    try:
        part.start(next(iter(validators(answer)), ""), total)
    except OSError as error:
        raise UserError(f"cannot write '{part.about}' ({error.strerror or error}); make room there") from error


def begin(part: Part, answer: HTTPResponse, have: int) -> bool:
    """Whether the answer goes on from byte ``have`` of the same version; False where it starts from byte 0."""
    if answer.status != 206:
        return False
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    total = int(found[2]) if found and found[2] != "*" else part.total
    fits = found and int(found[1]) == have and total == (total if part.total is None else part.total)
    if not have or not fits or part.validator not in ("", *validators(answer)):
        part.drop()
        raise Broken("the file has changed")  # the next try starts from byte 0
    part.total = total
    return True


def append(part: Part, name: str, answer: HTTPResponse, first: bytes, size, total, progress: Progress | None) -> None:
    """The answer's bytes at the end of the piece. Raises UserError where they cannot be written or are too many."""
    have = part.size
    try:
        file = open(part.path, "ab")
    except OSError as error:
        raise UserError(f"cannot write '{part.path}' ({error.strerror or error}); make it writable") from error
    with file:
        for chunk in itertools.chain([first], iter(lambda: answer.read(CHUNK), b"")):
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise UserError(f"cannot write '{part.path}' ({error.strerror or error}); make room there") from error
            have += len(chunk)
            if size is not None and have > size:
                part.drop()
                raise UserError(f"{name}: {part.url} gives more than the {size} bytes expected: it is another file")
            if progress:
                progress(name, have, total or size)


def length(answer: HTTPResponse) -> int | None:
    stated = answer.headers.get("Content-Length", "")
    return int(stated) if stated.isdigit() else None


def validators(answer: HTTPResponse) -> list[str]:
    """What names the file's version, strongest first; a weak ETag may name two that differ."""
    found = [answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")]
    return [value for value in found if value and not value.startswith("W/")]


def need_room(path: Path, download: int, whole: int) -> None:
    """Raises UserError unless the rest of the file, and an archive's content, has room beside it."""
    unpacked = 0 if path.name.endswith((".json", ".mat", ".txt")) else whole
    free = shutil.disk_usage(path.parent).free
    if download + unpacked > free:
        what = [f"{gigabytes(n)} to {verb}" for n, verb in ((download, "download"), (unpacked, "unpack")) if n]
        raise UserError(
            f"{path.name}: {' and '.join(what)}, but '{path.parent}' has {gigabytes(free)} free; "
            "make room or choose another --data-root"
        )


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# ---- is it the file? -------------------------------------------------------------------------------------------------


def refuse_other_kind(path: Path, url: str, page: str, head: bytes, content_type: str = "") -> None:
    """Raises UserError where the first bytes are not those of a file of that name."""
    wrong = other_kind(path.name, head, content_type)
    if wrong:
        raise UserError(
            f"{path.name}: {url} gives {wrong}; open {page} in a browser, fetch the file by hand and put it at '{path}'"
        )


def other_kind(name: str, head: bytes, content_type: str = "") -> str:
    """What the file is instead; empty where it may be what its name says. ``head``: its first ``HEAD`` bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    tar = head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b"
    kinds = {".zip": head[:2] == b"PK", ".json": text[:1] in (b"{", b"["), ".mat": head[:6] == b"MATLAB"}
    kinds |= dict.fromkeys((".tar", ".gz", ".tgz"), tar)  # "tar.gz" is plain tar at one address
    ending = Path(name).suffix
    if kinds.get(ending, True) and not text.startswith((b"<!doctype", b"<html")):
        return ""
    page = text.startswith(b"<") or content_type == "text/html"
    return "a web page in place of the file" if page else f"what is no {ending} file ({quoted(repr(head[:16]))})"


def check_file(path: Path, size: int | None, digest: str) -> str:
    """What is wrong with a file's size or checksum; empty where both are as expected or nothing is."""
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            return f"{found} bytes, expected {size}"
        kind, _, expected = digest.partition(":")
        if expected:
            hasher = hashlib.new(kind, usedforsecurity=False)
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    hasher.update(chunk)
            if hasher.hexdigest() != expected:
                return f"a file with the {kind} {hasher.hexdigest()}, expected {expected}"
    except OSError as error:
        raise UserError(f"cannot read '{path}' ({error.strerror or error})") from error
    return ""
