"""Panels of training-free experiments: recall, state norm, Jacobian."""

from __future__ import annotations

from dataclasses import replace

from plotting.chart import Axis, Panel, Source
from plotting.lines import make_curves, over_seeds, without_title
from plotting.settings import setting_text
from plotting.tables import Report, Row, group, setting_of
from plotting.training import ACCURACY, PAIRS

RECALL_SETTING = ["keys", "d_h", "trials", "precision"]
STREAM_SETTING = ["keys", "d_h", "n_pairs", "trials", "precision"]
PROBE_SETTING = ["source", "n_heads", "d_h", "precision"]
POSITION = Axis("position t (tokens)", "log")
STREAM = Axis("other pairs written before", "log")
BAND = "mean over seeds and its 95% interval."


def recall_panels(report: Report) -> list[Panel]:
    """One per kind of keys and d_h, of the pairs that no stream precedes."""
    rows = [row for row in _recall_rows(report) if not row["stream"]]
    return [
        replace(
            _recall_panel(members, "n_pairs", "n", PAIRS, _title(RECALL_SETTING, key, rows)),
            upright=float(members[0]["d_h"]),
        )
        for key, members in group(rows, RECALL_SETTING).items()
    ]


def stream_panels(report: Report) -> list[Panel]:
    """Recall of the last pairs: one per kind of keys, d_h and number of pairs."""
    rows = [_one_line(row) for row in _recall_rows(report) if row["stream"]]
    return [
        _recall_panel(members, "stream", "stream", STREAM, _title(STREAM_SETTING, key, rows))
        for key, members in group(rows, STREAM_SETTING).items()
    ]


def _recall_rows(report: Report) -> list[Row]:
    """With the settings of recall as columns, empty where a row does not say them."""
    rows = []
    for row in report.rows("recall_summary"):
        setting = setting_of(row)
        more = {"keys": setting.get("keys", ""), "stream": setting.get("stream", "")}
        rows.append(without_title({**row, **more}, "trials", *more))
    return rows


def _one_line(row: Row) -> Row:
    """Of any stream and keys: the axis and the title have them."""
    said = {f"{key}={row[key]}" for key in ("keys", "stream")}
    without = {
        column: " ".join(part for part in row[column].split(" ") if part not in said)
        for column in ("line", "setting")
    }
    return {**row, **without}


def _title(columns: list[str], key: tuple[str, ...], rows: list[Row]) -> str:
    return setting_text(dict(zip(columns, key)), rows)


def _recall_panel(rows: list[Row], x: str, symbol: str, axis: Axis, title: str) -> Panel:
    measure = over_seeds("accuracy")
    over = " or ".join(sorted({row["interval_over"] for row in rows} - {""}))
    return Panel(
        title,
        make_curves(rows, x, measure),
        axis,
        ACCURACY,
        Source("recall_summary", x, measure.y, symbol, rows),
        f"Mean and its 95% interval over {over or 'seeds'}.",
    )


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
