#!/usr/bin/env python3
"""Prints the recall of a report folder as small tables, with one row per mixer and one column per number
of stored pairs, and one table per size and other setting. "0.512 (2 of 3)" means that two of three cells
are ok; a line below says how the third ended.

    scripts/recall_grid.py results/report/quick
"""

from __future__ import annotations

import sys
from pathlib import Path

from plotting.notes import varying
from plotting.tables import Report, Row, group, ok_of


def setting_of_table(row: Row) -> Row:
    """Adds a column for the part of the line's name after its label: "keys=gaussian"."""
    words = row["line"].removeprefix(row["label"]).split()
    return {**row, "told": " ".join(word for word in words if not word.startswith("trials="))}


def cell_text(row: Row) -> str:
    ok, cells = ok_of(row)
    some_failed = f" ({ok} of {cells})" if ok < cells else ""
    return (f"{float(row['accuracy_mean']):.3f}" if row["accuracy_mean"] else "none") + some_failed


def grid_lines(cells: dict[tuple[str, str], str], labels: list[str], pairs: list[str]) -> list[str]:
    """A Markdown table with aligned columns."""
    rows = [["n =", *pairs]]
    rows += [[label, *(cells.get((label, n), "") for n in pairs)] for label in labels]
    widths = [max(len(row[i]) for row in rows) for i in range(len(pairs) + 1)]

    def line(row: list[str]) -> str:
        first, *rest = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(rows[0]), line(rule), *(line(row) for row in rows[1:])]


def title(d_h: str, trials: str, precision: str, told: str, several: set[str]) -> str:
    """The table's title: the size, and the settings in which the tables differ."""
    parts = [f"d_h = {d_h}"]
    parts += [f"{trials} trials"] if "trials" in several else []
    parts += [precision] if "precision" in several else []
    return ", ".join(parts + ([told] if told else []))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    rows = [setting_of_table(row) for row in Report(Path(arguments[0])).rows("recall_summary")]
    setting = ["d_h", "trials", "precision", "told"]
    several = {column for column in setting if len(group(rows, [column])) > 1}
    tables = group(rows, setting)
    for key, members in tables.items():
        cells = {(row["label"], row["n_pairs"]): cell_text(row) for row in members}
        labels = [label for (label,) in group(members, ["label"])]
        pairs = [n for (n,) in group(members, ["n_pairs"])]
        print("\n".join([title(*key, several), "", *grid_lines(cells, labels, pairs), ""]))
    for row in rows:
        if row["not_ok"]:
            print(f"{row['line']}, d_h = {row['d_h']}, n = {row['n_pairs']}: {row['not_ok']}")
    for note in varying(tables.values()):
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
