#!/usr/bin/env python3
"""Reports of synthetic cells, above and below the number from which learning curves are written only
on request.

The cost of 100,000 cells is measured by hand (experiments/README.md). Here 2,000 must stay within
bounds that a report would exceed if it held every curve, or blocks of memory for every file.
VLA_BENCH_BINARY names the program under test; with VLA_SANITIZED=1 its memory is not checked, since
most of it is the sanitizer's.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
CELLS = 2000
ROWS = 60  # of every history, as after the paper's 3,000 steps
# 100,000 cells may take 1 GiB: 10 KiB each, in addition to what the program always takes.
MOST_KIB = 10 * CELLS


def make_cells(out: Path, cells: int) -> Path:
    """A pack of made-up cells."""
    script = SOURCE / "src/testing/synthetic_cells.py"
    folder = out / "folders"
    subprocess.run([sys.executable, script, folder, str(cells), "--history", str(ROWS)], check=True)
    pack = out / "synthetic.jsonl"
    program = os.environ["VLA_BENCH_BINARY"]
    subprocess.run(
        [program, "pack", folder, "--out", pack], check=True, stderr=subprocess.DEVNULL
    )
    shutil.rmtree(folder)
    return pack


def report(runs: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [os.environ["VLA_BENCH_BINARY"], "report", runs, "--out", out, *more]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True)


def values(line: str) -> list[str | float]:
    fields = line.split(",")
    return [*fields[:8], *map(float, fields[9:])]  # config stands between them


class ReportScaleTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.runs = self.folder / "runs"

    def summary(self, pack: Path) -> str:
        out = self.folder / "summary"
        self.assertEqual(report(pack, out, "--table", "accuracy_summary").returncode, 0)
        return (out / "accuracy_summary.csv").read_text()

    def check_history(self, out: Path, pack: Path, cells: int) -> None:
        """Every line of every cell's curve, in the order of the cells."""
        lines = (out / "history.csv").read_text().splitlines()
        self.assertEqual(
            lines[0],
            "experiment,label,mixer,n_pairs,d_h,seq_len,precision,seed,config,"
            "step,loss,accuracy,learning_rate,gradient_norm",
        )
        expected = []
        for record in map(json.loads, pack.read_text().splitlines()[1:]):
            table = record["tables"]["accuracy"]
            row = dict(zip(table["columns"], table["rows"][0]))
            whose = [row[column] for column in lines[0].split(",")[:8]]
            expected += [
                [*map(str, whose), *map(float, values)] for values in record["history"]["rows"]
            ]
        self.assertEqual(len(expected), cells * ROWS)
        self.assertTrue([values(line) for line in lines[1:]] == expected)

    def test_many_curves_are_streamed(self) -> None:
        few = make_cells(self.folder / "few", 10)
        self.assertEqual(report(few, self.folder / "small").returncode, 0)
        pack = make_cells(self.runs, CELLS)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        out = self.folder / "report"
        done = report(pack, out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"no learning curves: {CELLS} trainings", done.stderr)
        self.assertFalse((out / "history.csv").exists())
        self.assertFalse((out / "history_curve.csv").exists())
        self.assertEqual(len((out / "accuracy.csv").read_text().splitlines()), 1 + CELLS)

        # On request they are written one after the other.
        asked = report(pack, out, "--table", "history", "--table", "history_curve")
        self.assertEqual(asked.returncode, 0, asked.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        if os.environ.get("VLA_SANITIZED") != "1":
            self.assertLess(peak - before, MOST_KIB)
        self.check_history(out, pack, CELLS)
        self.assertFalse((out / "history.md").exists())
        self.assertFalse((out / "accuracy.csv").exists())
        groups = len((self.summary(pack)).splitlines()) - 1
        curves = (out / "history_curve.csv").read_text().splitlines()
        self.assertEqual(len(curves), 1 + groups * ROWS)

        # An edited line is named and left out, and the others are reported.
        content = bytearray(pack.read_bytes())
        content[-100] ^= 1
        pack.write_bytes(content)
        partial = report(pack, self.folder / "three")
        self.assertEqual(partial.returncode, 1)
        self.assertIn(f"{pack}:{CELLS + 1}", partial.stderr)
        lines = (self.folder / "three/accuracy.csv").read_text().splitlines()
        self.assertEqual(len(lines), CELLS)

    def test_few_curves_are_a_table_like_others(self) -> None:
        pack = make_cells(self.runs, 20)
        out = self.folder / "report"
        self.assertEqual(report(pack, out).returncode, 0)
        self.check_history(out, pack, 20)
        self.assertTrue((out / "history.md").exists())


if __name__ == "__main__":
    unittest.main()
