#!/usr/bin/env python3
# usage: scripts/tidy.py [--self-test | --help]
"""Checks the house rules that no compiler checks, over every file of the source tree. Prints one line per
breach and exits with 1 if there is one. --self-test proves instead that each rule can fail."""

import os
import re
import sys
import tempfile
from pathlib import Path

MAX_COLUMNS = 110
MAX_LINES = 450

# Which way the parts depend. A file obeys the entry with the longest matching key; each entry lists what its
# files may include beside the standard library, the system, other packages, and their own folder.
MAY_INCLUDE = {
    "include/aprime/": [],
    "host/sync/": [],
    "host/trace/": ["include/aprime/"],
    "host/coherence/": ["include/aprime/"],
    "host/os/": ["include/aprime/", "host/sync/"],
    "host/device/": ["include/aprime/", "host/sync/", "host/os/"],
    "host/engine/": ["include/aprime/", "host/sync/", "host/trace/", "host/os/", "host/device/",
                     "host/coherence/"],
    "host/mount/": ["include/aprime/", "host/sync/", "host/os/", "host/coherence/", "host/engine/"],
    "host/cli/": ["include/aprime/", "kernels/"],
    "kernels/": ["include/aprime/"],
    # The CUDA device is a Device: it shares with the emulated ones what is not about emulation.
    "kernels/cuda/": ["include/aprime/", "kernels/", "host/sync/", "host/os/futex.hpp",
                      "host/os/quiet_thread.hpp", "host/device/device.hpp", "host/device/device_fault.hpp",
                      "host/device/frame_memory.hpp", "host/device/demand_region.hpp",
                      "host/device/paging.hpp"],
    "bench/": ["include/aprime/", "kernels/"],
    "tests/": ["include/aprime/", "host/", "kernels/"],
    "tests/consumer/": ["include/aprime/"],
}

# Concrete devices and views: who may include them, beside the files of their own folder and the tests.
CONCRETE = re.compile(r"host/device/\w*(emulated|faulting|strict)\w*\.hpp|host/os/\w*view\w*\.hpp")
MAY_INCLUDE_CONCRETE = ["host/engine/runtime.cpp"]

# These know nothing but C++ (libcu++ where device code is compiled for CUDA), so that they compile everywhere
# (public headers) and can be model-checked (coherence).
STANDARD_ONLY = ["include/aprime/", "host/coherence/"]
STANDARD_HEADER = re.compile(r"[a-z_0-9]+|cuda/atomic")

FOLDERS = ["include", "host", "kernels", "tests", "bench", "scripts", "cmake", ".ci"]
TOP_FILES = ["CMakeLists.txt", "CMakePresets.json", "README.md"]
# Beside those, what may lie at the top: no memory image, no output of a tool. Hidden files are a developer's
# own.
OTHER_TOP_FILES = ["LICENSE", "CMakeUserPresets.json", "compile_commands.json"]
HEADERS = {".hpp", ".cuh"}
SOURCES = {".cpp", ".cu"}
UNLIMITED_COLUMNS = {".md", ".json"}  # tables, links and descriptions cannot be broken

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
# Written so that this file does not break the rules itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
MACHINE_PATH = re.compile(r"(?<!\w)/(work|root|tmp/bash|tmp/build)\b[/_.-]")


def source_files(root):
    """Paths relative to root, in a fixed order."""
    for name in TOP_FILES:
        if (root / name).is_file():
            yield name
    for folder in FOLDERS:
        for directory, subdirectories, names in os.walk(root / folder):
            subdirectories[:] = sorted(name for name in subdirectories if name != "__pycache__")
            for name in sorted(names):
                yield (Path(directory) / name).relative_to(root).as_posix()


def longest_match(path, keys):
    return max((key for key in keys if path.startswith(key)), key=len, default=None)


def check_text(path, text):
    lines = text.split("\n")
    if len(lines) - 1 > MAX_LINES:
        yield 1, "file-length", f"{len(lines) - 1} lines, at most {MAX_LINES}"
    if not text.endswith("\n"):
        yield len(lines), "final-newline", "the last line does not end"
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS and Path(path).suffix not in UNLIMITED_COLUMNS:
            yield number, "line-length", f"{len(line)} columns, at most {MAX_COLUMNS}"
        if "\t" in line:
            yield number, "tab", "indent with spaces"
        if line != line.rstrip():
            yield number, "trailing-space", "ends in white space"
        if found := UNFINISHED.search(line):
            yield number, "unfinished", f"{found[0]}: finish it, or say what holds today"
        if found := MACHINE_PATH.search(line):
            yield number, "machine-path", f"{found[0]} exists on one machine only"
    if Path(path).suffix in HEADERS and "#pragma once" not in lines:
        yield 1, "pragma-once", "a header begins with #pragma once"


def check_include(root, path, bracket, name):
    part = longest_match(path, MAY_INCLUDE)
    if bracket == "<":
        if name.startswith(("aprime/", "host/", "kernels/", "tests/", "bench/")):
            yield "include-form", f"<{name}> is ours: write it in quotes"
        if longest_match(path, STANDARD_ONLY) and not STANDARD_HEADER.fullmatch(name):
            yield "include-direction", f"<{name}>: only the standard library here"
        return
    target = "include/" + name if name.startswith("aprime/") else name
    if not (root / target).is_file():
        yield "include-form", f'"{name}" is no path from include/ or from the root of the repository'
        return
    folder = target.rsplit("/", 1)[0] + "/"
    own = path.startswith(part) and target.startswith(part)
    if not own and not any(target.startswith(allowed) for allowed in MAY_INCLUDE[part]):
        yield "include-direction", f"{part} must not depend on {target}"
    if (CONCRETE.fullmatch(target) and not path.startswith((folder, "tests/"))
            and path not in MAY_INCLUDE_CONCRETE):
        yield "concrete", f"{target} is concrete: only {', '.join(MAY_INCLUDE_CONCRETE)} names it"


def listed_in_cmake(texts):
    """The files named in any CMakeLists.txt, as paths from the root."""
    listed = set()
    for path, text in texts.items():
        if Path(path).name == "CMakeLists.txt":
            folder = Path(path).parent
            for word in re.findall(r"[^\s()\"]+", re.sub(r"#.*", "", text)):
                absolute = word.startswith("${PROJECT_SOURCE_DIR}/")
                listed.add(word.split("/", 1)[1] if absolute else os.path.normpath(folder / word))
    return listed


def check_tree(root):
    """Yields (path, line, rule, message) for every breach below root."""
    for path in sorted(root.iterdir()):
        if path.is_file() and path.name[0] != "." and path.name not in TOP_FILES + OTHER_TOP_FILES:
            yield path.name, 1, "stray-file", "does not belong at the top"
    texts = {}
    for path in source_files(root):
        texts[path] = (root / path).read_text(encoding="utf-8")

    included = set()
    for path, text in texts.items():
        for number, rule, message in check_text(path, text):
            yield path, number, rule, message
        if Path(path).suffix in HEADERS | SOURCES:
            for number, line in enumerate(text.split("\n"), 1):
                if found := INCLUDE.match(line):
                    included.add("include/" + found[2] if found[2].startswith("aprime/") else found[2])
                    for rule, message in check_include(root, path, found[1], found[2]):
                        yield path, number, rule, message
        executable = os.access(root / path, os.X_OK)
        if executable != text.startswith("#!"):
            yield path, 1, "run-bit", "executable without #!" if executable else "#! without the run bit"

    listed = listed_in_cmake(texts)
    for path in texts:
        public = path.startswith("include/")
        if (Path(path).suffix in SOURCES or public) and path not in listed:
            yield path, 1, "dead-file", "in no CMakeLists.txt"
        elif Path(path).suffix in HEADERS and path not in listed and path not in included:
            yield path, 1, "dead-file", "included by nothing"


def self_test():
    """One good tree, and per case one change to it that breaks exactly one rule."""
    good = {
        "CMakeLists.txt": "add_subdirectory(host)\n",
        "host/CMakeLists.txt": "add_library(aprime ${PROJECT_SOURCE_DIR}/include/aprime/a.hpp\n  os/o.cpp\n"
                               "  engine/e.cpp engine/runtime.cpp coherence/c.cpp cli/main.cpp)\n",
        "include/aprime/a.hpp": "#pragma once\n#include <vector>\n",
        "host/coherence/c.cpp": '#include "aprime/a.hpp"\n',
        "host/device/device.hpp": "#pragma once\n",
        "host/device/emulated.hpp": '#pragma once\n#include "host/device/device.hpp"\n',
        "host/engine/e.cpp": '#include "host/device/device.hpp"\n',
        "host/engine/runtime.cpp": '#include "host/device/emulated.hpp"\n',
        "host/os/o.cpp": "#include <sys/mman.h>\n",
        "host/cli/main.cpp": '#include "aprime/a.hpp"\n',
        "scripts/go": "#!/bin/sh\n",
    }
    cases = [
        ("include-direction", "include/aprime/a.hpp", '#pragma once\n#include "host/device/device.hpp"\n'),
        ("include-direction", "include/aprime/a.hpp", "#pragma once\n#include <sys/mman.h>\n"),
        ("include-direction", "host/coherence/c.cpp", '#include "host/device/device.hpp"\n'),
        ("include-direction", "host/os/o.cpp", '#include "host/device/device.hpp"\n'),
        ("include-direction", "host/cli/main.cpp", '#include "host/device/device.hpp"\n'),
        ("include-form", "host/engine/e.cpp", '#include "device.hpp"\n'),
        ("include-form", "host/engine/e.cpp", "#include <aprime/a.hpp>\n"),
        ("concrete", "host/engine/e.cpp", '#include "host/device/emulated.hpp"\n'),
        ("dead-file", "host/os/forgotten.cpp", "\n"),
        ("dead-file", "host/os/forgotten.hpp", "#pragma once\n"),
        ("dead-file", "include/aprime/forgotten.hpp", "#pragma once\n"),
        ("line-length", "host/os/o.cpp", "x" * (MAX_COLUMNS + 1) + "\n"),
        ("file-length", "host/os/o.cpp", "\n" * (MAX_LINES + 1)),
        ("final-newline", "host/os/o.cpp", "int x;"),
        ("tab", "host/os/o.cpp", "\tint x;\n"),
        ("trailing-space", "host/os/o.cpp", "int x; \n"),
        ("pragma-once", "include/aprime/a.hpp", "\n"),
        ("unfinished", "host/os/o.cpp", "// TO" "DO: later\n"),
        ("machine-path", "host/os/o.cpp", 'open("/ro' 'ot/file");\n'),
        ("stray-file", "core", "\n"),
        ("run-bit", "scripts/go", "echo\n"),
        ("run-bit", "host/os/o.cpp", "#!\n"),
    ]

    def rules_broken(files):
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")
                (root / path).chmod(0o755 if path.startswith("scripts/") else 0o644)
            return [rule for _, _, rule, _ in check_tree(root)]

    failures = [f"a good tree breaks {rule}" for rule in rules_broken(good)]
    for rule, path, text in cases:
        broken = rules_broken({**good, path: text})
        if broken != [rule]:
            failures.append(f"{path} with {text[:40]!r} breaks {broken}, not only {rule}")
    with open(__file__, encoding="utf-8") as source:
        rules = set(re.findall(r'yield (?:\w+(?:\(\w+\))?, )*"([a-z-]+)"', source.read()))
    failures += [f"no case breaks {rule}" for rule in rules - {rule for rule, _, _ in cases}]
    return failures


def main(arguments):
    if arguments == ["--help"]:
        print(__doc__)
        return 0
    if arguments == ["--self-test"]:
        problems = self_test()
    elif not arguments:
        root = Path(__file__).resolve().parent.parent
        problems = [f"{path}:{line}: {message} [{rule}]" for path, line, rule, message in check_tree(root)]
    else:
        print(f"scripts/tidy.py: unknown arguments {arguments} (try --help)", file=sys.stderr)
        return 2
    print("\n".join(problems) if problems else "tidy")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
