#!/usr/bin/env python3
"""The program's output on a terminal (a pseudo-terminal of a given width), and elsewhere.

VLA_BENCH_BINARY names the program under test.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import tempfile
import termios
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PROGRAM = os.environ["VLA_BENCH_BINARY"]
WIDTHS = (80, 100, 160)

LATENCY = {
    "experiment": "latency",
    "name": "lat",
    "threads": 1,
    "mixers": ["softmax", "linear", {"mixer": "vla", "label": "λ, penalty at its start"}],
    "model": {"n_heads": 1},
    "latency": {"min_repeats": 2, "max_repeats": 2},
    "sweep": {"model.d_h": [4, 8], "task.seq_len": [16, 32]},
}


def on_terminal(width: int, *arguments: str | Path, columns: str = "") -> str:
    """Standard output of the program on a terminal, without log lines."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    if columns:
        environment["COLUMNS"] = columns
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        cwd=SOURCE,
        env=environment,
    )
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while chunk := os.read(ours, 65536):
            output += chunk
    os.close(ours)
    process.wait()
    return output.decode().replace("\r\n", "\n")


class Terminal(unittest.TestCase):
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = Path(cls.folder.name)
        cls.config = cls.root / "lat.json"
        cls.config.write_text(json.dumps(LATENCY))
        cls.runs = cls.root / "runs"
        subprocess.run(
            [PROGRAM, "run", cls.config, "--out", cls.runs], check=True, capture_output=True
        )

    def commands(self) -> dict[str, list[str | Path]]:
        return {
            "run": ["run", self.config, "--out", self.runs],
            "run --dry-run": ["run", self.config, "--out", self.runs, "--dry-run"],
            "report": ["report", self.runs],
            "claims": ["claims", self.runs],
            "info": ["info"],
            "status": ["status", self.runs],
            "plan": ["plan", self.config, "--out", self.runs, "--tasks", "3"],
            "sample": ["sample", "configs/mqar.json"],
            "verify": ["verify", "src/testing/golden/mixer_vla_a.safetensors"],
        }

    def test_no_line_is_wider_than_the_terminal(self) -> None:
        for name, command in self.commands().items():
            for width in WIDTHS:
                with self.subTest(command=name, width=width):
                    output = on_terminal(width, *command)
                    self.assertGreater(len(output.splitlines()), 2)
                    self.assertLessEqual(max(map(len, output.splitlines())), width)

    def test_elsewhere_tables_are_markdown(self) -> None:
        for name, command in self.commands().items():
            if name == "sample":
                continue
            with self.subTest(command=name):
                result = subprocess.run([PROGRAM, *command], capture_output=True, cwd=SOURCE)
                tables = [line for line in result.stdout.decode().splitlines() if line[:1] == "|"]
                self.assertGreater(len(tables), 2)
                self.assertTrue(all(line.endswith(" |") for line in tables))

    def test_what_is_left_out_is_named_with_the_command_that_shows_it(self) -> None:
        output = on_terminal(80, "report", self.runs, "--table", "latency")
        told = " ".join(output[output.index("left out: ") :].split())
        self.assertIn("state_bytes", told)
        left_out, command = told.split("; all columns: vla-bench ")
        whole = subprocess.run([PROGRAM, *command.split()], capture_output=True, check=True)
        header = whole.stdout.decode().splitlines()[0].split(",")
        for column in left_out.removeprefix("left out: ").split(", "):
            self.assertIn(column, header)

    def test_constant_columns_stand_above_the_table(self) -> None:
        output = on_terminal(100, "report", self.runs, "--table", "latency")
        above = output[: output.index("\n----")]
        self.assertIn("all rows: ", above)
        self.assertIn("device cpu", above)

    def test_the_variable_columns_goes_before_the_terminal(self) -> None:
        output = on_terminal(160, "info", columns="60")
        self.assertLessEqual(max(map(len, output.splitlines())), 60)
        self.assertEqual(on_terminal(100, "info", columns="wide"), on_terminal(100, "info"))


if __name__ == "__main__":
    unittest.main()
