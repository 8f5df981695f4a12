"""The setting in a panel's title."""

from __future__ import annotations

from typing import Sequence

from plotting.chart import escape
from plotting.tables import Row

NAMES = {
    "d_h": "$d_h$ = {}",
    "n_heads": "H = {}",
    "n_pairs": "n = {}",
    "steps": "{} steps",
    "seq_len": "T = {}",
    "batch": "batch {}",
    "layout": "{} layout",
    "short_conv": "short conv {}",
    "trials": "{} trials",
    "keys": "{} keys",
    "learning_rate": "lr = {}",
}
# Omitted, as the values of the published protocol.
USUAL = {
    "layout": "paper",
    "short_conv": "0",
    "experiment": "mqar",
    "kernels": "production",
    "source": "model",
}
# Omitted when the whole table has one value.
SAID_WHERE_SEVERAL = {"device", "precision", "trials"}


def setting_parts(setting: dict[str, str]) -> list[str]:
    return [
        NAMES.get(column, "{}").format(escape(value)) for column, value in setting.items() if value
    ]


def setting_text(setting: dict[str, str], rows: Sequence[Row] = ()) -> str:
    """The unusual settings; `rows` are all rows that the figure could show."""
    said = {}
    for column, value in setting.items():
        one_value = column in SAID_WHERE_SEVERAL and len({row[column] for row in rows}) <= 1
        if USUAL.get(column) != value and not one_value:
            said[column] = value
    return ", ".join(setting_parts(said))
