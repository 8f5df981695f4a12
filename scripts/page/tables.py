"""Tables of a results folder for readers: values that all rows share appear once, empty columns are left
out, and numbers are short but keep their exact value for sorting."""

from __future__ import annotations

from dataclasses import dataclass, field

from page.text import as_number, format_number
from plotting.notes import counted
from plotting.tables import Report, Row, ok_of

# Tables of curves: hundreds of rows that figures show better.
CURVES = (
    "state_norm_curve",
    "jacobian_curve",
    "history_curve",
    "state_norm",
    "jacobian",
    "history",
)

# In the order of the page; other tables come after them under their own name.
TITLES = {
    "accuracy_summary": "Accuracy after training, over seeds",
    "state_norm_summary": "State norm at the last token, over seeds",
    "jacobian_summary": "Jacobian of one step, over tokens and seeds",
    "latency_summary": "Latency, over seeds",
    "latency_crossover": "Where a mixer becomes cheaper than softmax",
    "latency_fit": "Time against length, fitted",
    "recall_summary": "Recall without training, over seeds",
    "latency": "Latency, every measurement",
    "accuracy": "Accuracy after training, every run",
    "recall": "Recall without training, every run",
}
# Digits that only look like a number (84e9d958).
NEVER_NUMBERS = {"config"}
# The cells behind a row: one that is not ok is told there.
SUMMARIES = [name for name in TITLES if name.endswith("_summary")]


@dataclass(frozen=True)
class Cell:
    text: str
    value: str = ""  # the sort key; empty: the text


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool


@dataclass(frozen=True)
class PageTable:
    name: str  # of its CSV file
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    shared: list[tuple[str, str]] = field(default_factory=list)  # the same in every row


def _numeric(name: str, rows: list[Row]) -> bool:
    values = [row[name] for row in rows if row[name]]
    return name not in NEVER_NUMBERS and all(as_number(value) is not None for value in values)


def _cell(text: str, numeric: bool) -> Cell:
    number = as_number(text) if numeric else None
    return Cell(text) if number is None else Cell(format_number(number), text)


def page_table(name: str, rows: list[Row]) -> PageTable:
    shared: list[tuple[str, str]] = []
    columns: list[Column] = []
    for column in rows[0]:
        values = {row[column] for row in rows}
        numeric = _numeric(column, rows)
        # Lines are mostly named by their label, and labels by their mixer.
        told = {"label": "line", "mixer": "label"}.get(column)
        says_nothing = told is not None and all(row[column] == row.get(told) for row in rows)
        if values == {""} or says_nothing:
            continue
        if len(values) == 1 and len(rows) > 1:
            shared.append((column, _cell(values.pop(), numeric).text))
        else:
            columns.append(Column(column, numeric))
    cells = [[_cell(row[column.name], column.numeric) for column in columns] for row in rows]
    return PageTable(name, TITLES.get(name, name), columns, cells, shared)


def _names(report: Report) -> list[str]:
    found = {path.stem for path in report.folder.glob("*.csv")}
    return [name for name in TITLES if name in found] + sorted(found - TITLES.keys())


def page_tables(report: Report) -> list[PageTable]:
    return [
        page_table(name, report.all_rows(name))
        for name in _names(report)
        if name not in CURVES and report.all_rows(name)
    ]


def left_out(report: Report) -> list[str]:
    """Names the tables with rows from which cells are missing."""
    texts = []
    for name in SUMMARIES:
        counts = [ok_of(row) for row in report.rows(name)]
        short = [ok for ok, cells in counts if ok < cells]
        if short:
            texts.append(
                f"{name}.csv: not all cells are ok in {len(short)} of {counted(len(counts), 'row')}, "
                f"none in {short.count(0)}; see the columns cells and not_ok."
            )
    return texts


def curves_text(report: Report) -> str:
    """Names the tables that only figures show; empty when there is none."""
    files = [
        f"{name}.csv ({counted(len(report.all_rows(name)), 'row')})"
        for name in CURVES
        if report.all_rows(name)
    ]
    return f"Points of curves are in the figures above and in {', '.join(files)}." if files else ""
