"""Whole figures: panels, one legend, notes at the foot."""

from __future__ import annotations

import math
from typing import Callable, Iterable

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting import panels
from plotting.panels import Styles
from plotting.tables import (
    Report,
    Row,
    commonest,
    group,
    line_name,
    number,
    recall_rows,
    series_by_label,
)

PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.2  # inches
LINE_HEIGHT = 0.13  # inches, of a line of text in `comparison`
LEGEND_BELOW = 1.0  # inches that a legend below its panel takes


def grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """`count` axes, at most `columns` a row."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, figsize=(PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.6)
    )
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return figure, flat[:count]


def finish(figure: Figure, styles: Styles, axes: Iterable[Axes], notes: Iterable[str]) -> Figure:
    """One legend for all panels above them, the notes below."""
    known = {style.name: style for style in styles.values()}
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels()):
            entries.setdefault(name, handle)
    shared = [name for name in known if name in entries]
    if shared:
        entry_width = 0.065 * max(len(name) for name in shared) + 0.7  # inches
        per_row = max(1, int(figure.get_figwidth() / entry_width))
        figure.legend(
            [entries[name] for name in shared],
            shared,
            loc="outside upper center",
            ncols=min(per_row, len(shared)),
        )
    text = "\n".join(note for note in notes if note)
    if text:
        figure.supxlabel(text, fontsize=7, color="#555555", x=0.01, ha="left")
    return figure


def capacity_groups(report: Report) -> dict[tuple[str, ...], list[Row]]:
    return group(panels.capacity_rows(report), panels.CAPACITY_SETTING)


def four_panels(report: Report, styles: Styles) -> Figure | None:
    """The paper's figure: latency, state norm, capacity, long context; those that have data."""
    accuracy_bars = "Accuracy: mean and standard deviation over seeds."
    candidates = (
        (
            panels.production_forward_rows(report),
            panels.latency,
            "Latency: median, 10th to 90th percentile.",
        ),
        (
            report.rows("state_norm"),
            panels.state_norm,
            "State norm: mean and range over seeds.",
        ),
        (panels.capacity_rows(report), panels.capacity, accuracy_bars),
        (panels.long_context_rows(report), panels.long_context, accuracy_bars),
    )
    drawn = [(draw, bars) for rows, draw, bars in candidates if rows]
    if panels.comparison_rows(report)[0]:
        drawn = [(draw, bars) for draw, bars in drawn if draw is not panels.capacity]
    only_capacity = [draw for draw, _ in drawn] == [panels.capacity]
    if not drawn or (only_capacity and len(capacity_groups(report)) > 1):
        return None  # in the second case `accuracy` shows all of it
    figure, axes = grid(len(drawn), 2 if len(drawn) == 4 else 3)
    notes = []
    for panel, (draw, _) in zip(axes, drawn):
        notes += draw(panel, report, styles)
    notes += [report.left_out("latency"), report.left_out("accuracy")]
    notes.append(" ".join(dict.fromkeys(bars for _, bars in drawn)))
    return finish(figure, styles, axes, notes)


def recall(report: Report, styles: Styles) -> Figure | None:
    """Training-free recall, one panel a d_h."""
    rows_drawn = recall_rows(report)
    groups = group(rows_drawn, ["d_h"])
    if not groups:
        return None
    figure, axes = grid(len(groups), 3)
    for panel, ((d_h,), rows) in zip(axes, groups.items()):
        panels.recall(panel, styles, rows, d_h)
    several = [number(row, "count_ok") > 1 for row in rows_drawn if "count_ok" in row]
    over = "seeds" if any(several) else "trials"
    if any(several) and not all(several):
        over += " (one seed: trials)"
    notes = [
        report.left_out("recall"),
        f"Mean over {over} with its 95% confidence interval. Dotted: n = d_h.",
    ]
    return finish(figure, styles, axes, notes)


def jacobian(report: Report, styles: Styles) -> Figure | None:
    if not report.rows("jacobian"):
        return None
    figure, axes = grid(len(panels.JACOBIAN_QUANTITIES), 3)
    for panel, quantity in zip(axes, panels.JACOBIAN_QUANTITIES):
        panels.jacobian(panel, report, styles, quantity)
    _, _, others = commonest(report.rows("jacobian"), panels.PROBE_SETTING)
    notes = ["Mean and range over seeds. Dotted: 1, as published."]
    if others:
        notes.append(f"{others} rows of other settings are not shown.")
    return finish(figure, styles, axes, notes)


def latency(report: Report, styles: Styles) -> Figure | None:
    """Every pass and setting that was timed."""
    groups = group(panels.latency_rows(report, "latency"), [*panels.LATENCY_SETTING, "pass"])
    if not groups:
        return None
    figure, axes = grid(len(groups), 2)
    if any(len({line_name(row) for row in rows}) > panels.MOST_INSIDE for rows in groups.values()):
        figure.set_figheight(figure.get_figheight() + LEGEND_BELOW * math.ceil(len(groups) / 2))
    notes = []
    for panel, (key, rows) in zip(axes, groups.items()):
        panels.draw_latency(panel, report, styles, rows)
        setting = dict(zip([*panels.LATENCY_SETTING, "pass"], key))
        panel.set_title(panels.setting_text(setting))
        notes.append(panels.crossover_note(report, styles, rows[0]))
    notes += [report.left_out("latency"), "Median of the repeats, 10th to 90th percentile."]
    return finish(figure, styles, [], notes)


def accuracy(report: Report, styles: Styles) -> Figure | None:
    """Capacity in every setting; drawn when there is more than the four-panel figure shows."""
    groups = capacity_groups(report)
    if len(groups) < 2 or panels.comparison_rows(report)[0]:
        return None
    curves = {key: rows for key, rows in groups.items() if len(group(rows, ["n_pairs"])) > 1}
    points = len(groups) - len(curves) if curves else 0
    if points:
        groups = curves
    figure, axes = grid(len(groups), 3)
    for panel, (key, rows) in zip(axes, groups.items()):
        panels.draw_accuracy(panel, styles, rows, "n_pairs")
        panel.set_title(panels.setting_text(dict(zip(panels.CAPACITY_SETTING, key))))
    notes = [report.left_out("accuracy"), "Mean and standard deviation over seeds."]
    if points:
        notes.append(f"Settings with one number of pairs are not shown: {points}.")
    return finish(figure, styles, axes, notes)


def comparison(report: Report, styles: Styles) -> Figure | None:
    """Accuracy of everything that was changed at one number of pairs."""
    rows, usual = panels.comparison_rows(report)
    if not rows:
        return None
    _, heights = panels.comparison_names([label for (label,) in group(rows, ["label"])])
    figure, axes = plt.subplots(
        figsize=(1.5 * PANEL_WIDTH, LINE_HEIGHT * (heights[-1] + 1.0) + 1.0)
    )
    notes = panels.comparison(axes, rows, usual, styles)
    notes += [report.left_out("accuracy"), "Mean and standard deviation over seeds."]
    return finish(figure, styles, [axes], notes)


def load(report: Report, styles: Styles) -> Figure | None:
    """Accuracy against stored pairs a channel, one curve a mixer; drawn where every mixer has a
    short convolution and there is more than one shape to compare."""
    groups = {
        layout: rows
        for (layout,), rows in group(panels.load_rows(report), ["layout"]).items()
        if len(group(rows, ["load"])) > 1
    }
    if not groups:
        return None
    figure, axes = grid(len(groups), 3)
    for panel, (layout, rows) in zip(axes, groups.items()):
        panels.load(panel, styles, rows)
        panel.set_title(f"{layout} layout")
    notes = [report.left_out("accuracy"), "Mean and standard deviation over shapes and seeds."]
    return finish(figure, styles, axes, notes)


def learning_curves(report: Report, styles: Styles) -> Figure | None:
    """Training accuracy over the steps, one panel a setting."""
    rows = report.rows("history")
    if not rows:
        return None
    measured = {"step", "loss", "accuracy", "learning_rate", "gradient_norm"}
    settings = [column for column in rows[0] if column not in {"label", "mixer", "seed", *measured}]
    groups = group(rows, settings)
    figure, axes = grid(len(groups), 3)
    for panel, (key, members) in zip(axes, groups.items()):
        for label, series in series_by_label(members, "step", "accuracy").items():
            panels.draw_curve(panel, styles, label, series)
        panel.set_title(panels.setting_text(dict(zip(settings, key))))
        panel.set_xlabel("training step")
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels.accuracy_axis(panel)
    return finish(
        figure, styles, axes, ["Accuracy on each step's batch: mean and range over seeds."]
    )


FIGURES: dict[str, Callable[[Report, Styles], Figure | None]] = {
    "four_panels": four_panels,
    "recall": recall,
    "jacobian": jacobian,
    "latency": latency,
    "accuracy": accuracy,
    "comparison": comparison,
    "load": load,
    "learning_curves": learning_curves,
}
