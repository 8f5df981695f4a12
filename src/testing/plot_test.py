#!/usr/bin/env python3
"""Runs scripts/plot.py on the small made-up tables beside this file: every figure comes out, twice
the same bytes, rows that are not ok are counted, and bad input is refused.

Exit status 77 (skipped) when .venv, where matplotlib lives, has not been made.
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
TABLES = SOURCE / "src/testing/tables"
FIGURES = ["four_panels", "recall", "jacobian", "latency", "learning_curves"]
SKIPPED = 77


def plot(tables: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PYTHON, SOURCE / "scripts/plot.py", tables, "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_plot(tables: Path, out: Path) -> str:
    process = plot(tables, out)
    output, errors = process.communicate()
    if process.returncode != 0:
        raise AssertionError(errors)
    return output


def run_python(program: str, tables: Path) -> str:
    """What the program prints, with `report` holding the tables."""
    start = (
        "import sys; from pathlib import Path; from plotting.tables import Report\n"
        "report = Report(Path(sys.argv[1]))\n"
    )
    return subprocess.run(
        [PYTHON, "-c", start + program, tables],
        cwd=SOURCE / "scripts",
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def accuracy_row(
    label: str,
    *,
    accuracy: float,
    n_pairs: int = 24,
    n_heads: int = 4,
    taps: int = 4,
    seed: int = 43,
    steps: int = 3000,
) -> str:
    """Of accuracy.csv, in the order of its header; the label begins with the mixer."""
    return (
        f"mqar,{label},{label.split()[0]},{n_pairs},32,{n_heads},{3 * n_pairs + 1},paper,{taps},"
        f"{seed},{steps},{accuracy},0.1,31.5,cpu,float32,ok,"
    )


def accuracy_table(rows: list[str]) -> str:
    header = (TABLES / "accuracy.csv").read_text().splitlines()[0]
    return "\n".join([header, *rows]) + "\n"


class PlotTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_two_runs_give_the_same_bytes(self) -> None:
        folders = [self.folder / "first", self.folder / "second"]
        for process in [plot(TABLES, folder) for folder in folders]:
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 0, errors)
            # One capacity setting alone: the figure that compares settings has nothing to add.
            self.assertIn("accuracy: nothing to draw", errors)
            # Nor has the one for mixers with a short convolution.
            self.assertIn("load: nothing to draw", errors)
        names = sorted(path.name for path in folders[0].iterdir())
        self.assertEqual(names, sorted(f"{f}.{kind}" for f in FIGURES for kind in ("pdf", "png")))
        for name in names:
            first, second = ((folder / name).read_bytes() for folder in folders)
            self.assertEqual(first, second, f"{name} differs between two runs")

    def test_missing_tables_are_said(self) -> None:
        shutil.copy(TABLES / "state_norm.csv", self.folder)
        process = plot(self.folder, self.folder / "figures")
        _, errors = process.communicate()
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("jacobian: nothing to draw", errors)
        self.assertTrue((self.folder / "figures/four_panels.png").exists())

    def test_bad_input_is_refused(self) -> None:
        (self.folder / "ragged").mkdir()
        (self.folder / "ragged/recall.csv").write_text("label,d_h\nvla\n")
        for tables, message in ((self.folder, "no tables"), (self.folder / "ragged", "recall.csv")):
            process = plot(tables, self.folder / "figures")
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 2, errors)
            self.assertIn(message, errors)

    def test_rows_that_are_not_ok_are_counted(self) -> None:
        output = run_python(
            "print(report.left_out('accuracy'), report.left_out('history'), sep='|')\n"
            "assert all(row['status'] == 'ok' for row in report.rows('accuracy'))\n",
            TABLES,
        )
        self.assertEqual(output.strip(), "accuracy.csv: rows left out: 1 diverged.|")

    def test_recall_bars_are_over_seeds_where_there_are_several(self) -> None:
        (self.folder / "recall.csv").write_text(
            "label,mixer,d_h,n_pairs,trials,accuracy,ci95,status,reason\n"
            "vla,vla,16,4,20,0.2,0.01,ok,\n"
            "vla,vla,16,4,20,0.6,0.02,ok,\n"
            "vla,vla,16,8,20,0.1,0.03,ok,\n"
        )
        show = (
            "from plotting.tables import recall_rows\n"
            "print([(row['n_pairs'], row['accuracy'], row['ci95']) for row in recall_rows(report)])"
        )
        # Without a summary: what the trials gave.
        self.assertIn("('8', '0.1', '0.03')", run_python(show, self.folder))
        (self.folder / "recall_summary.csv").write_text(
            "label,mixer,d_h,n_pairs,trials,count_ok,count_not_ok,accuracy_mean,accuracy_sd,"
            "accuracy_ci95,config\n"
            "vla,vla,16,4,20,2,0,0.4,0.28,2.5,a\n"
            "vla,vla,16,8,20,1,0,0.1,,,a\n"
            "vla,vla,16,9,20,0,1,,,,a\n"
        )
        self.assertEqual(
            run_python(show, self.folder).strip(), "[('4', '0.4', '2.5'), ('8', '0.1', '0.03')]"
        )
        self.assertIn("recall.png", run_plot(self.folder, self.folder / "figures"))

    def test_the_recall_grid_is_a_table_a_size(self) -> None:
        output = subprocess.run(
            [PYTHON, SOURCE / "scripts/recall_grid.py", TABLES],
            text=True,
            check=True,
            capture_output=True,
        ).stdout
        sizes = [line for line in output.splitlines() if line.startswith("d_h")]
        self.assertEqual(sizes, ["d_h = 16", "d_h = 32"])
        grid = [line for line in output.splitlines() if line.startswith("|")]
        self.assertEqual(len({line.count("|") for line in grid}), 1, "all rows are of one width")
        self.assertIn("0.115", next(line for line in grid if line.startswith("| softmax")))

    def test_load_has_a_curve_a_mixer_over_all_shapes(self) -> None:
        def line(label: str, n_pairs: int, n_heads: int, seed: int, accuracy: float) -> str:
            return accuracy_row(
                f"{label} lr=0.001", n_pairs=n_pairs, n_heads=n_heads, seed=seed, accuracy=accuracy
            )

        rows = [
            line("vla", 32, 4, 43, 1.0),  # load 1/4
            line("vla", 32, 1, 43, 0.5),  # load 1
            line("vla", 128, 4, 43, 0.9),  # load 1, another shape
            line("linear", 32, 4, 43, 0.8),
        ]
        program = (
            "from plotting.panels import load_rows\n"
            "from plotting.tables import series_by_label\n"
            "lines = series_by_label(load_rows(report), 'load', 'accuracy')\n"
            "print({label: list(zip(line.x, line.mean)) for label, line in lines.items()})"
        )
        table = self.folder / "accuracy.csv"
        table.write_text(accuracy_table(rows))
        self.assertEqual(
            run_python(program, self.folder).strip(),
            "{'linear': [(0.25, 0.8)], 'vla': [(0.25, 1.0), (1.0, 0.7)]}",
        )
        self.assertIn("load.png", run_plot(self.folder, self.folder / "figures"))
        # Nor do the points' rates split a curve against the pairs.
        labels = (
            "from plotting.panels import capacity_rows\n"
            "print(sorted({row['label'] for row in capacity_rows(report)}))"
        )
        self.assertEqual(run_python(labels, self.folder).strip(), "['linear', 'vla']")
        # One head has one number of pairs: no curve, and the figure says that it leaves it out.
        shown = (
            "from plotting.figures import accuracy\n"
            "from plotting.style import line_styles, set_up\n"
            "set_up()\n"
            "figure = accuracy(report, line_styles(report))\n"
            "print(len(figure.axes), 'pairs are not shown: 1.' in str(figure.texts))"
        )
        self.assertEqual(run_python(shown, self.folder).strip(), "1 True")
        # The same point at two rates: averaging them would be neither's accuracy.
        twice = rows[0].replace("lr=0.001", "lr=0.01")
        table.write_text(accuracy_table([*rows, twice]))
        self.assertEqual(run_python(program, self.folder).strip(), "{}")
        self.assertEqual(
            run_python(labels, self.folder).strip(),
            "['linear lr=0.001', 'vla lr=0.001', 'vla lr=0.01']",
        )

    def test_changes_at_one_number_of_pairs_get_a_row_each(self) -> None:
        def line(label: str, taps: int, steps: int, accuracy: float) -> str:
            return accuracy_row(label, taps=taps, steps=steps, accuracy=accuracy)

        mixers = ["softmax", "linear", "deltanet", "deltanet variant=standard"]
        rows = [line(f"{mixer} lr=0.0003", 0, 3000, 0.1) for mixer in mixers]
        rows += [line(f"{mixer} lr=0.0003", 4, 3000, 0.9) for mixer in mixers]
        rows += [line("softmax lr=0.001", 0, 30000, 0.2)]
        program = (
            "from plotting.panels import comparison_rows\n"
            "rows, usual = comparison_rows(report)\n"
            "print([(row['label'], row['accuracy']) for row in rows][3:], usual.get('lr'))"
        )
        table = self.folder / "accuracy.csv"
        table.write_text(accuracy_table(rows))
        self.assertEqual(
            run_python(program, self.folder).strip(),
            "[('deltanet variant=standard', '0.1'), ('softmax, short conv 4', '0.9'), "
            "('linear, short conv 4', '0.9'), ('deltanet, short conv 4', '0.9'), "
            "('deltanet variant=standard, short conv 4', '0.9'), "
            "('softmax, lr 0.001, 30000 steps', '0.2')] 0.0003",
        )
        figures = run_plot(self.folder, self.folder / "figures")
        self.assertIn("comparison.png", figures)
        self.assertNotIn("accuracy.png", figures)
        self.assertNotIn("four_panels.png", figures)
        # Eight stand in a legend; and a second number of pairs makes curves of them.
        for others in (rows[:8], [*rows, rows[0].replace(",24,32,4,73,", ",8,32,4,25,")]):
            table.write_text(accuracy_table(others))
            self.assertEqual(run_python(program, self.folder).strip(), "[] None")

    def test_the_papers_figure_has_the_panels_that_have_data(self) -> None:
        titles = (
            "from plotting.figures import four_panels\n"
            "from plotting.style import line_styles, set_up\n"
            "set_up()\n"
            "figure = four_panels(report, line_styles(report))\n"
            "print([axes.get_title().splitlines()[0] for axes in figure.axes])"
        )
        everything = "['Latency', 'State norm', 'Capacity', 'Long context']"
        self.assertEqual(run_python(titles, TABLES).strip(), everything)
        for table in TABLES.glob("*.csv"):
            shutil.copy(table, self.folder)
        lines = (TABLES / "accuracy.csv").read_text().splitlines(keepends=True)
        header = lines[0].strip().split(",")
        n_pairs, seq_len = header.index("n_pairs"), header.index("seq_len")
        usual, longer = [], {}
        for line in lines[1:]:
            tokens, pairs = (int(line.split(",")[column]) for column in (seq_len, n_pairs))
            (usual if tokens == 3 * pairs + 1 else longer.setdefault(tokens, [])).append(line)
        self.assertGreater(len(longer), 1)
        # One length alone is no curve over lengths: sweeps over pairs may be of one, too.
        for others in ([], next(iter(longer.values()))):
            (self.folder / "accuracy.csv").write_text("".join([lines[0], *usual, *others]))
            self.assertEqual(
                run_python(titles, self.folder).strip(), "['Latency', 'State norm', 'Capacity']"
            )


if __name__ == "__main__":
    if not PYTHON.exists():
        print("skipped: no .venv (scripts/setup.sh makes it)")
        sys.exit(SKIPPED)
    unittest.main()
