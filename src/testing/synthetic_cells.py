#!/usr/bin/env python3
"""Writes a results folder of made-up finished trainings, to measure commands that read whole folders.

    synthetic_cells.py OUT CELLS [--history ROWS]   OUT/synthetic/HASH, in the format before sealed
                                                    records; `vla-bench pack` seals them
    vla-bench pack OUT --out synthetic.jsonl
    vla-bench report synthetic.jsonl --out REPORT

Cells differ in mixer, n_pairs, d_h, learning rate and seed, as those of one large sweep do.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

MIXERS = ["softmax", "linear", "deltanet", "vla"]
PAIRS = [4, 8, 12, 16, 24, 32, 48, 64]
HEAD_SIZES = [16, 32, 64]
RATES = [1e-4, 3e-4, 1e-3, 3e-3]
STEPS = 3000
COLUMNS = (
    "experiment,label,mixer,n_pairs,d_h,n_heads,seq_len,layout,short_conv,seed,steps,accuracy,"
    "loss,train_seconds,device,precision,status,reason"
)
PROVENANCE = {
    "version": "0.1.0",
    "git_hash": "0" * 40,
    "compiler": "gcc",
    "processor": "a processor",
    "cores": "64",
    "threads": "1",
    "jobs": "1",
}


def config_of(mixer: str, pairs: int, d_h: int, rate: float, seed: int) -> dict[str, object]:
    """The keys that a report reads; the rest of a config is about as long."""
    return {
        "experiment": "mqar",
        "name": "synthetic",
        "mixers": [{"mixer": mixer, "label": f"{mixer} lr={rate}", "output_norm": None}],
        "model": {
            "n_heads": 4,
            "d_h": d_h,
            "n_layers": 2,
            "d_ff": 256,
            "vocab_size": 128,
            "max_seq_len": 4096,
            "short_conv": 0,
            "init_std": 0.02,
        },
        "task": {
            "layout": "paper",
            "n_pairs": pairs,
            "seq_len": None,
            "power_a": 0.01,
            "random_filler": True,
        },
        "train": {
            "steps": STEPS,
            "batch": 64,
            "lr": rate,
            "warmup": 300,
            "beta1": 0.9,
            "beta2": 0.999,
            "adam_eps": 1e-08,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "log_every": 50,
            "checkpoint_every": 500,
        },
        "eval": {"batches": 20, "batch": 32},
        "probe": {"source": "model"},
        "recall": {"trials": 20, "codebook": 128, "keys": "feature"},
        "latency": {
            "batch": 4,
            "passes": ["forward", "backward"],
            "implementations": ["production"],
            "warmup": 2,
            "min_repeats": 5,
            "max_repeats": 200,
            "relative_error": 0.02,
            "max_seconds": 2.0,
        },
        "seeds": [seed],
        "sweep": {},
        "device": "cpu",
        "precision": "float32",
        "threads": 0,
    }


def write_cell(folder: Path, index: int, history_rows: int) -> None:
    numbers = random.Random(index)
    rest = index
    choices = []
    for values in (MIXERS, PAIRS, HEAD_SIZES, RATES):
        choices.append(values[rest % len(values)])
        rest //= len(values)
    mixer, pairs, d_h, rate = choices
    seed = rest
    folder.mkdir(parents=True)
    config = config_of(mixer, pairs, d_h, rate, seed)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE, indent=2) + "\n")
    status = {"status": "ok", "reason": "", "seconds": numbers.uniform(100, 500)}
    (folder / "status.json").write_text(json.dumps(status, indent=2) + "\n")
    row = (
        f"mqar,{mixer} lr={rate},{mixer},{pairs},{d_h},4,{3 * pairs + 1},paper,0,{seed},{STEPS},"
        f"{numbers.random()},{numbers.uniform(0, 5)},{numbers.uniform(100, 500)},cpu,float32,ok,"
    )
    (folder / "accuracy.csv").write_text(f"{COLUMNS}\n{row}\n")
    (folder / "accuracy.md").write_text("| made up |\n| ------- |\n")
    if history_rows:
        lines = ["step,loss,accuracy,learning_rate,gradient_norm"]
        for i in range(1, history_rows + 1):
            step = i * STEPS // history_rows
            values = (numbers.uniform(0, 5), numbers.random(), rate, numbers.uniform(0, 9))
            lines.append(",".join([str(step), *map(repr, values)]))
        (folder / "history.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder that must not hold such cells yet")
    parser.add_argument("cells", type=int)
    parser.add_argument(
        "--history",
        type=int,
        default=60,
        metavar="ROWS",
        help="rows of every history.csv (default 60: the paper's 3,000 steps); 0: no file",
    )
    options = parser.parse_args()
    for index in range(options.cells):
        folder = options.out / "synthetic" / f"{random.Random(-1 - index).getrandbits(64):016x}"
        write_cell(folder, index, options.history)


if __name__ == "__main__":
    main()
