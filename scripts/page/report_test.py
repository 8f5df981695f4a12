#!/usr/bin/env python3
"""What scripts/report.py writes, and what it refuses; page_test.py looks at the page in a browser.

Exit status 77 (skipped) without .venv, which scripts/setup.sh makes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PYTHON = SOURCE / ".venv/bin/python"
MADE_UP = SOURCE / "src/testing/tables"
LEDGER = MADE_UP / "ledger.json"
SKIPPED = 77

FIGURES = {"four_panels", "recall", "jacobian", "latency", "learning_curves"}


def skip_without_python() -> None:
    if not PYTHON.exists():
        print("skipped: no .venv (scripts/setup.sh makes it)")
        sys.exit(SKIPPED)


def start_report(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(PYTHON), str(SOURCE / "scripts/report.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_report(*arguments: object) -> tuple[int, str]:
    """Exit status and messages."""
    process = start_report(*arguments)
    _, errors = process.communicate()
    return process.returncode, errors


class Temporary(unittest.TestCase):
    folder: Path

    @classmethod
    def setUpClass(cls) -> None:
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = Path(temporary.name)


class ReportTest(Temporary):
    def test_the_page_of_tables(self) -> None:
        # Two runs give the same bytes.
        pages = [self.folder / "first.html", self.folder / "second.html"]
        for process in [start_report(MADE_UP, "--ledger", LEDGER, "--out", page) for page in pages]:
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 0, errors)
        self.assertEqual(pages[0].read_bytes(), pages[1].read_bytes())
        text = pages[0].read_text(encoding="utf-8")
        self.assertNotIn(str(SOURCE), text, "a page names no one's directories")
        self.assertNotRegex(text, r"\b20\d\d-\d\d-\d\d\b", "a date changes the bytes")
        # Cells that are not ok are told above the tables.
        self.assertIn("accuracy_summary.csv: not all cells are ok in 1 of 24 rows, none in 0", text)
        self.assertIn("recall_summary.csv: not all cells are ok in 1 of 31 rows, none in 1", text)

    def test_every_figure_has_a_title(self) -> None:
        program = (
            "from page.figures import ABOUT\n"
            "from plotting.figures import FIGURES\n"
            "print(ABOUT.keys() ^ FIGURES.keys())"
        )
        output = subprocess.run(
            [PYTHON, "-c", program],
            cwd=SOURCE / "scripts",
            text=True,
            check=True,
            capture_output=True,
        ).stdout
        self.assertEqual(output.strip(), "set()")

    def test_what_is_missing_is_said(self) -> None:
        tables = self.folder / "bare"
        tables.mkdir()
        (tables / "latency_fit.csv").write_text("label,exponent\nvla,1.0\n")
        page = self.folder / "bare.html"
        code, errors = run_report(tables, "--out", page, "--ledger", self.folder / "nowhere.json")
        self.assertEqual(code, 0, errors)
        text = page.read_text(encoding="utf-8")
        for sentence in (
            "there was no nowhere.json",
            "hold nothing to draw",
            "No provenance was recorded",
        ):
            self.assertIn(sentence, text)
        code, errors = run_report(tables, "--out", page)
        self.assertEqual(code, 0, errors)
        self.assertIn("built without a ledger", page.read_text(encoding="utf-8"))

    def test_a_broken_document_is_named_and_the_rest_is_there(self) -> None:
        tables = self.folder / "broken"
        shutil.copytree(MADE_UP, tables)
        (tables / "provenance.json").write_text("{")
        (tables / "configs.json").write_text('{"no": "list"}')
        page = self.folder / "broken.html"
        code, errors = run_report(tables, MADE_UP, "--out", page)
        self.assertEqual(code, 1, errors)
        text = page.read_text(encoding="utf-8")
        for name in ("provenance.json of broken: ", "configs.json of broken: expected a list"):
            self.assertIn(f"report: {name}", errors)
            self.assertIn(f"Not read: {name}", text)
        for folder in ("broken", "tables"):
            for figure in FIGURES:
                self.assertIn(f'<figure id="{folder}-{figure}"', text)

    def test_bad_input_is_refused_and_nothing_written(self) -> None:
        (self.folder / "ledger.json").write_text('[["C1"]]')
        (self.folder / "ragged").mkdir()
        (self.folder / "ragged/recall_summary.csv").write_text("line,d_h\nvla\n")
        (self.folder / "old").mkdir()
        (self.folder / "old/recall_summary.csv").write_text("label,d_h\nvla,4\n")
        (self.folder / "empty").mkdir()
        page = self.folder / "never.html"
        for arguments, message in (
            ((MADE_UP, "--ledger", self.folder / "ledger.json"), "ledger.json: expected a list"),
            ((self.folder / "ragged",), "ragged"),
            ((self.folder / "old",), "expected a column `line`"),
            ((self.folder / "empty",), "no tables (*.csv)"),
            ((MADE_UP, MADE_UP), "given twice"),
        ):
            code, errors = run_report(*arguments, "--out", page)
            self.assertEqual(code, 2, errors)
            self.assertIn(message, errors)
            self.assertFalse(page.exists())


if __name__ == "__main__":
    skip_without_python()
    unittest.main()
