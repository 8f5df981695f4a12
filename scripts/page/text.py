"""Formats values of tables and JSON for readers."""

from __future__ import annotations

import math
import re


def as_number(value: object) -> float | None:
    """The number in a CSV field or JSON value; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def format_number(number: float) -> str:
    """Formats like the program's Markdown tables: whole numbers in full, others to 4 digits."""
    if math.isnan(number):
        return "nan"
    if math.isfinite(number) and number == round(number) and abs(number) < 1e9:
        return f"{number:.0f}"
    return f"{number:.4g}"


def slug(text: str) -> str:
    """A name for ids and classes: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
