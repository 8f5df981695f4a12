"""How values of tables and JSON are written for a reader."""

from __future__ import annotations

import math
import re


def as_number(value: object) -> float | None:
    """The number that a CSV field or JSON value holds; None where it holds none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def format_number(number: float) -> str:
    """As the program's own Markdown tables: whole numbers in full, others to 4 digits."""
    if math.isnan(number):
        return "nan"
    if math.isfinite(number) and number == round(number) and abs(number) < 1e9:
        return f"{number:.0f}"
    return f"{number:.4g}"


def slug(text: str) -> str:
    """For ids and classes: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
