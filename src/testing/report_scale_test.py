#!/usr/bin/env python3
"""Reports of synthetic cells, beyond and below the number from which learning curves are streamed.

What 100,000 cells take is measured by hand (experiments/README.md). Here 2,000 must stay within
bounds that a report which holds every curve, or blocks of memory for every file, breaks.
The program under test is named in VLA_BENCH_BINARY; with VLA_SANITIZED=1 its memory is not judged,
since most of it is the sanitizer's.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
CELLS = 2000
ROWS = 60  # of every history: what the paper's 3,000 steps leave
# 100,000 cells may take 1 GiB: 10 KiB each, beside what the program takes by itself (over 200 MiB
# where it is linked with CUDA's libraries).
MOST_KIB = 10 * CELLS


def make_cells(out: Path, cells: int) -> None:
    script = SOURCE / "src/testing/synthetic_cells.py"
    subprocess.run([sys.executable, script, out, str(cells), "--history", str(ROWS)], check=True)


def report(runs: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [os.environ["VLA_BENCH_BINARY"], "report", runs, "--out", out, *more]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True)


def values(line: str) -> list[str | float]:
    fields = line.split(",")
    return [*fields[:8], *map(float, fields[8:])]


class ReportScaleTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.runs = self.folder / "runs"

    def check_history(self, out: Path, cells: int) -> None:
        """Every line of every cell's curve, in the order of the cells."""
        lines = (out / "history.csv").read_text().splitlines()
        self.assertEqual(
            lines[0],
            "experiment,label,mixer,n_pairs,d_h,seq_len,precision,seed,"
            "step,loss,accuracy,learning_rate,gradient_norm",
        )
        expected = []
        for path in sorted(self.runs.glob("synthetic/*/history.csv")):
            row = (path.parent / "accuracy.csv").read_text().splitlines()[1].split(",")
            whose = [*row[:5], row[6], row[15], row[9]]
            expected += [
                ",".join([*whose, line]) for line in path.read_text().splitlines()[1:]
            ]
        self.assertEqual(len(expected), cells * ROWS)
        # As numbers: a table of them is printed in the program's spelling.
        self.assertTrue([values(line) for line in lines[1:]] == [values(line) for line in expected])

    def test_many_curves_are_streamed(self) -> None:
        make_cells(self.folder / "few", 10)
        self.assertEqual(report(self.folder / "few", self.folder / "small").returncode, 0)
        make_cells(self.runs, CELLS)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        out = self.folder / "report"
        done = report(self.runs, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{CELLS * ROWS} rows, of {CELLS} trainings: as CSV alone", done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        if os.environ.get("VLA_SANITIZED") != "1":
            self.assertLess(peak - before, MOST_KIB)
        self.check_history(out, CELLS)
        self.assertFalse((out / "history.md").exists())
        self.assertEqual(len((out / "accuracy.csv").read_text().splitlines()), 1 + CELLS)

        # A single table, with and without the curves in it.
        self.assertEqual(report(self.runs, self.folder / "one", "--table", "accuracy").returncode, 0)
        self.assertFalse((self.folder / "one/history.csv").exists())
        self.assertEqual(report(self.runs, self.folder / "two", "--table", "history").returncode, 0)
        self.assertEqual(
            (self.folder / "two/history.csv").read_bytes(), (out / "history.csv").read_bytes()
        )

        # A line that is not whole is named, not passed on.
        damaged = min(self.runs.glob("synthetic/*/history.csv"))
        damaged.write_text(damaged.read_text() + "3050,1\n")
        refused = report(self.runs, self.folder / "three")
        self.assertEqual(refused.returncode, 2)
        self.assertIn(str(damaged), refused.stderr)
        self.assertFalse((self.folder / "three/history.csv").exists())

    def test_few_curves_are_a_table_like_others(self) -> None:
        make_cells(self.runs, 20)
        out = self.folder / "report"
        self.assertEqual(report(self.runs, out).returncode, 0)
        self.check_history(out, 20)
        self.assertTrue((out / "history.md").exists())


if __name__ == "__main__":
    unittest.main()
