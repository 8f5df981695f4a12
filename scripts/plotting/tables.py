"""Reading the tables and reducing them to series of points."""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Sequence

Row = dict[str, str]


@dataclass(frozen=True)
class Series:
    """One line of a panel: what the seeds gave at every x."""

    x: list[float]
    mean: list[float]
    deviation: list[float]  # sample standard deviation over seeds; 0 for one seed
    low: list[float]  # smallest seed
    high: list[float]  # largest seed


class Report:
    """The tables of one report folder. A table that is not there has no rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[str, list[Row]] = {}

    def all_rows(self, name: str) -> list[Row]:
        if name not in self._tables:
            path = self.folder / f"{name}.csv"
            self._tables[name] = _read_csv(path) if path.exists() else []
        return self._tables[name]

    def rows(self, name: str, **wanted: str) -> list[Row]:
        """Rows with status ok (tables without that column: all) and the wanted values."""
        return [
            row
            for row in self.all_rows(name)
            if row.get("status", "ok") == "ok"
            and all(row.get(column, value) == value for column, value in wanted.items())
        ]

    def left_out(self, name: str) -> str:
        """Says how many rows of the table `rows` withholds and why; empty when none."""
        count = Counter(row.get("status", "ok") for row in self.all_rows(name))
        del count["ok"]
        reasons = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
        return f"{name}.csv: rows left out: {reasons}." if reasons else ""


def _read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        rows = list(reader)
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path}: a row has more or fewer fields than the header")
    return rows


def number(row: Row, column: str) -> float:
    """The value as a float; nan when empty."""
    return float(row[column]) if row[column] else math.nan


def recall_rows(report: Report) -> list[Row]:
    """Accuracy and its interval: over seeds where there are several, else over trials."""
    identity = ["label", "d_h", "n_pairs", "trials"]
    trials = report.rows("recall")
    over_trials = {tuple(row[column] for column in identity): row["ci95"] for row in trials}
    summary = [row for row in report.rows("recall_summary") if number(row, "count_ok") > 0]
    if not summary:
        return trials
    return [
        {
            **row,
            "accuracy": row["accuracy_mean"],
            "ci95": (
                row["accuracy_ci95"]
                if number(row, "count_ok") > 1
                else over_trials[tuple(row[column] for column in identity)]
            ),
        }
        for row in summary
    ]


def group(rows: Iterable[Row], columns: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of `columns`, keys in numeric, then alphabetic order."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(column, "") for column in columns)].append(row)
    return {key: groups[key] for key in sorted(groups, key=_natural_order)}


def _natural_order(key: Sequence[str]) -> list[tuple[int, float, str]]:
    order = []
    for text in key:
        try:
            order.append((0, float(text), ""))
        except ValueError:
            order.append((1, 0.0, text))
    return order


# A mixer's kernels go by these names; the others are implementations beside them.
OWN_IMPLEMENTATIONS = {"tiled", "recurrent", "reference"}


def line_name(row: Row) -> str:
    """What a line of a latency figure is: the label, and what else tells it from other lines."""
    parts = []
    if row["implementation"] not in OWN_IMPLEMENTATIONS:
        parts.append(row["implementation"])
    if row.get("precision", "float32") not in {"float32", "float64"}:
        parts.append(row["precision"])
    return ", ".join([row["label"], *parts])


def commonest(rows: list[Row], columns: Sequence[str]) -> tuple[dict[str, str], list[Row], int]:
    """The setting that most rows share (the last in order among equals), its rows, and how many
    rows have another one."""
    groups = group(rows, columns)
    if not groups:
        return {}, [], 0
    most = max(len(members) for members in groups.values())
    key = [candidate for candidate, members in groups.items() if len(members) == most][-1]
    return dict(zip(columns, key)), groups[key], len(rows) - most


def series_by_label(rows: Iterable[Row], x: str, y: str) -> dict[str, Series]:
    """One series a label over the seeds. The same seed met twice counts once, by its mean: two
    configs may share a cell."""
    result = {}
    for (label,), members in group(rows, ["label"]).items():
        points = _points(members, x, y)
        if points:
            result[label] = Series(
                x=list(points),
                mean=[math.fsum(values) / len(values) for values in points.values()],
                deviation=[
                    statistics.stdev(values) if len(values) > 1 else 0.0
                    for values in points.values()
                ],
                low=[min(values) for values in points.values()],
                high=[max(values) for values in points.values()],
            )
    return result


def _points(rows: list[Row], x: str, y: str) -> dict[float, list[float]]:
    """x -> one finite value a seed, x ascending."""
    by_seed: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        value = number(row, y)
        if math.isfinite(value):
            by_seed[number(row, x)][row.get("seed", "")].append(value)
    return {
        position: [math.fsum(values) / len(values) for _, values in sorted(seeds.items())]
        for position, seeds in sorted(by_seed.items())
    }
