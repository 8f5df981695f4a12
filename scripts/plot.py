#!/usr/bin/env python3
"""Draws the figures of a report folder as PNG and PDF.

    vla-bench report results/runs --out results/report
    .venv/bin/python scripts/plot.py results/report

Reads the CSV tables alone, so that committed tables draw the same figures, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from plotting.figures import FIGURES
from plotting.style import line_styles, save, set_up
from plotting.tables import Report


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="folder that `vla-bench report --out` wrote")
    parser.add_argument("--out", type=Path, help="folder of the figures (REPORT/figures)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    if not any(options.report.glob("*.csv")):
        print(f"plot: no tables (*.csv) in {options.report}", file=sys.stderr)
        return 2
    set_up()
    report = Report(options.report)
    try:
        styles = line_styles(report)
        for name, draw in FIGURES.items():
            figure = draw(report, styles)
            if figure is None:
                print(f"plot: {name}: nothing to draw in {options.report}", file=sys.stderr)
                continue
            for path in save(figure, options.out or options.report / "figures", name):
                print(path)
            plt.close(figure)
    except (ValueError, KeyError) as error:
        print(f"plot: {options.report}: {error!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
