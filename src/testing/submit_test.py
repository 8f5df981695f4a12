#!/usr/bin/env python3
"""The arguments that submit.sh passes to sbatch, with mock Slurm programs that log their calls.

VLA_BENCH_BINARY names the program that makes the plan.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SUBMIT = Path(__file__).resolve().parents[2] / "scripts/slurm/submit.sh"
TASKS = 8
SWEEP = {
    "experiment": "recall",
    "name": "asked",
    "mixers": ["linear"],
    "model": {"d_h": 4},
    "task": {"n_pairs": 2},
    "seeds": list(range(TASKS)),
}
# Logs one call per line, arguments separated by tabs; numbers jobs from 101.
SBATCH = """#!/usr/bin/env bash
(IFS=$'\\t' && echo "$*") >> "$CALLS"
echo $((100 + $(wc -l < "$CALLS")))
"""
SQUEUE = """#!/usr/bin/env bash
printf '%s\\n' $IN_QUEUE
"""


class Submitted:
    def __init__(self, *options: str, in_queue: str = "") -> None:
        with tempfile.TemporaryDirectory(prefix="vla-submit-") as name:
            folder = Path(name)
            for program, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
                (folder / program).write_text(text)
                (folder / program).chmod(0o755)
            (folder / "asked.json").write_text(json.dumps(SWEEP))
            calls = folder / "calls"
            calls.touch()
            process = subprocess.run(
                [SUBMIT, folder / "asked.json", "--tasks", str(TASKS), "--out", folder / "runs"]
                + ["--", *options],
                env=os.environ
                | {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}
                | {"IN_QUEUE": in_queue},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            self.status = process.returncode
            self.output = process.stdout
            self.errors = process.stderr
            self.calls = [line.split("\t") for line in calls.read_text().splitlines()]

    @property
    def array(self) -> list[str]:
        return self.calls[0]

    @property
    def report(self) -> list[str]:
        return self.calls[1]


def options_of(call: list[str]) -> list[str]:
    """The arguments before the script, which are sbatch's."""
    return call[: next(i for i, word in enumerate(call) if word.endswith(".sh"))]


def values(call: list[str], option: str) -> list[str]:
    """All values that a call gives for an option."""
    return [word.removeprefix(option + "=") for word in call if word.startswith(option + "=")]


class SubmitTest(unittest.TestCase):
    def submit(self, *options: str, in_queue: str = "") -> Submitted:
        submitted = Submitted(*options, in_queue=in_queue)
        self.assertEqual(submitted.status, 0, submitted.errors)
        self.assertEqual(len(submitted.calls), 2, "an array and a report")
        return submitted

    def refuse(self, *options: str, name: str) -> None:
        refused = Submitted(*options)
        self.assertEqual(refused.status, 2, options)
        self.assertIn(name, refused.errors)
        self.assertEqual(refused.calls, [], "nothing is submitted")

    def test_other_options_go_to_both_jobs(self) -> None:
        submitted = self.submit("--time=2:00", "-p", "short", "--mem", "4G")
        for call in submitted.calls:
            at = call.index("--time=2:00")
            self.assertEqual(call[at : at + 5], ["--time=2:00", "-p", "short", "--mem", "4G"])
        self.assertEqual(values(submitted.array, "--array"), ["0,1,2,3,4,5,6,7"])
        self.assertEqual(values(submitted.array, "--dependency"), [])
        self.assertEqual(values(submitted.report, "--dependency"), ["afterany:101"])
        self.assertIn("tasks on cpu", submitted.output)

    def test_the_report_waits_for_the_dependency_too(self) -> None:
        for options in (
            ["--dependency=afterok:77"],
            ["--dependency", "afterok:77"],
            ["-d", "afterok:77"],
            ["-dafterok:77"],
            ["--dep=afterok:77"],
        ):
            with self.subTest(options=options):
                submitted = self.submit(*options)
                self.assertEqual(values(submitted.array, "--dependency"), ["afterok:77"])
                self.assertEqual(
                    values(submitted.report, "--dependency"), ["afterany:101,afterok:77"]
                )

    def test_alternatives_are_left_to_the_array(self) -> None:
        submitted = self.submit("--dependency=afterok:7?afterok:8")
        self.assertEqual(values(submitted.array, "--dependency"), ["afterok:7?afterok:8"])
        self.assertEqual(values(submitted.report, "--dependency"), ["afterany:101"])

    def test_the_throttle_of_an_array_is_kept(self) -> None:
        for options in (
            ["--array=0-7%4"],
            ["--array", "0-7%4"],
            ["-a", "0-7%4"],
            ["-a0-7%4"],
            ["--array=%4"],
        ):
            with self.subTest(options=options):
                submitted = self.submit(*options, in_queue="1 2")
                self.assertEqual(values(submitted.array, "--array"), ["0,3,4,5,6,7%4"])
                self.assertEqual(values(submitted.report, "--array"), [])
                self.assertFalse([word for word in submitted.array if word.startswith("-a")])
        whole = self.submit("--array=0-7")
        self.assertEqual(values(whole.array, "--array"), ["0,1,2,3,4,5,6,7"])

    def test_what_cannot_be_merged_is_refused_by_name(self) -> None:
        for options in (["--array=0-3"], ["-a", "1,2%4"], ["--array=0-7%"], ["--array=0-7%x"]):
            self.refuse(*options, name="--array")
        for options in (
            ["--job-name=mine"],
            ["--job-name", "mine"],
            ["-J", "mine"],
            ["-Jmine"],
            ["--job=mine"],
        ):
            self.refuse(*options, name="--job-name")
        self.refuse("--signal=B:TERM@60", name="--signal")
        self.refuse("--time=1", "--dependency", name="--dependency needs a value")

    def test_gpus_are_seen_by_their_type(self) -> None:
        for options in (
            ["--gres=gpu:1"],
            ["--gres", "gpu"],
            ["--gres=craynetwork:0,gpu:1"],
            ["--gres=gpu:a100:2"],
            ["--gres=gres/gpu:1"],
            ["--gpus=2"],
            ["--gpus", "a100:2"],
            ["--gpus-per-node=h200:1"],
            ["--gpus-per-task", "1"],
            ["-G", "1"],
            ["-G1"],
            ["--tres-per-task=gres/gpu:1"],
            ["--tres-per-task", "cpu:4,gres/gpu=1"],
        ):
            with self.subTest(options=options):
                submitted = self.submit(*options)
                self.assertIn("tasks on cuda", submitted.output)
                self.assertEqual(submitted.array[-1], "cuda")
                self.assertTrue([word for word in options_of(submitted.array) if "gpu" in word])
                self.assertFalse([word for word in options_of(submitted.report) if "gpu" in word])

    def test_other_resources_are_no_gpus(self) -> None:
        for options in (
            ["--gres", "nvme:100"],
            ["--gres=craynetwork:0,nvme:gpu:3"],
            ["--gres=gpu:0"],
            ["--gres=none"],
            ["--gres=gpumem:8"],
            ["--gpus=0"],
            ["--tres-per-task=cpu:4"],
            ["--licenses=gpu:1"],
            ["--partition=gpu"],
        ):
            with self.subTest(options=options):
                submitted = self.submit(*options)
                self.assertIn("tasks on cpu", submitted.output)
                self.assertEqual(submitted.array[-1], "cpu")

    def test_the_report_keeps_what_is_no_gpu(self) -> None:
        submitted = self.submit(
            "--gres=craynetwork:0,gpu:1", "--tres-per-task=cpu:4,gres/gpu:1", "--cpus-per-gpu=4"
        )
        self.assertEqual(values(submitted.array, "--gres"), ["craynetwork:0,gpu:1"])
        self.assertEqual(values(submitted.array, "--cpus-per-gpu"), ["4"])
        self.assertEqual(values(submitted.report, "--gres"), ["craynetwork:0"])
        self.assertEqual(values(submitted.report, "--tres-per-task"), ["cpu:4"])
        self.assertEqual(values(submitted.report, "--cpus-per-gpu"), [])


if __name__ == "__main__":
    unittest.main()
