#!/usr/bin/env python3
"""The points, lines and panels that scripts/plot.py draws, by the CSV beside each figure (plot_case.py)."""

from __future__ import annotations

from typing import Any

from plot_case import PlotCase, Row, accuracy_row, main, spread


class PlotPointsTest(PlotCase):
    def test_points_are_the_summarys(self) -> None:
        rows = [accuracy_row("vla", 0.25, n_pairs=n, cells="3 of 5") for n in (4, 8)]
        rows[0] |= {"accuracy_low": 0.125, "accuracy_high": 0.75}
        rows[1] |= {"accuracy_low": "", "accuracy_high": "", "not_ok": "seed 44: diverged: loss"}
        self.write("accuracy_summary", rows)
        self.run_plot()
        (lines,) = self.drawn("four_panels").values()
        points = [("4", "0.25", "0.125", "0.75", "3 of 5"), ("8", "0.25", "", "", "3 of 5")]
        self.assertEqual(lines, {"vla": points})

    def test_learning_rates_are_lines(self) -> None:
        """Case 3."""
        rows = [
            accuracy_row(f"vla lr={lr}", accuracy, n_pairs=n, learning_rate=lr)
            for lr, accuracy in ((0.001, 0.375), (0.03, 1.0))
            for n in (1, 2, 3)
        ]
        self.write("accuracy_summary", rows)
        self.run_plot()
        (lines,) = self.drawn("four_panels").values()
        self.assertEqual(list(lines), ["vla lr=0.001", "vla lr=0.03"])
        for line, accuracy in (("vla lr=0.001", "0.375"), ("vla lr=0.03", "1")):
            self.assertEqual([point[:2] for point in lines[line]], [(n, accuracy) for n in "123"])

    def test_a_rate_that_changes_along_a_line_is_said(self) -> None:
        rows = [
            accuracy_row("vla", 0.5, n_pairs=4, learning_rate="3e-04", setting="curriculum=0"),
            accuracy_row("vla", 0.5, n_pairs=8, learning_rate="0.01", setting="curriculum=1500"),
        ]
        self.write("accuracy_summary", rows)
        notes = self.notes("four_panels")
        self.assertIn("Not the same learning rate at all points: vla: 0.0003, 0.01.", notes)
        self.assertIn("Not the same curriculum at all points: vla: 0, 1500.", notes)

    def test_sizes_of_a_state_are_panels(self) -> None:
        """Case 3c."""
        self.write(
            "state_norm_curve",
            [
                {
                    **{"line": "vla", "label": "vla", "mixer": "vla", "precision": "float32"},
                    **{"source": "model", "n_heads": 1, "d_h": d_h, "t": t, "cells": "2 of 2"},
                    **spread("s_norm", norm * t),
                }
                for d_h, norm in ((4, 5.5), (32, 56.4))
                for t in (1, 2)
            ],
        )
        self.run_plot()
        panels = self.drawn("state_norm")
        ends = {panel: lines["vla"][-1][1] for panel, lines in panels.items()}
        axis = "Frobenius norm of S_t"
        self.assertEqual(
            ends, {f"H = 1, d_h = 4, {axis}": "11", f"H = 1, d_h = 32, {axis}": "112.8"}
        )
        self.assertFalse((self.figures / "four_panels.png").exists(), "it would show half of this")

    def test_recall_of_other_keys_is_apart(self) -> None:
        """Case 3d, in the figure and in the grid."""
        rows = [
            self.recall_row(label, keys, accuracy)
            for label in ("linear", "vla")
            for keys, accuracy in (("feature", 0.5), ("gaussian", 0.75))
        ]
        rows[-1] |= {"cells": "1 of 2", "not_ok": "seed 2: failed: out of memory"}
        rows.append(self.recall_row("vla", "feature", None, n_pairs=8, cells="0 of 2"))
        self.write("recall_summary", rows)
        self.run_plot()
        panels = self.drawn("recall")
        names = [f"{keys} keys, d_h = 8, accuracy (fraction)" for keys in ("feature", "gaussian")]
        self.assertEqual([*panels], names)
        for name, keys, accuracy in zip(names, ("feature", "gaussian"), ("0.5", "0.75")):
            lines = {line: [point[1] for point in points] for line, points in panels[name].items()}
            wanted = {f"{label} keys={keys}": [accuracy] for label in ("linear", "vla")}
            self.assertEqual(lines, wanted)
        shown = self.python("print(*(c.name for c in charts['recall'].panels[1].curves))")
        self.assertEqual(shown, "linear VLA", "the title has the keys")
        self.assertIn("The same at all points: linear, VLA.", self.notes("recall"))
        rows[0] |= spread("accuracy", 0.25)
        self.write("recall_summary", rows)
        self.assertNotIn("The same at all points", self.notes("recall"))
        grids = ("\n" + self.grid()).split("\nd_h = ")[1:]
        titles = [grid.splitlines()[0] for grid in grids]
        self.assertEqual(titles, ["8, keys=feature", "8, keys=gaussian"])
        self.assertIn("| vla    | 0.500 | none (0 of 2) |", grids[0])
        self.assertIn("| vla    | 0.750 (1 of 2) |", grids[1])
        self.assertIn("vla keys=gaussian, d_h = 8, n = 4: seed 2: failed: out of memory", grids[1])

    def test_recall_behind_a_stream_is_a_figure_of_its_own(self) -> None:
        rows = [
            self.recall_row(label, "gaussian", accuracy)
            | {"line": f"{label} keys=gaussian stream={stream}"}
            | {"setting": f"keys=gaussian stream={stream}"}
            for label, stream, accuracy in (("linear", 100, 0.5), ("linear", 1000, 0.1), ("vla", 100, 0.9))
        ]
        self.write("recall_summary", [*rows, self.recall_row("linear", "gaussian", 1.0)])
        self.run_plot()
        ((panel, lines),) = self.drawn("streams").items()
        self.assertEqual(panel, "gaussian keys, d_h = 8, n = 4, accuracy (fraction)")
        points = {line: [point[:2] for point in of_line] for line, of_line in lines.items()}
        wanted = {"linear": [("100", "0.5"), ("1000", "0.1")], "vla": [("100", "0.9")]}
        self.assertEqual(points, wanted)
        shown = self.python("print(*(c.name for c in charts['streams'].panels[0].curves))")
        self.assertEqual(shown, "linear VLA")
        self.assertNotIn("Not the same", self.notes("streams"), "the axis says it")
        (lines,) = self.drawn("recall").values()
        self.assertEqual(len(lines), 1, "pairs that no stream precedes")

    def test_pairs_at_a_fixed_length_are_drawn(self) -> None:
        """Case 4: zoology, task.seq_len=32. 2 pairs of 8 would follow with 8 tokens, 8 with 32."""
        mixers = ["softmax", "linear", "deltanet", "vla"]
        rows = [
            accuracy_row(mixer, 0.5, n_pairs=n, layout="zoology", seq_len=32)
            for mixer in mixers
            for n in (2, 4, 8)
        ]
        self.write("accuracy_summary", rows)
        self.run_plot()
        ((panel, lines),) = self.drawn("four_panels").items()
        self.assertEqual(
            panel,
            "Capacity, zoology layout, d_h = 32, H = 4, 3000 steps, T = 32, accuracy (fraction)",
        )
        self.assertEqual(set(lines), set(mixers))
        for points in lines.values():
            self.assertEqual([point[0] for point in points], ["2", "4", "8"])
        # Next to a sweep whose length follows n_pairs, each fixed length has its own panel.
        more = [
            accuracy_row("vla", 0.5, n_pairs=n, layout="zoology", seq_len=4 * n) for n in (2, 4)
        ]
        self.write("accuracy_summary", rows + more)
        self.run_plot()
        panels = self.drawn("accuracy")
        setting = "zoology layout, d_h = 32, H = 4, 3000 steps"
        self.assertEqual(
            [panel.removesuffix(", accuracy (fraction)") for panel in panels],
            [f"{setting}{more}" for more in ("", ", T = 32", ", n = 2", ", n = 4")],
        )
        count = sum(len(points) for panel in list(panels)[:2] for points in panels[panel].values())
        self.assertEqual(count, len(rows) + len(more))

    def test_lengths_follow_the_pairs_with_passes_and_rewrites(self) -> None:
        rows = [
            accuracy_row("vla", 0.5, n_pairs=n, seq_len=7 * n + 3, setting="passes=3 rewrites=1")
            for n in (2, 4, 8)
        ]
        self.write("accuracy_summary", rows)
        self.run_plot()
        self.assertFalse([panel for panel in self.drawn("four_panels") if "T by n" in panel])
        self.write("accuracy_summary", [row | {"setting": "passes=2"} for row in rows])
        self.run_plot()
        self.assertTrue([panel for panel in self.drawn("four_panels") if "T by n" in panel])

    def test_load_has_a_curve_a_line_and_shape(self) -> None:
        def row(line: str, n_pairs: int, n_heads: int, accuracy: float, **more: Any) -> Row:
            wanted = {"n_pairs": n_pairs, "n_heads": n_heads, "short_conv": 4, **more}
            return accuracy_row(line, accuracy, **wanted)

        rows = [
            row("vla", 32, 4, 1.0),  # load 1/4
            row("vla", 32, 1, 0.5),  # load 1
            row("vla", 128, 4, 0.9),  # load 1, another shape
            row("linear", 32, 4, 0.8),
            row("linear", 32, 4, 0.1, short_conv=0),
        ]
        self.write("accuracy_summary", rows)
        self.run_plot()
        (lines,) = self.drawn("load").values()
        self.assertEqual(
            {line: [point[:2] for point in points] for line, points in lines.items()},
            {
                "linear, 4 x 32": [("0.25", "0.8")],
                "vla, 1 x 32": [("1", "0.5")],
                "vla, 4 x 32": [("0.25", "1"), ("1", "0.9")],
            },
        )
        self.assertIn("Not drawn: 1 row without a short convolution.", self.notes("load"))
        # One head has one number of pairs: no curve, and the figure says what it leaves out.
        left = "short conv 4, d_h = 32, H = 1, 3000 steps, n = 32 (1 row)"
        self.assertIn(left, self.notes("accuracy"))
        looks = self.python(
            "from plotting.style import style_of\n"
            "for curve in charts['load'].panels[0].curves:\n"
            "  look = style_of(curve, styles)\n"
            "  print(look.colour, look.marker, look.dash)"
        ).splitlines()
        self.assertEqual(looks, ["#E69F00 s solid", "#0072B2 o solid", "#0072B2 s solid"])

    def mean_row(self, line: str, d_h: int, accuracy: float | None, **more: Any) -> Row:
        """The mean over the slices of an evaluation."""
        row = accuracy_row(line, accuracy, d_h=d_h, n_heads=2, layout="zoology", slice="mean")
        return row | {"n_pairs": "", "seq_len": "", "state_bytes": 8 * d_h**2, **more}

    def test_state_has_the_published_curves_beside_the_measured(self) -> None:
        of_one = accuracy_row("deltanet", 0.25, d_h=32, n_heads=2, layout="zoology", n_pairs=4)
        rows = [
            self.mean_row("deltanet", 32, 0.75),
            self.mean_row("deltanet", 64, 0.95),
            self.mean_row("vla", 32, 0.8, state_bytes=16640),
            {**of_one, "slice": "64/4"},
        ]
        self.write("accuracy_summary", rows, "slice")
        self.run_plot()
        ((panel, lines),) = self.drawn("state").items()
        axis = "accuracy, mean over slices (fraction)"
        self.assertEqual(panel, f"zoology layout, 3000 steps, {axis}")
        points = {line: [point[:2] for point in points] for line, points in lines.items()}
        self.assertEqual(points["deltanet"], [("8192", "0.75"), ("32768", "0.95")])
        self.assertEqual(points["vla"], [("16640", "0.8")])
        published = [("9000", "0.79"), ("34000", "0.96"), ("134000", "0.99")]
        self.assertEqual(points["DeltaNet, published"], published)
        self.assertEqual(len(lines), 2 + 5)
        self.assertIn("bytes include the states of convolutions", self.notes("state"))
        looks = self.python(
            "from plotting.style import style_of\n"
            "for curve in charts['state'].panels[0].curves:\n"
            "  look = style_of(curve, styles)\n"
            "  print(curve.line, look.colour, look.hollow, sep=': ')"
        ).splitlines()
        self.assertEqual(looks[0], "deltanet: #009E73: False")
        self.assertEqual(looks[1], "DeltaNet, published: #009E73: True")
        published = [look for look in looks if look.endswith("True")]
        self.assertEqual(len({look.split(": ")[1] for look in published}), 5, "colours")

    def test_three_panels_join_accuracy_steps_and_time(self) -> None:
        rows = [
            self.mean_row("deltanet", 32, 0.75, config="d32"),
            self.mean_row("deltanet", 64, 0.95, config="d64"),
            self.mean_row("vla", 32, 0.8, config="v32", state_bytes=16640),
        ]
        self.write("accuracy_summary", rows, "slice")
        curve = [
            accuracy_row(line, accuracy, n_heads=2, d_h=d_h, n_pairs=n, seq_len=4 * n, config=config)
            | {"layout": "zoology", "step": step}
            for line, d_h, config in (("deltanet", 32, "d32"), ("deltanet", 64, "d64"), ("vla", 32, "v32"))
            for step, n, accuracy in ((500, 16, 0.9), (707, 64, 0.25), (1414, 64, 0.5))
        ]
        self.write("history_curve", curve)
        timing = {"device": "cuda", "processor": "a GPU", "precision": "tf32", "batch": 4}
        timing |= {"label": "deltanet", "line": "deltanet", "mixer": "deltanet", "n_heads": 2}
        timing |= {"pass": "forward", "implementation": "chunked", "cells": "1 of 1"}
        times = [
            timing | {"d_h": d_h, "seq_len": length, "median_s": seconds, **more}
            for d_h, length, seconds, more in (
                (32, 16384, 0.0005, {}),
                (64, 16384, 0.001, {}),
                (32, 4096, 0.1, {}),
                (32, 16384, 0.2, {"pass": "backward"}),
                (32, 16384, 0.3, {"processor": "another"}),
                (32, 16384, 0.4, {"implementation": "reference"}),
            )
        ]
        self.write("latency_summary", times)
        self.run_plot()
        state, steps, time = self.drawn("three_panels").values()
        points = {line: [point[:2] for point in of_line] for line, of_line in state.items()}
        self.assertEqual(points["deltanet"], [("8192", "0.75"), ("32768", "0.95")])
        self.assertEqual(points["vla"], [("16640", "0.8")])
        # Of the smallest model, on the fullest size.
        wanted = [("707", "0.25", "", "", "2 of 2"), ("1414", "0.5", "", "", "2 of 2")]
        self.assertEqual(steps, {"deltanet": wanted, "vla": wanted})
        points = {line: [point[:2] for point in of_line] for line, of_line in time.items()}
        self.assertEqual(points, {"deltanet": [("0.5", "0.75"), ("1", "0.95")]})
        notes = self.notes("three_panels")
        self.assertIn("; one layer, T = 16,384, batch 4, tf32, a GPU.", notes)
        self.assertIn("Not timed: vla.", notes)
        titles = self.python("print([p.title for p in charts['three_panels'].panels])")
        self.assertIn("d_model = 64, 64 pairs in 256 tokens", titles)
        (self.folder / "latency_summary.csv").unlink()
        self.run_plot()
        self.assertFalse((self.figures / "three_panels.png").exists(), "state shows this")

    def test_points_of_nearly_one_size_stand_side_by_side(self) -> None:
        printed = self.python(
            "from plotting.chart import Point\n"
            "from plotting.drawing import side_by_side\n"
            "points = [Point(x, y, y, y, '') for x, y in ((100, 0.5), (103, 0.9), (99, 0.7), (300, 0.1))]\n"
            "x_of = side_by_side(points)\n"
            "print(*[x_of[point] for point in points])"
        )
        low, high, middle, alone = map(float, printed.split())
        self.assertLess(high, middle)
        self.assertLess(middle, low)
        self.assertAlmostEqual(middle / high, low / middle)
        self.assertAlmostEqual(middle, (99 * 103) ** 0.5)
        self.assertAlmostEqual(alone, 300)

    def test_state_of_another_layout_has_no_published_curve(self) -> None:
        rows = [
            self.mean_row("vla", 32, 0.8, layout="paper"),
            # The same bytes with other heads are another line.
            self.mean_row("vla", 16, 0.7, layout="paper", n_heads=8, state_bytes=8192),
            self.mean_row("linear", 32, None, layout="paper", cells="0 of 2"),
        ]
        self.write("accuracy_summary", rows, "slice")
        self.run_plot()
        (lines,) = self.drawn("state").values()
        self.assertEqual(set(lines), {"vla, H = 2", "vla, H = 8"})
        self.assertNotIn("published", self.notes("state"))
        self.assertIn("linear, H = 2, state bytes = ", self.notes("state"))

    def test_overwritten_keys_stand_in_the_row_of_the_repeated(self) -> None:
        mixers = ["softmax", "linear", "deltanet", "vla", "kda"]
        rows = [
            accuracy_row(mixer, accuracy, setting=setting, seq_len=81, learning_rate=lr)
            | {"line": f"{mixer} {setting}"}
            for setting, accuracy, lr in (("rewrites=16", 0.5, 0.01), ("passes=2", 1.0, 0.03))
            for mixer in mixers
        ]
        self.write("accuracy_summary", rows)
        looks = self.python(
            "from plotting.drawing import _row_heights\n"
            "(panel,) = charts['comparison'].panels\n"
            "print(len(_row_heights(panel.curves)))\n"
            "for curve in panel.curves:\n"
            "  print(curve.name, curve.hollow, curve.points[0].y, sep=': ')"
        ).splitlines()
        self.assertEqual(looks[0], "5", "rows")
        self.assertIn("DeltaNet: False: 0.5", looks)
        self.assertIn("DeltaNet: True: 1.0", looks)
        told = "Filled: rewrites=16; hollow: passes=2. Learning rates (in the tables): 0.01, 0.03."
        self.assertIn(told, self.notes("comparison"))
        # Several rates of one label are rows of their own.
        rows.append(rows[0] | {"line": "softmax rewrites=16 lr=0.1", "learning_rate": 0.1})
        self.write("accuracy_summary", rows)
        shown = self.python("print([c.name for c in charts['comparison'].panels[0].curves])")
        self.assertIn("softmax rewrites=16 lr=0.1", shown)
        self.assertIn("vla passes=2, lr = 0.03", shown)

    def test_changes_at_one_number_of_pairs_get_a_row_each(self) -> None:
        mixers = ["softmax", "linear", "deltanet", "deltanet variant=standard"]
        rows = [
            accuracy_row(mixer, accuracy, short_conv=taps)
            for taps, accuracy in ((0, 0.1), (4, 0.9))
            for mixer in mixers
        ]
        self.write("accuracy_summary", rows)
        has_comparison = "print('comparison' in charts)"
        self.assertEqual(self.python(has_comparison), "False", "eight stand in a legend")
        rows.append(accuracy_row("softmax", 0.2, steps=30000, learning_rate=0.01))
        diverged = {"cells": "0 of 2", "not_ok": "seed 1: diverged: loss is nan"}
        rows.append(accuracy_row("vla", None, **diverged))
        self.write("accuracy_summary", rows)
        self.run_plot()
        (lines,) = self.drawn("comparison").values()
        self.assertEqual(
            {line: points[0][1] for line, points in lines.items()},
            {mixer: "0.1" for mixer in mixers}
            | {f"{mixer}, short conv 4": "0.9" for mixer in mixers}
            | {"softmax, 30000 steps, lr = 0.01": "0.2"},
        )
        notes = self.notes("comparison")
        self.assertIn("vla, n = 24: not drawn, 0 of 2 ok (seed 1: diverged: loss is nan)", notes)
        self.assertIn("3000 steps, lr = 0.001.", notes)
        names = {path.name for path in self.figures.glob("*.png")}
        self.assertEqual(names, {"comparison.png"})
        # With a second number of pairs they become curves.
        self.write("accuracy_summary", [*rows, accuracy_row("vla", 0.1, n_pairs=8)])
        self.assertEqual(self.python(has_comparison), "False")

    def test_threads_and_implementations_are_lines(self) -> None:
        """Case 11."""
        timing = {"line": "softmax", "label": "softmax", "mixer": "softmax", "device": "cpu"}
        timing |= {"precision": "float32", "processor": "a", "batch": 4, "n_heads": 1, "d_h": 64}
        timing |= {"implementation": "tiled", "pass": "forward", "cells": "1 of 1", "threads": 2}
        kinds = [{}, {"threads": 64}, {"implementation": "cudnn", "precision": "bf16"}]
        rows = [
            timing | kind | {"seq_len": length, "median_s": 0.001 * length}
            for kind in kinds
            for length in (64, 128)
        ]
        rows[0] |= {"p10_s": 0.05, "p90_s": 0.07, "note": "relative_error 0.02 not reached: 0.05"}
        self.write("latency_summary", rows)
        fits = [timing | kind | {"exponent": ""} for kind in kinds]
        fits[0]["exponent"] = 1.5
        self.write("latency_fit", fits)
        self.run_plot()
        ((panel, lines),) = self.drawn("latency").items()
        self.assertEqual(panel, "batch 4, H = 1, d_h = 64, forward, forward time (ms)")
        self.assertEqual(
            {line: [point[1] for point in points] for line, points in lines.items()},
            {
                "softmax, threads=2": ["64", "128"],
                "softmax, threads=64": ["64", "128"],
                "softmax, cudnn, bf16, threads=2": ["64", "128"],
            },
        )
        self.assertEqual(lines["softmax, threads=2"][0], ("64", "64", "50", "70", "1 of 1"))
        self.assertIn("softmax, threads=2: relative_error 0.02 not reached", self.notes("latency"))
        curves = "charts['latency'].panels[0].curves"
        beside = self.python(f"print([curve.beside for curve in {curves}])")
        self.assertEqual(beside, "['', ', $T^{1.50}$', '']", "an unknown exponent is not drawn")


if __name__ == "__main__":
    main()
