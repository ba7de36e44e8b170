"""What calls note of time beside the records: predicted by ``--dry-run``, and taken by the clock."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from carryover.bench.host.identity import canonical
from carryover.bench.records.reading import Record

ESTIMATE, PREDICTED, CALL = "estimate.json", "predicted.json", "call.json"


def features_stage(role: str) -> str:
    return f"features, {role} backbone"


def fit_stage(method: str) -> str:
    return f"fit, {method}"


def evaluation_stage(method: str) -> str:
    return f"evaluation, {method}"


def digest(keys: Iterable[str]) -> str:
    """Of a set of runs."""
    return hashlib.sha256(canonical(sorted(keys)).encode()).hexdigest()


def covers(records: Sequence[Record], estimate: Mapping[str, Any]) -> int:
    """How many of the estimate's runs are among the finished records."""
    return len({record["key"] for record in records if record.get("status") == "done"} & set(estimate["keys"]))


def sound_estimate(value: Any) -> bool:
    """Whether a file holds what ``--dry-run`` writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("keys"), list)
        and all(isinstance(key, str) for key in value["keys"])
        and _times(value.get("stages"))
        and _is_time(value.get("seconds"))
        and isinstance(value.get("jobs"), int)
    )


def sound_call(value: Any) -> bool:
    """Whether a file holds what a call writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("keys"), str)
        and _times(value.get("stages"))
        and _is_time(value.get("seconds"))
        and isinstance(value.get("jobs"), int)
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _times(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and _is_time(part) for name, part in value.items())
