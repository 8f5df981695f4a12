#!/usr/bin/env python3
"""Runs sweeps on a real Slurm of one node, disturbs them, and compares the results with those of one
undisturbed process, bit for bit except for times.

Exit status 77 (skipped) where Slurm is not installed, or without root, which its daemons need.
VLA_BENCH_BINARY names the program under test.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
SUBMIT = SOURCE / "scripts/slurm/submit.sh"
ONE_MACHINE = SOURCE / "scripts/slurm/one_machine.sh"
SKIPPED = 77

TASKS = 4
CELLS = 24
# Two mixers, three sizes, four seeds: 24 cells of about half a second, one thread each.
SWEEP = {
    "experiment": "mqar",
    "name": "disturbed",
    "mixers": ["linear", "vla"],
    "sweep": {"task.n_pairs": [3, 4, 5]},
    "seeds": [1, 2, 3, 4],
    "threads": 1,
    "model": {"n_heads": 2, "d_h": 8, "n_layers": 1, "d_ff": 16, "vocab_size": 32},
    "train": {"steps": 1500, "batch": 8, "warmup": 10, "checkpoint_every": 100},
    "eval": {"batches": 2, "batch": 8},
}
# Requeued jobs wait 6 to 10 s for the credential of their last run; the rest is a margin for a busy
# machine or a program with sanitizers.
PATIENCE_S = 600 if os.environ.get("VLA_SANITIZED") == "1" else 60


def run(*command: str | Path) -> str:
    """The command's output. Its errors end the test."""
    process = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if process.returncode != 0:
        raise AssertionError(f"{command} gave {process.returncode}: {process.stderr}")
    return process.stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}\n{run('squeue', '--array')}")
        time.sleep(0.1)


def timeless(table: dict[str, list]) -> list[list]:
    """The table's rows without the times of trainings."""
    seconds = table["columns"].index("train_seconds")
    return [row[:seconds] + row[seconds + 1 :] for row in table["rows"]]


def results(folder: Path) -> dict[str, dict[str, object]]:
    """By cell, everything that must not depend on the process and on how often it was disturbed."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted(folder.glob("*/record.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = {
            # Threads change only times.
            "config": record["config"] | {"threads": None},
            "status": record["status"],
            "rows": timeless(record["tables"]["accuracy"]),
            "history": record["history"],
            "parameters": (path.parent / "checkpoint.safetensors").read_bytes(),
        }
    return found


def csv_rows(table: Path) -> list[list[str]]:
    with table.open(newline="") as file:
        return list(csv.reader(file))


def processes_of(folder: Path, shard: str) -> list[int]:
    """The programs that run a shard into a results folder."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = cmdline.read_text().split("\0")
        except OSError:  # it has ended
            continue
        if "run" in arguments[:2] and shard in arguments and str(folder) in arguments:
            found.append(int(cmdline.parent.name))
    return found


class SlurmTest(unittest.TestCase):
    folder: Path
    reference: dict[str, dict[str, object]]

    @classmethod
    def setUpClass(cls) -> None:
        # Not below TMPDIR, since paths of sockets must be short.
        cls.folder = Path(tempfile.mkdtemp(prefix="vla-slurm-", dir="/tmp"))
        cls.folder.chmod(0o711)  # everybody must reach munge's socket
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        slurm = cls.folder / "slurm"
        # Declares as many cores as tasks, so that all tasks run at once on any machine.
        run(ONE_MACHINE, "up", slurm, str(TASKS))
        cls.addClassCleanup(run, ONE_MACHINE, "down", slurm)
        os.environ["SLURM_CONF"] = str(slurm / "slurm.conf")
        config = cls.folder / "sweep.json"
        config.write_text(json.dumps(SWEEP))
        program = os.environ["VLA_BENCH_BINARY"]
        run(program, "run", config, "--out", cls.folder / "whole", "--jobs", "2", "--threads", "2")
        cls.reference = results(cls.folder / "whole/disturbed")

    def submit(self, out: str, tasks: int = TASKS, *options: str) -> str:
        folder = self.folder / out
        command = [SUBMIT, self.folder / "sweep.json", "--tasks", str(tasks), "--out", folder]
        return run(*command, "--", *options)

    def array_of(self, output: str) -> str:
        """The id of the job array that submit.sh names."""
        return output.split("array ")[1].split()[0]

    def wait_for_queue(self) -> None:
        wait_until(lambda: run("squeue", "--noheader") == "", "the queue is empty")

    def finished(self, out: str) -> int:
        return len(list((self.folder / out).glob("disturbed/*/record.json")))

    def check_results(self, out: str) -> None:
        found = results(self.folder / out / "disturbed")
        self.assertEqual(len(found), CELLS)
        self.assertEqual(found.keys(), self.reference.keys())
        for cell, expected in self.reference.items():
            for what, value in expected.items():
                # Not assertEqual, which would print megabytes of parameters.
                self.assertTrue(found[cell][what] == value, f"{what} of {cell} differs")
        # Every cell is sealed, none is left as in progress.
        self.assertEqual(list((self.folder / out).rglob("begun.json")), [])
        # The task that finished the sweep made its tables.
        tables = self.folder / out / "disturbed/tables"
        self.assertEqual(len(csv_rows(tables / "accuracy.csv")), 1 + CELLS)

    def test_an_array_its_report_and_a_twin(self) -> None:
        """Submitted twice at once with different shards: two tasks compute every cell."""
        first = self.submit("twice/runs")
        self.assertIn("to do           24", first)
        again = self.submit("twice/runs")
        self.assertIn("all of it waits or runs already", again)
        self.submit("twice/runs", tasks=3)
        self.wait_for_queue()
        self.check_results("twice/runs")
        # Both reports wrote the same tables.
        report = self.folder / "twice/report/sweep"
        self.assertEqual(len(csv_rows(report / "accuracy.csv")), 1 + CELLS)
        if (SOURCE / ".venv/bin/python").exists():
            self.assertTrue((report / "figures/four_panels.png").exists())
        done = self.submit("twice/runs")
        self.assertIn("nothing to do", done)
        self.assertEqual(run("squeue", "--noheader"), "")

    def test_gpus_are_asked_for_and_given_to_the_program(self) -> None:
        """Pretends to use GPUs: a program of the same name logs its calls and runs on the CPU."""
        calls = self.folder / "calls"
        stand_in = self.folder / "stand_in"
        stand_in.write_text(
            "#!/usr/bin/env bash\n"
            f'[[ $1 != run ]] || echo "${{CUDA_VISIBLE_DEVICES-none}} $*" >> {calls}\n'
            '[[ $1 != run ]] || set -- "${@/#cuda/cpu}"\n'
            f'exec {os.environ["VLA_BENCH_BINARY"]} "$@"\n'
        )
        stand_in.chmod(0o755)
        with unittest.mock.patch.dict(os.environ, VLA_BENCH_BINARY=str(stand_in)):
            self.assertIn("on cuda", self.submit("gpus/runs", TASKS, "--gres=gpu:1"))
        self.wait_for_queue()
        self.check_results("gpus/runs")
        lines = calls.read_text().splitlines()
        self.assertEqual(len(lines), TASKS)
        for line in lines:
            self.assertIn("--device cuda", line)
            # Each task gets one of the node's two.
            self.assertIn(line.split()[0], ("0", "1"))

    def test_disturbed_tasks_lose_nothing(self) -> None:
        runs = self.folder / "once/runs"
        job = self.array_of(self.submit("once/runs"))

        def programs_of() -> list[list[int]]:
            return [processes_of(runs, f"{task}/{TASKS}") for task in range(TASKS)]

        wait_until(lambda: all(programs_of()), "all four tasks run")
        wait_until(lambda: self.finished("once/runs") >= 2, "two cells are finished")
        programs = programs_of()
        for task in range(TASKS):
            self.assertEqual(len(programs[task]), 1, f"task {task} does not run")

        # One is cancelled, one killed, one requeued by hand, one warned of its time limit.
        run("scancel", f"{job}_0")
        os.kill(programs[1][0], signal.SIGKILL)
        run("scontrol", "requeue", f"{job}_2")
        run("scancel", "--batch", "--signal=USR1", f"{job}_3")
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for (pid,) in programs),
            "all four programs have ended",
        )
        # A job is COMPLETING for a moment after the end of its program.
        for state in ("CANCELLED", "FAILED"):
            wait_until(
                lambda state=state: f"JobState={state}"
                in run("scontrol", "show", "job", "--oneliner", job),
                f"a task counts as {state}",
            )

        # The two others run again; then the node goes down.
        def restarted() -> bool:
            return any(processes_of(runs, f"{task}/{TASKS}") for task in (2, 3))

        wait_until(restarted, "a requeued task runs again")
        run("scontrol", "update", "nodename=localhost", "state=down", "reason=test")
        wait_until(lambda: not restarted(), "the tasks of the node have ended")
        time.sleep(0.5)
        # Refused if the node, which still answers, is already back by itself.
        subprocess.run(
            ["scontrol", "update", "nodename=localhost", "state=resume"], stderr=subprocess.DEVNULL
        )
        before = {path: path.read_bytes() for path in self.folder.glob("once/runs/*/*/record.json")}
        self.wait_for_queue()

        # A second call submits only what tasks 0 and 1 left.
        second = self.submit("once/runs")
        self.assertIn("of 2 tasks", second)
        self.wait_for_queue()
        self.check_results("once/runs")
        for path, content in before.items():
            self.assertEqual(path.read_bytes(), content, f"{path} was finished and written again")


def reason_to_skip() -> str | None:
    for tool in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
            return f"{tool} is not installed (packages slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "the daemons of Slurm want root"
    return None


if __name__ == "__main__":
    if reason := reason_to_skip():
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    unittest.main()
