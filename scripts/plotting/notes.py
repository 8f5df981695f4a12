"""The notes below a figure's panels: which cells are missing from its points and why, which settings
change from point to point, and the summaries' remarks on lines."""

from __future__ import annotations

import re
from typing import Iterable

from plotting.chart import Panel
from plotting.lines import has_value
from plotting.tables import Report, Row, natural_order, number, number_text, ok_of, setting_of

MOST_ENTRIES = 6  # per kind in a note; the tables have the rest
MOST_VALUES = 4  # values of x that are listed
MOST_REASONS = 2


def notes_of(panels: list[Panel]) -> list[str]:
    """In order: the panels' own notes, cells not ok, varying settings, remarks, the meaning of bars."""
    notes = [note for panel in panels for note in panel.notes]
    notes += [cells_note(panels), no_value(panels)]
    notes += [*varying(panel.source.rows for panel in panels), remarks(panels)]
    notes.append(" ".join(dict.fromkeys(panel.bars for panel in panels)))
    return list(dict.fromkeys(note for note in notes if note))


def counted(count: int, noun: str) -> str:
    """ "1 row" or "3 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(entries: list[str]) -> str:
    """The first of them."""
    more = len(entries) - MOST_ENTRIES
    shown = entries[:MOST_ENTRIES] + ([f"{more} more in the tables"] if more > 0 else [])
    return "; ".join(shown)


def place(symbol: str, values: Iterable[float]) -> str:
    """ "n = 4, 8" or "t = 412 to 1000"."""
    sizes = sorted(set(values))
    if len(sizes) > MOST_VALUES:
        return f"{symbol} = {number_text(sizes[0])} to {number_text(sizes[-1])}"
    return f"{symbol} = {', '.join(map(number_text, sizes))}"


def cells_note(panels: list[Panel]) -> str:
    """The lines from which cells are missing, with k of n, and those that are not drawn."""
    found: dict[tuple[str, str, str, str], list[float]] = {}
    for source in (panel.source for panel in panels):
        for row in source.rows:
            ok, cells = ok_of(row)
            if ok < cells:
                key = (row["line"], row["cells"], reasons(row["not_ok"]), source.symbol)
                found.setdefault(key, []).append(number(row, source.x))
    entries = [
        not_ok_entry(f"{line}, {place(symbol, values)}", cells, why)
        for (line, cells, why, symbol), values in found.items()
    ]
    return f"Not all cells are ok. {listed(entries)}." if entries else ""


def not_ok_entry(what: str, cells: str, why: str) -> str:
    drawn = "not drawn, " if cells.startswith("0 ") else ""
    return f"{what}: {drawn}{cells} ok" + (f" ({why})" if why else "")


def reasons(text: str) -> str:
    """The first of the seeds that ended the same way, and the first of many ways."""
    kinds: dict[str, str] = {}
    for one in filter(None, text.split("; ")):
        kinds.setdefault(re.sub(r"^seed \d+: |\d+", "", one), one)
    several = list(kinds.values())
    return "; ".join(several[:MOST_REASONS] + (["..."] if len(several) > MOST_REASONS else []))


def no_value(panels: list[Panel]) -> str:
    """Rows that have ok cells but nothing to draw."""
    found: dict[tuple[str, str], int] = {}
    for source in (panel.source for panel in panels):
        for row in source.rows:
            if ok_of(row)[0] > 0 and not has_value(row, source.x, source.y):
                key = (row["line"], source.y)
                found[key] = found.get(key, 0) + 1
    entries = [f"{line}: {counted(rows, 'row')} without {y}" for (line, y), rows in found.items()]
    return f"Not drawn: {listed(entries)}." if entries else ""


def varying(places: Iterable[list[Row]]) -> list[str]:
    """The learning rate and the keys of `setting` that vary along a line within one of the groups (the
    rows of a panel or a table)."""
    found: dict[str, dict[str, set[str]]] = {}
    for rows in places:
        values: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            for key, value in _keys_of(row).items():
                values.setdefault((key, row["line"]), set()).add(value)
        for (key, line), several in values.items():
            if len(several) > 1:
                found.setdefault(key, {}).setdefault(line, set()).update(several)
    notes = []
    for key, lines in sorted(found.items()):
        entries = [
            f"{line}: {', '.join(sorted(several, key=lambda value: natural_order([value])))}"
            for line, several in lines.items()
        ]
        notes.append(f"Not the same {key} at all points: {listed(entries)}.")
    return notes


def _keys_of(row: Row) -> dict[str, str]:
    keys = setting_of(row)
    if "learning_rate" in row:
        keys["learning rate"] = number_text(number(row, "learning_rate"))
    return keys


def remarks(panels: list[Panel]) -> str:
    """The column `note` of the summaries, each remark with its lines, except those on training times,
    which no figure shows."""
    lines: dict[str, dict[str, None]] = {}
    wide: dict[tuple[str, str, str], list[float]] = {}
    for source in (panel.source for panel in panels):
        for row in source.rows:
            for remark in row["note"].split("; "):
                if remark.startswith("relative_error"):  # of one point
                    key = (row["line"], remark.partition(":")[0], source.symbol)
                    wide.setdefault(key, []).append(number(row, source.x))
                elif remark and not remark.startswith("train_seconds"):
                    lines.setdefault(remark, {}).setdefault(row["line"])
    entries = [f"{', '.join(named)}: {remark}" for remark, named in sorted(lines.items())]
    entries += [
        f"{line}: {remark} at {place(symbol, values)}"
        for (line, remark, symbol), values in wide.items()
    ]
    return f"{listed(entries)}." if entries else ""


def coinciding(panels: list[Panel]) -> str:
    """The lines of which only the last is seen."""
    points: dict[str, list[tuple[int, float, float]]] = {}
    for index, panel in enumerate(panels):
        for curve in panel.curves:
            own = points.setdefault(curve.name, [])
            own += [(index, point.x, point.y) for point in curve.points]
    same: dict[tuple[tuple[int, float, float], ...], list[str]] = {}
    for name, values in points.items():
        same.setdefault(tuple(values), []).append(name)
    entries = [", ".join(names) for names in same.values() if len(names) > 1]
    return f"The same at all points: {listed(entries)}." if entries else ""


def unmeasured(report: Report, summary: str, curve: str) -> str:
    """Rows of a summary without a point of the curve; by name when no cell is ok."""
    drawn = {row["config"] for row in report.rows(curve)}
    missing = [row for row in report.rows(summary) if row["config"] not in drawn]
    failed = [row for row in missing if ok_of(row)[0] == 0]
    entries = [not_ok_entry(row["line"], row["cells"], reasons(row["not_ok"])) for row in failed]
    if len(missing) > len(failed):
        entries.append(f"{counted(len(missing) - len(failed), 'row')} of {summary}")
    return f"No curve: {listed(entries)}." if entries else ""
