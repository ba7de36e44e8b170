"""Files of model repositories on the Hugging Face hub, under addresses ``hf://ORG/NAME[@REV]/FILE``.

The hub's own client fetches them into its cache, where they are found again without a network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

from carryover.bench.backbones.loading import first_line
from carryover.bench.backbones.weight_sources import HUB_PATIENCE
from carryover.bench.errors import UserError, quoted
from carryover.bench.host.identity import sha256_of

START = "hf://"
FORM = f"{START}ORG/NAME[@REV]/FILE"
ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?/(?P<file>[^@]+)",
    re.ASCII,
)
LONGEST = 96  # letters of a repository's name
OTHER_KINDS = ("datasets", "spaces", "buckets")
BESIDE = {  # what an adapter's file is of no use without
    "adapter_model.safetensors": "adapter_config.json",
    "adapter_model.bin": "adapter_config.json",
}


@dataclass(frozen=True)
class Address:
    repository: str
    revision: str | None
    file: str

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}"


@dataclass(frozen=True)
class Found:
    """Where a file lies on this machine, and what is told of it; ``commit`` is empty for one that was here already."""

    path: str
    commit: str = ""
    sha256: str = ""


def is_address(text: str) -> bool:
    return text.lower().startswith(START)


def parsed(text: str) -> Address:
    """Raises UserError for an address of another form."""
    found = ADDRESS.fullmatch(text)
    if not found or found["repository"].split("/")[0] in OTHER_KINDS or ".." in found["file"].split("/"):
        also = (
            "; only model repositories are read" if text.startswith(tuple(START + one for one in OTHER_KINDS)) else ""
        )
        raise UserError(f"{quoted(text, 200)}: expected {FORM}{also}")
    return Address(found["repository"], found["revision"], found["file"])


def check_repository(text: str) -> None:
    """Raises UserError for what is no ORG/NAME."""
    if (
        not re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII)
        or len(text) > LONGEST
        or set(".-") & set(text[0] + text[-1])
    ):
        raise UserError(f"{quoted(text)}: expected a repository of the hub, ORG/NAME")


def local_file(given: str | Path, cache_dir: str | None = None) -> Found:
    """The file itself, or of an address the copy in the hub's cache, fetched where it is not there. Raises UserError,
    in one line, where it cannot be had."""
    if not is_address(str(given)):
        return Found(str(given))
    address = parsed(str(given))
    path = fetched(address, address.file, cache_dir)
    folder, _, name = address.file.rpartition("/")
    if name in BESIDE:
        fetched(address, f"{folder}/{BESIDE[name]}" if folder else BESIDE[name], cache_dir)
    return Found(path, commit_of(path), sha256_of(Path(path)))


def fetched(address: Address, file: str, cache_dir: str | None) -> str:
    where, revision = f"'{START}{address.repository}/{file}'", address.revision or "main"
    try:
        return downloaded(address, file, cache_dir)
    except errors.GatedRepoError:
        problem = f"it is gated: ask for access at {address.page}, log in by 'hf auth login', and run it again"
    except errors.RepositoryNotFoundError:
        problem = (
            f"no repository {address.repository} on the hub, or a private one; check the name, or log in by "
            "'hf auth login'"
        )
    except errors.RevisionNotFoundError:
        problem = f"{address.repository} has no revision {quoted(revision)}; see {address.page}"
    except errors.LocalEntryNotFoundError as error:
        problem = (
            f"revision {quoted(revision)} is not in the hub's cache, and the hub does not answer "
            f"({first_line(error.__cause__ or error)}): check the network, or give the file itself"
        )
    except errors.EntryNotFoundError:
        problem = (
            f"revision {quoted(revision)} of {address.repository} has no file {quoted(file, 200)}; see "
            f"{address.page}/tree/{revision}"
        )
    except Exception as error:  # of the client's own checks, the network library's, the disk
        problem = f"it cannot be had ({type(error).__name__}: {first_line(error)}); see {address.page}"
    raise UserError(f"{where}: {problem}")


def downloaded(address: Address, file: str, cache_dir: str | None) -> str:
    """Through the client, which takes its cached copy where the hub does not answer or no longer gives it. It is asked
    without a network at once, for by itself it would try for half a minute."""
    given: dict[str, Any] = {"revision": address.revision, "cache_dir": cache_dir}
    try:
        get_hf_file_metadata(hf_hub_url(address.repository, file, revision=address.revision), timeout=HUB_PATIENCE)
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError, errors.HFValidationError):
        raise
    except Exception as down:  # the hub's own, or the network library's
        try:
            return hf_hub_download(address.repository, file, **given, local_files_only=True)
        except errors.LocalEntryNotFoundError as error:
            raise down if isinstance(down, errors.HfHubHTTPError) else error from down
    return hf_hub_download(address.repository, file, **given)


def commit_of(path: str) -> str:
    """A file's folder in the cache is named after the commit: …/snapshots/COMMIT/FILE."""
    parts = Path(path).parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""
