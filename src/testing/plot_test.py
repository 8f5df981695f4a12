#!/usr/bin/env python3
"""The files of scripts/plot.py, what its figures say is missing, names and looks (plot_case.py)."""

from __future__ import annotations

import csv
import shutil
import unittest
from pathlib import Path

from plot_case import KINDS, TABLES, PlotCase, accuracy_row, columns, main, plot

FIGURES = ["four_panels", "recall", "jacobian", "latency", "learning_curves"]


class PlotTest(PlotCase):
    # Files.

    def test_two_runs_give_the_same_bytes(self) -> None:
        folders = [self.folder / "first", self.folder / "second"]
        for process in [plot(TABLES, folder) for folder in folders]:
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 0, errors)
            wanted = ("three_panels", "streams", "accuracy", "state_norm", "comparison", "load", "state")
            for nothing in wanted:
                self.assertIn(f"{nothing}: nothing to draw", errors)
        names = sorted(path.name for path in folders[0].iterdir())
        self.assertEqual(names, sorted(f"{f}.{kind}" for f in FIGURES for kind in KINDS))
        for name in names:
            first, second = ((folder / name).read_bytes() for folder in folders)
            self.assertEqual(first, second, f"{name} differs between two runs")

    def test_a_figure_without_its_inputs_is_removed(self) -> None:
        for table in ("recall_summary", "jacobian_curve", "jacobian_summary"):
            shutil.copy(TABLES / f"{table}.csv", self.folder)
        self.run_plot()
        self.assertEqual(len(list(self.figures.glob("recall.*"))), len(KINDS))
        (self.figures / "mine.txt").write_text("kept")
        (self.folder / "recall_summary.csv").unlink()
        errors = self.run_plot()
        self.assertIn("removed", errors)
        names = {path.name for path in self.figures.iterdir()}
        self.assertEqual(names, {"mine.txt", *(f"jacobian.{kind}" for kind in KINDS)})

    def test_bad_input_is_refused(self) -> None:
        self.assertIn("no tables", self.refused(self.folder, self.figures))
        table = self.folder / "recall_summary.csv"
        for text, message in (
            ("line,d_h\nvla\n", "recall_summary.csv: a row has more or fewer fields"),
            ("label,d_h\nvla,4\n", "recall_summary.csv: expected a column `line`"),
            ("line,d_h\nvla,4\n", "no column 'trials'"),
        ):
            table.write_text(text)
            self.assertIn(message, self.refused(self.folder, self.figures))
        self.assertFalse(self.figures.exists())

    def test_a_folder_that_cannot_be_written_is_said(self) -> None:
        (self.folder / "file").write_text("in the way")
        for out in (self.folder / "file", self.folder / "file/below", Path("/proc/figures")):
            self.assertIn(f"cannot write figures into {out}", self.refused(TABLES, out))

    def test_no_table_is_replaced_by_a_figure(self) -> None:
        (self.folder / "latency.csv").write_text("label,median_s\nvla,1\n")
        shutil.copy(TABLES / "latency_summary.csv", self.folder)
        self.assertIn("latency.csv: not a figure's numbers", self.refused(self.folder, self.folder))
        self.assertIn("median_s", (self.folder / "latency.csv").read_text())

    def test_a_point_twice_is_refused(self) -> None:
        self.write("accuracy_summary", [accuracy_row("vla", 0.5), accuracy_row("vla", 0.7)])
        self.assertIn("two rows of line vla at n_pairs 24", self.refused(self.folder, self.figures))

    def test_what_is_not_ok_is_named(self) -> None:
        notes = self.notes("four_panels", TABLES)
        self.assertIn(
            "Not all cells are ok. deltanet, n = 16: 1 of 2 ok "
            "(seed 43: diverged: loss is nan at step 17)",
            notes,
        )
        self.assertIn("VLA T = 143 (136 to 150, measured)", notes)
        notes = self.notes("latency", TABLES)
        skipped = "softmax, T = 4096: not drawn, 0 of 1 ok (seed 42: skipped: out of memory)"
        self.assertIn(skipped, notes)

    def test_probes_that_measured_nothing_are_named(self) -> None:
        for table in ("jacobian_curve", "jacobian_summary"):
            shutil.copy(TABLES / f"{table}.csv", self.folder)
        with (self.folder / "jacobian_summary.csv").open("a", newline="") as file:
            writer = csv.DictWriter(file, columns("jacobian_summary"), restval="")
            failed = {"line": "mine", "cells": "0 of 1", "not_ok": "seed 1: failed: no memory"}
            writer.writerow(failed | {"config": "other"})
        notes = self.notes("jacobian")
        self.assertIn("No curve: mine: not drawn, 0 of 1 ok (seed 1: failed: no memory).", notes)

    def test_an_ok_row_without_a_value_is_named(self) -> None:
        rows = [accuracy_row("vla", 0.5, n_pairs=4), accuracy_row("vla", None, n_pairs=8)]
        self.write("accuracy_summary", rows)
        self.assertIn("Not drawn: vla: 1 row without accuracy_mean.", self.notes("four_panels"))

    def test_a_task_without_pairs_is_named(self) -> None:
        rows = [accuracy_row("vla", 0.5), accuracy_row("vla", 1.0, experiment="copy")]
        self.write("accuracy_summary", rows)
        self.assertIn("Not drawn: 1 row of copy.", self.notes("four_panels"))

    def test_panels_that_a_picture_cannot_hold_are_named(self) -> None:
        rows = [self.recall_row("vla", "feature", 0.5, d_h=d_h) for d_h in range(1, 63)]
        self.write("recall_summary", rows)
        self.assertEqual(self.python("print(len(charts['recall'].panels))"), "60")
        self.assertIn("Not drawn: 2 of 62 panels: feature keys, d_h = 61, accuracy", self.notes("recall"))

    def test_the_papers_figure_has_the_panels_that_have_data(self) -> None:
        titles = "print([panel.title.splitlines()[0] for panel in charts['four_panels'].panels])"
        everything = "['Latency', 'State norm', 'Capacity', 'Long context']"
        self.assertEqual(self.python(titles, TABLES), everything)
        for table in TABLES.glob("*.csv"):
            shutil.copy(table, self.folder)
        with (TABLES / "accuracy_summary.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["steps"] == "3000"]
        self.write("accuracy_summary", rows)
        self.assertEqual(self.python(titles), "['Latency', 'State norm', 'Capacity']")

    # Names and looks.

    def test_every_label_stands_in_the_legend(self) -> None:
        labels = ["_ours", "a$_$b", "$", "half $x", "vla"]
        rows = [
            accuracy_row(label, 0.5, n_pairs=n, mixer="vla") for label in labels for n in (4, 8)
        ]
        self.write("accuracy_summary", rows)
        self.run_plot()
        (lines,) = self.drawn("four_panels").values()
        self.assertEqual(set(lines), set(labels))
        shown = self.python(
            "figure = draw(charts['four_panels'], styles)\n"
            "figure.draw_without_rendering()\n"
            "for text in figure.legends[0].get_texts(): print(text.get_text())"
        )
        names = [label.replace("$", r"\$") for label in labels if label != "vla"]
        self.assertEqual(shown.splitlines()[0], "VLA", "the mixer's own name comes first")
        self.assertEqual(set(shown.splitlines()), {"VLA", *names})

    def test_lines_of_a_mixer_share_its_colour_and_nothing_else(self) -> None:
        labels = ["vla", "vla lr=0.001", "vla lr=0.01", "mine", "softmax"]
        rows = [
            accuracy_row(label, 0.5, n_pairs=n, mixer="softmax" if label == "softmax" else "vla")
            for label in labels
            for n in (4, 8)
        ]
        self.write("accuracy_summary", rows)
        looks = self.python(
            "for name, style in styles.items():\n"
            "  print(name, style.colour, style.marker, style.dash, sep=';')"
        )
        styles = {name: look for name, *look in (line.split(";") for line in looks.splitlines())}
        self.assertEqual(styles["VLA"], ["#0072B2", "D", "solid"])
        self.assertEqual(styles["softmax"], ["#000000", "o", "solid"])
        blue = [tuple(look) for look in styles.values() if look[0] == "#0072B2"]
        self.assertEqual(len(set(blue)), 4)
        self.assertEqual(len({look[2] for look in blue}), 4)

    def test_lines_of_the_first_figure_have_looks_before_those_of_later_ones(self) -> None:
        printed = self.python(
            "from plotting.chart import Axis, Chart, Curve, Panel, Source\n"
            "from plotting.style import line_styles\n"
            "source, axis = Source('', '', '', '', []), Axis('')\n"
            "def figure(*names):\n"
            "  curves = [Curve(name, name, 'vla', []) for name in names]\n"
            "  return Chart([Panel('', curves, axis, axis, source, '')], [])\n"
            "styles = line_styles([figure('vla', 'z'), figure('vla', 'a', 'z')])\n"
            "print(*[styles[name].dash for name in ('vla', 'z', 'a')])"
        )
        self.assertEqual(printed.split(), ["solid", "dashed", "dotted"])

    def test_every_mixer_has_a_look_of_its_own_in_both_schemes(self) -> None:
        looks = self.python(
            "from page.colours import LINES, variable\n"
            "from plotting import style\n"
            "mixers = style.MIXERS\n"
            "print(len(mixers), len({mixers[name]['colour'] for name in mixers}),\n"
            "      len({str(style.mixer_style(name).marker) for name in mixers}),\n"
            "      len({variable(mixers[name]['colour']) for name in mixers}))\n"
            "print(len(set(style.PALETTE) - {mixer['colour'] for mixer in mixers.values()}),\n"
            "      len({*map(variable, style.PALETTE)}), len({*LINES.values()}) + 1)"
        )
        mixers, palette = ([int(count) for count in line.split()] for line in looks.splitlines())
        self.assertEqual(mixers, [mixers[0]] * 4)
        self.assertGreaterEqual(palette[0], 2, "colours for other lines")
        self.assertEqual(palette[1], palette[2])

    def test_what_the_title_says_stands_in_no_name(self) -> None:
        rows = [
            accuracy_row(f"vla steps={steps}", 0.5, n_pairs=n, steps=steps)
            for steps in (1000, 3000)
            for n in (4, 8)
        ]
        self.write("accuracy_summary", rows)
        self.run_plot()
        lines = [line for panel in self.drawn("accuracy").values() for line in panel]
        self.assertEqual(lines, ["vla steps=1000", "vla steps=3000"], "as in the tables")
        self.assertEqual(self.python("print(*styles)"), "VLA")


if __name__ == "__main__":
    main()
