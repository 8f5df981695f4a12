"""Panels of timings: one per pass and setting, with one line per mixer, implementation, precision,
processor and number of threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterable

from plotting.chart import Axis, Panel, Source, plain
from plotting.lines import Measure, make_curves, shown, with_suffix
from plotting.settings import setting_text
from plotting.tables import Report, Row, group, number
from plotting.training import LENGTH

TABLE = "latency_summary"
SETTING = ["kernels", "device", "batch", "n_heads", "d_h", "pass"]
# Added to the name of a line where they differ: within the line, and within the panel.
OF_LINES = {"implementation": "{}", "precision": "{}"}
OF_MACHINES = {"processor": "{}", "threads": "threads={}"}
# Columns that a fit or a crossover shares with its timings.
SHARED = [*OF_LINES, *OF_MACHINES, *SETTING[1:]]
# Names of a mixer's production kernels; the others are further implementations.
OWN_IMPLEMENTATIONS = {"tiled", "recurrent", "chunked", "reference"}
MILLISECONDS = Measure("median_s", "p10_s", "p90_s", scale=1e3)
FARTHEST = 10_000_000  # tokens


def latency_panels(report: Report) -> list[Panel]:
    """Separates the double references from the implementations for users."""
    rows = [_prepared(row) for row in report.rows(TABLE)]
    panels = []
    for key, members in group(rows, SETTING).items():
        named = _tell_apart(members)
        title = setting_text(dict(zip(SETTING, key)), rows)
        row_of = {row["line"]: row for row in named}
        curves = [
            replace(curve, beside=_growth(report, row_of[curve.line]))
            for curve in make_curves(named, "seq_len", MILLISECONDS)
        ]
        panels.append(
            Panel(
                title,
                curves,
                LENGTH,
                Axis(f"{key[-1]} time (ms)", "log"),
                Source(TABLE, "seq_len", MILLISECONDS.y, "T", named),
                "Latency: median of the repeats, 10th to 90th percentile.",
                notes=tuple(_crossovers(report, named, plain(title))),
                own_legend=True,
            )
        )
    return panels


def is_production(panel: Panel) -> bool:
    return panel.source.rows[0]["kernels"] == "production"


def _prepared(row: Row) -> Row:
    kernels = "reference" if row["implementation"] == "reference" else "production"
    beside = [row["implementation"]] if row["implementation"] not in OWN_IMPLEMENTATIONS else []
    if row["precision"] not in {"float32", "float64"}:
        beside.append(row["precision"])
    named = with_suffix(row, "".join(f", {part}" for part in beside))
    return {**named, "kernels": kernels, "table_line": row["line"]}


def _tell_apart(rows: list[Row]) -> list[Row]:
    """The rows of a panel; adds the columns that differ to the names of their lines."""
    texts = OF_LINES | OF_MACHINES
    of_machines = _differing(rows, OF_MACHINES)
    named = []
    for members in group(rows, ["line"]).values():
        told = _differing(members, OF_LINES) + of_machines
        for row in members:
            suffix = "".join(", " + texts[column].format(row[column]) for column in told)
            named.append(with_suffix(row, suffix))
    return named


def _differing(rows: list[Row], columns: Iterable[str]) -> list[str]:
    return [column for column in columns if len({row[column] for row in rows}) > 1]


def _same_line(rows: list[Row], row: Row) -> list[Row]:
    return [
        other
        for other in rows
        if other["line"] == row["table_line"] and all(other[key] == row[key] for key in SHARED)
    ]


def _growth(report: Report, row: Row) -> str:
    """The fitted exponent of the line of `row`; empty where it is unknown."""
    for fit in _same_line(report.rows("latency_fit"), row):
        if fit["exponent"]:
            return f", $T^{{{number(fit, 'exponent'):.2f}}}$"
    return ""


def _crossovers(report: Report, named: list[Row], title: str) -> list[str]:
    """Where the lines of a panel become cheaper than each softmax."""
    table = report.rows("latency_crossover")
    found = [
        {**crossover, "shown": shown(rows[0])}
        for rows in group(named, ["line"]).values()
        for crossover in _same_line(table, rows[0])
    ]
    baseline = ["baseline", "baseline_implementation", "baseline_precision"]
    notes = []
    for (label, method, precision), rivals in group(found, baseline).items():
        told = f"{method} {label} ({precision})" if method else label
        entries = [f"{one['shown']} {_length(one)}" for one in rivals]
        notes.append(f"{title}: cheaper than {told} from: {', '.join(entries)}.")
    return notes


def _length(crossover: Row) -> str:
    """A fit that is extrapolated beyond any real sequence gives only a bound."""
    if not crossover["seq_len"]:
        return crossover["basis"]
    if number(crossover, "seq_len") > FARTHEST:
        return f"T > {FARTHEST:,} ({crossover['basis']})"
    bounds = [crossover["seq_len_low"], crossover["seq_len_high"]]
    interval = f"{bounds[0]} to {bounds[1]}, " if all(bounds) else ""
    return f"T = {crossover['seq_len']} ({interval}{crossover['basis']})"
