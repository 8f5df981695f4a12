"""Comparison of all variants at one number of pairs, one row each."""

from __future__ import annotations

from collections import Counter

from plotting.chart import Axis, Curve, Panel, Source, plain
from plotting.lines import line_order, make_curves, over_seeds, with_suffix
from plotting.settings import setting_parts, setting_text
from plotting.tables import Report, Row, group, number, number_text
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
    usual = {key: Counter(row[key] for row in rows).most_common(1)[0][0] for key in COMPARED}
    named = [_named(row, usual) for row in rows]
    measure = over_seeds("accuracy")
    return Panel(
        "",
        sorted(make_curves(named, "n_pairs", measure), key=_best_first),
        Axis("what was changed"),
        ACCURACY,
        Source(TABLE, "n_pairs", measure.y, "n", named),
        BARS,
        marks="rows",
        notes=(f"Where nothing else is said: {plain(setting_text(usual))}.",),
    )


def _named(row: Row, usual: dict[str, str]) -> Row:
    """The line's name, followed by its unusual settings unless the name has them already."""
    changed = {
        key: row[key]
        for key in COMPARED
        if row[key] != usual[key] and f" {KEYS.get(key, key)}=" not in row["line"]
    }
    return with_suffix(row, "".join(f", {plain(part)}" for part in setting_parts(changed)))


def _best_first(curve: Curve) -> tuple[int, float]:
    """From top to bottom: mixer by mixer, the most accurate first."""
    return line_order(curve.mixer, curve.line)[0], -curve.points[0].y
