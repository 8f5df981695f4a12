"""Panels of trainings: accuracy against stored pairs, length, load and bytes of state, and learning
curves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from plotting.chart import Axis, Curve, Panel, Point, Source
from plotting.lines import MIXERS, line_order, make_curves, over_seeds, with_suffix, without_title
from plotting.notes import counted
from plotting.settings import setting_text
from plotting.tables import Report, Row, group, number, setting_of

TABLE = "accuracy_summary"
SETTING = ["layout", "short_conv", "d_h", "n_heads", "steps", "device", "precision"]
BARS = "Accuracy: mean over seeds and its 95% interval."
ACCURACY = Axis("accuracy (fraction)", "accuracy")
PAIRS = Axis("stored pairs n", "lengths")
LOAD = Axis("pairs a channel: n / (H $d_h$)", "lengths")
LENGTH = Axis("sequence length T (tokens)", "lengths")


def is_mean(row: Row) -> bool:
    """Whether the row is the mean over all slices of an evaluation, without a number of pairs."""
    return row.get("slice") == "mean"


def mqar_rows(report: Report, means: bool = False) -> list[Row]:
    """Those of one number of pairs and length, or the means over slices."""
    rows = report.rows(TABLE, experiment="mqar")
    return [without_title(row, "steps") for row in rows if is_mean(row) == means]


def not_mqar(report: Report) -> str:
    """Rows without a number of pairs as x."""
    others = [row for row in report.rows(TABLE) if row["experiment"] != "mqar"]
    kinds = ", ".join(sorted({row["experiment"] for row in others}))
    return f"Not drawn: {counted(len(others), 'row')} of {kinds}." if others else ""


def usual_length(layout: str, n_pairs: int, passes: int = 1, rewrites: int = 0) -> int:
    """The length of a config with `seq_len: null`."""
    written = 2 * (passes * n_pairs + rewrites)
    return written + (n_pairs + 1 if layout == "paper" else 2 * n_pairs)


def is_usual(row: Row) -> bool:
    if not row["n_pairs"]:  # trained on several
        return False
    setting = setting_of(row)
    written = int(setting.get("passes", 1)), int(setting.get("rewrites", 0))
    return int(row["seq_len"]) == usual_length(row["layout"], int(row["n_pairs"]), *written)


@dataclass(frozen=True)
class AccuracyPanels:
    pairs: list[Panel]  # accuracy against stored pairs
    lengths: list[Panel]  # against the sequence length
    points: list[Panel]  # settings with one number of pairs and one length


def accuracy_panels(report: Report) -> AccuracyPanels:
    rows = mqar_rows(report)
    found = AccuracyPanels([], [], [])
    for key, members in group(rows, SETTING).items():
        title = setting_text(dict(zip(SETTING, key)), rows)
        lengths = {
            n: of_one
            for (n,), of_one in group(members, ["n_pairs"]).items()
            if len(group(of_one, ["seq_len"])) > 1
        }
        for n, of_one in lengths.items():
            text = ", ".join(filter(None, [title, f"n = {n}"]))
            found.lengths.append(_accuracy_panel(of_one, text, "seq_len", "T", LENGTH))
        for family in _families(members):
            if len(group(family, ["n_pairs"])) > 1:
                found.pairs.append(_pairs_panel(family, title))
            elif family[0]["n_pairs"] not in lengths:
                found.points.append(_pairs_panel(family, title))
    return found


def _families(rows: list[Row]) -> list[list[Row]]:
    """Groups rows of one setting into families by sequence length, for curves over n_pairs. When every
    number of pairs has one length, there is one family. Otherwise rows whose length follows from
    n_pairs are one family, and every other length is another."""
    if all(len(group(of_n, ["seq_len"])) == 1 for of_n in group(rows, ["n_pairs"]).values()):
        return [rows]
    following = [row for row in rows if is_usual(row)]
    fixed = group([row for row in rows if not is_usual(row)], ["seq_len"])
    return [family for family in [following, *fixed.values()] if family]


def _lengths(rows: list[Row]) -> tuple[str, tuple[str, ...]]:
    """The text on one family's lengths for title and notes; empty for the usual ones."""
    if all(map(is_usual, rows)):
        return "", ()
    lengths = {n: of_n[0]["seq_len"] for (n,), of_n in group(rows, ["n_pairs"]).items()}
    if len(set(lengths.values())) == 1:
        return f"T = {rows[0]['seq_len']}", ()
    told = ", ".join(f"{length} at n = {n}" for n, length in lengths.items())
    return "T by n", (f"T by n: {told}.",)


def _pairs_panel(rows: list[Row], title: str) -> Panel:
    length, notes = _lengths(rows)
    text = ", ".join(filter(None, [title, length]))
    return _accuracy_panel(rows, text, "n_pairs", "n", PAIRS, notes)


def _accuracy_panel(
    rows: list[Row], title: str, x: str, symbol: str, axis: Axis, notes: tuple[str, ...] = ()
) -> Panel:
    measure = over_seeds("accuracy")
    source = Source(TABLE, x, measure.y, symbol, rows)
    curves = make_curves(rows, x, measure)
    return Panel(title, curves, axis, ACCURACY, source, BARS, notes=notes)


LOAD_SETTING = ["layout", "short_conv", "steps", "device", "precision"]


def load_panels(report: Report) -> tuple[list[Panel], str]:
    """One curve per line and shape, where more than one shape can be compared, and a note on the rows
    that are in no panel. Without a short convolution most mixers do not learn to bind a key to its
    value."""
    rows = mqar_rows(report)
    bound = [_with_load(row) for row in rows if row["short_conv"] != "0"]
    shapes = [row[0]["shape"] for row in group(bound, ["n_heads", "d_h"]).values()]
    if len(shapes) < 2:
        return [], ""
    panels = []
    for key, members in group(bound, LOAD_SETTING).items():
        setting = dict(zip(LOAD_SETTING, key))
        layout = f"{setting['layout']} layout"
        title = ", ".join(filter(None, [layout, setting_text({**setting, "layout": ""}, rows)]))
        for family in _families(members):
            if len(group(family, ["load"])) > 1:
                panels.append(_load_panel(family, title, shapes))
    left = {
        "without a short convolution": len(rows) - len(bound),
        "of settings with one load": len(bound) - sum(len(panel.source.rows) for panel in panels),
    }
    told = [f"{counted(count, 'row')} {text}" for text, count in left.items() if count]
    return panels, f"Not drawn: {', '.join(told)}." if told else ""


def _with_load(row: Row) -> Row:
    shape = f"{row['n_heads']} x {row['d_h']}"
    load = repr(number(row, "n_pairs") / (number(row, "d_h") * number(row, "n_heads")))
    return {**with_suffix(row, f", {shape}"), "base": row["shown"], "shape": shape, "load": load}


def _load_panel(rows: list[Row], title: str, shapes: list[str]) -> Panel:
    length, notes = _lengths(rows)
    text = ", ".join(filter(None, [title, length]))
    notes += ("Behind each line: H x d_h.",)
    panel = _accuracy_panel(rows, text, "load", "n / (H d_h)", LOAD, notes)
    row_of = {row["line"]: row for row in rows}
    curves = [
        replace(curve, shape=shapes.index(row["shape"]), base=row["base"])
        for curve, row in ((curve, row_of[curve.line]) for curve in panel.curves)
    ]
    return replace(panel, curves=curves)


STATE_SETTING = ["layout", "short_conv", "steps", "device", "precision"]
STATE = Axis("state of one sequence (bytes)", "log")
SLICES = Axis("accuracy, mean over slices (fraction)", "accuracy")
# (bytes of state, mean accuracy over zoology's test slices) after its mixture of training lengths, read
# off zoology_results.png of HazyResearch/zoology (arXiv:2312.04927, arXiv:2402.18668), +-.005.
PUBLISHED = {
    ("deltanet", "DeltaNet"): [(9e3, 0.79), (34e3, 0.96), (134e3, 0.99)],
    ("gated_deltanet", "Gated DeltaNet"): [(17e3, 0.89), (67e3, 0.99), (257e3, 0.99)],
    ("gla", "GLA"): [(5e3, 0.53), (18e3, 0.77), (68e3, 0.95)],
    ("mamba2", "Mamba-2"): [(8e3, 0.52), (98e3, 0.84)],
    ("based", "Based"): [(9e3, 0.67), (40e3, 0.91), (79e3, 0.99)],
}
PUBLISHED_SOFTMAX = 1.0
PUBLISHED_NOTE = (
    "Hollow: published figures of zoology (one seed, best rate on the test set), whose bytes include "
    "the states of convolutions; those measured here do not. Dotted: softmax, published without a size."
)


def state_panels(report: Report) -> list[Panel]:
    """One curve per line and number of heads, the published ones beside them in the layout that they
    are for."""
    rows = mqar_rows(report, means=True)
    if len(group(rows, ["n_heads"])) > 1:
        rows = [with_suffix(row, f", H = {row['n_heads']}") for row in rows]
    measure = over_seeds("accuracy")
    panels = []
    for key, members in group(rows, STATE_SETTING).items():
        setting = dict(zip(STATE_SETTING, key))
        source = Source(TABLE, "state_bytes", measure.y, "state bytes", members)
        curves = make_curves(members, source.x, measure)
        panel = Panel(setting_text(setting, rows), curves, STATE, SLICES, source, BARS)
        if curves and setting["layout"] == "zoology":
            beside = sorted(curves + _published(), key=lambda one: line_order(one.mixer, one.line))
            panel = replace(panel, curves=beside, notes=(PUBLISHED_NOTE,), level=PUBLISHED_SOFTMAX)
        panels.append(panel)
    return panels


def _published() -> list[Curve]:
    """In the style of the mixer's own line, where this program has the mixer."""
    curves = []
    for (mixer, title), values in PUBLISHED.items():
        known = MIXERS.get(mixer, {"title": ""})["title"]
        line = f"{title}, published"
        points = [Point(size, accuracy, math.nan, math.nan, "") for size, accuracy in values]
        curves.append(Curve(line, line, mixer if known else "", points, base=known, hollow=True))
    return curves


LEARNING_SETTING = ["experiment", "layout", "short_conv", "d_h", "n_heads", "n_pairs", "seq_len"]
LEARNING_SETTING += ["steps", "device", "precision"]


def learning_panels(report: Report) -> list[Panel]:
    rows = [without_title(row, "steps") for row in report.rows("history_curve")]
    measure = over_seeds("accuracy")
    panels = []
    for key, members in group(rows, LEARNING_SETTING).items():
        setting = dict(zip(LEARNING_SETTING, key))
        if setting["experiment"] == "mqar" and is_usual(members[0]):
            del setting["seq_len"]
        panels.append(
            Panel(
                setting_text(setting, rows),
                make_curves(members, "step", measure),
                Axis("training step", "steps"),
                ACCURACY,
                Source("history_curve", "step", measure.y, "step", members),
                "Accuracy on each step's batch: mean over seeds and its 95% interval.",
                marks="band",
            )
        )
    return panels
