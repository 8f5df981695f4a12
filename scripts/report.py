#!/usr/bin/env python3
"""Builds the results page: one HTML file with inline figures that needs no network.

    vla-bench report results/runs --out results/report/mine
    vla-bench claims results/runs --format json > ledger.json
    .venv/bin/python scripts/report.py results/report/mine --ledger ledger.json --out page.html

Every folder becomes a part of the page, in the order given. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

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


def write_atomically(path: Path, text: str) -> None:
    """A reader never meets half a page, whenever this program is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's is for its owner alone
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    set_up()
    try:
        ledger = read_ledger(options.ledger)
        write_atomically(options.out, render(ledger, read_folders(options.folders)))
    except (OSError, ValueError, KeyError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
