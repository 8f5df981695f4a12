#!/usr/bin/env python3
"""Builds the results page with scripts/report.py from the CPU's reference tables and the made-up ones
of src/testing/tables, and uses it in a headless Chromium as a reader does.

Exit status 77 (skipped) without .venv or Chromium, which scripts/setup.sh installs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from page.browser import CHROMIUM, Browser  # noqa: E402
from page.report_test import (  # noqa: E402
    FIGURES,
    LEDGER,
    MADE_UP,
    PYTHON,
    SKIPPED,
    SOURCE,
    Temporary,
    run_report,
    skip_without_python,
)

REFERENCE = SOURCE / "results/reference/cpu"
WIDTHS = {375: 812, 768: 1024, 1440: 900}  # of a phone, a tablet and a desk, with their heights
SCHEMES = ("light", "dark")
A4_WIDTH = 718  # CSS pixels between margins of 1 cm


def figures_of(tables: Path) -> list[str]:
    """The charts that scripts/plot.py would draw from the tables."""
    program = (
        "import sys; from pathlib import Path\n"
        "from plotting.figures import charts_of\n"
        "from plotting.tables import Report\n"
        "print(*charts_of(Report(Path(sys.argv[1]))))"
    )
    return subprocess.run(
        [PYTHON, "-c", program, tables],
        cwd=SOURCE / "scripts",
        text=True,
        check=True,
        capture_output=True,
    ).stdout.split()


@unittest.skipUnless(CHROMIUM, "no Chromium (scripts/setup.sh installs it)")
class PageTest(Temporary):
    browser: Browser
    page: Path

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.page = cls.folder / "page.html"
        code, errors = run_report(REFERENCE, MADE_UP, "--ledger", LEDGER, "--out", cls.page)
        if code != 0:
            raise AssertionError(errors)
        cls.browser = Browser(cls.folder / "profile")
        cls.addClassCleanup(cls.browser.close)

    def open(self, width: int = 1440, scheme: str = "light", media: str = "screen") -> None:
        self.browser.show(width, WIDTHS.get(width, 900), scheme, media)
        self.browser.open(self.page)

    def evaluate(self, body: str) -> Any:
        """The value that the body of a JavaScript function returns."""
        return self.browser.evaluate(f"(() => {{ {body} }})()")

    def tearDown(self) -> None:
        self.assertEqual(self.browser.complaints(), [])
        self.assertEqual(self.browser.requests(), [self.page.as_uri()], "a page needs no network")

    def test_every_figure_is_there(self) -> None:
        for width in WIDTHS:
            self.open(width)
            figures = self.evaluate("""
                return [...document.querySelectorAll("figure")].map((figure) => ({
                  id: figure.id,
                  panels: [...figure.querySelectorAll(".panel svg")].map((svg) => ({
                    width: svg.getBoundingClientRect().width,
                    height: svg.getBoundingClientRect().height,
                    drawn: [...svg.querySelectorAll("path, use")]
                      .filter((mark) => getComputedStyle(mark).stroke !== "none")
                      .filter((mark) => mark.getBoundingClientRect().width > 20).length,
                    letters: svg.querySelectorAll("use:not([class])").length,
                    label: svg.getAttribute("aria-label"),
                  })),
                }));""")
            wanted = {f"tables-{name}" for name in FIGURES}
            wanted |= {f"cpu-{name}" for name in figures_of(REFERENCE)}
            self.assertEqual({figure["id"] for figure in figures}, wanted)
            for figure in figures:
                self.assertGreaterEqual(len(figure["panels"]), 1, figure["id"])
                for panel in figure["panels"]:
                    self.assertGreater(panel["width"], 250, figure["id"])
                    self.assertGreater(panel["height"], 150, figure["id"])
                    # Two axes at least, one line, and the numbers at the ticks.
                    self.assertGreaterEqual(panel["drawn"], 3, figure["id"])
                    self.assertGreater(panel["letters"], 10, figure["id"])
                    self.assertNotRegex(panel["label"], r"[$\\]")

    def test_ids_are_unique_and_links_resolve(self) -> None:
        self.open()
        found = self.evaluate(r"""
            const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
            const targets = [];
            for (const element of document.querySelectorAll("*")) {
              for (const { name, value } of element.attributes) {
                if (name.endsWith("href") && value.startsWith("#")) targets.push(value.slice(1));
                for (const [, id] of value.matchAll(/url\(#([^)]+)\)/g)) targets.push(id);
                if (name === "aria-labelledby") targets.push(value);
              }
            }
            return {
              twice: ids.filter((id, index) => ids.indexOf(id) !== index),
              broken: targets.filter((id) => !ids.includes(id)),
              links: targets.length,
              outside: [...document.querySelectorAll("a")].map((link) => link.getAttribute("href"))
                .filter((href) => !href.startsWith("#")),
            };""")
        self.assertEqual(found["twice"], [])
        self.assertEqual(found["broken"], [])
        self.assertGreater(found["links"], 100)
        self.assertEqual(found["outside"], ["https://arxiv.org/abs/2605.11196"])

    def column(self, table: str, name: str) -> list[str]:
        return self.evaluate(f"""
            const table = document.querySelector({json.dumps(table)});
            const heads = [...table.tHead.rows[0].cells];
            const index = heads.findIndex((head) => head.textContent.trim() === {json.dumps(name)});
            return [...table.tBodies[0].rows].map(
              (row) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim());""")

    def head(self, table: str, name: str, action: str) -> str:
        """Does something to a head's button and returns the head's aria-sort."""
        return self.evaluate(f"""
            const table = document.querySelector({json.dumps(table)});
            const head = [...table.tHead.rows[0].cells].find(
              (head) => head.textContent.trim() === {json.dumps(name)});
            const button = head.querySelector("button");
            {action};
            return head.getAttribute("aria-sort");""")

    def test_a_click_sorts_and_another_turns_the_order_round(self) -> None:
        self.open()
        table = "#tables-table-latency_fit table"
        before = self.column(table, "exponent")
        self.assertEqual(self.head(table, "exponent", ""), "none")
        self.assertEqual(self.head(table, "exponent", "button.click()"), "ascending")
        self.assertEqual(self.column(table, "exponent"), sorted(before, key=float))
        self.assertNotEqual(self.column(table, "exponent"), before)
        self.assertEqual(self.head(table, "exponent", "button.click()"), "descending")
        self.assertEqual(self.column(table, "exponent"), sorted(before, key=float, reverse=True))
        # Another column takes over, and equal rows keep their order.
        self.assertEqual(self.head(table, "line", "button.click()"), "ascending")
        self.assertEqual(self.head(table, "exponent", ""), "none")
        labels = self.column(table, "line")
        self.assertEqual(labels, sorted(labels))
        of_first = [
            float(exponent)
            for exponent, label in zip(self.column(table, "exponent"), labels)
            if label == labels[0]
        ]
        self.assertEqual(of_first, sorted(of_first, reverse=True))

    def test_the_ledger_sorts_with_what_is_missing_last(self) -> None:
        self.open()
        self.head(".ledger", "claim", "button.click(); button.click()")
        claims = self.column(".ledger", "claim")
        self.assertEqual(claims, ["F2", "C10", "C9", "C6", "C2", "C1"])
        for times in (1, 2):
            self.head(".ledger", "measured", "button.click()")
            measured = self.column(".ledger", "measured")
            self.assertEqual(measured[-1], "")
            numbers = [float(value) for value in measured[:-1]]
            self.assertEqual(numbers, sorted(numbers, reverse=times == 2))

    def test_every_column_of_every_table_sorts(self) -> None:
        self.open()
        faults = self.evaluate("""
            const faults = [];
            const value = (row, index) =>
              row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
            for (const table of document.querySelectorAll("table")) {
              const body = table.tBodies[0];
              const whole = [...body.rows].map((row) => row.textContent).sort().join();
              for (const head of table.tHead.rows[0].cells) {
                for (const direction of ["ascending", "descending"]) {
                  head.querySelector("button").click();
                  const name = `${table.closest("section").id} ${head.textContent.trim()}`;
                  if (head.getAttribute("aria-sort") !== direction) faults.push(name + direction);
                  if (head.dataset.kind !== "number") continue;
                  const numbers = [...body.rows].map((row) => value(row, head.cellIndex))
                    .filter((text) => text !== "").map(Number).filter((number) => !isNaN(number));
                  const sign = direction === "ascending" ? 1 : -1;
                  if (numbers.some((one, i) => i > 0 && sign * (one - numbers[i - 1]) < 0)) {
                    faults.push(name);
                  }
                }
              }
              const after = [...body.rows].map((row) => row.textContent).sort().join();
              if (after !== whole) faults.push("rows were lost");
            }
            return faults;""")
        self.assertEqual(faults, [])

    def test_sorting_is_reached_from_the_keyboard(self) -> None:
        self.open()
        self.assertEqual(self.head(".ledger", "claim", "button.focus()"), "none")
        self.browser.press("Enter", 13, "\r")
        self.assertEqual(self.head(".ledger", "claim", ""), "ascending")
        self.browser.press("Tab", 9)
        self.browser.press(" ", 32, " ")
        self.assertEqual(self.head(".ledger", "verdict", ""), "ascending")
        verdicts = self.column(".ledger", "verdict")
        self.assertEqual(verdicts, sorted(verdicts))

    def test_nothing_is_wider_than_the_window(self) -> None:
        for width in WIDTHS:
            for scheme in SCHEMES:
                self.open(width, scheme)
                # Opens all folds, whose content may be wide.
                found = self.evaluate("""
                    for (const fold of document.querySelectorAll("details")) fold.open = true;
                    const page = document.documentElement;
                    const boxes = [...document.querySelectorAll(".scroll")];
                    return {
                      over: page.scrollWidth - page.clientWidth,
                      scrolling: boxes.filter((box) => box.scrollWidth > box.clientWidth).length,
                      outside: boxes.filter(
                        (box) => box.getBoundingClientRect().right > page.clientWidth).length,
                    };""")
                self.assertEqual(found["over"], 0, f"{width} {scheme}")
                self.assertEqual(found["outside"], 0, f"{width} {scheme}")
                if width == 375:
                    self.assertGreater(found["scrolling"], 3, "the tables are wider than a phone")

    def test_heads_stay_while_a_table_scrolls(self) -> None:
        self.open(375)
        moved = self.evaluate("""
            const box = document.querySelector("#tables-table-recall_summary .scroll");
            const head = box.querySelector("thead th");
            const row = box.querySelector("tbody tr");
            const before = [head, row].map((part) => part.getBoundingClientRect().top);
            box.scrollTop = 200;
            const after = [head, row].map((part) => part.getBoundingClientRect().top);
            return after.map((top, index) => top - before[index]);""")
        self.assertEqual(moved, [0, -200])

    def test_figures_and_text_stand_out_in_both_schemes(self) -> None:
        # WCAG requires 4.5 for text and 3 for marks. The palette's orange and light blue, which all
        # kinds of colour vision distinguish, are paler than that on white: 2 there.
        papers = set()
        for scheme, of_marks in (("light", 2.0), ("dark", 3.0)):
            self.open(1440, scheme)
            found = self.evaluate(r"""
                const light = (colour) => {
                  const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
                    const x = part / 255;
                    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
                  });
                  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const paper = getComputedStyle(document.documentElement).backgroundColor;
                const contrast = (colour) => {
                  const [low, high] = [light(colour), light(paper)].sort((a, b) => a - b);
                  return (high + 0.05) / (low + 0.05);
                };
                const grid = getComputedStyle(document.querySelector("tbody td")).borderBottomColor;
                const marks = {}, texts = {};
                for (const mark of document.querySelectorAll(".panel svg *, .legend svg *")) {
                  const style = getComputedStyle(mark);
                  for (const colour of [style.stroke, style.fill]) {
                    if (colour.startsWith("rgb(") && colour !== grid) marks[colour] = contrast(colour);
                  }
                }
                for (const part of document.querySelectorAll("h2, p, td, th, dt, a, summary, .verdict")) {
                  const colour = getComputedStyle(part).color;
                  texts[colour] = contrast(colour);
                }
                return { paper, marks, texts };""")
            papers.add(found["paper"])
            self.assertGreaterEqual(len(found["marks"]), 5)
            for colour, contrast in found["marks"].items():
                self.assertGreater(contrast, of_marks, f"{colour} in {scheme}")
            for colour, contrast in found["texts"].items():
                self.assertGreater(contrast, 4.5, f"{colour} in {scheme}")
        self.assertEqual(len(papers), 2, "one background for both schemes")

    def test_the_config_of_a_figure_is_one_click_away(self) -> None:
        self.open(375)
        wanted = json.loads((MADE_UP / "configs.json").read_text())
        shown = self.evaluate("""
            return [...document.querySelectorAll("#tables-figures figure")].map((figure) => {
              const fold = figure.querySelector("details");
              const pres = [...fold.querySelectorAll("pre")];
              const before = pres.filter((pre) => pre.checkVisibility()).length;
              fold.querySelector("summary").click();
              const after = pres.filter((pre) => pre.checkVisibility()).length;
              return { id: figure.id, before, after, texts: pres.map((pre) => pre.textContent) };
            });""")
        configs = {}
        for figure in shown:
            self.assertEqual(figure["before"], 0, f"{figure['id']}: open already")
            self.assertEqual(figure["after"], len(figure["texts"]), figure["id"])
            configs[figure["id"]] = [json.loads(text) for text in figure["texts"]]
        self.assertEqual(configs["tables-recall"], [wanted[4]])
        self.assertEqual(configs["tables-latency"], [wanted[1]])
        self.assertEqual(configs["tables-learning_curves"], wanted[2:4])
        self.assertEqual(len(configs["tables-four_panels"]), 4)

    def test_provenance_of_every_run_is_there(self) -> None:
        self.open()
        for folder, name in ((REFERENCE, "cpu"), (MADE_UP, "tables")):
            texts = self.evaluate(f"""
                return [...document.querySelectorAll("#{name}-provenance pre")].map(
                  (pre) => pre.textContent);""")
            self.assertEqual(
                [json.loads(text) for text in texts],
                json.loads((folder / "provenance.json").read_text()),
            )

    def test_markup_in_the_inputs_is_text(self) -> None:
        self.open()
        self.assertEqual(self.evaluate('return document.querySelectorAll("i").length;'), 0)
        text = self.evaluate("return document.body.textContent;")
        self.assertIn("<i>recall</i> & more", text)
        self.assertIn("Cheaper than softmax from <T> & on", text)

    def test_the_ledger_says_what_it_rests_on(self) -> None:
        self.open()
        undecided = self.evaluate("""
            const row = document.querySelector(".verdict.undecided").closest("tr");
            return {claim: row.querySelector("b").textContent, fold: row.textContent,
                    cells: [...row.cells].map((cell) => cell.textContent.trim())};""")
        self.assertEqual(undecided["claim"], "F2")
        self.assertEqual(undecided["cells"][-1], "0 to inf")
        for sentence in (
            "3 of 4 over 4 of 4",
            "linear (seed 44: diverged: loss is nan at step 17)",
            "VLA over linear: 0.09 (0 to inf); accepted: at least 1.05; undecided; "
            "has not learned to guess among the values shown",
        ):
            self.assertIn(sentence, undecided["fold"])
        self.assertEqual(
            self.evaluate("""
            return [...document.querySelectorAll(".verdicts li")].map(
              (item) => item.textContent.replace(/\\s+/g, " ").trim());""")[-2:],
            ["? 1 undecided", "– 1 no run"],
        )

    def test_it_prints(self) -> None:
        self.open(A4_WIDTH, "dark", "print")
        found = self.evaluate("""
            window.dispatchEvent(new Event("beforeprint"));
            const page = document.documentElement;
            return {
              paper: getComputedStyle(page).backgroundColor,
              over: page.scrollWidth - page.clientWidth,
              clipped: [...document.querySelectorAll(".scroll")].filter(
                (box) => box.scrollHeight > box.clientHeight + 1
                      && getComputedStyle(box).overflowY !== "visible").length,
              closed: document.querySelectorAll(".ledger details:not([open])").length,
            };""")
        self.assertEqual(
            found, {"paper": "rgb(255, 255, 255)", "over": 0, "clipped": 0, "closed": 0}
        )
        document = self.browser.pdf()
        self.assertTrue(document.startswith(b"%PDF-"))
        self.assertTrue(document.rstrip().endswith(b"%%EOF"))
        self.assertGreater(len(re.findall(rb"/Type\s*/Page\b", document)), 5)


if __name__ == "__main__":
    skip_without_python()
    result = unittest.main(exit=False).result
    for reason in sorted({reason for _, reason in result.skipped}):
        print(f"skipped: {reason}")
    sys.exit(1 if not result.wasSuccessful() else SKIPPED if result.skipped else 0)
