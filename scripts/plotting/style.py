"""Colours, markers and line styles, and what makes the files the same bytes every time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from plotting.tables import Report, line_name

# Okabe and Ito's palette, told apart by all common kinds of colour vision, without its yellow, which
# is too pale for a line on white; grey, and two dark tones of Tol's muted palette, in its place.
MIXER_COLOURS = {
    "softmax": "#000000",
    "linear": "#E69F00",
    "deltanet": "#009E73",
    "vla": "#0072B2",
}
MIXER_MARKERS = {"softmax": "o", "linear": "s", "deltanet": "^", "vla": "D"}
DISPLAY_NAMES = {"deltanet": "DeltaNet", "vla": "VLA"}
VARIANT_COLOURS = ["#D55E00", "#56B4E9", "#CC79A7", "#888888", "#882255", "#332288"]
VARIANT_MARKERS = ["v", "P", "X", "<", ">", "*", "h"]
VARIANT_LINES = ["--", "-.", ":"]

TABLES = ["accuracy", "recall", "state_norm", "jacobian", "latency", "history"]


@dataclass(frozen=True)
class LineStyle:
    name: str  # for legends
    colour: str
    marker: str
    line: str


def set_up() -> None:
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": 0.09,
            "figure.constrained_layout.h_pad": 0.07,
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "legend.handlelength": 3.0,
            "lines.linewidth": 1.5,
            "lines.markersize": 4.5,
            "svg.hashsalt": "vla-bench",  # element ids; random otherwise
        }
    )


def line_styles(report: Report) -> dict[str, LineStyle]:
    """A style for every label of the report, the same one in all its figures. The four mixers have
    their own; variants share what is left, in alphabetic order. Other implementations of a label,
    which have lines of their own where times are drawn, keep its colour."""
    labels = {row["label"] for table in TABLES for row in report.all_rows(table)}
    styles = {
        mixer: LineStyle(DISPLAY_NAMES.get(mixer, mixer), colour, MIXER_MARKERS[mixer], "-")
        for mixer, colour in MIXER_COLOURS.items()
    }
    looks = list(product(VARIANT_LINES, VARIANT_COLOURS))
    for index, label in enumerate(sorted(labels - styles.keys())):
        line, colour = looks[index % len(looks)]
        marker = VARIANT_MARKERS[index % len(VARIANT_MARKERS)]
        styles[label] = LineStyle(label, colour, marker, line)
    beside = {line_name(row): row["label"] for row in report.rows("latency")}
    for index, line in enumerate(sorted(beside.keys() - styles.keys())):
        label = styles[beside[line]]
        styles[line] = LineStyle(
            label.name + line.removeprefix(beside[line]),
            label.colour,
            VARIANT_MARKERS[index % len(VARIANT_MARKERS)],
            VARIANT_LINES[index % len(VARIANT_LINES)],
        )
    return styles


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """PNG and PDF, with no date and no program version that would change the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    figure.savefig(png, metadata={"Software": None})
    figure.set_layout_engine("none")  # finding the layout takes as long as drawing: keep it
    figure.savefig(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return [png, pdf]
