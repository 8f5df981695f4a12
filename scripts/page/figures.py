"""The figures of scripts/plotting as panels that a page arranges in its width, with legend and notes as
text."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D, Bbox

from page.colours import variable
from page.svg import Sprite, inline
from plotting.chart import plain
from plotting.drawing import draw_panels, shared_legend
from plotting.figures import charts_of
from plotting.style import LineStyle, line_styles, style_of
from plotting.tables import Report


@dataclass(frozen=True)
class About:
    title: str
    text: str
    experiments: tuple[str, ...]  # kinds of config that its tables come from


ABOUT = {
    "three_panels": About(
        "The field's protocol",
        "Recall over all test slices against bytes of state, training steps and forward time.",
        ("mqar", "latency"),
    ),
    "four_panels": About(
        "The paper's figure",
        "Latency, state norm, capacity and long context, as far as there is data.",
        ("latency", "state_norm", "mqar"),
    ),
    "recall": About(
        "Recall without training",
        "Random keys are written to each memory and read back; nothing is learned.",
        ("recall",),
    ),
    "streams": About(
        "Recall behind a stream",
        "The last pairs written to each memory after ever more others; nothing is learned.",
        ("recall",),
    ),
    "state_norm": About(
        "State norm in every setting",
        "How large the state of each memory grows along the sequence.",
        ("state_norm",),
    ),
    "jacobian": About(
        "Jacobian of one step",
        "Whether a step of the recurrence can enlarge what the state holds.",
        ("jacobian",),
    ),
    "latency": About(
        "Latency",
        "Only the mixers, in every setting and pass that was timed.",
        ("latency",),
    ),
    "accuracy": About(
        "Capacity in every setting",
        "Recall after training against stored pairs and length.",
        ("mqar",),
    ),
    "comparison": About(
        "One change at a time",
        "Recall after training at one number of pairs, by mixer and what was changed.",
        ("mqar",),
    ),
    "load": About(
        "Capacity against load",
        "Recall after training against stored pairs a channel, one curve a mixer and shape.",
        ("mqar",),
    ),
    "state": About(
        "Accuracy against bytes of state",
        "Recall over all test slices against what a memory keeps of one sequence, beside the figures "
        "that the field publishes.",
        ("mqar",),
    ),
    "learning_curves": About(
        "Learning curves", "Accuracy over the steps of training.", ("mqar", "copy")
    ),
}

# Of plotting.style, in pixels of a legend's line, which is 2 wide.
DASHES = {
    "solid": "",
    "dashed": "6 4",
    "dotted": "2 3",
    "dashdot": "9 3 2 3",
    "dashdotdot": "7 2 2 2 2 2",
}
LEGEND_WIDTH, LEGEND_HEIGHT, LEGEND_MARKER = 34, 12, 8  # pixels


@dataclass(frozen=True)
class LegendEntry:
    name: str
    stroke: str
    dashes: str
    marker: str  # SVG path
    hollow: bool


@dataclass(frozen=True)
class PageFigure:
    name: str
    about: About
    panels: list[str]  # SVG
    legend: list[LegendEntry]
    notes: list[str]


def _marker_path(marker: str) -> str:
    style = MarkerStyle(marker)
    outline = style.get_path().transformed(style.get_transform())
    size = max(outline.get_extents().width, outline.get_extents().height) or 1.0
    to_pixels = Affine2D().scale(LEGEND_MARKER / size, -LEGEND_MARKER / size)  # SVG's y points down
    placed = to_pixels.translate(LEGEND_WIDTH / 2, LEGEND_HEIGHT / 2)
    lines = outline.transformed(placed).to_polygons(closed_only=False)
    return " ".join(
        "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in polygon) + " Z" for polygon in lines
    )


def _legend_entry(name: str, style: LineStyle) -> LegendEntry:
    marker = _marker_path(style.marker)
    return LegendEntry(name, variable(style.colour), DASHES[style.dash], marker, style.hollow)


def _panel_boxes(figure: Figure) -> list[Bbox]:
    """One box per panel, in inches: all of one size, with axes at the same position and room for the
    widest labels, so that panels align in any arrangement."""
    renderer = figure.canvas.get_renderer()
    areas = [axes.get_window_extent(renderer) for axes in figure.axes]
    tight = [axes.get_tightbbox(renderer) for axes in figure.axes]
    left = max(area.x0 - whole.x0 for area, whole in zip(areas, tight))
    right = max(whole.x1 - area.x1 for area, whole in zip(areas, tight))
    below = max(area.y0 - whole.y0 for area, whole in zip(areas, tight))
    above = max(whole.y1 - area.y1 for area, whole in zip(areas, tight))
    margin = 0.02 * figure.dpi  # half a line's width reaches over the extents
    return [
        Bbox.from_extents(
            (area.x0 - left - margin) / figure.dpi,
            (area.y0 - below - margin) / figure.dpi,
            (area.x1 + right + margin) / figure.dpi,
            (area.y1 + above + margin) / figure.dpi,
        )
        for area in areas
    ]


def _panel_svg(figure: Figure, axes: Axes, box: Bbox) -> str:
    for other in figure.axes:
        other.set_visible(other is axes)
    buffer = io.StringIO()
    # No date and no version, which would change the bytes.
    figure.savefig(
        buffer,
        format="svg",
        bbox_inches=box,
        transparent=True,
        metadata={"Date": None, "Creator": None},
    )
    return buffer.getvalue()


def page_figures(report: Report, sprite: Sprite) -> list[PageFigure]:
    """The figures with data."""
    charts = charts_of(report)
    styles = line_styles(charts.values())
    figures = []
    for name, chart in charts.items():
        about = ABOUT[name]
        figure = draw_panels(chart, styles)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is final: panels are cut out of it
        panels = [
            inline(
                _panel_svg(figure, axes, box),
                sprite,
                f"{about.title}: {panel.name} against {plain(panel.x.label)}",
            )
            for panel, axes, box in zip(chart.panels, figure.axes, _panel_boxes(figure))
        ]
        legend = [
            _legend_entry(curve.name, style_of(curve, styles)) for curve in shared_legend(chart)
        ]
        figures.append(PageFigure(name, about, panels, legend, chart.notes))
        plt.close(figure)
    return figures
