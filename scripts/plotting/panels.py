"""Single panels: each draws one table's answer onto the axes it is given and returns the notes
that a reader of the figure needs (rows left out, settings not shown)."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from itertools import accumulate
from typing import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter
from matplotlib.transforms import ScaledTranslation

from plotting.style import MIXER_COLOURS, LineStyle
from plotting.tables import (
    Report,
    Row,
    Series,
    commonest,
    group,
    line_name,
    number,
    series_by_label,
)

Styles = dict[str, LineStyle]
Notes = list[str]

SETTING_NAMES = {
    "d_h": "$d_h$ = {}",
    "n_heads": "H = {}",
    "n_pairs": "n = {}",
    "steps": "{} steps",
    "seq_len": "T = {}",
    "batch": "batch {}",
    "layout": "{} layout",
    "short_conv": "short conv {}",
    "experiment": "{}",
    "kernels": "{}",
    "device": "{}",
    "precision": "{}",
    "pass": "{}",
}
# Left unsaid in titles: the published protocol has them so.
USUAL = {
    "layout": "paper",
    "short_conv": "0",
    "experiment": "mqar",
    "kernels": "production",
    "precision": "float32",
}


def setting_parts(setting: dict[str, str]) -> list[str]:
    return [
        SETTING_NAMES.get(column, column + " {}").format(value)
        for column, value in setting.items()
        if value
    ]


def setting_text(setting: dict[str, str]) -> str:
    unusual = {column: value for column, value in setting.items() if USUAL.get(column) != value}
    return ", ".join(setting_parts(unusual))


def length_axis(axes: Axes, values: Iterable[float], label: str) -> None:
    """A log axis whose ticks are the measured values themselves."""
    ticks = sorted(set(values))
    while len(ticks) > 9:
        ticks = ticks[::2]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelrotation=45 if max(ticks) >= 1000 else 0)
    axes.set_xlabel(label)


def accuracy_axis(axes: Axes) -> None:
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("accuracy (fraction)")


def draw_points(
    axes: Axes,
    styles: Styles,
    label: str,
    series: Series,
    error: Sequence[float] | Sequence[Sequence[float]],
    name: str | None = None,
) -> None:
    style = styles[label]
    axes.errorbar(
        series.x,
        series.mean,
        yerr=error,
        label=name or style.name,
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        capsize=2.5,
        elinewidth=1.0,
    )


def draw_curve(axes: Axes, styles: Styles, label: str, series: Series) -> None:
    style = styles[label]
    axes.plot(
        series.x,
        series.mean,
        label=style.name,
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        markevery=0.12 if len(series.x) > 10 else None,
    )
    axes.fill_between(series.x, series.low, series.high, color=style.colour, alpha=0.2, linewidth=0)


# Accuracy.

CAPACITY_SETTING = ["experiment", "layout", "short_conv", "d_h", "n_heads", "steps", "precision"]
LONG_CONTEXT_SETTING = CAPACITY_SETTING + ["n_pairs"]


def usual_length(row: Row) -> float:
    """Sequence length that a config with `seq_len: null` gets."""
    pairs = number(row, "n_pairs")
    return 3 * pairs + 1 if row["layout"] == "paper" else 4 * pairs


def without_rates(rows: list[Row]) -> list[Row]:
    """Mixers at the best learning rate of each point, with the mixer for a label: one curve, whatever
    the rates. All rows as they are where labels tell more apart, or a point was run at several."""
    point = ["mixer", "layout", "short_conv", "n_pairs", "d_h", "n_heads", "seq_len", "steps", "seed"]
    told_by_rate = all(re.fullmatch(f"{row['mixer']} lr=[^ ]+", row["label"]) for row in rows)
    if not told_by_rate or any(len(members) > 1 for members in group(rows, point).values()):
        return rows
    return [{**row, "label": row["mixer"]} for row in rows]


def capacity_rows(report: Report) -> list[Row]:
    rows = report.rows("accuracy", experiment="mqar")
    return without_rates([row for row in rows if number(row, "seq_len") == usual_length(row)])


def long_context_rows(report: Report) -> list[Row]:
    """Of settings that were run at several lengths other than the usual one."""
    rows = report.rows("accuracy", experiment="mqar")
    longer = [row for row in rows if number(row, "seq_len") != usual_length(row)]
    settings = group(longer, LONG_CONTEXT_SETTING).values()
    several = [members for members in settings if len(group(members, ["seq_len"])) > 1]
    return without_rates([row for members in several for row in members])


def draw_accuracy(axes: Axes, styles: Styles, rows: list[Row], x: str) -> None:
    lines = series_by_label(rows, x, "accuracy")
    for label, series in lines.items():
        draw_points(axes, styles, label, series, series.deviation)
    x_name = "stored pairs n" if x == "n_pairs" else "sequence length T (tokens)"
    length_axis(axes, (value for series in lines.values() for value in series.x), x_name)
    accuracy_axis(axes)


def capacity(axes: Axes, report: Report, styles: Styles) -> Notes:
    setting, rows, others = commonest(capacity_rows(report), CAPACITY_SETTING)
    draw_accuracy(axes, styles, rows, "n_pairs")
    axes.set_title(f"Capacity\n{setting_text(setting)}")
    return [f"Capacity: {others} rows of other settings are not shown."] if others else []


def long_context(axes: Axes, report: Report, styles: Styles) -> Notes:
    setting, rows, others = commonest(long_context_rows(report), LONG_CONTEXT_SETTING)
    draw_accuracy(axes, styles, rows, "seq_len")
    axes.set_title(f"Long context\n{setting_text(setting)}")
    return [f"Long context: {others} rows of other settings are not shown."] if others else []


# Comparison: what was changed at one number of pairs, a row each.

COMPARED = ["layout", "d_h", "n_heads", "n_pairs", "short_conv", "steps", "precision"]
FEWEST_COMPARED = 9  # fewer stand beside each other in a legend


def comparison_rows(report: Report) -> tuple[list[Row], dict[str, str]]:
    """Rows by what tells them apart, and the values that most of them share and that their labels
    leave unsaid. Only where all are of one number of pairs in one sequence, so that curves would be
    points above each other, and where a legend would not hold them; else no rows."""
    rows = report.rows("accuracy", experiment="mqar")
    if len(group(rows, ["layout", "n_pairs", "seq_len"])) != 1:
        return [], {}
    # A label is a name and what was swept, "name key=value ...".
    parts = [dict(re.findall(r"(\S+)=(\S+)", row["label"])) for row in rows]
    swept = [key for key in parts[0] if all(key in part for part in parts)]
    told = [{key: part[key] for key in swept} for part in parts]
    for setting, row in zip(told, rows):
        setting.update({column: row[column] for column in COMPARED})
    usual = {key: Counter(setting[key] for setting in told).most_common(1)[0][0] for key in told[0]}
    compared = []
    for setting, row in zip(told, rows):
        name = " ".join(word for word in row["label"].split() if word.split("=")[0] not in swept)
        changed = {key: value for key, value in setting.items() if value != usual[key]}
        compared.append({**row, "label": ", ".join([name] + setting_parts(changed))})
    return (compared, usual) if len(group(compared, ["label"])) >= FEWEST_COMPARED else ([], {})


def comparison_names(labels: Sequence[str]) -> tuple[list[str], list[float]]:
    """The labels as they stand beside the axis, which keeps most of the width, and how far down from
    its top: in lines of text, with half a line between them."""
    names = [textwrap.fill(label, 42) for label in labels]
    lines = [name.count("\n") + 1.5 for name in names]
    return names, [end - own / 2 for end, own in zip(accumulate(lines), lines)]


def comparison(axes: Axes, rows: list[Row], usual: dict[str, str], styles: Styles) -> Notes:
    mixers = {row["label"]: row["mixer"] for row in rows}
    lines = series_by_label(rows, "n_pairs", "accuracy")
    order = list(MIXER_COLOURS)
    # From above: mixer by mixer, the most accurate first.
    labels = sorted(lines, key=lambda label: (order.index(mixers[label]), -lines[label].mean[0]))
    names, heights = comparison_names(labels)
    for height, label in zip(heights, labels):
        style, series = styles[mixers[label]], lines[label]
        axes.errorbar(
            series.mean,
            [height],
            xerr=series.deviation,
            color=style.colour,
            marker=style.marker,
            capsize=2.5,
            elinewidth=1.0,
        )
    axes.set_yticks(heights, names, fontsize=8)
    axes.set_ylim(heights[-1] + 1.0, heights[0] - 1.0)
    axes.set_xlim(-0.03, 1.05)
    axes.set_xlabel("accuracy (fraction)")
    axes.set_ylabel("what was changed")
    return [f"Where nothing else is said: {setting_text(usual)}.".replace("$", "")]


# Load: pairs a channel of state has to hold.


def load_rows(report: Report) -> list[Row]:
    """Rows by mixer and load, where every mixer was run once a point: several learning rates of a
    point would be averaged into one. The label gives way to the mixer, which may carry a rate."""
    point = ["mixer", "layout", "n_pairs", "d_h", "n_heads", "seq_len", "seed"]
    rows = report.rows("accuracy", experiment="mqar")
    rows = [row for row in rows if row["short_conv"] != "0"]
    if any(len(members) > 1 for members in group(rows, point).values()):
        return []
    return [
        {
            **row,
            "label": row["mixer"],
            "load": repr(number(row, "n_pairs") / (number(row, "d_h") * number(row, "n_heads"))),
            # Two shapes of one load are two measurements, not one repeated.
            "seed": f"{row['d_h']} {row['n_heads']} {row['seed']}",
        }
        for row in rows
    ]


def load(axes: Axes, styles: Styles, rows: list[Row]) -> None:
    lines = series_by_label(rows, "load", "accuracy")
    for label, series in lines.items():
        draw_points(axes, styles, label, series, series.deviation)
    length_axis(
        axes, (x for series in lines.values() for x in series.x), "pairs a channel: n / (H $d_h$)"
    )
    accuracy_axis(axes)


# Recall.


def recall(axes: Axes, styles: Styles, rows: list[Row], d_h: str) -> None:
    axes.set_title(f"$d_h$ = {d_h}")
    errors = {(row["label"], number(row, "n_pairs")): number(row, "ci95") for row in rows}
    lines = series_by_label(rows, "n_pairs", "accuracy")
    for label, series in lines.items():
        draw_points(axes, styles, label, series, [errors[label, x] for x in series.x])
    length_axis(axes, (x for series in lines.values() for x in series.x), "stored pairs n")
    axes.axvline(float(d_h), color="#888888", linestyle=":", linewidth=1.0)
    accuracy_axis(axes)


# State norm and Jacobian.

PROBE_SETTING = ["precision"]


def state_norm(axes: Axes, report: Report, styles: Styles) -> Notes:
    axes.set_title("State norm")
    _, rows, others = commonest(report.rows("state_norm"), PROBE_SETTING)
    lines = series_by_label(rows, "t", "s_norm")
    for label, series in lines.items():
        draw_curve(axes, styles, label, series)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("position t (tokens)")
    axes.set_ylabel("Frobenius norm of $S_t$")
    return [f"State norm: {others} rows of other settings are not shown."] if others else []


JACOBIAN_QUANTITIES = {
    "sigma_max": "largest singular value of $J_t$",
    "cosine": "cosine of key and write direction",
    "product_norm": "spectral norm of $J_1 \\cdots J_t$",
}


def jacobian(axes: Axes, report: Report, styles: Styles, quantity: str) -> None:
    _, rows, _ = commonest(report.rows("jacobian"), PROBE_SETTING)
    for label, series in series_by_label(rows, "t", quantity).items():
        draw_curve(axes, styles, label, series)
    axes.set_xscale("log")
    axes.set_xlabel("position t (tokens)")
    axes.set_ylabel(JACOBIAN_QUANTITIES[quantity])
    if quantity == "product_norm":
        axes.set_yscale("log")
    axes.axhline(1.0, color="#888888", linestyle=":", linewidth=1.0)


# Latency.

LATENCY_SETTING = ["kernels", "device", "batch", "n_heads", "d_h"]
MILLISECONDS = 1e3
BELOW_TICKS = 0.75  # inches from the axes to a legend below the name of the axis
FARTHEST = 10_000_000  # tokens
MOST_INSIDE = 4  # lines whose legend leaves room for them within the axes


def latency_rows(report: Report, table: str, **wanted: str) -> list[Row]:
    """Rows with a column `kernels`: all that a user can choose from (tiled, recurrent, cudnn) is
    compared with each other, apart from the double references."""
    return [
        {**row, "kernels": "reference" if row["implementation"] == "reference" else "production"}
        for row in report.rows(table)
        if all(row[column] == value for column, value in wanted.items())
    ]


def same_line(rows: list[Row], row: Row, columns: Sequence[str]) -> list[Row]:
    return [
        other
        for other in rows
        if all(other.get(column) == row.get(column) for column in columns)
    ]


def exponent(report: Report, row: Row) -> float | None:
    """The fitted exponent of the line that `row` belongs to; None when there is no single one."""
    shared = ["label", "implementation", "precision", "pass", *LATENCY_SETTING]
    fits = same_line(latency_rows(report, "latency_fit"), row, shared)
    return number(fits[0], "exponent") if len(fits) == 1 and fits[0]["exponent"] else None


def crossover_length(crossover: Row) -> str:
    """A fit carried further than anybody's sequences gives a bound, not a length."""
    if number(crossover, "seq_len") > FARTHEST:
        return f"T > {FARTHEST:,} ({crossover['basis']})"
    return f"T = {crossover['seq_len']} ({crossover['basis']})"


def crossover_note(report: Report, styles: Styles, row: Row) -> str:
    """Where mixers become cheaper than each softmax, in the setting and pass of `row`."""
    shared = ["pass", *LATENCY_SETTING]
    found = same_line(latency_rows(report, "latency_crossover"), row, shared)
    notes = []
    for (method, precision), rivals in group(
        found, ["baseline_implementation", "baseline_precision"]
    ).items():
        texts = [
            f"{styles[crossover['label']].name} {crossover_length(crossover)}"
            for crossover in rivals
            if crossover["seq_len"]
        ]
        if texts:
            softmax = f"{method} softmax ({precision})" if method else "softmax"
            notes.append(f"Cheaper than {softmax} from, {row['pass']}: {', '.join(texts)}.")
    return "\n".join(notes)


def draw_latency(axes: Axes, report: Report, styles: Styles, rows: list[Row]) -> None:
    timed = [
        {
            **row,
            "label": line_name(row),
            **{
                column: str(number(row, column) * MILLISECONDS)
                for column in ("median_s", "p10_s", "p90_s")
            },
        }
        for row in rows
    ]
    middle = series_by_label(timed, "seq_len", "median_s")
    low = series_by_label(timed, "seq_len", "p10_s")
    high = series_by_label(timed, "seq_len", "p90_s")
    for label in (label for label in styles if label in middle):  # the order of all legends
        series = middle[label]
        power = exponent(report, next(row for row in rows if line_name(row) == label))
        name = styles[label].name + ("" if power is None else f", $T^{{{power:.2f}}}$")
        error = [
            [max(m - edge, 0.0) for m, edge in zip(series.mean, low[label].mean)],
            [max(edge - m, 0.0) for m, edge in zip(series.mean, high[label].mean)],
        ]
        draw_points(axes, styles, label, series, error, name)
    length_axis(
        axes, (x for series in middle.values() for x in series.x), "sequence length T (tokens)"
    )
    axes.set_yscale("log")
    axes.set_ylabel(f"{rows[0]['pass']} time (ms)")
    if len(middle) <= MOST_INSIDE:
        axes.legend(loc="best")
    else:
        below = ScaledTranslation(0.0, -BELOW_TICKS, axes.figure.dpi_scale_trans)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            bbox_transform=axes.transAxes + below,
            ncols=2,
        )


def production_forward_rows(report: Report) -> list[Row]:
    forward = latency_rows(report, "latency", **{"pass": "forward"})
    return [row for row in forward if row["kernels"] == "production"]


def latency(axes: Axes, report: Report, styles: Styles) -> Notes:
    setting, rows, others = commonest(production_forward_rows(report), LATENCY_SETTING)
    draw_latency(axes, report, styles, rows)
    axes.set_title(f"Latency\n{setting_text(setting)}")
    notes = [crossover_note(report, styles, rows[0])]
    return notes + [f"Latency: {others} rows of other settings are not shown."] * (others > 0)
