#!/usr/bin/env python3
"""scripts/first_screen.py on made-up tables, and on the committed tables behind README's table."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
SCRIPT = SOURCE / "scripts" / "first_screen.py"

LINE = {
    "experiment": "mqar",
    "n_pairs": "4",
    "d_h": "32",
    "n_heads": "4",
    "seq_len": "13",
    "layout": "paper",
    "short_conv": "0",
    "steps": "1000",
    "cells": "3 of 3",
}


class FirstScreen(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.report = Path(temporary.name)

    def write(self, rows: list[dict[str, str]]) -> None:
        with (self.report / "accuracy_summary.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*LINE, "label", "accuracy_mean"])
            writer.writeheader()
            writer.writerows(LINE | row for row in rows)

    def screen(self, *more: str | Path, report: Path | None = None) -> str:
        command = [sys.executable, SCRIPT, report or self.report, *more]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def values(self, start: str) -> list[str]:
        (line,) = (one for one in self.screen().splitlines() if one.startswith(start))
        return line.removeprefix(start).split("  ")

    def test_values_stand_below_their_mixers(self) -> None:
        self.write(
            [
                {"label": "vla", "accuracy_mean": "0.99961"},
                {"label": "softmax", "accuracy_mean": "0.25"},
                {"label": "linear", "accuracy_mean": "0.26"},
                {"label": "deltanet", "accuracy_mean": "0.5"},
            ]
        )
        words = " ".join(self.values("recall of 4 pairs after 1,000 steps")).split()
        self.assertEqual(words, ["0.250", "0.260", "0.500", "1.000"])

    def test_other_lengths_labels_and_shapes_stay_out(self) -> None:
        self.write(
            [
                {"label": "vla", "accuracy_mean": "0.9"},
                {"label": "vla", "accuracy_mean": "0.1", "seq_len": "512"},
                {"label": "vla", "accuracy_mean": "0.2", "d_h": "64"},
                {"label": "vla frozen", "accuracy_mean": "0.3"},
            ]
        )
        words = " ".join(self.values("recall of 4 pairs after 1,000 steps")).split()
        self.assertEqual(words, ["0.900"])

    def test_cells_that_were_not_ok_are_told(self) -> None:
        self.write(
            [
                {"label": "vla", "accuracy_mean": "0.9", "cells": "2 of 3"},
                {"label": "linear", "accuracy_mean": "", "cells": "0 of 3"},
            ]
        )
        output = self.screen()
        self.assertIn("0.900 (2 of 3)", output)
        self.assertIn("none ok (0 of 3)", output)

    def test_lines_are_never_averaged(self) -> None:
        self.write([{"label": "vla", "accuracy_mean": value} for value in ("0.2", "0.4")])
        self.assertIn("several", self.screen())
        self.assertNotIn("0.3", self.screen())

    def test_times_are_those_of_the_summary(self) -> None:
        columns = "label,implementation,batch,d_h,pass,seq_len,cells,median_s\n"
        row = "vla,recurrent,4,64,forward,4096,1 of 1,{}\n"
        (self.report / "latency.csv").write_text(columns + row.format("0.001"))
        self.assertIn("no line", self.screen())
        (self.report / "latency_summary.csv").write_text(columns + row.format("0.002"))
        values = self.values("forward, 4,096 tokens, d_h = 64, batch 4 (ms)")
        self.assertEqual(values[-1].strip(), "2")

    def test_an_empty_report_is_said_to_be_one(self) -> None:
        self.assertIn("no line", self.screen())

    def test_verdicts_are_counted(self) -> None:
        ledger = self.report / "ledger.json"
        given = ["reproduced", "no run", "undecided", "reproduced"]
        ledger.write_text(json.dumps({"ledger": [{"verdict": verdict} for verdict in given]}))
        last = self.screen("--ledger", ledger).splitlines()[-1]
        self.assertEqual(
            last, "4 claims: 2 reproduced, 1 undecided, 1 without a finished run"
        )

    def test_the_reference_fills_six_lines_of_a_narrow_terminal(self) -> None:
        output = self.screen(report=SOURCE / "results" / "reference" / "cpu").splitlines()
        self.assertEqual(len(output), 7)
        self.assertLessEqual(max(map(len, output)), 80)
        for line in output[1:]:
            self.assertGreater(len(line.split("  ")), 1)


if __name__ == "__main__":
    unittest.main()
