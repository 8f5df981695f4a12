#!/usr/bin/env python3
"""The installed program finds its configs and experiments, from any working directory and also after
the installation was moved.

CMAKE_COMMAND and BUILD_DIR name CMake and the build to install.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]


class Installation(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        first = Path(temporary.name) / "first"
        subprocess.run(
            [os.environ["CMAKE_COMMAND"], "--install", os.environ["BUILD_DIR"], "--prefix", first],
            check=True,
            capture_output=True,
        )
        cls.prefix = first.rename(first.with_name("moved"))
        cls.program = cls.prefix / "bin" / "vla-bench"
        cls.share = cls.prefix / "share" / "vla-bench"

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.elsewhere = Path(temporary.name)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, cwd=self.elsewhere
        )

    def test_all_configs_and_experiments_are_installed(self) -> None:
        for folder in ("configs", "experiments"):
            ours = {path.relative_to(SOURCE) for path in (SOURCE / folder).rglob("*.json")}
            theirs = {path.relative_to(self.share) for path in (self.share / folder).rglob("*.json")}
            self.assertEqual(ours, theirs)
            self.assertGreater(len(ours), 5)

    def test_configs_are_found_by_path_and_by_plain_name(self) -> None:
        plans = [
            self.call("plan", name, "--device", "cpu", "--format", "csv")
            for name in ("configs/quick.json", "quick")
        ]
        for plan in plans:
            self.assertEqual(plan.returncode, 0, plan.stderr)
            self.assertIn("results/runs/quick", plan.stdout)
        self.assertEqual(plans[0].stdout, plans[1].stdout)
        self.assertEqual(self.call("sample", "mqar").returncode, 0)
        dry = self.call("run", "experiments/10_copy/config.json", "--dry-run", "--device", "cpu")
        self.assertEqual(dry.returncode, 0, dry.stderr)

    def test_claims_finds_the_experiments(self) -> None:
        ledger = self.call("claims", "--format", "csv")
        self.assertEqual(ledger.returncode, 1, ledger.stderr)  # nothing was run
        for claim in ("C1", "C11", "F3"):
            self.assertIn(f"\n{claim},", ledger.stdout)

    def test_what_lies_in_the_working_directory_goes_first(self) -> None:
        (self.elsewhere / "configs").mkdir()
        (self.elsewhere / "configs" / "quick.json").write_text(
            '{"experiment": "recall", "name": "mine"}'
        )
        plan = self.call("plan", "configs/quick.json", "--device", "cpu")
        self.assertIn("results/runs/mine", plan.stdout)

    def test_what_is_nowhere_is_named(self) -> None:
        for name in ("quik", "configs/quik.json", "../quick", "/quick"):
            plan = self.call("plan", name)
            self.assertEqual(plan.returncode, 2, name)
            self.assertIn(name, plan.stderr)


if __name__ == "__main__":
    unittest.main()
