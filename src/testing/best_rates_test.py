#!/usr/bin/env python3
"""scripts/best_rates.py on made-up cells."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "best_rates.py"


class BestRates(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.run_folder = Path(temporary.name) / "12_fair_track_rates"
        self.out = Path(temporary.name) / "best.json"

    def add(self, lr: float, accuracy: str, loss: str = "1.0", n: int = 8, seed: int = 42) -> None:
        config = {
            "experiment": "mqar",
            "name": "12_fair_track_rates",
            "mixers": [{"mixer": "vla", "label": f"vla lr={lr}"}],
            "model": {"n_heads": 4, "d_h": 32, "short_conv": 4},
            "task": {"n_pairs": n, "seq_len": None},
            "train": {"steps": 3000, "lr": lr},
            "seeds": [seed],
            "sweep": {},
            "device": "cuda",
        }
        folder = self.run_folder / f"{n}-{lr}-{seed}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "accuracy.csv").write_text(f"accuracy,loss\n{accuracy},{loss}\n")

    def start(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), str(self.run_folder), str(self.out)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def best(self) -> dict[str, Any]:
        result = self.start()
        self.assertEqual(result.returncode, 0, result.stderr)
        text = re.sub(r"^//.*\n", "", self.out.read_text())
        return json.loads(text)

    def refused(self) -> str:
        result = self.start()
        self.assertEqual(result.returncode, 2)
        self.assertFalse(self.out.exists())
        return result.stderr

    def test_every_point_gets_its_own_rate(self) -> None:
        self.add(0.001, "0.9")
        self.add(0.01, "0.5")
        self.add(0.001, "0.2", n=16)
        self.add(0.01, "0.3", n=16)
        config = self.best()
        ((keys, rows),) = config["sweep"].items()
        self.assertEqual(keys, "mixers,model.n_heads,model.d_h,task.n_pairs,task.seq_len,train.lr")
        vla = [{"mixer": "vla", "label": "vla"}]
        self.assertEqual(rows, [[vla, 4, 32, 8, None, 0.001], [vla, 4, 32, 16, None, 0.01]])
        self.assertEqual(config["seeds"], [43, 44, 45, 46])
        self.assertEqual(config["name"], "12_fair_track_best")
        self.assertEqual(config["model"]["short_conv"], 4)
        self.assertNotIn("device", config)

    def test_ties_go_to_the_lower_loss_then_the_smaller_rate(self) -> None:
        self.add(0.01, "1.0", loss="0.1")
        self.add(0.003, "1.0", loss="0.1")
        self.add(0.001, "1.0", loss="0.2")
        (rows,) = self.best()["sweep"].values()
        self.assertEqual(rows[0][-1], 0.003)

    def test_a_diverged_rate_is_never_best(self) -> None:
        self.add(0.01, "", loss="")
        self.add(0.001, "0.01")
        (rows,) = self.best()["sweep"].values()
        self.assertEqual(rows[0][-1], 0.001)

    def test_an_unfinished_sweep_is_refused(self) -> None:
        self.add(0.01, "0.9")
        self.add(0.001, "0.9")
        self.add(0.001, "0.9", n=16)
        self.assertIn("no finished cell at train.lr of [0.01]", self.refused())

    def test_seeds_that_chose_are_not_fresh(self) -> None:
        self.add(0.01, "0.9", seed=43)
        self.assertIn("are not fresh", self.refused())

    def test_a_folder_without_cells_is_refused(self) -> None:
        self.assertIn("no finished training", self.refused())


if __name__ == "__main__":
    unittest.main()
