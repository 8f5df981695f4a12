"""Panels of training-free experiments: recall, state norm, Jacobian."""

from __future__ import annotations

from plotting.chart import Axis, Panel, Source
from plotting.lines import make_curves, over_seeds, without_title
from plotting.settings import setting_text
from plotting.tables import Report, Row, group, setting_of
from plotting.training import ACCURACY, PAIRS

RECALL_SETTING = ["keys", "d_h", "trials", "precision"]
PROBE_SETTING = ["source", "n_heads", "d_h", "precision"]
POSITION = Axis("position t (tokens)", "log")
BAND = "mean over seeds and its 95% interval."


def recall_panels(report: Report) -> list[Panel]:
    """One per kind of keys and d_h."""
    rows = [
        without_title({**row, "keys": setting_of(row).get("keys", "")}, "trials", "keys")
        for row in report.rows("recall_summary")
    ]
    measure = over_seeds("accuracy")
    panels = []
    for key, members in group(rows, RECALL_SETTING).items():
        over = " or ".join(sorted({row["interval_over"] for row in members} - {""}))
        panels.append(
            Panel(
                setting_text(dict(zip(RECALL_SETTING, key)), rows),
                make_curves(members, "n_pairs", measure),
                PAIRS,
                ACCURACY,
                Source("recall_summary", "n_pairs", measure.y, "n", members),
                f"Mean and its 95% interval over {over or 'seeds'}.",
                upright=float(members[0]["d_h"]),
            )
        )
    return panels


def state_norm_panels(report: Report) -> list[Panel]:
    rows = report.rows("state_norm_curve")
    axis = Axis("Frobenius norm of $S_t$", "log")
    return [
        _curve_panel("state_norm_curve", title, members, "s_norm", axis, f"State norm: {BAND}")
        for title, members in _settings(rows)
    ]


JACOBIAN_AXES = {
    "sigma_max": Axis("largest singular value of $J_t$"),
    "cosine": Axis("cosine of key and write direction"),
    "product_norm": Axis("spectral norm of $J_1 \\cdots J_t$", "log"),
}


def jacobian_panels(report: Report) -> list[Panel]:
    """Three quantities per setting."""
    bars = f"Jacobian: {BAND} Dotted: 1, as published."
    return [
        _curve_panel("jacobian_curve", title, members, quantity, axis, bars, level=1.0)
        for title, members in _settings(report.rows("jacobian_curve"))
        for quantity, axis in JACOBIAN_AXES.items()
    ]


def _settings(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Title and rows of each."""
    return [
        (setting_text(dict(zip(PROBE_SETTING, key)), rows), members)
        for key, members in group(rows, PROBE_SETTING).items()
    ]


def _curve_panel(
    table: str,
    title: str,
    rows: list[Row],
    quantity: str,
    axis: Axis,
    bars: str,
    level: float | None = None,
) -> Panel:
    measure = over_seeds(quantity)
    source = Source(table, "t", measure.y, "t", rows)
    curves = make_curves(rows, "t", measure)
    return Panel(title, curves, POSITION, axis, source, bars, marks="band", level=level)
