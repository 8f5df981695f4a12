"""What a figure shows, before anything is drawn: panels, their curves, the points of these and the
notes below. The CSV beside a figure and the drawing are made from the same points."""

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
    low: float  # nan: no interval is known
    high: float
    cells: str  # "3 of 5": how many of the cells are behind it


@dataclass(frozen=True)
class Curve:
    line: str  # as the tables name it, and what else tells it from other curves of its panel
    name: str  # for legends
    mixer: str  # empty where the table does not say
    points: list[Point]
    beside: str = ""  # mathtext behind the name in the legend of its own panel
    # Of a line that is drawn at several shapes: which one, for its marker, and the line's own name.
    shape: int | None = None
    base: str = ""

    @property
    def style(self) -> str:
        """Curves of one style have one colour and dashes in all figures."""
        return self.base or self.name


@dataclass(frozen=True)
class Axis:
    label: str  # mathtext
    scale: str = "linear"  # linear; log; lengths: base 2, ticks at the values; accuracy; steps


@dataclass(frozen=True)
class Source:
    """Where the points of a panel come from."""

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
    marks: str = "bars"  # bars; band; rows: a curve a row, y along the horizontal axis
    notes: tuple[str, ...] = ()
    level: float | None = None  # a dotted line across
    upright: float | None = None  # a dotted line from top to bottom
    own_legend: bool = False

    @property
    def name(self) -> str:
        """As the CSV says it."""
        parts = [*self.title.splitlines(), self.y.label]
        return ", ".join(plain(part) for part in parts if part)


@dataclass(frozen=True)
class Chart:
    panels: list[Panel]
    notes: list[str]
    columns: int = 3

    def to_csv(self) -> str:
        """A row for each point that is drawn, in the units of the axes."""
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
    """For matplotlib: a dollar sign of a user's label begins no formula."""
    return text.replace("$", r"\$")


def plain(mathtext: str) -> str:
    """As a reader without formulas reads it: "$d_h$ = 16" is "d_h = 16"."""
    kept = mathtext.replace(r"\$", "\0").replace("\\cdots", "...").replace("$", "")
    return kept.replace("\0", "$")
