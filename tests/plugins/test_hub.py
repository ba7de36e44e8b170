"""Plug-ins from the hub, by a server on this machine that speaks the routes of its client; and a folder for it."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from checkout import FROM_HERE, ROOT
from command_line import call, mistake
from huggingface_hub import constants
from worlds import SHORT, made, quietly

import carryover
from carryover.bench.errors import UserError
from carryover.bench.plugins import hub

COMMIT, OLDER = "a" * 40, "b" * 40
REPOSITORY = "some-lab/plug-ins"


class Hub(BaseHTTPRequestHandler):
    """``/ORG/NAME/resolve/REV/FILE``, as the hub answers it; ``server.files`` by (commit, file)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, whole):
        if "/resolve/" not in self.path:  # something else that the client would like to know
            return self.give(404, {}, b"")
        self.server.asked.append((self.command, self.path))
        owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
        if self.server.down:
            return self.give(503, {}, b"")
        commit = {"main": COMMIT, "v1": OLDER, COMMIT: COMMIT, OLDER: OLDER}.get(revision)
        body = self.server.files.get((commit, file))
        if f"{owner}/{name}" == "some-lab/gated":
            return self.give(403, {"X-Error-Code": "GatedRepo"}, b"")
        if f"{owner}/{name}" != REPOSITORY:
            return self.give(401, {"X-Error-Code": "RepoNotFound"}, b"")
        if commit is None:
            return self.give(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        if body is None:
            return self.give(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"")
        tag = hashlib.sha256(body).hexdigest()
        self.give(200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, body, whole)

    def give(self, status, headers, body, whole=True):
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if whole:
            self.wfile.write(body)


@contextlib.contextmanager
def serving(files):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads, server.files, server.asked, server.down = True, files, [], False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return made(tmp_path_factory.mktemp("world"), methods=("zs-clip", "linear-probe"))


@pytest.fixture
def site(world, tmp_path, monkeypatch):
    probe = world.plugin("linear-probe").read_bytes()
    files = {
        (COMMIT, "probe.safetensors"): probe,
        (OLDER, "deep/probe.safetensors"): world.plugin("zs-clip").read_bytes(),
        (COMMIT, "lora/adapter_model.safetensors"): b"weights",
        (COMMIT, "lora/adapter_config.json"): b"{}",
    }
    with serving(files) as server:
        answers_at(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.chdir(world.home)
        yield server


def answers_at(monkeypatch, address):
    """As HF_ENDPOINT tells a process that starts."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    path = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "".join(path[1:]))


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_file_is_fetched_once_told_by_commit_and_sha256_and_found_again_without_a_network(site, world, monkeypatch):
    address, own = f"hf://{REPOSITORY}/probe.safetensors", world.plugin("linear-probe").read_bytes()
    found = hub.local_file(address)
    assert (found.commit, found.sha256) == (COMMIT, hashlib.sha256(own).hexdigest())
    with open(found.path, "rb") as file:
        assert file.read() == own
    assert hub.local_file(address) == found
    assert [command for command, _ in site.asked].count("GET") == 1
    older = hub.local_file(f"hf://{REPOSITORY}@v1/deep/probe.safetensors")
    assert older.commit == OLDER and older.path.endswith("deep/probe.safetensors")
    offline(monkeypatch)
    assert hub.local_file(address) == found
    assert hub.local_file(f"hf://{REPOSITORY}@v1/deep/probe.safetensors") == older
    assert hub.local_file(f"hf://{REPOSITORY}@{COMMIT}/probe.safetensors") == found
    with pytest.raises(UserError, match="'main' is not in the hub's cache, and the hub does not answer"):
        hub.local_file(f"hf://{REPOSITORY}/other.safetensors")
    assert hub.local_file("plain.safetensors") == hub.Found("plain.safetensors")


def test_an_adapters_configuration_comes_with_it(site):
    found = hub.local_file(f"hf://{REPOSITORY}/lora/adapter_model.safetensors")
    with open(os.path.join(os.path.dirname(found.path), "adapter_config.json")) as file:
        assert file.read() == "{}"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("some-lab/gated/x.safetensors", "it is gated: ask for access at https://huggingface.co/some-lab/gated"),
        ("some-lab/none/x.safetensors", "no repository some-lab/none on the hub, or a private one"),
        (f"{REPOSITORY}@v9/x.safetensors", f"{REPOSITORY} has no revision 'v9'"),
        (f"{REPOSITORY}/x.safetensors", f"revision 'main' of {REPOSITORY} has no file 'x.safetensors'"),
        ("some-lab/x.safetensors", r"expected hf://ORG/NAME[@REV]/FILE"),
        ("datasets/some-lab/x/y.npz", "only model repositories are read"),
        (f"{REPOSITORY}/../../x", r"expected hf://ORG/NAME[@REV]/FILE"),
        ("-a/b-/x", "it cannot be had"),
    ],
)
def test_what_cannot_be_had_is_one_line(site, capsys, address, told):
    line = mistake(capsys, "classify", "--plugin", f"hf://{address}", ROOT / "README.md")
    assert told in line and "Error" not in line.replace("ValidationError", "")


def test_without_a_network_it_says_so_at_once_or_takes_what_is_in_the_cache(site, monkeypatch, capsys):
    address = f"hf://{REPOSITORY}/probe.safetensors"
    server = constants.ENDPOINT
    answers_at(monkeypatch, "http://127.0.0.1:9")
    start = time.monotonic()
    line = mistake(capsys, "classify", "--plugin", address, ROOT / "README.md")
    assert "the hub does not answer (" in line and "check the network, or give the file itself" in line
    assert time.monotonic() - start < 10
    answers_at(monkeypatch, server)
    found = hub.local_file(address)
    answers_at(monkeypatch, "http://127.0.0.1:9")
    assert hub.local_file(address) == found
    answers_at(monkeypatch, server)
    site.down = True
    assert hub.local_file(address) == found


def test_commands_and_python_take_an_address(site, world, tmp_path, capsys):
    address, file = f"hf://{REPOSITORY}/probe.safetensors", world.plugin("linear-probe")
    end = ["--backbone", world.backbone("b"), "--device", "cpu", "--out", tmp_path]
    commands = {
        "classify": [world.home / "animals", "--json"],
        "evaluate": ["--dataset", world.data(), "--dry-run"],
        "port": ["--images", world.home / "animals", "--to", tmp_path / "to.safetensors"],
    }
    for command, more in commands.items():
        status, out, err = call(capsys, command, "--plugin", address, *more, *end)
        assert (
            status == 0 and f"{address}: commit {COMMIT}, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in err
        )
        if command == "classify":
            assert out == call(capsys, command, "--plugin", file, *more, *end)[1]
    assert "no reader yet" not in mistake(
        capsys, "import", f"hf://{REPOSITORY}/gone.pt", "--to", tmp_path / "x.safetensors"
    )
    plugin = carryover.load_plugin(address)
    assert plugin.sha256 == carryover.load_plugin(file).sha256 and COMMIT in plugin.path


def test_a_process_of_its_own_fetches_from_the_address_that_the_client_is_told(site, world, tmp_path):
    env = {**FROM_HERE, "HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_CACHE": str(tmp_path / "cold")}
    words = ["classify", "--plugin", f"hf://{REPOSITORY}@v1/deep/probe.safetensors", "--json"]
    words += ["--backbone", world.backbone("b"), str(world.home / "animals" / "cat")]
    command = [sys.executable, ROOT / "run_all.py", *words]
    first = subprocess.run(command, capture_output=True, text=True, env=env)
    assert first.returncode == 0 and f"commit {OLDER}" in first.stderr, first.stderr
    asked = len(site.asked)
    again = subprocess.run(command, capture_output=True, text=True, env={**env, "HF_HUB_OFFLINE": "1"})
    assert again.stdout == first.stdout and len(first.stdout.splitlines()) == 12 and len(site.asked) == asked


# ---- a folder for the hub --------------------------------------------------------------------------------------------


def exported(world, to, *more):
    flags = ["--arch", world.arch, "--datasets", world.data(), "--methods", "linear-probe", *SHORT, "--out", world.out]
    return "export", *flags, "--to", to, *more


def test_a_folder_for_the_hub_tells_what_was_measured_and_sends_nothing(world, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", None)
    said = quietly(*exported(world, tmp_path / "page", "--push", "some-lab/plug-ins"))
    assert f"hf upload some-lab/plug-ins {tmp_path / 'page'} ." in said and "Nothing is sent" in said
    (file,) = (tmp_path / "page").glob("*.safetensors")
    names = {file.name, file.with_suffix(".json").name, "README.md"}
    assert {path.name for path in (tmp_path / "page").iterdir()} == names
    card, record = huggingface_hub.ModelCard.load(tmp_path / "page" / "README.md"), world.record("linear-probe")
    assert card.data.library_name == "carryover" and {"clip", "linear-probe", "folder:animals"} <= set(card.data.tags)
    assert f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" in card.text
    for role in ("base", "new"):
        target = record["targets"][role]
        assert f"| {target['accuracy']:.2f} | {target['count']} |" in card.text
    assert f"carryover classify --plugin 'hf://some-lab/plug-ins/{file.name}' FOLDER" in card.text
    page = (tmp_path / "page" / "README.md").read_text()
    quietly(*exported(world, tmp_path / "page", "--push", "some-lab/plug-ins"))
    assert (tmp_path / "page" / "README.md").read_text() == page


def test_what_would_be_sent_by_mistake_is_refused(world, tmp_path, capsys):
    (tmp_path / "diary.txt").write_text("mine")
    assert "'diary.txt', which would be sent" in mistake(capsys, *exported(world, tmp_path, "--push", "a/b"))
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "README.md").write_text("# Mine")
    assert "none of this suite's" in mistake(capsys, *exported(world, tmp_path / "page", "--push", "a/b"))
    file = tmp_path / "x.safetensors"
    assert "expected a folder" in mistake(capsys, *exported(world, file, "--push", "a/b"))
    for name in ("alone", "a/b/c", "a b/c", "-a/b"):
        assert "ORG/NAME" in mistake(capsys, *exported(world, tmp_path / "new", f"--push={name}"))
    assert not (tmp_path / "new").exists()


def test_names_of_others_are_no_mark_up_on_the_page():
    from carryover.bench.plugins.model_card import page

    run = {"method": "coop", "dataset": "folder:x\n---\n- y", "shots": 1, "seed": 1}
    one = {"backbone": "`a`|b", "fingerprint": "", "correct": 1, "count": 2, "accuracy": 50.0}
    card = {"file": "x.safetensors", "what": "a | <b>\n[c](d)", "run": run, "measured": {"base": one}, "marks": []}
    text = page("a/b", [{**card, "sha256": "0" * 64}])
    front = huggingface_hub.ModelCard(text).data
    assert front.tags == ["carryover", "clip", "coop", "folder:x\n---\n- y"]
    assert "\\| \\<b\\> \\[c\\]\\(d\\)" in text and "`'a'/b`" in text
    assert json.dumps("folder:x\n---\n- y") in text
