"""What is printed is what was given: every emoji code that rich knows, markup and links of its kind, brackets, colons,
through each function that prints; only control characters stand as their codes."""

import io
import logging
import re
import subprocess
import sys
import time
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from checkout import FROM_HERE, ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich._emoji_codes import EMOJI
from rich.progress import Progress
from tiny_caltech import picture

from carryover.bench.cli import display, evaluate, main, prepare, progress
from carryover.bench.errors import UserError, printable
from carryover.bench.preflight.findings import Page
from carryover.bench.render import terminal
from carryover.bench.render.terminal import Plain, Table, made, say, words_column

CODES = [f":{name}:" for name in EMOJI]
MARKUP = [
    "[red]a[/red]",
    "[/]",
    "[bold red]",
    "[link=http://x/y]z[/link]",
    "[@click=exit()]x",
    r"\[red] \\[red]",
    "C:\\data\\[x]\\",
    "http://x/y?z=[1]#:a:",
    "folder:dog:smile:",
    "a:b/[c] (d) {e} 'f' 12.5 True None 0x1f 2024-01-01",
    "name  with   spaces ",
    "日本語 é ß ﷽",
]
words = st.lists(st.sampled_from(CODES + MARKUP) | st.text(min_size=1, max_size=9), min_size=1, max_size=4).map("".join)
bounded = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def printed(request, monkeypatch):
    """``printed(call)``: what it printed on both streams, without colours and moves of the cursor."""

    def of(call, width=40):
        files = [io.StringIO(), io.StringIO()]
        for console, file in zip((terminal.console, terminal.aside), files, strict=True):
            monkeypatch.setattr(console, "_file", file)
            monkeypatch.setattr(console, "_force_terminal", request.param)
            monkeypatch.setattr(console, "_width", width)
        call()
        return re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", "".join(file.getvalue() for file in files))

    return of


LINES = {  # function -> (what it prints of a text, the line that must come)
    "say": (lambda text: say(text), "{}"),
    "a coloured word": (lambda text: say((text, "bold red"), f" {text}"), "{} {}"),
    "doctor, section": (lambda text: Page().section(text), "{}"),
    "doctor, ok": (lambda text: Page().ok(text, text), "ok   {}: {}"),
    "doctor, note": (lambda text: Page().note(text, text), "note {}: {}"),
    "doctor, bad": (lambda text: Page().bad(text, UserError(text)), "bad  {}: {}"),
    "evaluate and port, note": (lambda text: evaluate.show_warnings([text]), "note {}"),
}


@pytest.mark.parametrize("function", LINES)
def test_every_code_and_all_markup_stand_as_given(printed, function):
    call, expected = LINES[function]
    for text in (" ".join(CODES), "".join(CODES), *MARKUP):
        assert printed(lambda text=text: call(text)) == expected.replace("{}", printable(text)) + "\n"


@pytest.mark.parametrize("function", LINES)
@bounded
@given(words)
def test_any_text_stands_as_given(printed, function, text):
    call, expected = LINES[function]
    assert printed(lambda: call(text)) == expected.replace("{}", printable(text)) + "\n"


def shown_by_display(text):
    shown = display.Display(terminal.console, 3)
    shown.on_done(f"{text} run", {"status": "failed", "error": text, "key": "k"})
    shown.say(text)


@pytest.mark.parametrize("text", [" ".join(CODES), *MARKUP])
def test_a_runs_failure_its_progress_and_what_it_waits_for_stand_as_given(printed, monkeypatch, text):
    assert printed(lambda: shown_by_display(text)) == f"failed {text} run: {text}\n{text}\n"
    told = progress.Progress()
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 1000)
    assert printed(lambda: told(text, 1, 2)) == f"{text}, 1 of 2\n"


@pytest.mark.parametrize("text", [" ".join(CODES), *MARKUP])
def test_what_a_bar_describes_stands_as_given(text):
    file = io.StringIO()
    console = made(file=file, force_terminal=True, width=2 * len(text) + 80, color_system=None)
    with Progress(words_column("{task.description:<44}"), console=console, transient=False) as bar:
        bar.add_task(text, total=1)
    assert text in file.getvalue()
    view = progress.Bar(console)
    view.show(0, 1, text, "")
    assert view.bar.tasks[0].description == text and text in file.getvalue()
    view.close()


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("text", [" ".join(CODES), *MARKUP])
def test_prepare_tells_of_a_data_set_as_given(printed, ready, text):
    finding = SimpleNamespace(id=text, ready=ready, summary=text, notes=[text], problems=[text])
    about = f"{text}; {text}" if ready else text
    assert printed(lambda: prepare.show(finding, "ready")) == f"ready   {text}: {about}\n"


def cells(shown):
    """The words of a table, whatever lines they are folded into: of each row, cell by cell."""
    rows = [re.split("[│┃]", line)[1:-1] for line in shown.splitlines() if re.match("[│┃]", line)]
    return ["".join(part.strip() for part in column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("width", [30, 80, 400])
def test_a_table_loses_nothing_of_its_cells_heads_and_title(printed, width):
    for text in (*CODES[::50], *MARKUP[:-2], "x" * 300):
        table = Table("a", text, title=text)
        table.row(text, text)
        shown, squeezed = printed(table.show, width), re.sub(r"\s", "", text)
        first, second = (re.sub(r"\s", "", cell) for cell in cells(shown))
        assert first == f"a{squeezed}" and second == squeezed * 2
        assert re.sub(r"\s", "", shown[: shown.index("┏")]) == squeezed


@pytest.mark.parametrize("text", [" ".join(CODES), *MARKUP])
def test_errors_and_warnings_stand_as_given(monkeypatch, capsys, text):
    monkeypatch.setattr(main, "parse", lambda argv: (_ for _ in ()).throw(UserError(text)))
    assert main.main([]) == 2
    assert capsys.readouterr().err == f"error: {printable(text)}\n"
    record = logging.LogRecord("", logging.WARNING, "", 0, "%s: made again", (f"{text}\x1b[31m",), None)
    assert Plain("%(message)s").format(record) == f"{text}\\x1b[31m: made again"


def test_control_characters_and_turned_directions_are_shown_by_their_codes(printed):
    given = "".join(map(chr, range(32))) + "\x7f\x85\x9b\u200e\u202e\u2028\ud800"
    shown = printed(lambda: say(given))[:-1]
    assert shown == printable(given)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl") for c in shown if c != "\n")


def test_doctor_and_ls_name_a_folder_as_it_is_called(tmp_path, monkeypatch, capsys):
    """``folder:dog`` was printed with a dog's face."""
    for name in ("dog", "[red]cat[/]"):
        for kind in ("a :smile: b", "c"):
            (tmp_path / name / kind).mkdir(parents=True)
            for n in range(12):
                picture(np.random.default_rng(n), n % 2, (20, 20)).save(tmp_path / name / kind / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    assert main.main(["ls", "datasets", "--datasets", "folder:dog", "folder:[red]cat[/]"]) == 0
    assert main.main(["run", "--datasets", "folder:dog", "--methods", "zs-clip", "--dry-run", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "folder:dog" in said and "[red]cat[/]" in said
    assert not [c for c in said if ord(c) > 0x2BFF], "no picture"


def test_a_stream_of_another_encoding_shows_codes_and_goes_on(tmp_path):
    for kind in ("a", "b"):
        (tmp_path / "é:dog:" / kind).mkdir(parents=True)
        for n in range(12):
            picture(np.random.default_rng(n), n % 2, (20, 20)).save(tmp_path / "é:dog:" / kind / f"{n}.png")
    command = [sys.executable, ROOT / "run_all.py", "ls", "datasets", "--datasets", f"folder:{tmp_path / 'é:dog:'}"]
    env = {**FROM_HERE, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    assert ended.returncode == 0 and "\\xe9:dog:" in re.sub(r"[\s|]", "", ended.stdout), ended.stderr


ELSEWHERE = re.compile(
    r"\b(Console|TextColumn|RichHandler)\(|rich\.(table|text|markup|logging)|(console|aside)\.print\("
)


def test_there_is_one_place_where_consoles_are_made():
    wrong = []
    for folder in ("bench", "datasets", "methods"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != ROOT / "bench/render/terminal.py":
                wrong += [f"{path}: {found[0]}" for found in ELSEWHERE.finditer(path.read_text(encoding="utf-8"))]
    assert wrong == []
    assert ELSEWHERE.search("console = Console()") and ELSEWHERE.search("self.console.print(x)")
