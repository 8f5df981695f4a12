#!/usr/bin/env python3
"""From a finished sweep over train.lr to the config that runs every point at its best rate.

    scripts/best_rates.py results/runs/12_fair_track_rates experiments/12_fair_track/best.json

RUN is the sweep's folder of cells or its pack (NAME.jsonl). Records are read as they are:
`vla-bench status` says whether one is damaged.

A point is what cells share when the learning rate and the seed are left out: the whole of their
configs besides. Its best rate is that of the highest held-out accuracy, the mean over the seeds; of
equal ones that of the lowest mean loss, then the smallest. A rate at which a seed diverged is never
best. Every point must have a finished cell for every rate and seed of the sweep. A best rate at the
edge of the rates is named on standard error, as a better one may lie beyond. The config has fresh
seeds, none of which chose a rate.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]

FRESH_SEEDS = [43, 44, 45, 46]
# What a row of the written sweep always sets, beside the mixer.
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
    def point(self) -> str:
        """The config without its rate, its seed and what only names it."""
        left_out = {"name", "seeds", "sweep", "mixers", "threads"}  # threads change only times
        rest = {key: value for key, value in self.config.items() if key not in left_out}
        rest["train"] = {key: value for key, value in rest["train"].items() if key != "lr"}
        (mixer,) = self.config["mixers"]
        rest["mixer"] = {key: value for key, value in mixer.items() if key != "label"}
        return json.dumps(rest, sort_keys=True)

    @property
    def seed(self) -> int:
        (seed,) = self.config["seeds"]
        return seed

    @property
    def rate(self) -> float:
        return at(self.config, RATE)


def at(config: Config, key: str) -> Any:
    value = config
    for name in key.split("."):
        value = value[name]
    return value


def keys_that_differ(cells: list[Cell]) -> list[str]:
    """What tells points apart beside the mixer and POINT_KEYS, as keys of a sweep."""
    known = {*POINT_KEYS, RATE, "name", "seeds", "sweep", "mixers", "threads"}
    config = cells[0].config
    keys = [key for key, value in config.items() if not isinstance(value, dict)]
    for section, values in config.items():
        if isinstance(values, dict):
            keys += [f"{section}.{name}" for name in values]
    return [
        key
        for key in keys
        if key not in known
        and any(at(cell.config, key) != at(config, key) for cell in cells)
    ]


def record_lines(run: Path) -> list[str]:
    """The finished cells, a line of JSON each, in the order of their hashes."""
    if run.is_dir():
        return [path.read_text(encoding="utf-8") for path in sorted(run.glob("*/record.json"))]
    lines = run.read_text(encoding="utf-8").splitlines()
    if not lines or "pack" not in json.loads(lines[0]):
        raise Incomplete(f"{run}: neither a folder nor a pack")
    return lines[1:]


def read_cells(run: Path) -> list[Cell]:
    cells = []
    for line in record_lines(run):
        record = json.loads(line)
        table = record["tables"].get("accuracy")
        if table is None or not table["rows"]:
            cells.append(Cell(record["config"], None, math.inf))
            continue
        (values,) = table["rows"]
        row = dict(zip(table["columns"], values))
        # null, or {"number": "nan"}: not a number
        accuracy, loss = (
            float(row[name]) if isinstance(row[name], (int, float)) else None
            for name in ("accuracy", "loss")
        )
        if record["status"] != "ok":
            accuracy = None
        cells.append(Cell(record["config"], accuracy, math.inf if loss is None else loss))
    if not cells:
        raise Incomplete(f"{run}: no finished training in it")
    return cells


@dataclass(frozen=True)
class Rate:
    """The cells of one point at one rate."""

    rate: float
    cells: list[Cell]

    @property
    def measured(self) -> bool:
        return all(cell.accuracy is not None for cell in self.cells)

    @property
    def accuracy(self) -> float:
        return math.fsum(cell.accuracy for cell in self.cells) / len(self.cells)

    @property
    def loss(self) -> float:
        return math.fsum(cell.loss for cell in self.cells) / len(self.cells)


def best_of(cells: list[Cell], keys: list[str], rates: set[float], seeds: set[int]) -> Cell:
    """A cell at the best rate of one point, which `keys` name."""
    sizes = {key: at(cells[0].config, key) for key in keys}
    name = f"{cells[0].mixer['label']} {sizes}"
    by_rate = {rate: Rate(rate, [cell for cell in cells if cell.rate == rate]) for rate in rates}
    missing = sorted(
        rate for rate in rates if {cell.seed for cell in by_rate[rate].cells} != seeds
    )
    if missing:
        raise Incomplete(f"{name}: no finished cell at {RATE} of {missing} for every seed")
    measured = [rate for rate in by_rate.values() if rate.measured]
    if not measured:
        raise Incomplete(f"{name}: no rate gave an accuracy")
    best = min(measured, key=lambda rate: (-rate.accuracy, rate.loss, rate.rate))
    for edge, end in ((min(rates), "smallest"), (max(rates), "largest")):
        if best.rate == edge and len(rates) > 1:
            print(f"best_rates: {name}: best at {edge}, the {end} rate", file=sys.stderr)
    return best.cells[0]


def order_of(cell: Cell, keys: list[str]) -> list[tuple[float, str]]:
    """Numbers by size, everything else by its spelling."""
    values = [at(cell.config, key) or 0 for key in keys]
    return [(v, "") if isinstance(v, (int, float)) else (0, json.dumps(v)) for v in values]


def best_config(cells: list[Cell], name: str) -> Config:
    seeds = {cell.seed for cell in cells}
    if seeds & set(FRESH_SEEDS):
        raise Incomplete(f"seeds {sorted(seeds)} chose the rates: {FRESH_SEEDS} are not fresh")
    sizes = [*POINT_KEYS, *keys_that_differ(cells)]
    points: dict[str, list[Cell]] = {}
    for cell in cells:
        points.setdefault(cell.point, []).append(cell)
    rates = {cell.rate for cell in cells}
    best = [best_of(members, sizes, rates, seeds) for members in points.values()]
    best.sort(key=lambda cell: (cell.mixer["label"], *order_of(cell, sizes)))

    settled = {"sweep", "device"}  # the one is made here, the other is where the run will be
    config = {key: value for key, value in cells[0].config.items() if key not in settled}
    keys = ["mixers", *sizes, RATE]
    rows = [[[cell.mixer], *(at(cell.config, key) for key in keys[1:])] for cell in best]
    # The first row's values stand in the config itself too: it must be valid without its sweep.
    for key, value in zip(keys, rows[0]):
        section, _, inner = key.partition(".")
        config[section] = {**config[section], inner: value} if inner else value
    config.update({"name": name, "seeds": FRESH_SEEDS})
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
    parser.add_argument("run", type=Path, help="folder of the sweep's cells, or its pack")
    parser.add_argument("config", type=Path, help="config to write")
    options = parser.parse_args(arguments)
    run: Path = options.run
    try:
        stem = run.name.removesuffix(".jsonl")
        name = stem.removesuffix("_rates") + "_best"
        text = to_text(best_config(read_cells(run), name), stem)
    except (Incomplete, OSError, ValueError, KeyError, TypeError) as error:
        print(f"best_rates: {error}", file=sys.stderr)
        return 2
    temporary = options.config.with_suffix(".json.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, options.config)
    print(options.config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
