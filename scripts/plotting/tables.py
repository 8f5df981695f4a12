"""Reads the tables of a report, without averaging: the summaries have the drawn values."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Iterable, Sequence

Row = dict[str, str]


class Report:
    """The tables of one report folder. A missing table has no rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[str, list[Row]] = {}

    def all_rows(self, name: str) -> list[Row]:
        """The rows of a table. Throws ValueError naming the file when a row is not whole."""
        if name not in self._tables:
            path = self.folder / f"{name}.csv"
            self._tables[name] = _read_csv(path) if path.exists() else []
        return self._tables[name]

    def rows(self, name: str, **wanted: str) -> list[Row]:
        """The rows of a summary with the wanted values. Throws ValueError for a table of an older
        program, which had no names of lines."""
        rows = self.all_rows(name)
        if rows and "line" not in rows[0]:
            raise ValueError(
                f"{self.folder / name}.csv: expected a column `line`: make the report again with "
                "this version of `vla-bench report`"
            )
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _read_csv(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path}: a row has more or fewer fields than the header")
    return rows


def number(row: Row, column: str) -> float:
    """The value as a float; nan when empty. Throws ValueError naming the column."""
    try:
        return float(row[column]) if row[column] else math.nan
    except ValueError:
        raise ValueError(f"{column}: expected a number, got {row[column]!r}") from None


def number_text(value: float) -> str:
    """The number in full; empty for nan."""
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else repr(value)


def ok_of(row: Row) -> tuple[int, int]:
    """ "3 of 5" of the column `cells` as two numbers."""
    parts = row["cells"].split(" of ")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise ValueError(f"cells: expected \"3 of 5\", got {row['cells']!r}")
    return int(parts[0]), int(parts[1])


def setting_of(row: Row) -> dict[str, str]:
    """ "lr=0.001 curriculum=1500" of the column `setting` by key."""
    pairs = (part.partition("=") for part in row.get("setting", "").split())
    return {key: value for key, _, value in pairs}


def group(rows: Iterable[Row], columns: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of `columns`, keys in numeric, then alphabetic order."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return {key: groups[key] for key in sorted(groups, key=natural_order)}


def natural_order(key: Sequence[str]) -> list[tuple[int, float, str]]:
    order = []
    for text in key:
        try:
            order.append((0, float(text), ""))
        except ValueError:
            order.append((1, 0.0, text))
    return order
