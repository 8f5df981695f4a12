"""Prepares Matplotlib's SVG for a page with other figures: unique ids, no fixed colours, no page-wide
style, and each letter's outline once for all figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from page.colours import variable

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
GLYPH = re.compile(r"[A-Z]\w*(-\w+)*-[0-9a-f]+")  # "DejaVuSans-41", "Cmsy10-b5"
COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
REFERENCE = re.compile(r"url\(#([^)]+)\)")

ElementTree.register_namespace("", SVG)


def _short(match: re.Match[str]) -> str:
    text = f"{float(match.group()):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _references(element: ElementTree.Element) -> list[str]:
    named = [element.get(XLINK, "").removeprefix("#")]
    for value in element.attrib.values():
        named += REFERENCE.findall(value)
    return [name for name in named if name]


class Glyphs:
    """Outlines of letters, shared by all figures."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def take(self, root: ElementTree.Element) -> None:
        """Moves the outlines out of a figure."""
        for parent in list(root.iter(f"{{{SVG}}}defs")):
            for child in list(parent):
                if GLYPH.fullmatch(child.get("id", "")):
                    parent.remove(child)
                    child.tail = None
                    text = _serialise(child)
                    if self._paths.setdefault(child.get("id", ""), text) != text:
                        raise ValueError(f"two letters go by the name {child.get('id')}")

    def sprite(self) -> str:
        """An invisible SVG that holds them all."""
        paths = "".join(text for _, text in sorted(self._paths.items()))
        return (
            f'<svg xmlns="{SVG}" class="glyphs" width="0" height="0" aria-hidden="true">'
            f"<defs>{paths}</defs></svg>"
        )


def _serialise(element: ElementTree.Element) -> str:
    text = ElementTree.tostring(element, encoding="unicode")
    return text.replace(f' xmlns="{SVG}"', "")


def _clean(element: ElementTree.Element, prefix: str, referenced: set[str]) -> None:
    name = element.attrib.pop("id", "")
    if name in referenced:
        element.set("id", prefix + name)
    target = element.attrib.pop(XLINK, "")
    if target:
        glyph = GLYPH.fullmatch(target.removeprefix("#"))
        element.set("href", target if glyph else f"#{prefix}{target.removeprefix('#')}")
    for key, value in element.attrib.items():
        if key in {"d", "x", "y"}:
            value = LONG_NUMBER.sub(_short, " ".join(value.split()))
        value = REFERENCE.sub(lambda match: f"url(#{prefix}{match.group(1)})", value)
        if key == "style":
            value = COLOUR.sub(lambda match: variable(match.group()), value)
        element.set(key, value)
    element.text = element.text.strip() if element.text else None
    element.tail = None


def inline(document: str, prefix: str, glyphs: Glyphs, label: str) -> str:
    """The figure as an <svg> element that fills its box. `prefix` makes its ids unique among figures;
    `label` is the text for screen readers."""
    root = ElementTree.fromstring(document)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    glyphs.take(root)
    referenced = {name for element in root.iter() for name in _references(element)}
    view_box = root.get("viewBox", "")
    for element in root.iter():
        _clean(element, prefix, referenced)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{SVG}}}defs" and len(child) == 0:
                parent.remove(child)
    root.attrib.clear()
    root.set("viewBox", view_box)
    root.set("role", "img")
    root.set("aria-label", label)
    return _serialise(root)
