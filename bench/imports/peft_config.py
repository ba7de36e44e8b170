"""What ``adapter_config.json`` of a peft adapter says, and which of it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from carryover.bench.backbones.weight_sources import tags_of_hub
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import Facts, Foreign, is_number, shown

CLASSES_OF_TOWERS = {"CLIPText": "text", "CLIPVision": "image"}  # how names of its classes of one tower begin
PLAIN = {  # fields of adapter_config.json that do not say what its numbers mean, or are read below
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_dora",
    "use_rslora", "velora_config",
}  # fmt: skip
HARMLESS = (True, False, None, "gaussian", "eva", "orthogonal")  # starts that leave the base as it is
TASKS = (None, "FEATURE_EXTRACTION")
MERGE = "merge it in peft (merge_and_unload) and convert the whole model for open_clip"
LONGEST, STARS = 200, 3  # of a pattern of names: more could take for ever to match


def where(file: Foreign) -> str:
    return f"import: '{file.path}' (peft LoRA)"


def check(file: Foreign) -> dict[str, Any]:
    """The configuration. Raises UserError, before anything is asked, for an adapter that is not read."""
    config = file.plain.get("adapter_config")
    if not isinstance(config, dict):
        raise UserError(f"{where(file)}: there is no adapter_config.json beside it, which says its scale")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{where(file)}: peft_type is {quoted(str(config.get('peft_type')))}, expected LORA; {MERGE}")
    if config.get("task_type") not in TASKS:
        raise UserError(
            f"{where(file)}: task_type is {quoted(str(config['task_type']))}, an adapter with a head of that task; "
            "what is read is an adapter of CLIP itself, whose classes are texts (task_type null)"
        )
    if not any(config.get("init_lora_weights") is one or config.get("init_lora_weights") == one for one in HARMLESS):
        raise UserError(
            f"{where(file)}: init_lora_weights is {quoted(str(config['init_lora_weights']))}, which changed the base's "
            "own weights too; save it in peft with path_initial_model_for_weight_conversion, and it is a plain LoRA"
        )
    if config.get("fan_in_fan_out"):
        raise UserError(f"{where(file)}: fan_in_fan_out is true, and CLIP's matrices are not kept so; {MERGE}")
    if strange := [name for name, value in config.items() if name not in PLAIN and value]:
        raise UserError(
            f"{where(file)}: adapter_config.json sets {', '.join(map(quoted, strange))}, which is not read; {MERGE}"
        )
    for name in ("rank_pattern", "alpha_pattern"):
        check_pattern(file, name, config.get(name) or {})
    for name, least in (("r", 1), ("lora_alpha", -math.inf)):
        if not is_number(config.get(name)) or config[name] < least:
            raise UserError(f"{where(file)}: {name} is {shown(config.get(name), repr)}, expected a number")
    return config


def check_pattern(file: Foreign, name: str, given: Any) -> None:
    """Patterns are matched as peft does; none that could take for ever."""
    if not isinstance(given, dict) or not all(is_number(value) for value in given.values()):
        raise UserError(f"{where(file)}: {name} is no object of names and numbers")
    for text in given:
        repeats = len(re.findall(r"[*+{]", text))
        try:
            sound = len(text) <= LONGEST and repeats <= STARS and not re.search(r"\)\s*[*+{?]", text)
            re.compile(text)
        except (re.error, RecursionError, OverflowError):
            sound = False
        if not sound:
            raise UserError(f"{where(file)}: {name} has the pattern {quoted(text)}, which is not read; {MERGE}")


def of_pattern(given: Mapping[str, Any], name: str, default: float) -> float:
    """peft's own rule: the first pattern that the end of a module's name matches, from a dot on."""
    for text, value in given.items():
        if re.match(rf"(.*\.)?({text})$", name):
            return value
    return default


def tower_of(config: dict[str, Any]) -> str:
    """Of an adapter of a model of one tower, by its class; empty where that is not said, or the model has both."""
    mapping = config.get("auto_mapping")
    kind = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return next((tower for start, tower in CLASSES_OF_TOWERS.items() if str(kind).startswith(start)), "")


def known(name: Any) -> list[str]:
    """open_clip's names of a model of the hub, nearest first; none for a path or a model that it does not have."""
    return tags_of_hub(name) if isinstance(name, str) else []


def compare(file: Foreign, config: dict[str, Any], facts: Facts) -> None:
    """Raises UserError where the named backbone is another than the file's, as far as both have public names."""
    named, tower = config.get("base_model_name_or_path"), facts.tower
    tags = known(named)
    hosted = f"hf-hub:{named}"
    if not tags or tower.weights or tower.model.startswith("local-dir:") or tower.model == hosted:
        return
    if tower.label not in tags:
        raise UserError(
            f"{where(file)}: adapter_config.json says it was trained on {quoted(str(named))}, which is {tags[0]}; "
            f"--backbone names {tower.label}"
        )
