"""Layer drift for readers: the frame behind `tables/drift.csv`, and a sheet of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from carryover.bench.backbones.archs import OTHER_ACTIVATION
from carryover.bench.backbones.drift_measures import AVERAGE, MEASURES, POOLED
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet

COLUMNS = ("pair", "tower", "what", "layer", "kind", "dataset", *MEASURES, "count")
DECIMALS = 8  # parameters change in the fourth decimal
NAMES = {"new": "Update", OTHER_ACTIVATION: "Other activation", "unrelated": "Unrelated"}
KIND_NAMES = {"all": "All", "layernorm": "LayerNorm", "attention": "Attention", "mlp": "MLP"}
READ_AT = {"text": "eot", "vision": "class token"}
OUTSIDE = (  # of the blocks: (layer, kind, as the sheet names it)
    ("0", "tokens used", "Token embeddings used"),
    ("0", "positions", "Positions"),
    ("ln_final", "layernorm", "ln_final"),
    ("projected", "projection", "Projection"),
)
LAYER_NAMES = {"0": "0 (embeddings)", "projected": "Projected"}


def drift_table(measures: Sequence[dict]) -> pd.DataFrame:
    """All rows of all pairs as `COLUMNS`; what is not defined is missing. Pairs that were left out have no rows."""
    rows = []
    for measured in present(measures):
        for tower in ("text", "vision"):
            for what in ("parameters", "features"):
                read_at = {"kind": READ_AT[tower]} if what == "features" else {"dataset": ""}
                head = {"pair": measured["pair"], "tower": tower, "what": what, **read_at}
                rows += [{**head, **row} for row in measured[tower][what]]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(MEASURES, float))


def present(measures: Sequence[dict]) -> list[dict]:
    return [measured for measured in measures if "left_out" not in measured]


def pair_name(measured: dict) -> str:
    return NAMES.get(measured["pair"], measured["pair"])


def drift_sheet(measures: Sequence[dict]) -> Sheet:
    """A layer a row and a pair a column, controls last: change of parameters, then features four ways."""
    table, shown = drift_table(measures), present(measures)
    blocks = []
    for tower, of in (("text", "Text"), ("vision", "Vision")):
        part = table[table["tower"] == tower]
        weights, features = part[part["what"] == "parameters"], part[part["what"] == "features"]
        blocks.append(
            _block(f"{of} parameters, relative change of each block (%)", shown, whole_blocks(weights), "relative")
        )
        title = f"{of} parameters, absolute change of each block (mean |d|)"
        blocks.append(_block(title, shown, whole_blocks(weights), "absolute", _scientific))
        if tower == "text":
            blocks.append(_outside_block(shown, weights))
            for measured in shown:
                if measured["kind"] == "update":
                    blocks.append(_kinds_block(measured, weights))
        dataset = AVERAGE if tower == "text" else POOLED
        chosen = features[features["dataset"] == dataset]
        where = "at EOT" if tower == "text" else "at the class token"
        blocks.append(_block(f"{of} features {where}, relative change (%)", shown, chosen, "relative"))
        blocks.append(_block(f"{of} features {where}, absolute change", shown, chosen, "absolute", _plain))
        blocks.append(_block(f"{of} features {where}, 1 − cosine", shown, chosen, "one_minus_cosine", _plain))
        title = f"{of} features {where}, correlation of their similarities"
        blocks.append(_block(title, shown, chosen, "structure", _plain))
        pooled = features[features["dataset"] == POOLED]
        count = (
            f", {int(pooled['count'].iloc[0])} {'prompts' if tower == 'text' else 'pictures'}" if len(pooled) else ""
        )
        blocks.append(_block(f"{of} features {where}, linear CKA{count}", shown, pooled, "cka", _plain))
    return Sheet("Layer drift", tuple(block for block in blocks if block), tuple(_remarks(measures)))


def findings(measures: Sequence[dict]) -> list[str]:
    """For each update, whether shallower layers change less: what was measured, in a sentence each."""
    table, found = drift_table(measures), []
    table = table[table["tower"] == "text"]
    for measured in present(measures):
        own = table[table["pair"] == measured["pair"]]
        series = {
            "parameters": whole_blocks(own[own["what"] == "parameters"]),
            "features": whole_blocks(own[(own["what"] == "features") & (own["dataset"] == AVERAGE)]),
        }
        for what, rows in series.items():
            values = rows["relative"].tolist()
            if measured["kind"] == "update" and len(values) > 1:
                rises = sum(after > before for before, after in zip(values, values[1:], strict=False))
                how = "more in every block than in the one before"
                if rises < len(values) - 1:
                    how = f"more than in the block before in {rises} of {len(values) - 1} blocks"
                found.append(
                    f"{pair_name(measured)}: text {what} change by {_percent(values[0])} % in block 1 and "
                    f"{_percent(values[-1])} % in block {len(values)}, {how}."
                )
    return found


def _remarks(measures: Sequence[dict]) -> list[str]:
    shown = present(measures)
    said = findings(measures)
    for measured in shown:
        said.append(f"{pair_name(measured)}: {measured['base']['label']} → {measured['other']['label']}.")
    if shown:
        prompts = shown[0]["prompts"]
        said += [
            f"Features over {sum(prompts.values())} class prompts of {len(prompts)} datasets (each one's first "
            "template), averaged over each dataset, then over datasets; CKA over all distinct prompts together.",
            "Relative change: of parameters mean |d| / mean |old| over a layer's entries; of features the mean of "
            "||d|| / ||old||, before ln_final.",
            "Linear CKA is biased towards 1 where prompts are not many times the width: read it against the unrelated "
            "pair.",
        ]
    said += built_in(measures)
    said += without_table(measures)
    said += [f"{pair_name(m)}: {note}." for m in shown for tower in ("text", "vision") for note in m[tower]["notes"]]
    said += [f"{pair_name(m)} is left out: {m['left_out']}" for m in measures if "left_out" in m]
    return said


def without_table(measures: Sequence[dict]) -> list[str]:
    """Vision parts that are no numbered blocks, as a ResNet's stages: `drift.csv` has them, no table here does."""
    said = []
    for measured in present(measures):
        rows = measured["vision"]["parameters"]
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        if layers and not any(layer.isdigit() and layer != "0" for layer in layers):
            said.append(
                f"{pair_name(measured)}: the vision tower's parameters are compared by part ({', '.join(layers)}), for "
                "it has no numbered blocks; these rows stand in drift.csv alone."
            )
    return said


def built_in(measures: Sequence[dict]) -> list[str]:
    """What has to be told wherever drift is read as a finding."""
    if not any(measured["other"]["label"] == "micro-update" for measured in present(measures)):
        return []
    return [
        "micro-update was trained with a text learning rate decayed 0.75 a layer: that its shallower blocks change "
        "less was built in."
    ]


def _block(
    title: str, shown: Sequence[dict], rows: pd.DataFrame, value: str, write: Callable[[float], str] | None = None
) -> Block | None:
    """A row for each layer of ``rows``; None without any."""
    if rows.empty:
        return None
    values, write = rows.set_index(["layer", "pair"])[value], write or _percent
    lines = [
        (Cell(LAYER_NAMES.get(layer, layer)), *(Cell(write(values.get((layer, m["pair"]), math.nan))) for m in shown))
        for layer in dict.fromkeys(rows["layer"])
    ]
    return Block(Cell(title), ("Layer", *map(pair_name, shown)), tuple(lines))


def _outside_block(shown: Sequence[dict], weights: pd.DataFrame) -> Block:
    values = weights.set_index(["layer", "kind", "pair"])["relative"]
    lines = [
        (Cell(name), *(Cell(_percent(values.get((layer, kind, m["pair"]), math.nan))) for m in shown))
        for layer, kind, name in OUTSIDE
    ]
    title = "Text parameters outside the blocks, relative change (%)"
    return Block(Cell(title), ("Part", *map(pair_name, shown)), tuple(lines))


def _kinds_block(measured: dict, weights: pd.DataFrame) -> Block:
    own = weights[weights["pair"] == measured["pair"]]
    values, layers = own.set_index(["layer", "kind"])["relative"], whole_blocks(own)["layer"]
    lines = [
        (Cell(layer), *(Cell(_percent(values.get((layer, kind), math.nan))) for kind in KIND_NAMES)) for layer in layers
    ]
    title = f"{pair_name(measured)}: text parameters by kind, relative change (%)"
    return Block(Cell(title), ("Layer", *KIND_NAMES.values()), tuple(lines))


def whole_blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of whole blocks: parameters of kind "all", or features after a block."""
    whole = rows["kind"].isin(["all", *READ_AT.values()])
    return rows[whole & rows["layer"].str.isdigit() & (rows["layer"] != "0")]


def _percent(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.2f}"


def _plain(value: float) -> str:
    if math.isnan(value):
        return MISSING
    return f"{value:.1e}" if 0 < value < 0.0005 else f"{value:.4f}"


def _scientific(value: float) -> str:
    return MISSING if math.isnan(value) else "0" if value == 0 else f"{value:.2e}"
