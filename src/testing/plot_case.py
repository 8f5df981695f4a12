"""Runs scripts/plot.py and scripts/recall_grid.py on small made-up summaries, for tests of the figures.

Tests exit with status 77 (skipped) without .venv, which has matplotlib.
"""

from __future__ import annotations

import csv
import importlib
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import unittest
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable

SOURCE = Path(__file__).resolve().parents[2]
PYTHON = SOURCE / ".venv/bin/python"
TABLES = SOURCE / "src/testing/tables"
KINDS = ["csv", "pdf", "png"]
SKIPPED = 77

Row = dict[str, Any]


def plot(tables: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PYTHON, SOURCE / "scripts/plot.py", tables, "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_copy(work: Callable[[], object], *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Runs `work` as a program with these arguments, in a copy of this process: matplotlib is imported
    once (main), not for every figure."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = os.fork()
        if process == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv = [str(argument) for argument in arguments]
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
            status = 0
            try:
                work()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
                status = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([], status, output.read(), errors.read())


def plot_in_copy(tables: Path, out: Path) -> subprocess.CompletedProcess[str]:
    program = str(SOURCE / "scripts/plot.py")
    return in_copy(lambda: runpy.run_path(program, run_name="__main__"), program, tables, "--out", out)


def columns(table: str) -> list[str]:
    with (TABLES / f"{table}.csv").open(newline="") as file:
        return next(csv.reader(file))


def spread(quantity: str, mean: float | None, half: float = 0.01) -> Row:
    """Mean and interval over two seeds; empty where none is ok."""
    if mean is None:
        return {}
    return {
        f"{quantity}_mean": mean,
        f"{quantity}_sd": half / 9,
        f"{quantity}_low": max(0.0, mean - half),
        f"{quantity}_high": min(1.0, mean + half) if quantity == "accuracy" else mean + half,
    }


def accuracy_row(line: str, accuracy: float | None, **more: Any) -> Row:
    """A row of accuracy_summary; the line begins with the mixer."""
    row = {"experiment": "mqar", "label": line, "n_pairs": 24, "d_h": 32, "n_heads": 4}
    row |= {"layout": "paper", "short_conv": 0, "steps": 3000, "learning_rate": 0.001}
    row |= {"line": line, "mixer": line.split()[0], "device": "cpu", "precision": "float32"}
    row |= {"cells": "2 of 2", "config": "0a1b2c3d", **spread("accuracy", accuracy), **more}
    return {"seq_len": 3 * row["n_pairs"] + 1, **row}


class PlotCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.figures = self.folder / "figures"

    def write(self, table: str, rows: list[Row], *more: str) -> None:
        """`more`: columns that the table has only in some reports."""
        with (self.folder / f"{table}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*columns(table), *more], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def run_plot(self) -> str:
        """Messages of a run that succeeds."""
        run = plot_in_copy(self.folder, self.figures)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stderr

    def refused(self, tables: Path, out: Path) -> str:
        run = plot_in_copy(tables, out)
        self.assertEqual(run.returncode, 2, run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        return run.stderr

    def drawn(self, figure: str) -> dict[str, dict[str, list[tuple[str, ...]]]]:
        """Panel -> line -> (x, y, low, high, cells), from the CSV beside the figure."""
        found: dict[str, dict[str, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
        with (self.figures / f"{figure}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                point = tuple(row[name] for name in ("x", "y", "low", "high", "cells"))
                found[row["panel"]][row["line"]].append(point)
        return {panel: dict(lines) for panel, lines in found.items()}

    def python(self, program: str, tables: Path | None = None) -> str:
        """Output of a Python program that has `charts` and `styles` of the tables."""
        start = (
            "import sys; from pathlib import Path\n"
            "from plotting.drawing import draw\n"
            "from plotting.figures import charts_of\n"
            "from plotting.style import line_styles, set_up\n"
            "from plotting.tables import Report\n"
            "set_up()\n"
            "charts = charts_of(Report(Path(sys.argv[1])))\n"
            "styles = line_styles(charts.values())\n"
        )
        work = compile(start + program, "<test>", "exec")
        run = in_copy(lambda: exec(work, {"__name__": "__main__"}), "-c", tables or self.folder)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout.strip()

    def notes(self, figure: str, tables: Path | None = None) -> str:
        return self.python(f"print('\\n'.join(charts['{figure}'].notes))", tables)

    def grid(self) -> str:
        command = [sys.executable, SOURCE / "scripts/recall_grid.py", self.folder]
        return subprocess.run(command, text=True, check=True, capture_output=True).stdout

    def recall_row(self, label: str, keys: str, accuracy: float | None, **more: Any) -> Row:
        row = {"line": f"{label} keys={keys}", "label": label, "mixer": label, "d_h": 8}
        row |= {"n_pairs": 4, "trials": 20, "precision": "float32", "setting": f"keys={keys}"}
        row |= {"cells": "2 of 2", "interval_over": "seeds", **spread("accuracy", accuracy), **more}
        return row


def main() -> None:
    if not PYTHON.exists():
        print("skipped: no .venv (scripts/setup.sh makes it)")
        sys.exit(SKIPPED)
    if Path(sys.prefix).resolve() != PYTHON.parents[1].resolve():
        os.execv(PYTHON, [str(PYTHON), *sys.argv])
    sys.path.insert(0, str(SOURCE / "scripts"))
    for module in ("plotting.drawing", "plotting.figures", "matplotlib.backends.backend_pdf"):
        importlib.import_module(module)
    # Its grammar, too, is made once.
    importlib.import_module("matplotlib.mathtext").MathTextParser("path").parse("$0$")
    unittest.main()
