#!/usr/bin/env python3
"""Turns a finished sweep over train.lr into a config that runs every point at its best rate.

    scripts/best_rates.py results/runs/12_fair_track_rates experiments/12_fair_track/best.json

RUN is the sweep's folder of cells or its pack (NAME.jsonl), which holds the configs. Rates are picked
from its accuracy_summary, in RUN/tables or where --tables says, which `vla-bench report` makes.

A point is a set of rows of the summary that differ only in the learning rate. Its best rate has the
highest mean accuracy over the seeds; among equal ones the lowest mean loss, then the smallest rate. A
rate at which a seed diverged is never best. Every point must have finished cells for every rate and
seed of the sweep. Best rates at the edge of the rates are listed on standard error, since a better one
may lie beyond. The config has fresh seeds, which had no part in the choice of a rate.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files import write_atomically
from plotting.tables import Report, Row, group, number, ok_of, setting_of
from plotting.training import usual_length

Config = dict[str, Any]

FRESH_SEEDS = [43, 44, 45, 46]
# Keys that a row of the written sweep always sets, besides the mixer.
POINT_KEYS = ["model.n_heads", "model.d_h", "task.n_pairs", "task.seq_len"]
RATE = "train.lr"
# Columns of accuracy_summary and the keys of a config that they come from.
COLUMNS = {
    "label": "mixer.label",
    "mixer": "mixer.mixer",
    "n_pairs": "task.n_pairs",
    "d_h": "model.d_h",
    "n_heads": "model.n_heads",
    "seq_len": "task.seq_len",
    "layout": "task.layout",
    "short_conv": "model.short_conv",
    "steps": "train.steps",
    "learning_rate": RATE,
    "device": "device",
    "precision": "precision",
}
POINT = [column for column in [*COLUMNS, "setting"] if column != "learning_rate"]


class Incomplete(Exception):
    """The sweep does not determine the best rates yet."""


@dataclass(frozen=True)
class Cell:
    config: Config

    @property
    def mixer(self) -> Config:
        (mixer,) = self.config["mixers"]
        return mixer

    @property
    def seed(self) -> int:
        (seed,) = self.config["seeds"]
        return seed

    @property
    def values(self) -> dict[str, Any]:
        """Values by dotted key, the mixer's included, with the resolved sequence length."""
        values = {f"mixer.{key}": value for key, value in self.mixer.items()}
        for key, value in self.config.items():
            if isinstance(value, dict):
                values |= {f"{key}.{name}": inner for name, inner in value.items()}
            else:
                values[key] = value
        if values["task.seq_len"] is None:
            values["task.seq_len"] = usual_length(values["task.layout"], values["task.n_pairs"])
        return values

    def is_of(self, row: Row) -> bool:
        """Whether a row of accuracy_summary is about this cell."""
        values = self.values
        wanted = {key: row[column] for column, key in COLUMNS.items()} | setting_of(row)

        def has(key: str, text: str) -> bool:
            """The summary shortens a key to its last part where that is enough."""
            named = [value for name, value in values.items() if f".{name}".endswith(f".{key}")]
            return any(same(value, text) for value in named)

        return all(has(key, text) for key, text in wanted.items())


def same(value: Any, text: str) -> bool:
    """Whether a table says `value` as `text`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == (value if isinstance(value, str) else json.dumps(value))


def at(config: Config, key: str) -> Any:
    value = config
    for name in key.split("."):
        value = value[name]
    return value


def keys_that_differ(cells: list[Cell]) -> list[str]:
    """Keys of a sweep in which points differ besides the mixer and POINT_KEYS."""
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


def read_cells(run: Path) -> list[Cell]:
    """The finished cells, in the order of their hashes."""
    if run.is_dir():
        lines = [path.read_text(encoding="utf-8") for path in sorted(run.glob("*/record.json"))]
    else:
        first, *lines = run.read_text(encoding="utf-8").splitlines() or ["{}"]
        if "pack" not in json.loads(first):
            raise Incomplete(f"{run}: neither a folder nor a pack")
    cells = [Cell(json.loads(line)["config"]) for line in lines]
    if not cells:
        raise Incomplete(f"{run}: no finished training in it")
    return cells


def best_of(rows: list[Row], rates: set[float], seeds: int) -> Row:
    """The row of the best rate among those of one point."""
    shown = ("label", "n_heads", "d_h", "n_pairs", "seq_len", "setting")
    name = " ".join(f"{column}={rows[0][column]}" for column in shown if rows[0][column])
    finished = {number(row, "learning_rate") for row in rows if ok_of(row)[1] == seeds}
    missing = sorted(rates - finished)
    if missing:
        raise Incomplete(f"{name}: no finished cell at {RATE} of {missing} for every seed")
    measured = [row for row in rows if ok_of(row)[0] == seeds]
    if not measured:
        raise Incomplete(f"{name}: no rate gave an accuracy")
    best = min(
        measured,
        key=lambda row: (
            -number(row, "accuracy_mean"),
            number(row, "loss_mean"),
            number(row, "learning_rate"),
        ),
    )
    for edge, end in ((min(rates), "smallest"), (max(rates), "largest")):
        if number(best, "learning_rate") == edge and len(rates) > 1:
            print(f"best_rates: {name}: best at {edge}, the {end} rate", file=sys.stderr)
    return best


def cell_of(row: Row, cells: list[Cell]) -> Cell:
    """One of the cells behind a row."""
    found = [cell for cell in cells if cell.is_of(row)]
    configs = {json.dumps({**cell.config, "seeds": [], "threads": 0}) for cell in found}
    if len(configs) != 1:
        raise Incomplete(f"line {row['line']}: {len(configs)} configs of the run fit this row")
    return found[0]


def order_of(cell: Cell, keys: list[str]) -> list[tuple[float, str]]:
    """Sorts numbers by size, everything else by spelling."""
    values = [at(cell.config, key) or 0 for key in keys]
    return [(v, "") if isinstance(v, (int, float)) else (0, json.dumps(v)) for v in values]


def best_config(cells: list[Cell], rows: list[Row], name: str) -> Config:
    seeds = {cell.seed for cell in cells}
    if seeds & set(FRESH_SEEDS):
        raise Incomplete(f"seeds {sorted(seeds)} chose the rates: {FRESH_SEEDS} are not fresh")
    sizes = [*POINT_KEYS, *keys_that_differ(cells)]
    rates = {number(row, "learning_rate") for row in rows}
    best = [
        cell_of(best_of(members, rates, len(seeds)), cells)
        for members in group(rows, POINT).values()
    ]
    best.sort(key=lambda cell: (cell.mixer["label"], *order_of(cell, sizes)))

    settled = {"sweep", "device"}  # the sweep is made here, the device is chosen by the run
    config = {key: value for key, value in cells[0].config.items() if key not in settled}
    keys = ["mixers", *sizes, RATE]
    rows = [[[cell.mixer], *(at(cell.config, key) for key in keys[1:])] for cell in best]
    # The config also has the first row's values, since it must be valid without its sweep.
    for key, value in zip(keys, rows[0]):
        section, _, inner = key.partition(".")
        config[section] = {**config[section], inner: value} if inner else value
    config.update({"name": name, "seeds": FRESH_SEEDS})
    config["sweep"] = {",".join(keys): rows}
    return config


def to_text(config: Config, run: str) -> str:
    """JSON with one line per row of the sweep."""
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
    parser.add_argument("--tables", type=Path, help="folder with its accuracy_summary (RUN/tables)")
    options = parser.parse_args(arguments)
    run: Path = options.run
    try:
        cells = read_cells(run)
        tables = options.tables or run / "tables"
        rows = Report(tables).rows("accuracy_summary")
        if not rows:
            raise Incomplete(f"no accuracy_summary.csv in {tables}: see vla-bench report --help")
        stem = run.name.removesuffix(".jsonl")
        name = stem.removesuffix("_rates") + "_best"
        write_atomically(options.config, to_text(best_config(cells, rows, name), stem))
    except (Incomplete, OSError, ValueError, KeyError, TypeError) as error:
        print(f"best_rates: {error}", file=sys.stderr)
        return 2
    print(options.config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
