"""Every table and figure of a results folder by name, made from a selection of records; what is written and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses import (
    chains,
    chains_sheet,
    depth,
    forecast,
    forecast_sheet,
    main_figure,
    records_table,
    retention,
    retention_sheet,
)
from carryover.bench.analyses.audit import KEYS as AUDIT_KEYS
from carryover.bench.analyses.audit import audit_table
from carryover.bench.analyses.depth_figures import draw_depth
from carryover.bench.analyses.depth_sheet import correlation_sheet, depth_sheet
from carryover.bench.analyses.drift import COLUMNS as DRIFT_COLUMNS
from carryover.bench.analyses.drift import DECIMALS as DRIFT_DECIMALS
from carryover.bench.analyses.drift import drift_sheet, drift_table, present
from carryover.bench.analyses.drift_figures import draw_figure_2b, draw_figure_2c
from carryover.bench.analyses.main_table import main_tables
from carryover.bench.analyses.statistics import has_statistics
from carryover.bench.analyses.statistics_figures import draw_pareto, draw_ranks
from carryover.bench.analyses.suite_figures import draw_figure_2d, draw_figure_4, draw_lambda
from carryover.bench.analyses.suite_tables import ablation_sheet, ablation_table, ood_sheet, ood_table
from carryover.bench.analyses.target_figures import draw_forecast, draw_targets
from carryover.bench.analyses.targets import KEYS as TARGET_KEYS
from carryover.bench.analyses.targets import has_targets, targets_sheet, targets_table
from carryover.bench.backbones.drift_measures import MEASURES
from carryover.bench.host.files import write_text
from carryover.bench.plan import suites
from carryover.bench.records.selection import Selection
from carryover.bench.render import figures
from carryover.bench.render.sheets import CSV_DECIMALS, Sheet, csv_text, sheet_latex, sheet_markdown
from carryover.bench.stats import calibration_error, flips, ranking
from carryover.bench.stats.pairs import KEYS, pairs_table


@dataclass(frozen=True)
class Output:
    """A table as numbers and as readers see it; the first ``keys`` columns of the frame name a row. Without a sheet it
    is a CSV alone, shown on a page of its own; ``apart``: the report has a section of its own that shows it."""

    frame: pd.DataFrame
    sheet: Sheet | None
    keys: int
    decimals: int = CSV_DECIMALS
    apart: bool = False

    @property
    def csv(self) -> str:
        return csv_text(self.frame, self.decimals)

    @property
    def texts(self) -> dict[str, str]:
        """By ending, for readers; nothing for a table without a sheet."""
        return {"md": sheet_markdown(self.sheet), "tex": sheet_latex(self.sheet)} if self.sheet is not None else {}


@dataclass(frozen=True)
class Drawing:
    """A figure; ``draw`` gives None where nothing it shows was run. It stands below the table ``beside``."""

    beside: str
    caption: str
    draw: Callable[[Selection], Figure | None]


FIGURES = {
    "figure2a": Drawing(
        "main",
        "Base, New and H of each method, averaged over the datasets (the paper's Figure 2 a)",
        lambda selection: main_figure.draw_figure_2a(selection.main),
    ),
    "targets": Drawing(
        "targets", "H and gain over zero-shot of each method on each target, averaged over the datasets", draw_targets
    ),
    "figure4": Drawing(
        "context_length", "ContCoOp's accuracy against the length of its context (Figure 4)", draw_figure_4
    ),
    "lambda": Drawing("lambda", "ContCoOp's accuracy against the weight of its distillation (Table 5)", draw_lambda),
    "figure2b": Drawing(
        "drift",
        "Change of the text tower's parameters in each block (Figure 2 b)",
        lambda selection: draw_figure_2b(selection.drift) if present(selection.drift) else None,
    ),
    "figure2c": Drawing(
        "drift",
        "Change of the text tower's output features after each block (Figure 2 c)",
        lambda selection: draw_figure_2c(selection.drift) if present(selection.drift) else None,
    ),
    "figure2d": Drawing(
        "layers", "CoOp's accuracy against the block at whose input its context stands (Figure 2 d)", draw_figure_2d
    ),
    "depth": Drawing(
        "depth", "What CoOp's context keeps and loses with the update, beside the drift of the same blocks", draw_depth
    ),
    "retention": Drawing(
        "retention",
        "Zero-shot, reused and retrained on each target, averaged over the datasets",
        retention_sheet.draw_retention,
    ),
    "chains": Drawing(
        "chains",
        "Each method's module carried through the updates without training, averaged over the datasets",
        chains_sheet.draw_chains,
    ),
    "refresh_steps": Drawing(
        "refresh",
        "Accuracy on the update against training steps there, from the carried module and from nothing",
        chains_sheet.draw_refresh_steps,
    ),
    "refresh_shots": Drawing(
        "refresh",
        "Accuracy on the update against training images there, from the carried module and from nothing",
        chains_sheet.draw_refresh_shots,
    ),
    "ranks": Drawing(
        "statistics",
        "Average ranks over datasets; a bar joins methods that no test tells apart",
        lambda selection: draw_ranks(selection) if has_statistics(selection) else None,
    ),
    "pareto": Drawing(
        "statistics",
        "H against cost; filled, and on the line, the methods that no other beats at both",
        lambda selection: draw_pareto(selection) if has_statistics(selection) else None,
    ),
    "forecast": Drawing(
        "forecast", "Gain kept on a target: forecast before anything was trained there, and as measured", draw_forecast
    ),
}
BEYOND = ("retention", "decision", "chains", "refresh", "forecast", "forecast_correlation")
STATISTICS = ("ranks", "wilcoxon", "pairs", "calibration", "flips")
P_DECIMALS = 6
NAMES = (*suites.ALL_SUITES, *BEYOND, *STATISTICS)  # tables that go where their records do
ORDER = (*suites.ALL_SUITES, *STATISTICS, "depth", "depth_correlation", *BEYOND, "records")


def made_from(selection: Selection) -> dict[str, Output]:
    """By file name: "main", "main-NAME" for further updates, "audit" where the paper prints the arch, then the suites
    that have records, and what they tell together."""
    return dict(selection.once("outputs", lambda: all_of(selection)))


def all_of(selection: Selection) -> dict[str, Output]:
    made = {name: Output(*pair, 2) for name, pair in main_tables(selection.main, selection.arch.id).items()}
    if has_targets(selection.main):
        made["targets"] = Output(targets_table(selection.main), targets_sheet(selection.main), len(TARGET_KEYS))
    for id, suite in suites.ABLATIONS.items():
        if id in selection.rows:
            frame = ablation_table(suite, selection)
            made[id] = Output(frame, ablation_sheet(suite, selection), 1 + len(suite.columns))
    if "ood" in selection.rows:
        made["ood"] = Output(ood_table(selection), ood_sheet(selection), 3)
    if (frame := audit_table(selection)) is not None:
        made["audit"] = Output(frame, None, len(AUDIT_KEYS))
    if present(selection.drift):
        frame = drift_table(selection.drift)
        keys = len(DRIFT_COLUMNS) - len(MEASURES) - 1  # the last column counts what was averaged
        made["drift"] = Output(frame, drift_sheet(selection.drift), keys, DRIFT_DECIMALS)
    if depth.has_depth(selection):
        made["depth"] = Output(depth.depth_table(selection), depth_sheet(selection), len(depth.KEYS))
        frame = depth.correlation_table(selection)
        made["depth_correlation"] = Output(frame, correlation_sheet(selection), len(depth.RHO_KEYS))
    if "retention" in selection.rows:
        frame = retention.retention_table(selection)
        made["retention"] = Output(frame, retention_sheet.retention_sheet(selection), len(retention.KEYS))
        frame = retention.decision_table(selection)
        made["decision"] = Output(frame, retention_sheet.decision_sheet(selection), len(retention.KEYS))
    if "chains" in selection.rows:
        frame = chains.chain_table(selection)
        made["chains"] = Output(frame, chains_sheet.chain_sheet(selection), len(chains.CHAIN_KEYS))
        frame = chains.refresh_table(selection)
        made["refresh"] = Output(frame, chains_sheet.refresh_sheet(selection), len(chains.REFRESH_KEYS))
    if has_statistics(selection):
        made.update(statistics_of(selection))
    if forecast.has_forecast(cases := forecast.case_table(selection)):
        frame, sheet = forecast.forecast_table(cases), forecast_sheet.forecast_sheet(selection)
        made["forecast"] = Output(frame, sheet, len(forecast.KEYS))
        frame, sheet = forecast.correlation_table(cases), forecast_sheet.correlation_sheet(selection)
        made["forecast_correlation"] = Output(frame, sheet, len(forecast.RHO_KEYS))
    if selection.records:
        made["records"] = Output(records_table.records_table(selection), None, len(records_table.COLUMNS))
    return {name: made[name] for name in sorted(made, key=place)}


def statistics_of(selection: Selection) -> dict[str, Output]:
    """What needs two methods is left out where there is one."""
    made = {}
    if len(pairs := pairs_table(selection)):
        frame, sheet = ranking.ranks_table(selection), ranking.ranks_sheet(selection)
        made["ranks"] = Output(frame, sheet, len(ranking.RANK_KEYS), P_DECIMALS, apart=True)
        made["wilcoxon"] = Output(ranking.wilcoxon_table(selection), None, len(ranking.WILCOXON_KEYS), P_DECIMALS)
        made["pairs"] = Output(pairs, None, len(KEYS), P_DECIMALS)
    for name, own in (("calibration", calibration_error), ("flips", flips)):
        frame, sheet = getattr(own, f"{name}_table")(selection), getattr(own, f"{name}_sheet")(selection)
        made[name] = Output(frame, sheet, len(own.KEYS), apart=True)
    return made


def place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else 0


def write_tables(selection: Selection, folder: Path) -> list[Path]:
    """Writes `tables/<name>.csv` and, for what has a sheet, `.md` and `.tex` under folder (`results/<arch>`), each
    whole or not at all; takes away those of suites without records: tables beside each other are of one selection."""
    written = []
    for name, output in made_from(selection).items():
        for ending, text in {"csv": output.csv, **output.texts}.items():
            written.append(Path(folder) / "tables" / f"{name}.{ending}")
            write_text(written[-1], text)
    remove_others(written, Path(folder) / "tables", NAMES)
    return written


def write_figures(selection: Selection, folder: Path) -> list[Path]:
    """Writes every figure that has something to show as `figures/<name>.svg` and `.png` under folder."""
    written = []
    for name in FIGURES:
        if (figure := drawn(name, selection)) is not None:
            written += figures.save(figure, Path(folder) / "figures" / name, svg_of(name, selection))
    remove_others(written, Path(folder) / "figures", FIGURES)
    return written


def drawn(name: str, selection: Selection) -> Figure | None:
    """The figure of this file name, or None where the selection has nothing to show in it."""
    return selection.once(f"figure {name}", lambda: FIGURES[name].draw(selection))


def svg_of(name: str, selection: Selection) -> str:
    """The figure of this file name as an SVG file; empty where there is none."""
    figure = drawn(name, selection)
    return selection.once(f"svg {name}", lambda: figures.svg_text(figure, name) if figure else "")


def remove_others(written: Iterable[Path], folder: Path, names: Iterable[str]) -> None:
    """Files of these names that an earlier call wrote there and this one did not."""
    for path in folder.glob("*.*"):
        if path.stem in names and path not in written:
            path.unlink(missing_ok=True)
