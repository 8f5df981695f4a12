"""The panels and notes of each figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

from plotting.chart import Chart, Panel, plain
from plotting.comparison import comparison_panel
from plotting.field import field_panels
from plotting.latency import is_production, latency_panels
from plotting.notes import coinciding, counted, listed, notes_of, unmeasured
from plotting.probes import jacobian_panels, recall_panels, state_norm_panels, stream_panels
from plotting.tables import Report
from plotting.training import accuracy_panels, learning_panels, load_panels, not_mqar, state_panels

MOST_PANELS = 60  # some viewers cannot open a larger picture


def chart(panels: list[Panel], columns: int = 3, *more_notes: str) -> Chart | None:
    """None where nothing is drawn. Omits panels without a value; the notes say why."""
    drawn = [panel for panel in panels if panel.curves]
    blank = [panel for panel in panels if not panel.curves]
    if not drawn:
        return None
    notes = notes_of(drawn[:MOST_PANELS] + blank) + [note for note in more_notes if note]
    if len(drawn) > MOST_PANELS:
        left = listed([panel.name for panel in drawn[MOST_PANELS:]])
        notes.append(f"Not drawn: {len(drawn) - MOST_PANELS} of {len(drawn)} panels: {left}.")
    return Chart(drawn[:MOST_PANELS], notes, columns)


def four_panels(report: Report) -> Chart | None:
    """The paper's figure: latency, state norm, capacity, long context, as far as there is data. Of each
    the setting with the most rows; the others have their own figures."""
    trained = accuracy_panels(report)
    forward = [
        panel
        for panel in latency_panels(report)
        if is_production(panel) and panel.source.rows[0]["pass"] == "forward"
    ]
    compared = comparison_panel(report) is not None
    kinds = {
        ("Latency", "latency"): forward,
        ("State norm", "state_norm"): state_norm_panels(report),
        ("Capacity", "accuracy"): [] if compared else trained.pairs or trained.points,
        ("Long context", "accuracy"): [] if compared else trained.lengths,
    }
    chosen, blank, notes = [], [], []
    for (name, figure), panels in kinds.items():
        drawn = [panel for panel in panels if panel.curves]
        blank += [panel for panel in panels if not panel.curves]
        if drawn:
            most = max(drawn, key=lambda panel: len(panel.source.rows))
            title = f"{name}\n{most.title}" if most.title else name
            chosen.append(replace(most, title=title))
        if len(drawn) > 1:
            others = counted(len(drawn) - 1, "more setting")
            notes.append(f"{name}: {others} in the figure {figure}.")
    if len(chosen) == 1 and notes:
        return None  # the figure with all settings also shows this one
    notes.append(unmeasured(report, "state_norm_summary", "state_norm_curve"))
    return chart(chosen + blank, 2 if len(chosen) == 4 else 3, *notes, not_mqar(report))


def three_panels(report: Report) -> Chart | None:
    """The field's protocol: its accuracy against bytes of state, training steps and forward time."""
    panels, notes = field_panels(report)
    made = chart(panels, 3, *notes)
    return made and replace(made, stretch=1.3)


def recall(report: Report) -> Chart | None:
    """Training-free recall, one panel per kind of keys and d_h."""
    panels = recall_panels(report)
    return chart(panels, 3, "Dotted: n = d_h.", coinciding(panels))


def streams(report: Report) -> Chart | None:
    """Training-free recall of the last pairs behind a stream of others."""
    panels = stream_panels(report)
    return chart(panels, 2, coinciding(panels))


def state_norm(report: Report) -> Chart | None:
    """Where the paper's figure does not show all of it."""
    panels = state_norm_panels(report)
    if len(panels) < 2:
        return None
    return chart(panels, 3, unmeasured(report, "state_norm_summary", "state_norm_curve"))


def jacobian(report: Report) -> Chart | None:
    note = unmeasured(report, "jacobian_summary", "jacobian_curve")
    return chart(jacobian_panels(report), 3, note)


def latency(report: Report) -> Chart | None:
    """Every pass and setting that was timed."""
    return chart(latency_panels(report), 2)


def accuracy(report: Report) -> Chart | None:
    """Trained recall in every setting; drawn when there is more than the paper's figure shows."""
    trained = accuracy_panels(report)
    curves = trained.pairs + trained.lengths
    if comparison_panel(report) is not None:
        return None
    if not curves:
        points = trained.points
        return chart(points, 3, not_mqar(report)) if len(points) > 1 else None
    if len(trained.pairs) < 2 and len(trained.lengths) < 2 and not trained.points:
        return None
    single = [_point_text(panel) for panel in trained.points]
    note = f"Not drawn, one number of pairs: {listed(single)}." if single else ""
    return chart(curves, 3, note, not_mqar(report))


def _point_text(panel: Panel) -> str:
    rows = panel.source.rows
    pairs = f"n = {rows[0]['n_pairs']} ({counted(len(rows), 'row')})"
    return ", ".join(filter(None, [plain(panel.title), pairs]))


def comparison(report: Report) -> Chart | None:
    """Accuracy of all variants at one number of pairs."""
    panel = comparison_panel(report)
    return None if panel is None else chart([panel], 1, not_mqar(report))


def load(report: Report) -> Chart | None:
    """Accuracy against stored pairs per channel, one curve per line and shape."""
    panels, note = load_panels(report)
    return chart(panels, 3, note, not_mqar(report))


def state(report: Report) -> Chart | None:
    """Mean accuracy over the test slices against bytes of state, beside the published figures."""
    return chart(state_panels(report), 3, not_mqar(report))


def learning_curves(report: Report) -> Chart | None:
    """Training accuracy over the steps, one panel per setting."""
    note = unmeasured(report, "accuracy_summary", "history_curve")
    return chart(learning_panels(report), 3, note)


FIGURES: dict[str, Callable[[Report], Chart | None]] = {
    "three_panels": three_panels,
    "four_panels": four_panels,
    "recall": recall,
    "streams": streams,
    "state_norm": state_norm,
    "jacobian": jacobian,
    "latency": latency,
    "accuracy": accuracy,
    "comparison": comparison,
    "load": load,
    "state": state,
    "learning_curves": learning_curves,
}


def charts_of(report: Report) -> dict[str, Chart]:
    """The figures with data."""
    made = {name: build(report) for name, build in FIGURES.items()}
    return {name: chart for name, chart in made.items() if chart is not None}
