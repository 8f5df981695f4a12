"""Colours of the page in light and dark. Figures are drawn once, in the light colours; on the page these
are variables that the colour scheme sets."""

from __future__ import annotations

# Everything except the lines of figures.
INK = {
    "paper": ("#ffffff", "#15181c"),
    "raised": ("#f6f7f8", "#1d2126"),  # table heads, code
    "ink": ("#1b1f24", "#e4e7ea"),
    "muted": ("#59636e", "#9aa4af"),
    "rule": ("#d8dee4", "#343b43"),
    "link": ("#0a58a8", "#7ab8f5"),
    "good": ("#1a7f37", "#4ac26b"),
    "middling": ("#8a5a00", "#e0a526"),
    "bad": ("#b42318", "#ff8a80"),
}

# Colour of plotting.style -> the variable that stands for it.
ALIASES = {"#000000": "ink", "#555555": "muted", "#dddddd": "rule"}

# Lines of figures: the colour as drawn, and one of the same hue with contrast to a dark page.
LINES = {
    "#e69f00": "#f0b13c",
    "#009e73": "#2cc596",
    "#0072b2": "#4da6e8",
    "#d55e00": "#ff7d3d",
    "#56b4e9": "#95d3f7",
    "#cc79a7": "#e79fc6",
    "#888888": "#a3a9b0",
    "#882255": "#d76a9f",
    "#332288": "#9d90f7",
    "#999933": "#d6d65c",
    "#661100": "#d9725e",
    "#117733": "#8fd18a",
    "#7f3fff": "#c98cff",
    "#5a5a00": "#a08f2e",
}


def variable(colour: str) -> str:
    """ "#0072B2" -> "var(--line-0072b2)". Throws KeyError for a colour that has no dark one."""
    colour = colour.lower()
    if colour in ALIASES:
        return f"var(--{ALIASES[colour]})"
    if colour not in LINES:
        raise KeyError(f"{colour} of a figure has no dark counterpart in page/colours.py")
    return f"var(--line-{colour[1:]})"


def declarations(dark: bool) -> str:
    """CSS that sets the variables."""
    values = {name: pair[dark] for name, pair in INK.items()}
    values |= {f"line-{light[1:]}": other if dark else light for light, other in LINES.items()}
    return " ".join(f"--{name}: {value};" for name, value in values.items())
