"""Options and fixtures of all tests; what tests import lies in ``tests/support``."""

from __future__ import annotations

import carryover  # noqa: F401  # before torch is loaded: it chooses the mode of MKL

# isort: split
import signal
from types import SimpleNamespace

import bits
import chromium
import pytest
import torch
from tiny_caltech import write_caltech
from tiny_fits import make_support
from tiny_towers import NAMES, TEMPLATES, tiny_pair, wrap
from toys import open_toy, pictures, toy

from carryover.bench import analyses
from carryover.bench.report import drawings, outputs, recompute, report
from carryover.methods import discover, ordered
from carryover.methods.base import METHODS, Classes

torch.set_num_threads(1)  # tiny tensors: threads only wait for one another, and sums would depend on the machine


def pytest_addoption(parser):
    parser.addoption(
        "--plugin-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="folder with method files of your own; the contract tests then run on them too (repeatable)",
    )
    parser.addoption(
        "--methods",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="what is tested of every method is tested of these alone: one's own, say (repeatable)",
    )
    parser.addoption(
        "--full-size", action="store_true", help="also load the ViT-L/14 pair (about 6 GB of memory, 4 GB of disk)"
    )


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script, and so in its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    bits.forced()
    discover(tuple(config.getoption("--plugin-dir")))
    analyses.discover()
    if unknown := set(named(config)) - set(METHODS.entries):
        raise pytest.UsageError(f"no method named {', '.join(sorted(unknown))}; known: {', '.join(ordered())}")


def named(config):
    """The names given by ``--methods``."""
    return [name for words in config.getoption("--methods") for name in words.split(",")]


def pytest_generate_tests(metafunc):
    """``method_name`` stands for each registered method, the user's included, or each that ``--methods`` names."""
    if "method_name" in metafunc.fixturenames:
        metafunc.parametrize("method_name", named(metafunc.config) or ordered())


@pytest.fixture(scope="session")
def tiny():
    """``tiny.base`` and ``tiny.new``: wrapped tiny towers. Nothing may change them."""
    base, new = tiny_pair()
    return SimpleNamespace(base=wrap(base, "tiny-base", "quick_gelu"), new=wrap(new, "tiny-new", "gelu"))


@pytest.fixture(scope="session")
def classes():
    return Classes("toy", NAMES, TEMPLATES)


@pytest.fixture(scope="session")
def support():
    return make_support()


@pytest.fixture
def session_on(monkeypatch, tiny, tmp_path):
    """``session_on(name, poisoned, **options)``: a Session of the tiny pair on a toy dataset, with its own folders."""

    def open_session(name, poisoned=False, **options):
        test = pictures("test", inverted, wrong) if poisoned else pictures("test")
        return open_toy(monkeypatch, tiny, tmp_path / name, lambda id: toy(id, test=test), **options)

    def inverted(image, index):
        return image.point(lambda value: 255 - value)

    def wrong(labels):
        return (labels + 1) % len(NAMES)

    return open_session


@pytest.fixture
def tables_alone(monkeypatch):
    """Commands write and check tables, no figures and no report: these take longest, for tests that read neither."""
    monkeypatch.setattr(outputs, "write_figures", lambda *given: [])
    monkeypatch.setattr(report, "write_report", lambda *given: ())
    monkeypatch.setattr(recompute, "recompute_pages", lambda *given: [])
    monkeypatch.setattr(drawings, "differences", lambda *given: [])


@pytest.fixture
def caltech(tmp_path):
    """(data root, split lists) of a small stand-in for Caltech101 that the test may damage."""
    root = tmp_path / "data"
    return root, write_caltech(root)


@pytest.fixture(scope="session")
def caltech_readonly(tmp_path_factory):
    root = tmp_path_factory.mktemp("caltech")
    return root, write_caltech(root)


@pytest.fixture
def clean_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(METHODS, "entries", dict(METHODS.entries))


@pytest.fixture(scope="module")
def tab():
    """A page of a real browser for all tests of a module; they are left out where there is none."""
    if not chromium.found():
        pytest.skip(f"no browser on the PATH: looked for {', '.join(chromium.NAMES)}")
    with chromium.browser() as page:
        yield page
