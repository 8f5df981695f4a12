#!/usr/bin/env python3
"""From a finished sweep over train.lr to the config that runs every point at its best rate.

    scripts/best_rates.py results/runs/12_fair_track_rates experiments/12_fair_track/best.json

A point is what the cells of RUN share when the learning rate is left out: mixer, sizes, task. Its
best rate is that of the highest held-out accuracy; of equal ones that of the lowest loss, then the
smallest. Every point must have a finished cell for every rate of the sweep. The config has fresh
seeds, none of which chose a rate.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]

FRESH_SEEDS = [43, 44, 45, 46]
# What tells points apart, beside the mixer.
POINT_KEYS = ["model.n_heads", "model.d_h", "task.n_pairs", "task.seq_len"]
RATE = "train.lr"


class Incomplete(Exception):
    """The sweep cannot say yet which rates are best."""


@dataclass(frozen=True)
class Cell:
    config: Config
    accuracy: float | None  # None: diverged or not evaluated
    loss: float

    @property
    def mixer(self) -> Config:
        """The mixer under its own label: a cell's ends in the swept rate."""
        (mixer,) = self.config["mixers"]
        return {**mixer, "label": mixer["label"].rsplit(" lr=", 1)[0]}

    @property
    def sizes(self) -> list[Any]:
        return [at(self.config, key) for key in POINT_KEYS]

    @property
    def point(self) -> str:
        return json.dumps([self.mixer, *self.sizes])

    @property
    def rate(self) -> float:
        return at(self.config, RATE)


def at(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return config[section][name]


def read_cells(run: Path) -> list[Cell]:
    cells = []
    for table in sorted(run.glob("*/accuracy.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file, strict=True)
        config = json.loads((table.parent / "config.json").read_text(encoding="utf-8"))
        accuracy = float(row["accuracy"]) if row["accuracy"] else None
        cells.append(Cell(config, accuracy, float(row["loss"] or "inf")))
    if not cells:
        raise Incomplete(f"{run}: no finished training below it")
    return cells


def best_of(cells: list[Cell], rates: set[float]) -> Cell:
    """The cell at the best rate of one point."""
    missing = rates - {cell.rate for cell in cells}
    sizes = dict(zip(POINT_KEYS, cells[0].sizes))
    name = f"{cells[0].mixer['label']} {sizes}"
    if missing:
        raise Incomplete(f"{name}: no finished cell at {RATE} of {sorted(missing)}")
    measured = [cell for cell in cells if cell.accuracy is not None]
    if not measured:
        raise Incomplete(f"{name}: no rate gave an accuracy")
    return min(measured, key=lambda cell: (-cell.accuracy, cell.loss, cell.rate))


def best_config(cells: list[Cell], name: str) -> Config:
    seeds = {seed for cell in cells for seed in cell.config["seeds"]}
    if seeds & set(FRESH_SEEDS):
        raise Incomplete(f"seeds {sorted(seeds)} chose the rates: {FRESH_SEEDS} are not fresh")
    points: dict[str, list[Cell]] = {}
    for cell in cells:
        points.setdefault(cell.point, []).append(cell)
    rates = {cell.rate for cell in cells}
    best = [best_of(members, rates) for members in points.values()]
    best.sort(key=lambda cell: (cell.mixer["label"], *(size or 0 for size in cell.sizes)))

    settled = {"sweep", "device"}  # the one is made here, the other is where the run will be
    config = {key: value for key, value in cells[0].config.items() if key not in settled}
    keys = ["mixers", *POINT_KEYS, RATE]
    rows = [[[cell.mixer], *cell.sizes, cell.rate] for cell in best]
    # The first row's values stand in the config itself too: it must be valid without its sweep.
    for key, value in zip(keys, rows[0]):
        section, _, inner = key.partition(".")
        if inner:
            config[section] = {**config[section], inner: value}
    config.update({"name": name, "mixers": rows[0][0], "seeds": FRESH_SEEDS})
    config["sweep"] = {",".join(keys): rows}
    return config


def to_text(config: Config, run: str) -> str:
    """JSON with a line for each row of the sweep."""
    ((keys, rows),) = config["sweep"].items()
    head = json.dumps({**config, "sweep": {}}, indent=2).removesuffix('"sweep": {}\n}')
    lines = ",\n".join(f"      {json.dumps(row)}" for row in rows)
    return (
        f"// Made by scripts/best_rates.py from the finished run {run}.\n"
        f'{head}"sweep": {{\n    {json.dumps(keys)}: [\n{lines}\n    ]\n  }}\n}}\n'
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the sweep's cells")
    parser.add_argument("config", type=Path, help="config to write")
    options = parser.parse_args(arguments)
    run: Path = options.run
    try:
        name = run.name.removesuffix("_rates") + "_best"
        text = to_text(best_config(read_cells(run), name), run.name)
    except (Incomplete, OSError, ValueError, KeyError) as error:
        print(f"best_rates: {error}", file=sys.stderr)
        return 2
    temporary = options.config.with_suffix(".json.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, options.config)
    print(options.config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
