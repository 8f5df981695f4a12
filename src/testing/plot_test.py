#!/usr/bin/env python3
"""Runs scripts/plot.py on the small made-up tables beside this file: every figure comes out, twice
the same bytes, rows that are not ok are counted, and bad input is refused.

Exit status 77 (skipped) when .venv, where matplotlib lives, has not been made.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PYTHON = SOURCE / ".venv/bin/python"
TABLES = SOURCE / "src/testing/tables"
FIGURES = ["four_panels", "recall", "jacobian", "latency", "learning_curves"]
SKIPPED = 77


def plot(tables: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PYTHON, SOURCE / "scripts/plot.py", tables, "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class PlotTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_two_runs_give_the_same_bytes(self) -> None:
        folders = [self.folder / "first", self.folder / "second"]
        for process in [plot(TABLES, folder) for folder in folders]:
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 0, errors)
            # One capacity setting alone: the figure that compares settings has nothing to add.
            self.assertIn("accuracy: nothing to draw", errors)
        names = sorted(path.name for path in folders[0].iterdir())
        self.assertEqual(names, sorted(f"{f}.{kind}" for f in FIGURES for kind in ("pdf", "png")))
        for name in names:
            first, second = ((folder / name).read_bytes() for folder in folders)
            self.assertEqual(first, second, f"{name} differs between two runs")

    def test_missing_tables_are_said(self) -> None:
        shutil.copy(TABLES / "state_norm.csv", self.folder)
        process = plot(self.folder, self.folder / "figures")
        _, errors = process.communicate()
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("jacobian: nothing to draw", errors)
        self.assertTrue((self.folder / "figures/four_panels.png").exists())

    def test_bad_input_is_refused(self) -> None:
        (self.folder / "ragged").mkdir()
        (self.folder / "ragged/recall.csv").write_text("label,d_h\nvla\n")
        for tables, message in ((self.folder, "no tables"), (self.folder / "ragged", "recall.csv")):
            process = plot(tables, self.folder / "figures")
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 2, errors)
            self.assertIn(message, errors)

    def test_rows_that_are_not_ok_are_counted(self) -> None:
        program = (
            "import sys; from pathlib import Path; from plotting.tables import Report\n"
            "report = Report(Path(sys.argv[1]))\n"
            "print(report.left_out('accuracy'), report.left_out('history'), sep='|')\n"
            "assert all(row['status'] == 'ok' for row in report.rows('accuracy'))\n"
        )
        output = subprocess.run(
            [PYTHON, "-c", program, TABLES],
            cwd=SOURCE / "scripts",
            text=True,
            check=True,
            capture_output=True,
        ).stdout
        self.assertEqual(output.strip(), "accuracy.csv: rows left out: 1 diverged.|")


if __name__ == "__main__":
    if not PYTHON.exists():
        print("skipped: no .venv (scripts/setup.sh makes it)")
        sys.exit(SKIPPED)
    unittest.main()
