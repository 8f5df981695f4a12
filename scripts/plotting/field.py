"""The field's protocol at a glance: its accuracy against bytes of state, training steps and time."""

from __future__ import annotations

import math
from dataclasses import replace

from plotting.chart import Axis, Curve, Panel, Point, Source
from plotting.latency import MILLISECONDS
from plotting.latency import TABLE as TIMES
from plotting.lines import Measure, line_order, make_curves, over_seeds
from plotting.notes import listed
from plotting.tables import Report, Row, group, number, number_text
from plotting.training import ACCURACY, BARS, SLICES, STATE, STATE_SETTING, TABLE, mqar_rows

TOP = replace(SLICES, scale="top")
TIMED_LENGTH = "16384"  # tokens
TIMING = ["batch", "precision", "device", "processor", "threads"]
SHAPE = ["label", "n_heads", "d_h"]


def field_panels(report: Report) -> tuple[list[Panel], list[str]]:
    """Of the setting with the most rows, and the notes. Empty where a part of it was not measured."""
    settings = group(mqar_rows(report, means=True), STATE_SETTING).values()
    rows = max(settings, key=len, default=[])
    timed, untimed, timing = _with_times(report, rows)
    steps, size = _at_full_size(report, rows)
    if not timed or not steps:
        return [], []
    accuracy = over_seeds("accuracy")
    panels = [
        replace(_panel("State", rows, "state_bytes", accuracy, STATE), marks="beside"),
        _steps_panel(steps, size),
        _panel("Time", timed, "forward_ms", accuracy, Axis("forward time (ms)", "log")),
    ]
    notes = [
        "State: points within 5% of each other stand side by side, the most accurate first.",
        f"Time: lines join sizes of a model; {timing}.",
    ]
    if untimed:
        notes.append(f"Not timed: {listed(untimed)}.")
    return panels, notes


def _panel(title: str, rows: list[Row], x: str, measure: Measure, axis: Axis) -> Panel:
    source = Source(TABLE, x, measure.y, x.replace("_", " "), rows)
    return Panel(title, make_curves(rows, x, measure), axis, TOP, source, BARS)


def _with_times(report: Report, rows: list[Row]) -> tuple[list[Row], list[str], str]:
    """The rows with the forward time of their rule and shape in milliseconds, the lines without one, and
    how it was measured. Of several machines and precisions the one with the most timings."""
    forward = report.rows(TIMES, **{"pass": "forward", "seq_len": TIMED_LENGTH})
    forward = [row for row in forward if row["implementation"] != "reference" and row["median_s"]]
    timings = max(group(forward, TIMING).values(), key=len, default=[])
    times = {tuple(row[key] for key in SHAPE): number(row, "median_s") for row in timings}
    timed, untimed = [], []
    for row in rows:
        seconds = times.get(tuple(row[key] for key in SHAPE))
        if seconds is None:
            untimed.append(row["line"])
        else:
            timed.append({**row, "forward_ms": repr(seconds * MILLISECONDS.scale)})
    how = ""
    if timings:
        one = timings[0]
        tokens = f"T = {int(TIMED_LENGTH):,}, batch {one['batch']}"
        how = ", ".join(["one layer", tokens, one["precision"], one["processor"]])
    return timed, list(dict.fromkeys(untimed)), how


def _at_full_size(report: Report, rows: list[Row]) -> tuple[list[Row], str]:
    """The points of these rows' learning curves on batches of the fullest size that is trained on, of
    the smallest model, and that size."""
    configs = {row["config"] for row in rows}
    curves = [row for row in report.rows("history_curve") if row["config"] in configs]
    if not curves:
        return [], ""
    width = min(_d_model(row) for row in curves)
    pairs, tokens = max((number(row, "n_pairs"), number(row, "seq_len")) for row in curves)
    chosen = [
        row
        for row in curves
        if _d_model(row) == width
        and (number(row, "n_pairs"), number(row, "seq_len")) == (pairs, tokens)
    ]
    size = f"d_model = {width}, {number_text(pairs)} pairs in {number_text(tokens)} tokens"
    return chosen, size


def _d_model(row: Row) -> int:
    return int(row["n_heads"]) * int(row["d_h"])


def _steps_panel(rows: list[Row], size: str) -> Panel:
    """Without intervals, which would hide the lines."""
    measure = over_seeds("accuracy")
    curves = [_bare(curve) for curve in make_curves(rows, "step", measure)]
    return Panel(
        f"Steps\n{size}",
        sorted(curves, key=lambda curve: line_order(curve.mixer, curve.line)),
        Axis("training step", "steps"),
        ACCURACY,
        Source("history_curve", "step", measure.y, "step", rows),
        "Steps: accuracy on the step's batch, mean over seeds; intervals in the table.",
    )


def _bare(curve: Curve) -> Curve:
    points = [Point(point.x, point.y, math.nan, math.nan, point.cells) for point in curve.points]
    return replace(curve, points=points)
