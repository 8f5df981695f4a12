#!/usr/bin/env python3
"""Builds the results page: one HTML file with inline figures that needs no network.

    vla-bench report results/runs --out results/report/mine
    vla-bench claims results/runs --format json > ledger.json
    .venv/bin/python scripts/report.py results/report/mine --ledger ledger.json --out page.html

Each folder becomes a part of the page, in the given order. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from files import write_atomically
from page.folder import read_folders
from page.ledger import read_ledger
from page.template import render
from plotting.style import set_up


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        metavar="DIR",
        nargs="+",
        type=Path,
        help="folder that `vla-bench report --out` wrote",
    )
    parser.add_argument("--out", type=Path, required=True, help="the page, an .html file")
    parser.add_argument(
        "--ledger", type=Path, help="JSON of `vla-bench claims`; a file not there is said so"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Returns the exit status: 1 when a file could not be read, which the page then says."""
    options = parse_arguments(arguments)
    set_up()
    try:
        ledger = read_ledger(options.ledger)
        results = read_folders(options.folders)
        write_atomically(options.out, render(ledger, results))
    except (OSError, ValueError, KeyError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(options.out)
    broken = [text for folder in results.folders for text in folder.broken]
    for text in broken:
        print(f"report: {text}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
