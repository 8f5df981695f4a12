#!/usr/bin/env python3
"""Turns a finished sweep over train.lr into a config that runs every point at its best rate.

    scripts/best_rates.py results/runs/12_converged_rates experiments/12_fair_track/converged_best.json

RUN is the sweep's folder of cells or its pack (NAME.jsonl), which hold the configs; where both exist,
either names both. Rates are picked from its accuracy_summary, in RUN/tables or where --tables says, which
`vla-bench report` makes; of an evaluation by slices, from the mean over slices.

A point is a set of rows of the summary that differ only in the learning rate. Its best rate has the
highest mean accuracy over the seeds; among equal ones the lowest mean loss, then the smallest rate. A
rate at which a seed failed or diverged is never best, and is named on standard error. Every point must
have finished cells for every rate and seed of the sweep. The config has fresh seeds (--seeds), which had
no part in the choice of a rate.

Beyond a best rate at the edge of its rates a better one may lie, unless its accuracy is 1. With --wider
such points get one more rate each, by the sweep's own ratio (its mean one, two digits): the script writes
them to that config, a run NAME_wider1, instead of CONFIG, and exits with 3. Run it, make tables of both
runs, and call the script again, which finds NAME_wider1 beside RUN and goes on with NAME_wider2:

    vla-bench run wider.json
    vla-bench report results/runs/NAME results/runs/NAME_wider1 --out TABLES
    scripts/best_rates.py results/runs/NAME best.json --wider wider.json --tables TABLES

After --times of it (2) for a point, without --wider, or where one rate has no ratio, it writes CONFIG and
says on standard error which best rates lie at an edge and why they stay there. Where the rates were chosen
with fewer steps than the final runs have, --steps gives theirs. With --part the points of some mixers go
to a config of their own, for the same run:

    scripts/best_rates.py results/runs/NAME rules.json --part anchors.json softmax,linear
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files import write_atomically
from plotting.lines import SCHEMA
from plotting.tables import Report, Row, group, number, ok_of, setting_of
from plotting.training import is_mean, usual_length

Config = dict[str, Any]

FRESH_SEEDS = [43, 44, 45, 46]
TIMES = 2
WIDER = 3  # exit status
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
            values["task.seq_len"] = usual_length(
                values["task.layout"],
                values["task.n_pairs"],
                values["task.passes"],
                values["task.rewrites"],
            )
        return values

    def is_of(self, row: Row) -> bool:
        """Whether a row of accuracy_summary is about this cell."""
        values = self.values
        wanted = {key: row[column] for column, key in COLUMNS.items() if row[column]}
        wanted |= setting_of(row)

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
    known |= {"train.log_every", "train.checkpoint_every"}  # change no result
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


def completed(config: Config) -> Config:
    """The config with the keys that came after its cell's version, at their defaults."""
    sections = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    for section, values in config.items():
        if not isinstance(values, dict) or section == "sweep":
            continue
        known = {key: one for key, one in sections[section]["properties"].items() if "default" in one}
        config[section] = {key: one["default"] for key, one in known.items()} | values
    return config


def places_of(folder: Path) -> list[Path]:
    """A run's folder and its pack, those that exist."""
    return [path for path in (folder, folder.with_name(f"{folder.name}.jsonl")) if path.exists()]


def records_in(place: Path) -> list[str]:
    """The records in a folder or a pack, in the order of their hashes."""
    if place.is_dir():
        return [path.read_text(encoding="utf-8") for path in sorted(place.glob("*/record.json"))]
    first, *lines = place.read_text(encoding="utf-8").splitlines() or ["{}"]
    if "pack" not in json.loads(first):
        raise Incomplete(f"{place}: neither a folder nor a pack")
    return lines


def read_cells(folder: Path) -> list[Cell]:
    """The finished cells; one that folder and pack both have comes twice, which changes nothing."""
    lines = [line for place in places_of(folder) for line in records_in(place)]
    cells = [Cell(completed(json.loads(line)["config"])) for line in lines]
    if not cells:
        raise Incomplete(f"{folder}: no finished training in it")
    return cells


def told(message: str) -> None:
    print(f"best_rates: {message}", file=sys.stderr)


@dataclass(frozen=True)
class Best:
    """The row of a point's best rate among those that were tried."""

    row: Row
    name: str
    tried: list[float]  # ascending

    @property
    def rate(self) -> float:
        return number(self.row, "learning_rate")

    @property
    def edge(self) -> str:
        """Empty when a better rate cannot lie beyond."""
        if number(self.row, "accuracy_mean") == 1.0 or self.rate not in (self.tried[0], self.tried[-1]):
            return ""
        return "smallest" if self.rate == self.tried[0] else "largest"


def best_of(rows: list[Row], grid: list[float], seeds: int) -> Best:
    """Of one point. `grid`: the rates that every point must have."""
    shown = ("label", "n_heads", "d_h", "n_pairs", "seq_len", "setting")
    name = " ".join(f"{column}={rows[0][column]}" for column in shown if rows[0][column])
    finished = {number(row, "learning_rate") for row in rows if ok_of(row)[1] == seeds}
    tried = sorted({*grid, *(number(row, "learning_rate") for row in rows)})
    missing = [rate for rate in tried if rate not in finished]
    if missing:
        raise Incomplete(f"{name}: no finished cell at {RATE} of {missing} for every seed")
    for row in rows:
        if ok_of(row)[0] < seeds:
            rate = number(row, "learning_rate")
            told(f"{name}: {rate:g} is left out, {row['cells']} ok: {row['not_ok']}")
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
    return Best(best, name, tried)


def rate_beyond(best: Best, grid: list[float]) -> float:
    """The next rate outwards from the edge at which the best one lies."""
    ratio = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1))
    if best.edge == "largest":
        rate = grid[-1] * ratio ** (1 + sum(rate > grid[-1] for rate in best.tried))
    else:
        rate = grid[0] / ratio ** (1 + sum(rate < grid[0] for rate in best.tried))
    return float(f"{rate:.2g}")


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


def sweep_config(
    points: list[tuple[Cell, float]], sizes: list[str], name: str, seeds: list[int]
) -> Config:
    """A config of these points, each with a rate."""
    points = sorted(points, key=lambda point: (point[0].mixer["label"], *order_of(point[0], sizes)))
    # The sweep is made here, the device is chosen by the run, a training does not read the others.
    settled = {"sweep", "device", "probe", "recall", "latency"}
    first = points[0][0].config
    config = {key: value for key, value in first.items() if key not in settled}
    keys = ["mixers", *sizes, RATE]
    rows = [
        [[cell.mixer], *(at(cell.config, key) for key in sizes), rate] for cell, rate in points
    ]
    # The config also has the first row's values, since it must be valid without its sweep.
    for key, value in zip(keys, rows[0]):
        section, _, inner = key.partition(".")
        config[section] = {**config[section], inner: value} if inner else value
    config.update({"name": name, "seeds": seeds})
    config["sweep"] = {",".join(keys): rows}
    return config


@dataclass(frozen=True)
class Sweep:
    stem: str
    cells: list[Cell]
    wider: list[list[Cell]]  # the runs that widened it
    rows: list[Row]  # of accuracy_summary, of all these cells

    @property
    def all_cells(self) -> list[Cell]:
        return self.cells + [cell for run in self.wider for cell in run]

    @property
    def seeds(self) -> list[int]:
        return sorted({cell.seed for cell in self.cells})

    @property
    def grid(self) -> list[float]:
        return sorted({at(cell.config, RATE) for cell in self.cells})

    def best(self) -> list[Best]:
        points = group(self.rows, POINT).values()
        return [best_of(rows, self.grid, len(self.seeds)) for rows in points]

    def config(self, points: list[tuple[Best, float]], name: str, seeds: list[int]) -> Config:
        cells = self.all_cells
        chosen = [(cell_of(best.row, cells), rate) for best, rate in points]
        return sweep_config(chosen, [*POINT_KEYS, *keys_that_differ(cells)], name, seeds)


def read_sweep(run: Path, tables: Path | None) -> Sweep:
    stem = run.name.removesuffix(".jsonl")
    folder = run.with_name(stem)
    cells = read_cells(folder)
    wider: list[list[Cell]] = []

    def next_run() -> Path:
        return run.with_name(f"{stem}_wider{len(wider) + 1}")

    while places_of(next_run()):
        wider.append(read_cells(next_run()))
    if wider and tables is None:
        raise Incomplete(f"{stem}_wider1 is beside the run: expected --tables of all of them")
    tables = tables or folder / "tables"
    rows = Report(tables).rows("accuracy_summary")
    if not rows:
        raise Incomplete(f"no accuracy_summary.csv in {tables}: see vla-bench report --help")
    rows = [row for row in rows if not row.get("slice") or is_mean(row)]
    return Sweep(stem, cells, wider, rows)


def points_to_widen(sweep: Sweep, best: list[Best], times: int) -> list[tuple[Best, float]]:
    """The points whose best rate lies at an edge, with the rate beyond; says where there is none."""
    points = []
    for one in best:
        if not one.edge:
            continue
        widened = len(set(one.tried) - set(sweep.grid))
        why = ""
        if len(sweep.grid) < 2:
            why = ": one rate has no ratio"
        elif widened >= times:
            why = f": widened {widened} times"
        else:
            points.append((one, rate_beyond(one, sweep.grid)))
        told(f"{one.name}: best at {one.rate:g}, the {one.edge} rate{why}")
    return points


def parts_of(
    best: list[Best], config: Path, parts: list[tuple[str, str]]
) -> dict[Path, list[tuple[Best, float]]]:
    """The configs to write, each with its points and their rates."""
    place = {mixer: Path(path) for path, mixers in parts for mixer in mixers.split(",")}
    found: dict[Path, list[tuple[Best, float]]] = {}
    for one in best:
        found.setdefault(place.get(one.row["mixer"], config), []).append((one, one.rate))
    missing = sorted(place.keys() - {one.row["mixer"] for one in best})
    if missing:
        raise Incomplete(f"--part: no point of {', '.join(missing)} in the run")
    return found


def to_json(value: Any, indent: str = "") -> str:
    """One line per key, and per entry of a list of lists or objects."""
    inner = f"{indent}  "
    if isinstance(value, dict):
        first, last = "{}"
        lines = [f"{json.dumps(key)}: {to_json(one, inner)}" for key, one in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        first, last = "[]"
        lines = [json.dumps(one) for one in value]
    else:
        return json.dumps(value)
    return f"{first}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{last}"


def to_text(config: Config, run: str) -> str:
    return f"// Made by scripts/best_rates.py from the finished run {run}.\n{to_json(config)}\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the sweep's cells, or its pack")
    parser.add_argument("config", type=Path, help="config to write")
    parser.add_argument("--tables", type=Path, help="folder with its accuracy_summary (RUN/tables)")
    parser.add_argument("--wider", type=Path, help="config to write while best rates lie at an edge")
    parser.add_argument("--times", type=int, default=TIMES, help="how often at most (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=FRESH_SEEDS, help="of CONFIG")
    parser.add_argument("--steps", type=int, help="train.steps of CONFIG (those of the sweep)")
    parser.add_argument(
        "--part",
        nargs=2,
        action="append",
        default=[],
        metavar=("CONFIG", "MIXERS"),
        help="another config, for the points of these mixers (names joined by commas)",
    )
    options = parser.parse_args(arguments)
    try:
        sweep = read_sweep(options.run, options.tables)
        if set(sweep.seeds) & set(options.seeds):
            raise Incomplete(f"seeds {sweep.seeds} chose the rates: {options.seeds} are not fresh")
        best = sweep.best()
        wider = points_to_widen(sweep, best, options.times if options.wider else 0)
        if wider:
            name = f"{sweep.stem}_wider{len(sweep.wider) + 1}"
            configs = {options.wider: sweep.config(wider, name, sweep.seeds)}
        else:
            name = sweep.stem.removesuffix("_rates") + "_best"
            configs = {
                path: sweep.config(points, name, options.seeds)
                for path, points in parts_of(best, options.config, options.part).items()
            }
            for config in configs.values():
                config["train"]["steps"] = options.steps or config["train"]["steps"]
        for path, config in configs.items():
            write_atomically(path, to_text(config, sweep.stem))
            print(path)
    except (Incomplete, OSError, ValueError, KeyError, TypeError) as error:
        told(str(error))
        return 2
    return WIDER if wider else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
