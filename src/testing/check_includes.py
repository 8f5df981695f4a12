#!/usr/bin/env python3
"""Checks that the folders of src depend downwards only, and that the folders above the device
dispatch have no CUDA #ifdef.

    check_includes.py SRC        check that tree; exit status 1 and one line per fault
    check_includes.py --self-test SRC   first show on a temporary tree that faults are found
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

# The folders that a folder may include besides itself.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "config": {"core"},
    "report": {"config", "core"},
    "ops": {"core"},
    "tasks": {"config", "ops", "core"},
    "mixers": {"config", "ops", "core"},
    "model": {"mixers", "tasks", "config", "ops", "core"},
    "train": {"model", "tasks", "mixers", "config", "ops", "core"},
    "bench": {"ops", "core"},
}
BELOW_EXPERIMENTS = set(ALLOWED)
ALLOWED["experiments"] = BELOW_EXPERIMENTS
ALLOWED["golden"] = {"train", "model", "tasks", "mixers", "config", "ops", "core"}
ALLOWED["runs"] = BELOW_EXPERIMENTS | {"experiments"}
# Headers for the tests of any folder; a folder's tests may also include what these headers include.
ALLOWED["testing"] = BELOW_EXPERIMENTS | {"experiments", "runs"}
ALLOWED["fuzz"] = {"config", "report", "runs", "core"}
ALLOWED["claims"] = {"config", "report", "core"}
ALLOWED["cli"] = BELOW_EXPERIMENTS | {"experiments", "claims", "golden", "runs"}
MAIN_MAY_INCLUDE = {"cli", "core"}

# Generated in the build folder, so not found in src: no dependency on another folder.
GENERATED_HEADERS = {"build_info.h"}

NO_CUDA_CONDITIONS = {"mixers", "model", "train"}

# Folders of src/mixers that several mixers share and that include no mixer.
SHARED_BY_MIXERS = {"recurrence"}

# Experiments and mixers declare names, keys and columns, of which config, report, tasks and runs would
# otherwise each need a list. These headers, and the headers of their folders that they reach, are
# plain data and pure functions of a config. Experiments are just above config. Mixers are part of
# config's structs: of config they include only how a key is declared.
DECLARATIONS = {Path("experiments/list.h"), Path("mixers/list.h")}
DECLARATIONS_MAY_INCLUDE = {"config", "core"}
MIXERS_MAY_INCLUDE = {"config/enums.h", "config/field.h"}

SOURCES = {".h", ".cpp", ".cu", ".cuh"}
TEST_OR_BENCHMARK = re.compile(r"_(test|benchmark)\.(cpp|cu)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
CUDA_CONDITION = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|elifdef|elifndef)\b.*CUDA")


def read_includes(source: Path, path: Path) -> list[str]:
    text = (source / path).read_text(encoding="utf-8")
    return [match[1] for line in text.splitlines() if (match := INCLUDE.match(line))]


def find_test_files(source: Path, paths: list[Path]) -> set[Path]:
    """Tests, benchmarks, and the headers that only these include."""
    includers: dict[Path, set[Path]] = {}
    for path in paths:
        for included in read_includes(source, path):
            includers.setdefault(Path(included), set()).add(path)
    found = {path for path in paths if TEST_OR_BENCHMARK.search(path.name)}
    while True:
        support = {path for path in paths if path in includers and includers[path] <= found}
        if support <= found:
            return found
        found |= support


def find_declarations(source: Path) -> set[Path]:
    found: set[Path] = set()
    left = {path for path in DECLARATIONS if (source / path).is_file()}
    while left:
        path = left.pop()
        found.add(path)
        included = {Path(name) for name in read_includes(source, path)}
        left |= {one for one in included if one.parts[0] == path.parts[0]} - found
    return found


def allowed_folders(path: Path, is_test: bool, declarations: set[Path]) -> set[str]:
    """Folders of src that the file at `path` (relative to src) may include."""
    if len(path.parts) == 1:
        return MAIN_MAY_INCLUDE
    if path in declarations:
        return DECLARATIONS_MAY_INCLUDE
    folder = path.parts[0]
    allowed = ALLOWED[folder] | {folder}
    if is_test:
        allowed = allowed | {"testing"}
    return allowed


def include_fault(
    source: Path, path: Path, included: str, is_test: bool, declarations: set[Path]
) -> str | None:
    """Why the file at `path` may not include `included`; None when it may."""
    target = Path(included)
    if included in GENERATED_HEADERS:
        return None
    if not (source / target).is_file():
        return f'"{included}" is no file of src (quoted includes are written from src)'
    if len(target.parts) == 1:
        return f'"{included}" lies outside every folder'
    declared = target in declarations and path.parts[0] != "core"
    if not declared and target.parts[0] not in allowed_folders(path, is_test, declarations):
        return f'includes upwards: "{included}"'
    if path in declarations and path.parts[0] == "mixers" and target.parts[0] == "config":
        if included not in MIXERS_MAY_INCLUDE:
            return f'a declaration that config includes: "{included}"'
    # mixers/<a>/ against mixers/<b>/. The list, the registry and the layer above the mixers see all.
    own_mixer = path.parts[1] if path.parts[0] == "mixers" and len(path.parts) > 2 else None
    other_mixer = target.parts[1] if target.parts[0] == "mixers" and len(target.parts) > 2 else None
    shared = other_mixer in SHARED_BY_MIXERS
    if own_mixer and other_mixer and own_mixer != other_mixer and not shared:
        return f'one mixer includes another: "{included}"'
    return None


def check_file(source: Path, path: Path, is_test: bool, declarations: set[Path]) -> list[str]:
    if len(path.parts) > 1 and path.parts[0] not in ALLOWED:
        return [f"{path}: folder {path.parts[0]} is not in the list of allowed dependencies"]
    faults = []
    for number, line in enumerate((source / path).read_text(encoding="utf-8").splitlines(), 1):
        include = INCLUDE.match(line)
        fault = None
        if include:
            fault = include_fault(source, path, include[1], is_test, declarations)
        if path.parts[0] in NO_CUDA_CONDITIONS and CUDA_CONDITION.match(line):
            fault = "the device is chosen by dispatch, not by a condition on CUDA"
        if fault:
            faults.append(f"{path}:{number}: {fault}")
    return faults


def check(source: Path) -> list[str]:
    paths = sorted(p.relative_to(source) for p in source.rglob("*") if p.suffix in SOURCES)
    if not paths:
        return [f"{source}: no sources"]
    tests = find_test_files(source, paths)
    declarations = find_declarations(source)
    return [
        fault for path in paths for fault in check_file(source, path, path in tests, declarations)
    ]


def self_test() -> list[str]:
    """Faults that the check misses or wrongly reports on small made-up trees."""
    headers = [
        "core/a.h",
        "ops/a.h",
        "train/a.h",
        "cli/a.h",
        "testing/a.h",
        "mixers/mixer.h",
        "mixers/vla/vla.h",
        "mixers/linear/linear.h",
        "mixers/vla/options.h",
        "config/field.h",
        "mixers/recurrence/scan.h",
        "config/a.h",
    ]
    good: list[dict[str, str]] = [
        {"main.cpp": '#include "cli/a.h"'},
        {"ops/b.cpp": '#include "core/a.h"\n#include <vector>\n#ifdef VLA_CUDA'},
        {"ops/b_test.cpp": '#include "testing/a.h"'},
        {"ops/b.h": '#include "core/a.h"'},
        # A header only for tests.
        {"ops/b.h": '#include "testing/a.h"', "ops/b_test.cpp": '#include "ops/b.h"'},
        {"mixers/registry.cpp": '#include "mixers/vla/vla.h"\n#include "mixers/linear/linear.h"'},
        {"mixers/vla/vla_cpu.cpp": '#include "mixers/vla/vla.h"\n#include "mixers/mixer.h"'},
        {"mixers/vla/vla_cuda.cu": '#include "mixers/recurrence/scan.h"'},
        {
            "mixers/list.h": '#include "core/a.h"\n#include "mixers/vla/options.h"',
            "mixers/vla/options.h": '#include "core/a.h"\n#include "config/field.h"',
            "config/b.h": '#include "mixers/list.h"',
        },
        {
            "experiments/list.h": '#include "experiments/a.h"',
            "experiments/a.h": '#include "config/a.h"',
            "config/b.cpp": '#include "experiments/list.h"\n#include "experiments/a.h"',
        },
    ]
    bad: list[dict[str, str]] = [
        {"core/b.cpp": '#include "ops/a.h"'},
        {"ops/b.cpp": '  #  include "train/a.h"'},
        {"ops/b.cpp": '#include "testing/a.h"'},
        {"ops/b.h": '#include "testing/a.h"'},
        # The same header, used by the program too.
        {
            "ops/b.h": '#include "testing/a.h"',
            "ops/b_test.cpp": '#include "ops/b.h"',
            "ops/b.cpp": '#include "ops/b.h"',
        },
        {"ops/b.cpp": '#include "no/such.h"'},
        {"main.cpp": '#include "train/a.h"'},
        {"testing/b.h": '#include "cli/a.h"'},
        {"mixers/vla/vla_cpu.cpp": '#include "mixers/linear/linear.h"'},
        {"mixers/vla/vla_test.cpp": '#include "mixers/linear/linear.h"'},
        {"mixers/vla/vla_cuda.cu": '#include "train/a.h"'},
        {"mixers/recurrence/scan.cu": '#include "mixers/vla/vla.h"'},
        {"train/b.cpp": "#ifdef VLA_CUDA"},
        {"mixers/vla/vla_cpu.cpp": "#if defined(__CUDACC__)"},
        {"new_folder/a.h": ""},
        # No declaration: the list does not reach it.
        {
            "experiments/list.h": "",
            "experiments/a.h": "",
            "config/b.cpp": '#include "experiments/a.h"',
        },
        {
            "experiments/list.h": '#include "experiments/a.h"',
            "experiments/a.h": '#include "ops/a.h"',
        },
        {"config/b.h": '#include "mixers/mixer.h"'},
        {
            "mixers/list.h": '#include "mixers/vla/options.h"',
            "mixers/vla/options.h": '#include "config/a.h"',
        },
        {
            "mixers/list.h": '#include "mixers/vla/options.h"',
            "mixers/vla/vla.h": '#include "ops/a.h"',
            "mixers/vla/options.h": '#include "mixers/vla/vla.h"',
        },
        {
            "mixers/list.h": '#include "mixers/vla/options.h"',
            "mixers/linear/linear.h": '#include "mixers/vla/options.h"',
        },
        {"experiments/list.h": "", "core/b.h": '#include "experiments/list.h"'},
    ]
    wrong = []
    for expected, cases in ((0, good), (1, bad)):
        for files in cases:
            with tempfile.TemporaryDirectory() as folder:
                for path, content in (dict.fromkeys(headers, "") | files).items():
                    (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / path).write_text(content, encoding="utf-8")
                faults = check(Path(folder))
                if len(faults) != expected:
                    wrong.append(f"self-test: {files}: found {faults}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the folder src")
    parser.add_argument("--self-test", action="store_true", help="test this check first")
    options = parser.parse_args()
    faults = self_test() if options.self_test else []
    faults += check(options.source)
    print("\n".join(faults) or "includes point downwards")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
