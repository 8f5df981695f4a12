"""Colours, markers and dashes; a line has the same ones in all figures of a report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable

import matplotlib

from plotting.chart import Chart, Curve
from plotting.lines import MIXERS, line_order

# Okabe and Ito's palette, which all common kinds of colour vision distinguish, without its yellow, which
# is too pale on white, but with grey, tones of Tol's muted palette, and two more that stand apart from
# these. Mixers declare their colour; the remaining ones are for other lines.
PALETTE = ["#000000", "#E69F00", "#009E73", "#0072B2"]
PALETTE += ["#D55E00", "#56B4E9", "#CC79A7", "#888888", "#882255", "#332288"]
PALETTE += ["#999933", "#661100", "#117733", "#7F3FFF", "#5A5A00"]
MIXER_COLOURS = {name: mixer["colour"] for name, mixer in MIXERS.items()}
OTHER_COLOURS = [colour for colour in PALETTE if colour not in MIXER_COLOURS.values()]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p", "H", "d", "8"]
MARKERS += [(4, 1, 0), (3, 1, 0), (6, 1, 0)]  # stars
MIXER_MARKERS = dict(zip(MIXERS, MARKERS))
OTHER_MARKERS = MARKERS[len(MIXERS) :]
# By their names in the page's legends; matplotlib's dashes are in units of the line's width.
DASHES: dict[str, object] = {
    "solid": "-",
    "dashed": (0, (4, 2)),
    "dotted": (0, (1, 1.5)),
    "dashdot": (0, (6, 2, 1, 2)),
    "dashdotdot": (0, (5, 1.5, 1, 1.5, 1, 1.5)),
}


@dataclass(frozen=True)
class LineStyle:
    colour: str
    marker: str
    dash: str  # of DASHES
    hollow: bool = False


Styles = dict[str, LineStyle]


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
            "legend.handlelength": 3.6,
            "lines.linewidth": 1.5,
            "lines.markersize": 4.5,
            "svg.hashsalt": "vla-bench",  # element ids; random otherwise
        }
    )


def mixer_style(mixer: str) -> LineStyle:
    return LineStyle(
        MIXER_COLOURS.get(mixer, OTHER_COLOURS[0]),
        MIXER_MARKERS.get(mixer, OTHER_MARKERS[0]),
        "solid",
    )


def line_styles(charts: Iterable[Chart]) -> Styles:
    """Looks by style. A mixer's lines have its colour and differ in dashes and markers, those of the first
    figures before those that only later ones have; lines without a known mixer share the remaining
    colours."""
    mixers: dict[str, str] = {}
    figures: dict[str, int] = {}  # the first one that has the style
    for figure, chart in enumerate(charts):
        for curve in (curve for panel in chart.panels for curve in panel.curves):
            mixers[curve.style] = curve.mixer
            figures.setdefault(curve.style, figure)
    styles: Styles = {}
    for mixer in {*mixers.values()} - {""}:
        own = [name for name in mixers if mixers[name] == mixer]
        own.sort(key=lambda name: (figures[name], line_order(mixer, name)))
        markers = [mixer_style(mixer).marker, *OTHER_MARKERS]
        for index, name in enumerate(own):
            marker, dash = markers[index % len(markers)], [*DASHES][index % len(DASHES)]
            styles[name] = LineStyle(mixer_style(mixer).colour, marker, dash)
    for index, name in enumerate(sorted(name for name in mixers if not mixers[name])):
        colour = OTHER_COLOURS[index % len(OTHER_COLOURS)]
        dash = [*DASHES][index // len(OTHER_COLOURS) % len(DASHES)]
        styles[name] = LineStyle(colour, OTHER_MARKERS[index % len(OTHER_MARKERS)], dash)
    return styles


def style_of(curve: Curve, styles: Styles) -> LineStyle:
    style = replace(styles[curve.style], hollow=curve.hollow)
    if curve.shape is None:
        return style
    return replace(style, marker=MARKERS[curve.shape % len(MARKERS)])
