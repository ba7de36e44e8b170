"""One command line as a user gives it, and the records that it leaves."""

from __future__ import annotations

from carryover.bench.cli import main


def call(capsys, *argv):
    """(exit status, stdout, stderr) of one command line."""
    capsys.readouterr()
    status = main.main([str(part) for part in argv])
    out, err = capsys.readouterr()
    return status, out, err


def mistake(capsys, *argv):
    """The one line that bad input ends in."""
    status, _, err = call(capsys, *argv)
    assert status == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert "Traceback" not in err
    return lines[0]


LOCAL = ("--jobs", 1, "--device", "cpu")


def records(out):
    return sorted((out / "micro" / "runs").glob("*.json"))
