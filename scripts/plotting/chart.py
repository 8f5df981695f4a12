"""The content of a figure before drawing: panels, their curves and points, and the notes below. The CSV
beside a figure and the drawing come from the same points."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from plotting.tables import Row, number_text

CSV_COLUMNS = ["panel", "line", "x", "y", "low", "high", "cells"]


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    low: float  # nan: no interval
    high: float
    cells: str  # "3 of 5": the number of cells behind it


@dataclass(frozen=True)
class Curve:
    line: str  # the tables' name, and what else distinguishes it from other curves of its panel
    name: str  # for legends
    mixer: str  # empty where the table does not have it
    points: list[Point]
    beside: str = ""  # mathtext after the name in the legend of its panel
    # For a line that is drawn at several shapes: the shape, for its marker, and the line's own name.
    shape: int | None = None
    base: str = ""
    hollow: bool = False  # markers are outlines: not measured here

    @property
    def style(self) -> str:
        """The key of its style: curves of one style have one colour and dashes in all figures."""
        return self.base or self.name


@dataclass(frozen=True)
class Axis:
    label: str  # mathtext
    # linear; log; lengths: base 2, ticks at the values; accuracy: from 0 to 1; top: an accuracy from the
    # lowest interval to 1; steps
    scale: str = "linear"


@dataclass(frozen=True)
class Source:
    """The source of a panel's points."""

    table: str
    x: str  # column
    y: str  # column
    symbol: str  # of x, in notes
    rows: list[Row]  # with those that cannot be drawn


@dataclass(frozen=True)
class Panel:
    title: str  # mathtext
    curves: list[Curve]
    x: Axis
    y: Axis
    source: Source
    bars: str  # what the bars or bands are
    # bars; beside: bars without lines, points of nearly one x side by side; band; rows: one curve per row, y
    # along the horizontal axis
    marks: str = "bars"
    notes: tuple[str, ...] = ()
    level: float | None = None  # a dotted line across
    upright: float | None = None  # a dotted line from top to bottom
    own_legend: bool = False

    @property
    def name(self) -> str:
        """The title in the CSV."""
        parts = [*self.title.splitlines(), self.y.label]
        return ", ".join(plain(part) for part in parts if part)


@dataclass(frozen=True)
class Chart:
    panels: list[Panel]
    notes: list[str]
    columns: int = 3
    stretch: float = 1.0  # of the panels' height

    def to_csv(self) -> str:
        """One row per drawn point, in the units of the axes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for panel in self.panels:
            for curve in panel.curves:
                for point in curve.points:
                    numbers = map(number_text, (point.x, point.y, point.low, point.high))
                    writer.writerow([panel.name, curve.line, *numbers, point.cells])
        return text.getvalue()


def escape(text: str) -> str:
    """Escapes dollar signs of a user's label, which would begin a formula in matplotlib."""
    return text.replace("$", r"\$")


def plain(mathtext: str) -> str:
    """The text without formulas: "$d_h$ = 16" becomes "d_h = 16"."""
    kept = mathtext.replace(r"\$", "\0").replace("\\cdots", "...").replace("$", "")
    return kept.replace("\0", "$")
