#!/usr/bin/env python3
"""Draws the figures of a report folder as PNG and PDF, each with its numbers as CSV.

    vla-bench report results/runs --out results/report
    .venv/bin/python scripts/plot.py results/report

Reads only the summaries and curves of the report and averages nothing, so that committed tables give
the same figures, byte for byte. Removes figures of earlier tables that it does not draw again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plotting.chart import Chart
from plotting.drawing import remove, save
from plotting.figures import FIGURES, charts_of
from plotting.style import line_styles, set_up
from plotting.tables import Report


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="folder that `vla-bench report --out` wrote")
    parser.add_argument("--out", type=Path, help="folder of the figures (REPORT/figures)")
    return parser.parse_args(arguments)


def draw_all(tables: Path, charts: dict[str, Chart], out: Path) -> None:
    styles = line_styles(charts.values())
    for name in FIGURES:
        if name in charts:
            for path in save(charts[name], styles, out, name):
                print(path)
            continue
        print(f"plot: {name}: nothing to draw in {tables}", file=sys.stderr)
        for path in remove(out, name):
            print(f"plot: removed {path}, of earlier tables", file=sys.stderr)


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    if not any(options.report.glob("*.csv")):
        print(f"plot: no tables (*.csv) in {options.report}", file=sys.stderr)
        return 2
    set_up()
    out = options.out or options.report / "figures"
    try:
        charts = charts_of(Report(options.report))
        draw_all(options.report, charts, out)
    except KeyError as error:
        print(f"plot: {options.report}: no column {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"plot: cannot write figures into {out}: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
