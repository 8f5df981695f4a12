"""Prepares Matplotlib's SVG for a page with other figures: unique ids, no fixed colours, no page-wide
style, and each letter's outline and each look once for all figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import count
from typing import Iterator

from page.colours import variable

SVG = "http://www.w3.org/2000/svg"
GROUP, USE = f"{{{SVG}}}g", f"{{{SVG}}}use"
XLINK = "{http://www.w3.org/1999/xlink}href"
GLYPH = re.compile(r"[A-Z]\w*(-\w+)*-[0-9a-f]+")  # "DejaVuSans-41", "Cmsy10-b5"
COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
TRANSLATE = re.compile(r"translate\(([^ )]+) ([^)]+)\)")
REFERENCE = re.compile(r"url\(#([^)]+)\)")

ElementTree.register_namespace("", SVG)


def _short(match: re.Match[str]) -> str:
    text = f"{float(match.group()):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _shortened(text: str) -> str:
    return LONG_NUMBER.sub(_short, text)


def _references(element: ElementTree.Element) -> list[str]:
    named = [element.get(XLINK, "").removeprefix("#")]
    for value in element.attrib.values():
        named += REFERENCE.findall(value)
    return [name for name in named if name]


class Sprite:
    """What the figures of a page share. Ids and classes begin with an underscore, which those of the page
    never do."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}  # outlines by Matplotlib's name of the letter
        self._letters: dict[str, str] = {}  # their ids
        self._looks: dict[str, str] = {}  # classes by style
        self._numbers = count()

    def new_id(self) -> str:
        return f"_{next(self._numbers)}"

    def letter(self, name: str) -> str:
        """The id of a letter's outline."""
        return self._letters.get(name) or self._letters.setdefault(name, self.new_id())

    def look(self, style: str) -> str:
        """The class with this style."""
        return self._looks.setdefault(style, f"_{len(self._looks)}")

    def take_letters(self, root: ElementTree.Element) -> None:
        """Moves the outlines out of a figure."""
        for parent in list(root.iter(f"{{{SVG}}}defs")):
            for child in list(parent):
                name = child.get("id", "")
                if GLYPH.fullmatch(name):
                    parent.remove(child)
                    child.tail = None
                    child.set("id", self.letter(name))
                    text = _serialise(child)
                    if self._paths.setdefault(name, text) != text:
                        raise ValueError(f"two letters go by the name {name}")

    def outlines(self) -> str:
        """An invisible SVG that holds all letters."""
        paths = "".join(text for _, text in sorted(self._paths.items()))
        return (
            f'<svg xmlns="{SVG}" class="glyphs" width="0" height="0" aria-hidden="true">'
            f"<defs>{paths}</defs></svg>"
        )

    def rules(self) -> str:
        """The looks as CSS."""
        return "".join(f".{name}{{{style}}}" for style, name in self._looks.items())


def _serialise(element: ElementTree.Element) -> str:
    text = ElementTree.tostring(element, encoding="unicode")
    return text.replace(f' xmlns="{SVG}"', "")


def _clean(element: ElementTree.Element, ids: dict[str, str], sprite: Sprite) -> None:
    name = element.attrib.pop("id", "")
    if name in ids:
        element.set("id", ids[name])
    target = element.attrib.pop(XLINK, "").removeprefix("#")
    if target:
        element.set("href", f"#{ids[target] if target in ids else sprite.letter(target)}")
    for key, value in element.attrib.items():
        if key in {"d", "x", "y"}:
            value = _shortened(" ".join(value.split()))
        elif key == "transform":
            value = TRANSLATE.sub(lambda match: _shortened(match.group()), value)
        value = REFERENCE.sub(lambda match: f"url(#{ids[match.group(1)]})", value)
        element.set(key, value)
    moved = TRANSLATE.fullmatch(element.get("transform", "")) if element.tag == USE else None
    if moved:  # the same in fewer letters
        del element.attrib["transform"]
        element.attrib.update({k: v for k, v in zip("xy", moved.groups()) if v != "0"})
    style = element.attrib.pop("style", "")
    if style:
        element.set("class", sprite.look(COLOUR.sub(lambda m: variable(m.group()), style)))
    element.text = element.text.strip() if element.text else None
    element.tail = None


def _without_bare_groups(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The children; of groups without attributes, which change nothing, theirs."""
    for child in element:
        if child.tag == GROUP and not child.attrib:
            yield from _without_bare_groups(child)
        else:
            yield child


def inline(document: str, sprite: Sprite, label: str) -> str:
    """The figure as an <svg> element that fills its box. `label` is the text for screen readers."""
    root = ElementTree.fromstring(document)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    sprite.take_letters(root)
    referenced = {name for element in root.iter() for name in _references(element)}
    ids = {name: sprite.new_id() for name in sorted(referenced) if not GLYPH.fullmatch(name)}
    view_box = root.get("viewBox", "")
    for element in root.iter():
        _clean(element, ids, sprite)
    for parent in list(root.iter()):
        parent[:] = [
            child
            for child in _without_bare_groups(parent)
            if child.tag != f"{{{SVG}}}defs" or len(child) > 0
        ]
    root.attrib.clear()
    root.set("viewBox", view_box)
    root.set("role", "img")
    root.set("aria-label", label)
    return _serialise(root)
