"""Downloads from a local server that breaks off, changes its files and lies; archives that try to get out."""

import hashlib
import io
import json
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import sites
from hypothesis import given, settings
from hypothesis import strategies as st

from carryover.bench.errors import UserError
from carryover.datasets import fetch, unpack

BODY = b"PK\x03\x04" + random.Random(0).randbytes(3 << 20)  # a zip file by its first bytes
OTHER = b"PK\x03\x04" + random.Random(1).randbytes(3 << 20)


def sha256(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    with sites.serve() as site:
        yield site


def refusal(act, *args, **kwargs) -> str:
    """The one line with which it is refused."""
    with pytest.raises(UserError) as caught:
        act(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    return line


def leave_a_piece(site, path, body=BODY, size=1000000, **more):
    """What a run leaves that was broken off and stopped."""
    url = site.put(path.name, body)
    site.cuts = [size] + [0] * fetch.TRIES
    refusal(fetch.download, url, path, **more)
    site.cuts, site.log = [], []
    return url


# ---- downloads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:port", "a b", "x" * 64 + "ü", "[::1"])
def test_what_is_no_address_is_refused_at_once(site, tmp_path, monkeypatch, host):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: pytest.fail("tried again"))
    line = refusal(fetch.download, f"http://{host}/a.zip", tmp_path / "a.zip")
    assert "no address" in line and "http://HOST/PATH" in line


def test_an_interrupted_download_is_resumed_and_byte_identical(site, tmp_path):
    path = tmp_path / "a.zip"
    url = leave_a_piece(site, path)
    assert not path.exists() and (tmp_path / "a.zip.part").read_bytes() == BODY[:1000000]
    fetch.download(url, path, digest=sha256(BODY))
    assert path.read_bytes() == BODY
    assert [wanted for _, wanted, _ in site.log] == ["bytes=1000000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_transfer_that_breaks_off_is_resumed_within_one_call(site, tmp_path):
    site.cuts = [2000000, 500000]
    fetch.download(site.put("a.zip", BODY), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert [wanted for _, wanted, _ in site.log] == [None, "bytes=2000000-", "bytes=2500000-"]


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("changed", [OTHER, OTHER[:2000000], OTHER[:900000]])
def test_a_file_that_changed_in_between_is_not_spliced(site, tmp_path, honest, changed):
    """Also where the server disregards If-Range, and where the new file is shorter than the piece."""
    path = tmp_path / "a.zip"
    url = leave_a_piece(site, path)
    site.files["a.zip"], site.honest = changed, honest
    fetch.download(url, path)
    assert path.read_bytes() == changed
    assert site.log[0][1:] == ("bytes=1000000-", f'"{hashlib.md5(BODY).hexdigest()}"')


def test_a_changed_file_without_versions_is_told_by_its_checksum(site, tmp_path):
    path, site.versioned = tmp_path / "a.zip", False
    url = leave_a_piece(site, path, digest=sha256(OTHER))
    site.files["a.zip"] = OTHER
    fetch.download(url, path, digest=sha256(OTHER))
    assert path.read_bytes() == OTHER
    assert [wanted for _, wanted, _ in site.log] == ["bytes=1000000-", None]


def test_without_version_and_checksum_a_download_starts_again(site, tmp_path):
    path, site.versioned = tmp_path / "a.zip", False
    url = leave_a_piece(site, path)
    fetch.download(url, path)
    assert path.read_bytes() == BODY and site.log == [("a.zip", None, None)]


def test_a_server_that_sends_no_parts_starts_again(site, tmp_path):
    path = tmp_path / "a.zip"
    url = leave_a_piece(site, path)
    site.ranges = False
    fetch.download(url, path)
    assert path.read_bytes() == BODY and len(site.log) == 1


def test_a_piece_of_another_address_is_not_used(site, tmp_path):
    path = tmp_path / "a.zip"
    leave_a_piece(site, path)
    fetch.download(site.put("b.zip", OTHER), path)
    assert path.read_bytes() == OTHER and site.log == [("b.zip", None, None)]


def test_a_piece_that_is_whole_needs_no_request(site, tmp_path):
    """A run that was killed between the last byte and the renaming."""
    path = tmp_path / "a.zip"
    url = leave_a_piece(site, path)
    (tmp_path / "a.zip.part").write_bytes(BODY)
    fetch.download(url, path, digest=sha256(BODY))
    assert path.read_bytes() == BODY and site.log == []


@pytest.mark.parametrize("note", ["{", "[]", '{"url": 1}'])
def test_a_piece_with_a_damaged_note_is_not_used(site, tmp_path, note):
    path = tmp_path / "a.zip"
    url = leave_a_piece(site, path)
    (tmp_path / "a.zip.part.json").write_text(note)
    fetch.download(url, path)
    assert path.read_bytes() == BODY and site.log == [("a.zip", None, None)]


def test_a_wrong_checksum_is_refused_and_the_file_removed(site, tmp_path):
    line = refusal(fetch.download, site.put("a.zip", BODY), tmp_path / "a.zip", digest=sha256(OTHER))
    assert hashlib.sha256(OTHER).hexdigest() in line and hashlib.sha256(BODY).hexdigest() in line
    assert not list(tmp_path.iterdir()) and len(site.log) == 1


def test_another_size_than_published_is_refused_before_the_download(site, tmp_path):
    line = refusal(fetch.download, site.put("a.zip", BODY), tmp_path / "a.zip", size=17)
    assert "17" in line and str(len(BODY)) in line
    assert not list(tmp_path.iterdir())


def test_a_body_that_stays_short_is_no_file(site, tmp_path):
    path, site.cuts = tmp_path / "a.zip", [1234] + [0] * 9
    line = refusal(fetch.download, site.put("a.zip", BODY), path)
    assert f"1234 of {len(BODY)}" in line and site.address in line
    assert not path.exists() and len(site.log) == fetch.TRIES


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.tar", "split.json", "labels.mat"])
@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>Virus scan warning</html>", b"\xef\xbb\xbf\n <HTML>", b"<?xml version='1.0'?>"]
)
def test_a_web_page_in_place_of_a_file_is_refused_with_the_address_to_open(site, tmp_path, name, kind, page):
    url, site.types[name] = site.put(name, page), kind
    line = refusal(fetch.download, url, tmp_path / name, page="https://example.org/view")
    assert "a web page" in line and "https://example.org/view" in line and str(tmp_path / name) in line
    assert not list(tmp_path.iterdir())


def test_bytes_of_no_known_kind_are_refused(site, tmp_path):
    assert "no .zip file" in refusal(fetch.download, site.put("a.zip", b"quota exceeded"), tmp_path / "a.zip")


def test_a_page_on_resuming_keeps_the_piece(site, tmp_path):
    path = tmp_path / "a.zip"
    url = leave_a_piece(site, path)
    site.files["a.zip"] = b"<html>too many users</html>"
    assert "a web page" in refusal(fetch.download, url, path)
    site.files["a.zip"], site.log = BODY, []
    fetch.download(url, path)
    assert path.read_bytes() == BODY and site.log[0][1] == "bytes=1000000-"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(site, tmp_path, status):
    site.statuses = [status, status]
    fetch.download(site.put("a.zip", BODY), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY and len(site.log) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_dead_address_is_asked_once_and_named(site, tmp_path, status):
    site.statuses = [status]
    line = refusal(fetch.download, site.put("a.zip", BODY), tmp_path / "a.zip")
    assert str(status) in line and site.address in line and str(tmp_path / "a.zip") in line
    assert len(site.log) == 1


def test_a_server_that_is_not_there_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    with sites.serve() as site:
        url = f"{site.address}/a.zip"
    assert url in refusal(fetch.download, url, tmp_path / "a.zip")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/a.zip", "a.zip"])
def test_other_addresses_than_of_the_web_are_refused(tmp_path, url):
    assert "http" in refusal(fetch.download, url, tmp_path / "a.zip")


@pytest.mark.parametrize("free, fits", [(2 * len(BODY), True), (2 * len(BODY) - 1, False)])
def test_room_for_the_archive_and_its_content_is_asked_for_first(site, tmp_path, monkeypatch, free, fits):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    url, path = site.put("a.zip", BODY), tmp_path / "a.zip"
    if fits:
        return fetch.download(url, path)
    line = refusal(fetch.download, url, path)
    assert "3.1 MB to download" in line and "make room" in line and not path.exists()


def test_progress_ends_at_the_whole_file(site, tmp_path):
    seen = []
    fetch.download(site.put("a.zip", BODY), tmp_path / "a.zip", progress=lambda *state: seen.append(state))
    assert seen[-1] == ("a.zip", len(BODY), len(BODY)) and sorted(seen) == seen


# ---- archives --------------------------------------------------------------------------------------------------------


def make_tar(path: Path, *members, mode="w:gz"):
    """Members: (name, bytes) or (name, kind, target)."""
    with tarfile.open(path, mode) as file:
        for name, *what in members:
            info = tarfile.TarInfo(name)
            if len(what) == 1:
                info.size = len(what[0])
                file.addfile(info, io.BytesIO(what[0]))
            else:
                info.type, info.linkname = what
                file.addfile(info)
    return path


def make_zip(path: Path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, *what in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o120777 if len(what) == 2 else 0o100644) << 16
            file.writestr(info, what[-1] if isinstance(what[-1], bytes) else what[-1].encode())
    return path


GOOD = ("top/a.txt", b"a")
NAMES = ["../evil", "top/../../evil", "/evil", "top/..", "C:/evil", "top\\..\\..\\evil", "..", "top/b/../../../evil"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make, ending", [(make_tar, "tgz"), (make_zip, "zip")])
def test_a_member_that_leaves_the_folder_is_refused_and_nothing_is_left(tmp_path, make, ending, name):
    archive = make(tmp_path / f"x.{ending}", GOOD, (name, b"evil"))
    line = refusal(unpack.unpack, archive, tmp_path / "in" / "here", ["top"])
    assert "outside the folder" in line and str(archive) in line
    assert not list(tmp_path.rglob("evil")) and not (tmp_path / "in" / "here").exists()


@pytest.mark.parametrize("target", ["../../evil", "/etc/passwd", "../..", "a/../../../x"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, "zip"])
def test_a_symbolic_link_out_is_refused(tmp_path, target, kind):
    member = ("top/link", kind, target)
    archive = (make_zip if kind == "zip" else make_tar)(
        tmp_path / ("x.zip" if kind == "zip" else "x.tgz"), GOOD, member
    )
    assert "link out" in refusal(unpack.unpack, archive, tmp_path / "here", ["top"])
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("target", ["../evil", "/etc/passwd", "top/../../evil"])
def test_a_hard_link_out_is_refused(tmp_path, target):
    archive = make_tar(tmp_path / "x.tgz", GOOD, ("top/link", tarfile.LNKTYPE, target))
    assert "link out" in refusal(unpack.unpack, archive, tmp_path / "here", ["top"])


def test_writing_through_a_link_is_impossible(tmp_path):
    """A link to a folder and then a file below it: the classic way out of naive checks."""
    archive = make_tar(tmp_path / "x.tgz", GOOD, ("top/dir", tarfile.SYMTYPE, "."), ("top/dir/b.txt", b"b"))
    line = refusal(unpack.unpack, archive, tmp_path / "here", ["top"])
    assert "top/dir" in line and not (tmp_path / "here").exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "x.tgz", GOOD, ("top/null", kind, ""))
    assert "device" in refusal(unpack.unpack, archive, tmp_path / "here", ["top"])


def test_links_within_the_archive_become_the_files_they_name(tmp_path):
    archive = make_tar(
        tmp_path / "x.tgz",
        GOOD,
        ("top/sub/soft", tarfile.SYMTYPE, "../a.txt"),
        ("top/hard", tarfile.LNKTYPE, "top/a.txt"),
    )
    unpack.unpack(archive, tmp_path / "here", ["top"])
    for name in ("a.txt", "sub/soft", "hard"):
        path = tmp_path / "here" / "top" / name
        assert path.read_bytes() == b"a" and not path.is_symlink()


@pytest.mark.parametrize("make, ending", [(make_tar, "tgz"), (make_zip, "zip")])
def test_a_bomb_is_stopped(tmp_path, monkeypatch, make, ending):
    monkeypatch.setattr(unpack, "MOST_MORE", 1 << 20)
    archive = make(tmp_path / f"x.{ending}", GOOD, ("top/zeros", bytes(20 << 20)))
    assert archive.stat().st_size < 1 << 16
    assert "unpacks to more than" in refusal(unpack.unpack, archive, tmp_path / "here", ["top"])
    assert not (tmp_path / "here").exists()


def test_a_bomb_of_links_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MOST_MORE", 1 << 20)
    links = [(f"top/{i}", tarfile.LNKTYPE, "top/zeros") for i in range(100)]
    archive = make_tar(tmp_path / "x.tgz", ("top/zeros", bytes(1 << 19)), *links)
    assert "more than" in refusal(unpack.unpack, archive, tmp_path / "here", ["top"])


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MOST_FILES", 3)
    archive = make_zip(tmp_path / "x.zip", *((f"top/{i}", b"") for i in range(4)))
    assert "more than 3 members" in refusal(unpack.unpack, archive, tmp_path / "here", ["top"])


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("make, ending", [(make_tar, "tgz"), (make_zip, "zip")])
def test_a_truncated_archive_is_damaged(tmp_path, make, ending, keep):
    archive = make(tmp_path / f"x.{ending}", *((f"top/{i}", random.Random(i).randbytes(5000)) for i in range(20)))
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    line = refusal(unpack.unpack, archive, tmp_path / "here", ["top"])
    assert str(archive) in line and not (tmp_path / "here").exists()


def test_plain_tar_under_the_name_of_a_packed_one_is_read(tmp_path):
    unpack.unpack(make_tar(tmp_path / "x.tar.gz", GOOD, mode="w"), tmp_path / "here", ["top"])
    assert (tmp_path / "here/top/a.txt").read_bytes() == b"a"


def test_only_what_is_wanted_is_written(tmp_path):
    archive = make_tar(tmp_path / "x.tgz", GOOD, ("topper/b", b"b"), ("./top/c", b"c"), ("other/d", b"d"))
    unpack.unpack(archive, tmp_path / "here", ["top"])
    assert sorted(path.name for path in (tmp_path / "here").rglob("*")) == ["a.txt", "c", "top"]
    assert "no 'images'" in refusal(unpack.unpack, archive, tmp_path / "again", ["images"])


names = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "\\", "C:", "\0", "...", "~", "é"]), max_size=8).map("/".join),
)


@settings(deadline=None)
@given(names)
def test_a_safe_name_stays_in_the_folder(name):
    """Against the path arithmetic of the operating system."""
    parts = unpack.safe_path(name)
    if parts is not None:
        found = os.path.normpath(os.path.join("/base/folder", *parts))
        assert found == "/base/folder" or found.startswith("/base/folder/")
        assert ".." not in parts and not any("\\" in part or "\0" in part for part in parts)
        assert found == os.path.normpath("/base/folder/" + name)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=3), names)
def test_a_safe_link_stays_in_the_folder_and_an_unsafe_one_is_refused(start, target):
    parts = unpack.safe_path(target, tuple(start))
    exact = os.path.normpath("/".join(["/base/folder", *start, target]))
    inside = exact == "/base/folder" or exact.startswith("/base/folder/")
    if parts is not None:
        assert os.path.normpath("/".join(["/base/folder", *parts])) == exact and inside
    elif not inside:
        assert parts is None


def test_notes_of_pieces_are_json(site, tmp_path):
    url = leave_a_piece(site, tmp_path / "a.zip")
    note = json.loads((tmp_path / "a.zip.part.json").read_text())
    assert note["url"] == url and note["total"] == len(BODY)
