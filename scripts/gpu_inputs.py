#!/usr/bin/env python3
# usage: gpu_inputs.py DIRECTORY BYTES
"""Makes the files that scripts/gpu_check gives to the workloads: x and y (float32 of ordinary size, BYTES of
them each), options, a system of linear equations (matrix, b, solution), a graph, and the square matrices A,
B, C with the number of their rows in `rows`. The same bytes every time."""

import array
import math
import os
import random
import sys

from csr import write_csr


def write(directory, name, values):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(values if isinstance(values, bytes) else array.array("f", values).tobytes())


def repeated(block, size):
    """Random numbers are slow: one block of them, again and again."""
    return (block * (size // len(block) + 1))[:size]


def laplacian(side):
    """Five points on a square grid, with a diagonal that lets conjugate gradients end soon."""
    for i in range(side * side):
        row, column = divmod(i, side)
        yield i, i, 5.0
        if row > 0:
            yield i, i - side, -1.0
        if row < side - 1:
            yield i, i + side, -1.0
        if column > 0:
            yield i, i - 1, -1.0
        if column < side - 1:
            yield i, i + 1, -1.0


def make_inputs(directory, size):
    r = random.Random(1)
    numbers = array.array("f", (r.uniform(-1, 1) for _ in range(1 << 16))).tobytes()
    for name in "x", "y":
        write(directory, name, repeated(numbers, size // 4096 * 4096))
    option = [value for _ in range(4096)
              for value in (r.uniform(5, 30), r.uniform(1, 100), r.uniform(0.25, 10), 0.0, 0.0)]
    write(directory, "options", repeated(array.array("f", option).tobytes(), size // 4 // 20 * 20))

    side = max(8, math.isqrt(size // 256))
    write_csr(os.path.join(directory, "matrix"), side * side, side * side, list(laplacian(side)))
    write(directory, "b", [r.uniform(-1, 1) for _ in range(side * side)])
    write(directory, "solution", bytes(4 * side * side))

    vertices = max(64, size // 512)
    edges = [(v, r.randrange(vertices), 1.0) for v in range(vertices) for _ in range(8)]
    write_csr(os.path.join(directory, "graph"), vertices, vertices, edges, with_values=False)

    rows = 1 << ((size // 64).bit_length() - 1) // 2
    for name in "A", "B", "C":
        write(directory, name, repeated(numbers, 4 * rows * rows))
    write(directory, "rows", str(rows).encode())


def main(arguments):
    if arguments == ["--help"]:
        print(__doc__)
        return 0
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("gpu_inputs.py: usage: gpu_inputs.py DIRECTORY BYTES", file=sys.stderr)
        return 2
    make_inputs(arguments[0], int(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
