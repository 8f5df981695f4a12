#!/usr/bin/env python3
"""scripts/best_rates.py on made-up cells."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2]
SCRIPT = SOURCE / "scripts" / "best_rates.py"
SUMMARY = SOURCE / "src/testing/tables/accuracy_summary.csv"  # with the program's columns

POINT = ["label", "mixer", "n_pairs", "d_h", "n_heads", "seq_len", "layout", "short_conv", "steps"]
POINT += ["learning_rate", "device", "precision", "setting"]
COLUMNS = ["line", *POINT, "cells", "not_ok", "accuracy_mean", "loss_mean"]
assert set(COLUMNS) <= set(SUMMARY.read_text().partition("\n")[0].split(","))


class BestRates(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.run_folder = Path(temporary.name) / "12_fair_track_rates"
        self.tables = self.run_folder / "tables"
        self.out = Path(temporary.name) / "best.json"
        # Accuracy and loss of a row's cells, None where one diverged.
        self.measured: dict[tuple[object, ...], list[tuple[float, float] | None]] = {}

    def add(
        self,
        lr: float,
        accuracy: float | None,
        loss: float = 1.0,
        n: int = 8,
        seed: int = 42,
        short_conv: int = 4,
        curriculum: int | None = None,
        wider: int = 0,
        newer: dict[str, object] | None = None,
        mixer: str = "vla",
    ) -> None:
        """A cell of the run, or of the one that widened it; its record has no outcome, which is in the
        summary."""
        config = {
            "experiment": "mqar",
            "name": "12_fair_track_rates",
            "mixers": [{"mixer": mixer, "label": mixer}],
            "model": {"n_heads": 4, "d_h": 32, "short_conv": short_conv},
            "task": {
                "layout": "paper",
                "n_pairs": n,
                "seq_len": None,
                "curriculum": curriculum or 0,
            },
            "train": {"steps": 3000, "lr": lr},
            "seeds": [seed],
            "sweep": {},
            "device": "cuda",
            "precision": "float32",
            "threads": 0,
            **(newer or {}),
        }
        run = self.run_folder.with_name(f"12_fair_track_rates_wider{wider}")
        folder = (run if wider else self.run_folder) / f"{mixer}-{n}-{lr}-{seed}-{short_conv}-{curriculum}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"config": config}) + "\n")
        setting = "" if curriculum is None else f"curriculum={curriculum}"
        key = (mixer, mixer, n, 32, 4, 3 * n + 1, "paper", short_conv, 3000, lr)
        cells = self.measured.setdefault((*key, "cuda", "float32", setting), [])
        cells.append(None if accuracy is None else (accuracy, loss))

    def summarise(self) -> None:
        """Writes the tables like `vla-bench report`."""
        self.tables.mkdir(parents=True, exist_ok=True)
        with (self.tables / "accuracy_summary.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for point, cells in self.measured.items():
                ok = [cell for cell in cells if cell is not None]
                means = [statistics.fmean(values) for values in zip(*ok)] or ["", ""]
                counts = f"{len(ok)} of {len(cells)}"
                not_ok = "" if len(ok) == len(cells) else "seed 2: diverged: loss is nan"
                writer.writerow([point[0], *point, counts, not_ok, *means])

    def pack(self) -> None:
        """Replaces the folder of cells by a pack, with the tables beside it."""
        lines = [json.dumps({"pack": 1, "name": self.run_folder.name}) + "\n"]
        lines += [path.read_text() for path in sorted(self.run_folder.glob("*/record.json"))]
        shutil.rmtree(self.run_folder)
        self.tables = self.run_folder.with_name("report")
        self.run_folder = self.run_folder.with_name(self.run_folder.name + ".jsonl")
        self.run_folder.write_text("".join(lines))

    def start(self, *options: str) -> subprocess.CompletedProcess[str]:
        if self.measured:
            self.summarise()
        command = [sys.executable, SCRIPT, self.run_folder, self.out, *options]
        if self.tables.parent != self.run_folder:
            command += ["--tables", self.tables]
        return subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False
        )

    def read(self, path: Path) -> dict[str, Any]:
        return json.loads(re.sub(r"^//.*\n", "", path.read_text()))

    def best(self, *options: str) -> dict[str, Any]:
        result = self.start(*options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.read(self.out)

    def widen(self, *options: str) -> dict[str, Any]:
        """The config of further rates that it writes in place of the best ones."""
        wider = self.out.with_name("wider.json")
        result = self.start("--wider", str(wider), *options)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertFalse(self.out.exists())
        return self.read(wider)

    def refused(self, *options: str) -> str:
        result = self.start(*options)
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
        self.add(0.01, None)
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
        self.add(0.01, None, seed=2)
        (rows,) = self.best()["sweep"].values()
        self.assertEqual([row[-1] for row in rows], [0.001])
        self.assertIn("0.01 is left out, 1 of 2 ok: seed 2: diverged", self.start().stderr)

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

    def test_keys_without_a_column_stay_apart(self) -> None:
        for curriculum, best in ((0, 0.01), (1500, 0.001)):
            for lr in (0.001, 0.01):
                self.add(lr, 0.9 if lr == best else 0.1, curriculum=curriculum)
        ((keys, rows),) = self.best()["sweep"].items()
        self.assertTrue(keys.endswith("task.seq_len,task.curriculum,train.lr"), keys)
        self.assertEqual([row[-2:] for row in rows], [[0, 0.01], [1500, 0.001]])

    def test_a_key_that_older_cells_lack_is_at_its_default(self) -> None:
        train = {"steps": 3000, "lr": 1e-3}
        self.add(1e-3, 0.5, seed=51)
        self.add(1e-3, 0.5, seed=52, newer={"train": {**train, "stop_every": 500}})
        self.assertEqual(self.best()["train"]["stop_every"], 500)
        self.add(1e-3, 0.5, seed=53, newer={"train": {**train, "stop_every": 7}})
        self.out.unlink()
        self.assertIn("2 configs of the run fit", self.refused())

    def test_a_row_of_no_cell_is_refused(self) -> None:
        self.add(0.001, 0.9, curriculum=1500)
        (config,) = self.run_folder.glob("*/record.json")
        config.write_text(config.read_text().replace('"curriculum": 1500', '"curriculum": 7'))
        self.assertIn("0 configs of the run fit", self.refused())

    def test_a_run_without_its_summary_is_refused(self) -> None:
        self.add(0.001, 0.9)
        self.measured.clear()
        self.assertIn("no accuracy_summary.csv", self.refused())

    def test_a_best_rate_at_the_edge_is_named(self) -> None:
        self.add(0.001, 0.1)
        self.add(0.003, 0.9)
        self.add(0.01, 0.5)
        self.assertEqual(self.start().stderr, "")
        self.add(0.001, 0.1, n=16)
        self.add(0.003, 0.5, n=16)
        self.add(0.01, 0.9, n=16)
        (line,) = self.start().stderr.splitlines()
        self.assertIn("n_pairs=16", line)
        self.assertIn("best at 0.01, the largest rate", line)

    def test_the_grid_widens_by_its_own_ratio(self) -> None:
        for lr, accuracy in ((0.0003, 0.1), (0.001, 0.2), (0.003, 0.5), (0.01, 0.9)):
            self.add(lr, accuracy)
            self.add(lr, 1 - accuracy, n=16)
            self.add(lr, 0.5 if lr == 0.001 else 0.1, n=32)
        wider = self.widen()
        ((keys, rows),) = wider["sweep"].items()
        self.assertTrue(keys.endswith("task.seq_len,train.lr"))
        # 0.01 / 0.0003 is 3.22 times itself three times.
        self.assertEqual([(row[3], row[-1]) for row in rows], [(8, 0.032), (16, 9.3e-05)])
        self.assertEqual(wider["name"], "12_fair_track_rates_wider1")
        self.assertEqual(wider["seeds"], [42])

    def test_it_widens_while_the_best_lies_at_the_edge(self) -> None:
        self.add(0.001, 0.1)
        self.add(0.01, 0.5)
        self.assertEqual(self.widen()["train"]["lr"], 0.1)
        self.add(0.1, 0.7, wider=1)
        tables = ("--tables", str(self.tables))
        wider = self.widen(*tables)
        self.assertEqual((wider["name"], wider["train"]["lr"]), ("12_fair_track_rates_wider2", 1.0))
        # The second time it is inside, or stays outside and is said.
        self.add(1.0, 0.8, wider=2)
        beyond = ("--wider", str(self.out.with_name("no.json")), *tables)
        self.assertEqual(self.best(*beyond)["train"]["lr"], 1.0)
        self.assertIn("best at 1, the largest rate: widened 2 times", self.start(*beyond).stderr)
        self.out.unlink()
        self.assertEqual(self.widen("--times", "3", *tables)["train"]["lr"], 10.0)

    def test_every_point_is_widened_as_often_as_the_others(self) -> None:
        """Whatever runs widened the points that were there before it."""
        for lr, accuracy in ((0.001, 0.1), (0.01, 0.5)):
            self.add(lr, accuracy)
            self.add(lr, accuracy, n=16)
        self.add(0.1, 0.7, wider=1)
        self.add(1.0, 0.8, wider=2)
        wider = self.widen("--tables", str(self.tables))
        ((_, rows),) = wider["sweep"].items()
        self.assertEqual([(row[3], row[-1]) for row in rows], [(16, 0.1)])
        self.assertEqual(wider["name"], "12_fair_track_rates_wider3")

    def test_a_diverged_rate_beyond_ends_it(self) -> None:
        self.add(0.001, 0.1)
        self.add(0.01, 0.5)
        self.add(0.1, None, wider=1)
        config = self.best("--wider", "no.json", "--tables", str(self.tables))
        self.assertEqual(config["train"]["lr"], 0.01)

    def test_a_rate_whose_accuracy_is_one_needs_no_wider_grid(self) -> None:
        self.add(0.001, 0.1)
        self.add(0.01, 1.0)
        self.assertEqual(self.best("--wider", "no.json")["train"]["lr"], 0.01)

    def test_one_rate_cannot_be_widened(self) -> None:
        self.add(0.001, 0.1)
        self.best("--wider", "no.json")
        self.assertIn("the smallest rate: one rate has no ratio", self.start().stderr)

    def test_a_wider_run_needs_tables_of_both(self) -> None:
        self.add(0.001, 0.1)
        self.add(0.01, 0.5, wider=1)
        self.assertIn("expected --tables of all of them", self.refused())

    def test_means_over_slices_decide(self) -> None:
        self.add(0.001, 0.9)
        self.add(0.01, 0.5)
        self.summarise()
        table = self.tables / "accuracy_summary.csv"
        rows = list(csv.DictReader(table.read_text().splitlines()))
        rows = [{**row, "n_pairs": "", "seq_len": "", "slice": "mean"} for row in rows] + [
            {**row, "slice": "25/8", "accuracy_mean": "1" if row["learning_rate"] == "0.01" else "0"}
            for row in rows
        ]
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
        self.measured.clear()
        self.assertEqual(self.best("--seeds", "7", "8")["train"]["lr"], 0.001)
        self.assertEqual(self.best("--seeds", "7", "8")["seeds"], [7, 8])

    def test_the_final_runs_may_have_more_steps(self) -> None:
        self.add(0.01, 0.9)
        steps = self.best()["train"]["steps"]
        self.assertEqual(self.best("--steps", str(4 * steps))["train"]["steps"], 4 * steps)

    def test_a_pack_gives_what_its_folder_gives(self) -> None:
        self.add(0.001, 0.9)
        self.add(0.01, 0.5)
        of_folder = self.best()
        self.pack()
        self.assertEqual(self.best(), of_folder)

    def test_a_pack_and_the_folder_beside_it_are_one_run(self) -> None:
        self.add(0.001, 0.9)
        self.add(0.01, 0.5)
        self.pack()
        packed = self.run_folder
        self.run_folder = packed.with_name(packed.name.removesuffix(".jsonl"))
        self.add(0.001, 0.1, n=16)
        self.add(0.01, 0.5, n=16)
        (rows,) = self.best()["sweep"].values()
        self.assertEqual([(row[3], row[-1]) for row in rows], [(8, 0.001), (16, 0.01)])

    def test_parts_divide_the_points_by_mixer(self) -> None:
        for mixer in ("vla", "softmax", "kda"):
            self.add(0.001, 0.9, mixer=mixer)
            self.add(0.01, 0.5, mixer=mixer)
        part = self.out.with_name("part.json")
        config = self.best("--part", str(part), "softmax,vla")
        self.assertEqual(self.mixers_of(config), ["kda"])
        self.assertEqual(self.mixers_of(self.read(part)), ["softmax", "vla"])
        self.assertEqual(self.read(part)["name"], config["name"])
        self.out.unlink()
        self.assertIn("no point of gla in the run", self.refused("--part", "no.json", "gla"))

    @staticmethod
    def mixers_of(config: dict[str, Any]) -> list[str]:
        (rows,) = config["sweep"].values()
        return [row[0][0]["mixer"] for row in rows]

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
