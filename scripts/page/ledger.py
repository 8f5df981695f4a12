"""The ledger of claims, as `vla-bench claims --format json` prints it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from page.tables import Cell
from page.text import as_number, format_number, slug

# Verdict -> a sign that identifies it without colour.
SIGNS = {
    "reproduced": "●",
    "reproduced in part": "◐",
    "not as stated": "◇",
    "not reproduced": "○",
    "undecided": "?",
    "no run": "–",
}
# Facts that a claim's fold shows below its condition, with these names.
FACTS = {
    "criteria_met": "criteria met",
    "cells": "cells behind the number",
    "not_ok": "diverged or failed",
    "finished": "finished cells",
    "device": "device",
    "machine": "machine",
}


@dataclass(frozen=True)
class Claim:
    claim: str
    title: str
    published: Cell
    measured: Cell
    interval: str
    verdict: str
    condition: str
    command: str
    run: str
    facts: list[tuple[str, str]]
    criteria: list[str]

    @property
    def sign(self) -> str:
        return SIGNS.get(self.verdict, "?")

    @property
    def verdict_class(self) -> str:
        return slug(self.verdict)


@dataclass(frozen=True)
class Ledger:
    claims: list[Claim] = field(default_factory=list)
    absent: str = ""  # why there is no ledger

    @property
    def summary(self) -> list[tuple[str, str, int]]:
        """Verdict, its sign and its count, in the order of SIGNS."""
        count = Counter(claim.verdict for claim in self.claims)
        known = [verdict for verdict in SIGNS if verdict in count]
        others = sorted(count.keys() - SIGNS.keys())
        return [(verdict, SIGNS.get(verdict, "?"), count[verdict]) for verdict in known + others]


def read_ledger(path: Path | None) -> Ledger:
    """Throws ValueError naming the file when it exists but is not a ledger."""
    if path is None:
        return Ledger(absent="This page was built without a ledger of claims.")
    if not path.exists():
        return Ledger(absent=f"No ledger of claims: there was no {path.name}.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        criteria = _rows(document.get("criteria", [])) if isinstance(document, dict) else []
        return Ledger([_claim(row, criteria) for row in _rows(document)])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _rows(document: Any) -> list[dict[str, Any]]:
    """A list of rows: the whole value, under a name, or one by one under their claims' names."""
    if isinstance(document, dict):
        for name in ("ledger", "claims", "rows"):
            if name in document:
                return _rows(document[name])
        document = [
            {"claim": name, **row} if isinstance(row, dict) else row
            for name, row in document.items()
            if name != "criteria"
        ]
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise ValueError("expected a list of claims, each an object with claim, verdict, ...")
    return document


def _text(value: Any) -> str:
    number = None if isinstance(value, str) else as_number(value)
    if number is not None:
        return format_number(number)
    if value is None:
        return ""
    if isinstance(value, dict):  # {"value": 109, "source": "notebook 07"}
        first, *rest = (_text(part) for part in value.values())
        return f"{first} ({', '.join(rest)})" if rest else first
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    return str(value)


def _cell(value: Any) -> Cell:
    number = as_number(value)
    return Cell(_text(value), "" if number is None else repr(number))


def _interval(row: dict[str, Any], prefix: str = "") -> str:
    low, high = (_text(row.get(prefix + end)) for end in ("low", "high"))
    if low and high:
        return low if low == high else f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def _criterion(row: dict[str, Any]) -> str:
    interval = _interval(row)
    bounds = _interval(row, "accept_")
    met = {"yes": "met", "no": "not met"}.get(_text(row.get("met")), _text(row.get("met")))
    parts = [
        f"{_text(row.get('what'))}: {_text(row.get('measured')) or 'not measured'}"
        + (f" ({interval})" if interval else ""),
        f"accepted: {bounds}" if bounds else "",
        met,
        _text(row.get("note")),
        _text(row.get("not_ok")),
    ]
    condition = "Condition. " if row.get("part") == "condition" else ""
    return condition + "; ".join(part for part in parts if part) + "."


def _claim(row: dict[str, Any], criteria: list[dict[str, Any]]) -> Claim:
    claim = _text(row.get("claim") or row.get("id"))
    return Claim(
        claim=claim,
        title=_text(row.get("title")),
        published=_cell(row.get("published")),
        measured=_cell(row.get("measured")),
        interval=_interval(row),
        verdict=_text(row.get("verdict")) or "no run",
        condition=_text(row.get("condition")),
        command=_text(row.get("command")),
        run=_text(row.get("run")),
        facts=[(name, _text(row[key])) for key, name in FACTS.items() if _text(row.get(key))],
        criteria=[_criterion(one) for one in criteria if _text(one.get("claim")) == claim],
    )
