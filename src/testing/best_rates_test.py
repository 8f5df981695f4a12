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

    def add(
        self,
        lr: float,
        accuracy: float | None,
        loss: float | None = 1.0,
        n: int = 8,
        seed: int = 42,
        short_conv: int = 4,
        status: str = "ok",
    ) -> None:
        config = {
            "experiment": "mqar",
            "name": "12_fair_track_rates",
            "mixers": [{"mixer": "vla", "label": f"vla lr={lr}"}],
            "model": {"n_heads": 4, "d_h": 32, "short_conv": short_conv},
            "task": {"n_pairs": n, "seq_len": None},
            "train": {"steps": 3000, "lr": lr},
            "seeds": [seed],
            "sweep": {},
            "device": "cuda",
        }
        table = {"columns": ["accuracy", "loss"], "rows": [[accuracy, loss]]}
        record = {"config": config, "status": status, "tables": {"accuracy": table}}
        folder = self.run_folder / f"{n}-{lr}-{seed}-{short_conv}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record) + "\n")

    def pack(self) -> None:
        """Puts the cells into a pack, in place of their folder."""
        lines = [json.dumps({"pack": 1, "name": self.run_folder.name}) + "\n"]
        lines += [path.read_text() for path in sorted(self.run_folder.glob("*/record.json"))]
        self.run_folder = self.run_folder.with_name(self.run_folder.name + ".jsonl")
        self.run_folder.write_text("".join(lines))

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
        self.add(0.001, 0.9)
        self.add(0.01, 0.5)
        self.add(0.001, 0.2, n=16)
        self.add(0.01, 0.3, n=16)
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
        self.add(0.01, 1.0, loss=0.1)
        self.add(0.003, 1.0, loss=0.1)
        self.add(0.001, 1.0, loss=0.2)
        (rows,) = self.best()["sweep"].values()
        self.assertEqual(rows[0][-1], 0.003)

    def test_a_diverged_rate_is_never_best(self) -> None:
        self.add(0.01, None, loss=None, status="diverged")
        self.add(0.001, 0.01)
        (rows,) = self.best()["sweep"].values()
        self.assertEqual(rows[0][-1], 0.001)

    def test_the_mean_over_seeds_decides(self) -> None:
        self.add(0.001, 0.8, seed=1)
        self.add(0.001, 0.8, seed=2)
        self.add(0.01, 1.0, seed=1)  # the best cell, not the best rate
        self.add(0.01, 0.1, seed=2)
        (rows,) = self.best()["sweep"].values()
        self.assertEqual([row[-1] for row in rows], [0.001])

    def test_a_rate_with_a_diverged_seed_is_never_best(self) -> None:
        self.add(0.001, 0.2, seed=1)
        self.add(0.001, 0.2, seed=2)
        self.add(0.01, 1.0, seed=1)
        self.add(0.01, None, seed=2, status="diverged")
        (rows,) = self.best()["sweep"].values()
        self.assertEqual([row[-1] for row in rows], [0.001])

    def test_a_rate_without_one_of_the_seeds_is_refused(self) -> None:
        self.add(0.001, 0.2, seed=1)
        self.add(0.001, 0.2, seed=2)
        self.add(0.01, 1.0, seed=1)
        self.assertIn("no finished cell at train.lr of [0.01] for every seed", self.refused())

    def test_whatever_differs_beyond_the_rate_stays_apart(self) -> None:
        self.add(0.001, 0.9, short_conv=0)
        self.add(0.01, 0.5, short_conv=0)
        self.add(0.001, 0.2, short_conv=3)
        self.add(0.01, 1.0, short_conv=3)
        ((keys, rows),) = self.best()["sweep"].items()
        self.assertTrue(keys.endswith("task.seq_len,model.short_conv,train.lr"), keys)
        self.assertEqual([row[-2:] for row in rows], [[0, 0.001], [3, 0.01]])

    def test_a_best_rate_at_the_edge_is_named(self) -> None:
        self.add(0.001, 0.1)
        self.add(0.003, 0.9)
        self.add(0.01, 0.5)
        self.assertEqual(self.start().stderr, "")
        self.add(0.001, 0.1, n=16)
        self.add(0.003, 0.5, n=16)
        self.add(0.01, 0.9, n=16)
        (line,) = self.start().stderr.splitlines()
        self.assertIn("'task.n_pairs': 16", line)
        self.assertIn("best at 0.01, the largest rate", line)

    def test_a_pack_gives_what_its_folder_gives(self) -> None:
        self.add(0.001, 0.9)
        self.add(0.01, 0.5)
        of_folder = self.best()
        self.pack()
        self.assertEqual(self.best(), of_folder)

    def test_a_file_that_is_no_pack_is_refused(self) -> None:
        self.run_folder.write_text("{}\n")
        self.assertIn("neither a folder nor a pack", self.refused())

    def test_an_unfinished_sweep_is_refused(self) -> None:
        self.add(0.01, 0.9)
        self.add(0.001, 0.9)
        self.add(0.001, 0.9, n=16)
        self.assertIn("no finished cell at train.lr of [0.01]", self.refused())

    def test_seeds_that_chose_are_not_fresh(self) -> None:
        self.add(0.01, 0.9, seed=43)
        self.assertIn("are not fresh", self.refused())

    def test_a_folder_without_cells_is_refused(self) -> None:
        self.run_folder.mkdir()
        self.assertIn("no finished training", self.refused())


if __name__ == "__main__":
    unittest.main()
