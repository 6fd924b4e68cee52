#!/usr/bin/env python3
# usage: readme.py program README.md           prints the first program of the README
#        readme.py run README.md APRIME        runs every command that the README shows
"""What the README shows is what runs."""

import array
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from csr import write_csr


def blocks(readme, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)


def make_inputs(folder):
    """The files that the README's commands name."""
    floats = array.array("f", (float(i % 1000) for i in range(512 * 300)))
    for name in ("x.f32", "y.f32", "matrix.f32"):
        (folder / name).write_bytes(floats.tobytes())
    numbers = array.array("I", ((i * 2654435761) % 2**32 for i in range(100_000)))
    (folder / "numbers.u32").write_bytes(numbers.tobytes())
    square = array.array("f", (float(i % 10) for i in range(256 * 256)))
    for name in ("a.f32", "b.f32", "c.f32"):
        (folder / name).write_bytes(square.tobytes())
    (folder / "options.f32").write_bytes(array.array("f", [42, 40, 0.5, 0, 0] * 1000).tobytes())
    laplace = [(row, column, 3.0 if row == column else -1.0) for row in range(1000)
               for column in (row - 1, row, row + 1) if 0 <= column < 1000]
    write_csr(folder / "matrix.csr", 1000, 1000, laplace)
    write_csr(folder / "graph.csr", 1000, 1000, laplace, with_values=False)
    (folder / "counters.u32").write_bytes(bytes(4 * 1000))
    for name in ("p.f32", "q.f32"):
        (folder / name).write_bytes(floats[:1000].tobytes())
    (folder / "data.bin").write_bytes(b"hay needle hay " * 700_000)
    for name in ("tree", "shown"):
        (folder / name).mkdir()
    (folder / "tree" / "text.txt").write_text("the quick brown fox\n" * 10_000)
    (folder / "copy.txt").write_text("the quick brown fox\n" * 10_000)


def run_script(script, aprime, folder):
    """scripts/run for real, where it has nothing to build. The others would run this test again, take long,
    or need a profiler: they only say what they do."""
    builds_what_is_tested = aprime == script.parents[1] / "build/release/bin/aprime"
    argument = folder / "copy.txt" if script.name == "run" and builds_what_is_tested else "--help"
    print("$", script.name, argument, flush=True)
    subprocess.run([script, argument], check=True, stdout=subprocess.DEVNULL)


def run_commands(readme, aprime):
    scripts = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    commands = [line for line in scripts if line.startswith("aprime ")]
    if not commands:
        sys.exit("the README shows no command of aprime")
    with tempfile.TemporaryDirectory() as name:
        make_inputs(Path(name))
        for line in scripts:
            if line.startswith("scripts/"):
                run_script(readme.parent / shlex.split(line, comments=True)[0], aprime, Path(name))
        for line in commands:
            print("$", line, flush=True)
            words = shlex.split(line, comments=True)
            subprocess.run([aprime, *words[1:]], cwd=name, check=True)


def main():
    what, readme = sys.argv[1], Path(sys.argv[2]).resolve()
    if what == "program":
        print(blocks(readme, "cpp")[0], end="")
    elif what == "run":
        run_commands(readme, Path(sys.argv[3]).resolve())
    else:
        sys.exit(f"readme.py: unknown argument {what}")


if __name__ == "__main__":
    main()
