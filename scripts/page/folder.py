"""Results folders, as `vla-bench report --out` writes them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from page.figures import PageFigure, page_figures
from page.svg import Sprite
from page.tables import PageTable, curves_text, left_out, page_tables
from page.text import slug
from plotting.tables import Report

# The main facts of provenance.json, with their names on the page.
FACTS = {
    "processor": "processor",
    "cores": "cores",
    "threads": "threads",
    "jobs": "jobs",
    "cuda": "GPU",
    "git_hash": "source",
    "version": "version",
    "compiler": "compiler",
    "build_type": "build",
}


@dataclass(frozen=True)
class Document:
    """A JSON document of a folder, folded under its title."""

    title: str
    text: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Folder:
    name: str
    id: str
    figures: list[PageFigure]
    tables: list[PageTable]
    curves: str
    left_out: list[str]
    broken: list[str]  # files that could not be read, and why
    machines: list[str]
    provenance: list[Document]
    configs: dict[str, list[Document]]  # by experiment

    def configs_of(self, figure: PageFigure) -> list[Document]:
        kinds = figure.about.experiments
        return [config for kind in kinds for config in self.configs.get(kind, [])]


@dataclass(frozen=True)
class Results:
    folders: list[Folder]
    sprite: Sprite


def _read_list(path: Path, broken: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSON list; none when the file is missing or broken."""
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, list) and all(isinstance(item, dict) for item in document):
            return document
        broken.append(f"{path.name} of {path.parent.name}: expected a list of objects")
    except (OSError, ValueError) as error:
        broken.append(f"{path.name} of {path.parent.name}: {error}")
    return []


def _pretty(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def _machine(facts: dict[str, Any]) -> str:
    processor = f"{facts.get('processor', 'an unknown processor')}, {facts.get('cores', '?')} cores"
    gpu = str(facts.get("cuda", ""))
    return (
        f"{gpu.removeprefix('available: ')}; {processor}"
        if gpu.startswith("available")
        else processor
    )


def _run(facts: dict[str, Any]) -> Document:
    shown = [(name, str(facts[key])) for key, name in FACTS.items() if facts.get(key)]
    if str(facts.get("git_dirty")) == "true":
        shown.append(("source changed", "yes: not only the committed source"))
    return Document("provenance.json", _pretty(facts), shown)


def _config(config: dict[str, Any]) -> Document:
    """The document of one provenance; its facts are those in which the cells differ."""
    mixers = [
        mixer.get("label") or mixer.get("mixer") if isinstance(mixer, dict) else mixer
        for mixer in config.get("mixers", [])
    ]
    axes = {"mixers": mixers, **(config.get("sweep") or {}), "seeds": config.get("seeds", [])}
    cells = math.prod(len(values) for values in axes.values())
    facts = [(axis, ", ".join(map(str, values))) for axis, values in axes.items()]
    return Document(
        str(config.get("name", "config")), _pretty(config), [("cells", str(cells)), *facts]
    )


def _read_folder(path: Path, name: str, sprite: Sprite) -> Folder:
    if not any(path.glob("*.csv")):
        raise ValueError(
            f"no tables (*.csv) in {path}: expected what `vla-bench report --out` wrote"
        )
    report = Report(path)
    broken: list[str] = []
    configs: dict[str, list[Document]] = {}
    for config in _read_list(path / "configs.json", broken):
        configs.setdefault(str(config.get("experiment")), []).append(_config(config))
    provenance = _read_list(path / "provenance.json", broken)
    identity = slug(name)
    try:
        return Folder(
            name=name,
            id=identity,
            figures=page_figures(report, sprite),
            tables=page_tables(report),
            curves=curves_text(report),
            left_out=left_out(report),
            broken=broken,
            machines=list(dict.fromkeys(_machine(facts) for facts in provenance)),
            provenance=[_run(facts) for facts in provenance],
            configs=configs,
        )
    except KeyError as error:  # a column
        raise ValueError(f"{path}: missing or unknown: {error}") from None


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest distinct end of each path, since a page should not show whole directories."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len({slug(name) for name in names}) == len(names):
            return names
    raise ValueError("a results folder is given twice")


def read_folders(paths: Sequence[Path]) -> Results:
    sprite = Sprite()
    names = _short_names(paths)
    return Results([_read_folder(path, name, sprite) for path, name in zip(paths, names)], sprite)
