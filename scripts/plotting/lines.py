"""Curves from rows of a summary; rows with the same `line` make one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from plotting.chart import Curve, Point
from plotting.tables import Row, group, natural_order, number

SCHEMA = Path(__file__).resolve().parents[2] / "configs" / "schema.json"
# Title and colour of every mixer by its name, in the order of figures, from the schema of configs
# (declared in src/mixers/list.h).
MIXERS: dict[str, dict[str, str]] = json.loads(SCHEMA.read_text(encoding="utf-8"))["x-mixers"]


@dataclass(frozen=True)
class Measure:
    """Columns of a quantity. `scale` converts their unit to that of the axis."""

    y: str
    low: str
    high: str
    scale: float = 1.0


def over_seeds(quantity: str) -> Measure:
    return Measure(f"{quantity}_mean", f"{quantity}_low", f"{quantity}_high")


def title_of(line: str) -> str:
    """A mixer's own line has its title."""
    return MIXERS[line]["title"] if line in MIXERS else line


def shown(row: Row) -> str:
    """The name of the row's line in legends."""
    return row.get("shown", title_of(row["line"]))


def with_suffix(row: Row, suffix: str) -> Row:
    return {**row, "line": row["line"] + suffix, "shown": shown(row) + suffix}


def without_title(row: Row, *columns: str) -> Row:
    """`shown` without the settings in the panel's title: "vla steps=300" at 300 steps is VLA."""
    name = row["line"]
    for column in columns:
        name = name.replace(f" {column}={row[column]}", "")
    return {**row, "shown": title_of(name)}


def mixer_of(row: Row) -> str:
    """In tables without a column for the mixer, lines begin with its name or with a user's label."""
    first = row["line"].replace(",", " ").split(" ")[0]
    return row.get("mixer") or (first if first in MIXERS else "")


Order = tuple[int, bool, list[tuple[int, float, str]]]


def line_order(mixer: str, line: str) -> Order:
    """Mixer by mixer, each under its own name first."""
    rank = [*MIXERS, mixer].index(mixer)
    # Splits words and numbers: lr=0.001 comes before lr=0.01.
    own_name = line in (mixer, title_of(mixer))
    return rank, not own_name, natural_order(line.replace("=", " ").replace(",", " ").split())


def make_curves(rows: list[Row], x: str, measure: Measure) -> list[Curve]:
    """One curve per line, without the points that have no value. Throws ValueError when a line has two
    points at one x, which a summary never has."""
    curves = []
    for (line,), members in group(rows, ["line"]).items():
        points = [_point(row, x, measure) for row in members if has_value(row, x, measure.y)]
        points.sort(key=lambda point: point.x)
        for point, following in zip(points, points[1:]):
            if point.x == following.x:
                raise ValueError(f"two rows of line {line} at {x} {point.x:g}")
        if points:
            curves.append(Curve(line, shown(members[0]), mixer_of(members[0]), points))
    return sorted(curves, key=lambda curve: line_order(curve.mixer, curve.line))


def has_value(row: Row, x: str, y: str) -> bool:
    return math.isfinite(number(row, x)) and math.isfinite(number(row, y))


def _point(row: Row, x: str, measure: Measure) -> Point:
    def scaled(column: str) -> float:
        value = number(row, column)
        # Of 0.001 s, 1 ms and not 1.0000000000000002.
        return value if measure.scale == 1.0 else float(f"{value * measure.scale:.12g}")

    return Point(
        number(row, x), scaled(measure.y), scaled(measure.low), scaled(measure.high), row["cells"]
    )
