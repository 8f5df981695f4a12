"""Builds the page. The template escapes everything except style, script and figures."""

from __future__ import annotations

from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from page.colours import declarations
from page.folder import Results
from page.ledger import Ledger

HERE = Path(__file__).resolve().parent


def _asset(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _verbatim(text: str) -> Markup:
    """Text between tags, where quotes, of which JSON is full, need no escape."""
    return Markup(escape(text, quote=False))


def render(ledger: Ledger, results: Results) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["svg"] = Markup  # of page.svg, which escapes as it writes
    environment.filters["verbatim"] = _verbatim
    return environment.get_template("page.html").render(
        ledger=ledger,
        folders=results.folders,
        letters=Markup(results.sprite.outlines()),
        looks=Markup(results.sprite.rules()),
        light=Markup(declarations(dark=False)),
        dark=Markup(declarations(dark=True)),
        style=_asset("page.css"),
        script=_asset("page.js"),
    )
