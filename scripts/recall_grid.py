#!/usr/bin/env python3
"""Prints the recall of a report folder as one small table a d_h, mixers down and stored pairs
across: its own table has a row for each of their combinations.

    scripts/recall_grid.py results/report/quick
"""

from __future__ import annotations

import sys
from pathlib import Path

from plotting.tables import Report, group, number, recall_rows


def grid_lines(cells: dict[tuple[str, str], str], labels: list[str], pairs: list[str]) -> list[str]:
    """Markdown with aligned columns."""
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


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    report = Report(Path(arguments[0]))
    for (d_h,), rows in group(recall_rows(report), ["d_h"]).items():
        cells = {(row["label"], row["n_pairs"]): f"{number(row, 'accuracy'):.3f}" for row in rows}
        labels = [label for (label,) in group(rows, ["label"])]
        pairs = [n for (n,) in group(rows, ["n_pairs"])]
        print("\n".join([f"d_h = {d_h}", "", *grid_lines(cells, labels, pairs), ""]))
    if left_out := report.left_out("recall"):
        print(left_out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
