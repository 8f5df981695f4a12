"""Charts as matplotlib figures: panels, one legend above them, notes at the foot."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Callable, Iterable, Sequence

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from files import write_atomically
from plotting.chart import CSV_COLUMNS, Chart, Curve, Panel, Point, escape, plain
from plotting.lines import line_order
from plotting.style import DASHES, LineStyle, Styles, mixer_style, style_of

PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.2  # inches
NARROWEST = 1.5 * PANEL_WIDTH  # one panel would leave the notes a narrow column
ROW_HEIGHT = 0.13  # inches, of a line of text beside a panel with one row per curve
NOTE_HEIGHT, NOTE_CHARACTERS = 0.135, 18  # inches per line, characters per inch of width
LEGEND_HEIGHT = 0.19  # inches per row of a legend
LEGEND_SIGN, LETTER = 0.8, 0.065  # inches of an entry's line, and of each letter of its name
BELOW_TICKS = 0.75  # inches from the axes to a legend below the name of the axis
MOST_INSIDE, LONGEST_INSIDE = 4, 12  # curves, and letters per name, that fit within the axes
MOST_TICKS = 12
NEARLY, BESIDE = 1.05, 1.075  # ratios of x: below it points stand side by side, so far apart
LONGEST_TITLE = 50  # letters per line
NOTE_COLOUR, MARK_COLOUR = "#555555", "#888888"


def draw_panels(chart: Chart, styles: Styles) -> Figure:
    """Without the shared legend and the notes."""
    columns = min(chart.columns, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    width, height = _size(chart, rows, columns)
    figure, grid = plt.subplots(rows, columns, squeeze=False, figsize=(width, height))
    flat = list(grid.flat)
    for unused in flat[len(chart.panels) :]:
        unused.remove()
    for axes, panel in zip(flat, chart.panels):
        _draw_panel(axes, panel, styles)
    return figure


def draw(chart: Chart, styles: Styles) -> Figure:
    figure = draw_panels(chart, styles)
    width, height = figure.get_size_inches()
    width = max(width, NARROWEST)
    figure.set_figwidth(width)
    height += LEGEND_HEIGHT * _draw_legend(figure, shared_legend(chart), styles)
    notes = "\n".join(textwrap.fill(note, int(width * NOTE_CHARACTERS)) for note in chart.notes)
    figure.supxlabel(notes, fontsize=7, color=NOTE_COLOUR, x=0.01, ha="left", parse_math=False)
    figure.set_figheight(height + NOTE_HEIGHT * (notes.count("\n") + 1))
    return figure


def _size(chart: Chart, rows: int, columns: int) -> tuple[float, float]:
    """Inches, without legend and notes."""
    if chart.panels[0].marks == "rows":
        lowest = max(_row_heights(chart.panels[0].curves).values())
        return NARROWEST, ROW_HEIGHT * (lowest + 1.0) + 0.7
    most = max(map(_rows_below, chart.panels))
    below = BELOW_TICKS - 0.5 + LEGEND_HEIGHT * most if most else 0.0
    return PANEL_WIDTH * columns, (PANEL_HEIGHT * chart.stretch + below) * rows + 0.1


def _own_names(panel: Panel) -> list[str]:
    return [curve.name + plain(curve.beside) for curve in panel.curves]


def _rows_below(panel: Panel) -> int:
    """Height of the panel's own legend when it is below the axes."""
    longest = max(len(curve.name) for curve in panel.curves)
    inside = len(panel.curves) <= MOST_INSIDE and longest <= LONGEST_INSIDE
    return 0 if inside or not panel.own_legend else _legend_shape(_own_names(panel), PANEL_WIDTH)[0]


def _legend_shape(names: Sequence[str], width: float) -> tuple[int, int]:
    """Rows and columns of a legend that is at most so many inches wide."""
    entry = LETTER * max(map(len, names)) + LEGEND_SIGN
    columns = min(len(names), max(1, int(width / entry)))
    return math.ceil(len(names) / columns), columns


def shared_legend(chart: Chart) -> list[Curve]:
    """One curve per name in the panels without their own legend."""
    curves: dict[str, Curve] = {}
    for panel in chart.panels:
        if not panel.own_legend and panel.marks != "rows":
            for curve in panel.curves:
                curves.setdefault(curve.name, curve)
    return sorted(curves.values(), key=lambda curve: line_order(curve.mixer, curve.name))


def _draw_legend(figure: Figure, curves: list[Curve], styles: Styles) -> int:
    """The number of its rows."""
    if not curves:
        return 0
    names = [curve.name for curve in curves]
    rows, columns = _legend_shape(names, figure.get_figwidth())
    handles = [_handle(style_of(curve, styles)) for curve in curves]
    legend = figure.legend(handles, _blanks(handles), loc="outside upper center", ncols=columns)
    _name(legend, map(escape, names))
    return rows


def _draw_own_legend(axes: Axes, panel: Panel, styles: Styles) -> None:
    """Names with the remarks on the curves of this panel."""
    handles = [_handle(style_of(curve, styles)) for curve in panel.curves]
    place: dict[str, object] = {"loc": "best"}
    if _rows_below(panel):
        below = ScaledTranslation(0.0, -BELOW_TICKS, axes.figure.dpi_scale_trans)
        place = {
            "loc": "upper center",
            "bbox_to_anchor": (0.5, 0.0),
            "bbox_transform": axes.transAxes + below,
            "ncols": _legend_shape(_own_names(panel), PANEL_WIDTH)[1],
        }
    legend = axes.legend(handles, _blanks(handles), **place)
    _name(legend, [escape(curve.name) + curve.beside for curve in panel.curves])


def _handle(style: LineStyle) -> Artist:
    return plt.Line2D([], [], **_look(style))


def _look(style: LineStyle) -> dict[str, object]:
    look = {"color": style.colour, "marker": style.marker, "linestyle": DASHES[style.dash]}
    return look | {"markerfacecolor": "none"} if style.hollow else look


def _blanks(handles: Sequence[Artist]) -> list[str]:
    """Names for matplotlib, which omits those that begin with an underscore."""
    return ["line"] * len(handles)


def _name(legend: Legend, names: Iterable[str]) -> None:
    for text, name in zip(legend.get_texts(), names):
        text.set_text(name)


def _draw_panel(axes: Axes, panel: Panel, styles: Styles) -> None:
    axes.set_title(_wrapped(panel.title))
    axes.set_xlabel(panel.x.label)
    axes.set_ylabel(panel.y.label)
    MARKS[panel.marks](axes, panel, styles)
    if panel.level is not None:
        axes.axhline(panel.level, color=MARK_COLOUR, linestyle=":", linewidth=1.0)
    if panel.upright is not None:
        axes.axvline(panel.upright, color=MARK_COLOUR, linestyle=":", linewidth=1.0)
    if panel.own_legend:
        _draw_own_legend(axes, panel, styles)


def _wrapped(title: str) -> str:
    """Breaks a title into lines no wider than a panel, between the parts of the setting."""
    lines = []
    for line in title.split("\n"):
        lines.append("")
        for part in line.split(", "):
            if lines[-1] and len(plain(f"{lines[-1]}, {part}")) > LONGEST_TITLE:
                lines[-1] += ","
                lines.append(part)
            else:
                lines[-1] = ", ".join(filter(None, [lines[-1], part]))
    return "\n".join(lines)


def _bars(axes: Axes, panel: Panel, styles: Styles) -> None:
    for curve in panel.curves:
        x = [point.x for point in curve.points]
        y = [point.y for point in curve.points]
        look = _look(style_of(curve, styles))
        axes.errorbar(x, y, yerr=_errors(curve), capsize=2.5, elinewidth=1.0, **look)
    _scale(axes, panel)


def _beside(axes: Axes, panel: Panel, styles: Styles) -> None:
    x_of = side_by_side([point for curve in panel.curves for point in curve.points])
    for curve in panel.curves:
        look = _look(style_of(curve, styles)) | {"linestyle": ""}
        x, y = [x_of[point] for point in curve.points], [point.y for point in curve.points]
        axes.errorbar(x, y, yerr=_errors(curve), capsize=2.0, elinewidth=0.8, **look)
    _scale(axes, panel)


def side_by_side(points: Iterable[Point]) -> dict[Point, float]:
    """Their places on a logarithmic axis: around nearly the same x the highest leftmost, then the others."""
    places: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.x):
        if places and point.x < NEARLY * places[-1][0].x:
            places[-1].append(point)
        else:
            places.append([point])
    x_of = {}
    for place in places:
        middle = math.sqrt(place[0].x * place[-1].x)
        for index, point in enumerate(sorted(place, key=lambda point: -point.y)):
            x_of[point] = middle * BESIDE ** (index - (len(place) - 1) / 2)
    return x_of


def _errors(curve: Curve) -> list[list[float]]:
    """Lengths of the bars below and above; none without an interval."""

    def length(difference: float) -> float:
        return max(difference, 0.0) if math.isfinite(difference) else 0.0

    below = [length(point.y - point.low) for point in curve.points]
    above = [length(point.high - point.y) for point in curve.points]
    return [below, above]


def _band(axes: Axes, panel: Panel, styles: Styles) -> None:
    for curve in panel.curves:
        x = [point.x for point in curve.points]
        y = [point.y for point in curve.points]
        look = _look(style_of(curve, styles))
        axes.plot(x, y, markevery=0.12 if len(x) > 10 else None, **look)
        low = [point.low for point in curve.points]
        high = [point.high for point in curve.points]
        axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
    _scale(axes, panel)


def _row_heights(curves: Sequence[Curve]) -> dict[str, float]:
    """The wrapped names beside the axis, which keeps most of the width, and their distances from its
    top: in lines of text, with half a line between them. Curves of one name share a row."""
    names = list(dict.fromkeys(_row_name(curve) for curve in curves))
    lines = [name.count("\n") + 1.5 for name in names]
    return {name: end - own / 2 for name, end, own in zip(names, accumulate(lines), lines)}


def _row_name(curve: Curve) -> str:
    return textwrap.fill(curve.name, 42)


def _rows(axes: Axes, panel: Panel, styles: Styles) -> None:
    heights = _row_heights(panel.curves)
    for curve in panel.curves:
        look = _look(replace(mixer_style(curve.mixer), hollow=curve.hollow))
        y = [point.y for point in curve.points]
        height = heights[_row_name(curve)]
        axes.errorbar(y, [height], xerr=_errors(curve), capsize=2.5, elinewidth=1.0, **look)
    axes.set_yticks([*heights.values()], [escape(name) for name in heights], fontsize=8)
    axes.set_ylim(max(heights.values()) + 1.0, min(heights.values()) - 1.0)
    axes.set_xlim(-0.03, 1.05)
    axes.set_xlabel(panel.y.label)
    axes.set_ylabel(panel.x.label)


MARKS: dict[str, Callable[[Axes, Panel, Styles], None]] = {
    "bars": _bars,
    "beside": _beside,
    "band": _band,
    "rows": _rows,
}


def _scale(axes: Axes, panel: Panel) -> None:
    if panel.y.scale == "accuracy":
        axes.set_ylim(-0.03, 1.05)
    elif panel.y.scale == "top":
        axes.set_ylim(_lowest(panel) - 0.03, 1.03)
    elif panel.y.scale == "log":
        axes.set_yscale("log")
    if panel.x.scale == "log":
        axes.set_xscale("log")
    elif panel.x.scale == "steps":
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    elif panel.x.scale == "lengths":
        _length_scale(axes, sorted({point.x for curve in panel.curves for point in curve.points}))


def _lowest(panel: Panel) -> float:
    points = [point for curve in panel.curves for point in curve.points]
    return min(point.low if math.isfinite(point.low) else point.y for point in points)


def _length_scale(axes: Axes, values: list[float]) -> None:
    """Ticks are the measured values, as far as there is room for them."""
    apart = (values[-1] / values[0]) ** (1 / MOST_TICKS)
    ticks = values[:1]
    for value in values[1:]:
        if value >= ticks[-1] * apart:
            ticks.append(value)
    texts = [f"{tick:.0f}" if tick == round(tick) else f"{tick:.3g}" for tick in ticks]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(texts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45 if values[-1] >= 1000 else 0)


KINDS = ("png", "pdf", "csv")


def save(chart: Chart, styles: Styles, folder: Path, name: str) -> list[Path]:
    """Writes PNG, PDF and the numbers as CSV, without dates or program versions, which would change
    the bytes. Throws ValueError where the CSV would replace one that is not a figure's."""
    check_csv(folder / f"{name}.csv")
    figure = draw(chart, styles)
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.set_layout_engine("none")  # keeps the layout, which takes as long as drawing
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(pdf, format="pdf", metadata=nothing)
    plt.close(figure)
    contents = (png.getvalue(), pdf.getvalue(), chart.to_csv())
    paths = [folder / f"{name}.{kind}" for kind in KINDS]
    for path, content in zip(paths, contents):
        write_atomically(path, content)
    return paths


def remove(folder: Path, name: str) -> list[Path]:
    """Removes a figure of earlier tables whose inputs are gone. Throws like `save`."""
    check_csv(folder / f"{name}.csv")
    paths = [folder / f"{name}.{kind}" for kind in KINDS]
    stale = [path for path in paths if path.exists()]
    for path in stale:
        path.unlink(missing_ok=True)  # another report may remove it at the same time
    return stale


def check_csv(path: Path) -> None:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        if next(csv.reader(file), None) != CSV_COLUMNS:
            raise ValueError(f"{path}: not a figure's numbers: figures want a folder of their own")
