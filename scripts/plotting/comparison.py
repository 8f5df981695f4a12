"""Comparison of all variants at one number of pairs, one row each; where some rows have keys that are
written again with another value, a row of the figure has these and, hollow, the others of its label."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from plotting.chart import Axis, Curve, Panel, Source, plain
from plotting.lines import line_order, make_curves, over_seeds, title_of, with_suffix
from plotting.settings import setting_parts, setting_text
from plotting.tables import Report, Row, group, number, number_text, setting_of
from plotting.training import ACCURACY, BARS, TABLE

COMPARED = ["layout", "d_h", "n_heads", "n_pairs", "short_conv", "steps", "learning_rate"]
COMPARED += ["device", "precision"]
KEYS = {"learning_rate": "lr"}  # a column's key in names of lines, where it is not the column's name
FEWEST = 9  # fewer fit into a legend


def comparison_panel(report: Report) -> Panel | None:
    """Only when all rows have one number of pairs and one length, so that curves would be single
    points, and when there are too many for a legend."""
    rows = [
        {**row, "learning_rate": number_text(number(row, "learning_rate"))}
        for row in report.rows(TABLE, experiment="mqar")
    ]
    if len(rows) < FEWEST or len(group(rows, ["layout", "n_pairs", "seq_len"])) != 1:
        return None
    paired = _are_pairs(rows)
    compared = [key for key in COMPARED if not paired or key != "learning_rate"]
    usual = {key: Counter(row[key] for row in rows).most_common(1)[0][0] for key in compared}
    if paired:
        rows = [{**row, "shown": title_of(row["label"])} for row in rows]
    named = [_named(row, usual) for row in rows]
    measure = over_seeds("accuracy")
    curves = make_curves(named, "n_pairs", measure)
    notes = (f"Where nothing else is said: {plain(setting_text(usual))}.",)
    if paired:
        hollow = {row["line"] for row in named if not _is_overwritten(row)}
        curves = [replace(curve, hollow=curve.line in hollow) for curve in curves]
        notes += (_pairs_note(named),)
    return Panel(
        "",
        sorted(curves, key=_best_first),
        Axis("rule" if paired else "what was changed"),
        ACCURACY,
        Source(TABLE, "n_pairs", measure.y, "n", named),
        BARS,
        marks="rows",
        notes=notes,
    )


def _named(row: Row, usual: dict[str, str]) -> Row:
    """The line's name, followed by its unusual settings unless the name has them already."""
    changed = {
        key: row[key]
        for key in usual
        if row[key] != usual[key] and f" {KEYS.get(key, key)}=" not in row["line"]
    }
    return with_suffix(row, "".join(f", {plain(part)}" for part in setting_parts(changed)))


def _is_overwritten(row: Row) -> bool:
    return "rewrites" in setting_of(row)


def _are_pairs(rows: list[Row]) -> bool:
    """Whether labels have one row of each kind at most, and some have both."""
    kinds = Counter((row["label"], _is_overwritten(row)) for row in rows)
    labels = Counter(label for label, _ in kinds)
    return max(kinds.values()) == 1 and max(labels.values()) == 2


def _pairs_note(rows: list[Row]) -> str:
    kinds = {_is_overwritten(row): row["setting"] for row in rows}
    rates = group(rows, ["learning_rate"])
    lr = ", ".join(rate for (rate,) in rates)
    return f"Filled: {kinds[True]}; hollow: {kinds[False]}. Learning rates (in the tables): {lr}."


def _best_first(curve: Curve) -> tuple[int, bool, float]:
    """From top to bottom: mixer by mixer, the most accurate first; hollow ones share their rows."""
    return line_order(curve.mixer, curve.line)[0], curve.hollow, -curve.points[0].y
