#!/usr/bin/env python3
"""Prints a report on one screen: the table at the top of README, one column per mixer, and the number
of claims by verdict. It picks values from the report's tables and computes none.

    scripts/first_screen.py results/report/quick --ledger results/report/quick/claims/ledger.json
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from pathlib import Path

from plotting.lines import MIXERS

Row = dict[str, str]
Keys = dict[str, str]

# The published shape; other lines of a report are not shown.
PUBLISHED = {"d_h": "32", "n_heads": "4"}
PROBE = {"source": "model"} | PUBLISHED
MQAR = {"experiment": "mqar", "layout": "paper", "short_conv": "0"} | PUBLISHED
FORWARD = {"seq_len": "4096", "pass": "forward", "d_h": "64", "batch": "4"}


def read(report: Path, name: str) -> list[Row]:
    """The rows of a table; none where the report does not have it."""
    path = report / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def select(rows: list[Row], keys: Keys) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in keys.items())]


def with_least(rows: list[Row], column: str) -> list[Row]:
    least = min((int(row[column]) for row in rows), default=0)
    return [row for row in rows if int(row[column]) == least]


def value_text(rows: list[Row], column: str, layout: str, factor: float = 1.0) -> str:
    """The value of a mixer's only row, and the number of seeds behind it where not all were ok."""
    if not rows:
        return ""
    if len(rows) > 1:
        return "several"
    (row,) = rows
    ok, _, all_cells = row.get("cells", "").partition(" of ")
    some_failed = f" ({ok} of {all_cells})" if ok != all_cells else ""
    if not row[column]:
        return f"none ok{some_failed}" if some_failed else "none ok"
    return format(factor * float(row[column]), layout) + some_failed


def line(
    name: str, rows: list[Row], column: str, layout: str, factor: float = 1.0
) -> list[str] | None:
    """One line of the screen; None where no mixer has a value."""
    values = [
        value_text(select(rows, {"label": label}), column, layout, factor) for label in MIXERS
    ]
    return [name, *values] if any(values) else None


def lines(report: Path) -> list[list[str]]:
    found = []
    accuracy = select(read(report, "accuracy_summary"), MQAR)
    for n_pairs in ("4", "8"):
        rows = with_least(select(accuracy, {"n_pairs": n_pairs}), "seq_len")
        for steps in sorted({row["steps"] for row in rows}, key=int):
            name = f"recall of {n_pairs} pairs after {int(steps):,} steps"
            found.append(line(name, select(rows, {"steps": steps}), "accuracy_mean", ".3f"))
    probe = select(read(report, "recall_summary"), {"n_pairs": "8", "d_h": "32"})
    found.append(
        line("recall of 8 pairs, d_h = 32, nothing learned", probe, "accuracy_mean", ".3f")
    )
    state = select(read(report, "state_norm_summary"), PROBE)
    for t in sorted({row["t"] for row in state if row["t"]}, key=int):
        name = f"norm of the state after {int(t):,} tokens"
        found.append(line(name, select(state, {"t": t}), "s_norm_mean", ".4g"))
    jacobian = select(read(report, "jacobian_summary"), PROBE)
    name = "largest singular value of a step (claim: 1)"
    found.append(line(name, jacobian, "sigma_max_mean", ".3g"))
    forward = select(read(report, "latency_summary"), FORWARD)
    forward = [row for row in forward if row["implementation"] in ("tiled", "recurrent", "chunked")]
    name = "forward, 4,096 tokens, d_h = 64, batch 4 (ms)"
    found.append(line(name, forward, "median_s", ".3g", 1000.0))
    return [one for one in found if one is not None]


def with_titles(rows: list[list[str]]) -> list[list[str]]:
    """The table with a header, without the columns of mixers that have no value."""
    head = ["", *(mixer["title"] for mixer in MIXERS.values())]
    columns = [i for i, title in enumerate(head) if not title or any(row[i] for row in rows)]
    return [[row[i] for i in columns] for row in [head, *rows]]


def aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    texts = []
    for first, *rest in rows:
        values = (value.rjust(width) for value, width in zip(rest, widths[1:]))
        texts.append("  ".join([first.ljust(widths[0]), *values]).rstrip())
    return "\n".join(texts)


def verdicts(ledger: Path) -> str:
    claims = json.loads(ledger.read_text(encoding="utf-8"))["ledger"]
    counts = Counter(claim["verdict"] for claim in claims)
    without_run = counts.pop("no run", 0)
    parts = [f"{count} {verdict}" for verdict, count in counts.most_common()]
    if without_run:
        parts.append(f"{without_run} without a finished run")
    return f"{len(claims)} claims: {', '.join(parts)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("report", type=Path, help="folder that vla-bench report --out wrote")
    parser.add_argument("--ledger", type=Path, help="what vla-bench claims --format json printed")
    options = parser.parse_args()
    found = lines(options.report)
    print(aligned(with_titles(found)) if found else "no line of README's table")
    if options.ledger:
        print(f"\n{verdicts(options.ledger)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
