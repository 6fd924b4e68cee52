#!/usr/bin/env python3
# usage: csr.py [--graph] FROM.mtx TO.csr
"""Makes a file of compressed sparse rows, as `aprime run spmv`, `cg` and `bfs` read it, of a Matrix Market
file (https://math.nist.gov/MatrixMarket/formats.html): `coordinate`, with `real`, `integer` or `pattern`
entries, `general` or `symmetric`. A pattern's values are 1. --graph leaves the values out. Holds the matrix
in memory."""

import array
import struct
import sys

MAGIC = b"APRIMCSR"
VERSION = 1
HEADER = struct.Struct("<8sII6Q")


def write_csr(path, rows, columns, entries, with_values=True):
    """`entries`: (row, column, value), counted from 0, in any order; equal places are kept as they are."""
    offsets = array.array("Q", bytes(8 * (rows + 1)))
    for row, _, _ in entries:
        offsets[row + 1] += 1
    for row in range(rows):
        offsets[row + 1] += offsets[row]
    numbers = array.array("I")
    values = array.array("f")
    for _, column, value in sorted(entries):
        numbers.append(column)
        values.append(value)
    offsets_at = HEADER.size
    columns_at = offsets_at + 8 * len(offsets)
    values_at = columns_at + 4 * len(numbers)
    header = HEADER.pack(MAGIC, VERSION, int(with_values), rows, columns, len(numbers), offsets_at,
                         columns_at, values_at if with_values else 0)
    if sys.byteorder == "big":
        for part in (offsets, numbers, values):
            part.byteswap()
    with open(path, "wb") as f:
        f.write(header + offsets.tobytes() + numbers.tobytes())
        if with_values:
            f.write(values.tobytes())


def read_matrix_market(path):
    """Returns rows, columns and entries. Raises ValueError."""
    with open(path, encoding="ascii") as f:
        kind = f.readline().lower().split()
        if kind[:3] != ["%%matrixmarket", "matrix", "coordinate"] or len(kind) != 5:
            raise ValueError("does not begin with %%MatrixMarket matrix coordinate TYPE SYMMETRY")
        if kind[3] not in ("real", "integer", "pattern") or kind[4] not in ("general", "symmetric"):
            raise ValueError(f"has {kind[3]} {kind[4]} entries, which are not supported")
        lines = (line.split() for line in f if line.strip() and not line.startswith("%"))
        rows, columns, count = map(int, next(lines, ["0", "0", "0"]))
        entries = []
        for words in lines:
            row, column = int(words[0]) - 1, int(words[1]) - 1
            if not (0 <= row < rows and 0 <= column < columns):
                raise ValueError(f"has an entry at row {row + 1}, column {column + 1}, out of range")
            value = 1.0 if kind[3] == "pattern" else float(words[2])
            entries.append((row, column, value))
            if kind[4] == "symmetric" and row != column:
                entries.append((column, row, value))
            count -= 1
    if count != 0:
        raise ValueError("has not as many entries as it says")
    return rows, columns, entries


def main(arguments):
    if arguments == ["--help"]:
        print(__doc__)
        return 0
    with_values = arguments[:1] != ["--graph"]
    paths = arguments if with_values else arguments[1:]
    if len(paths) != 2:
        print("csr.py: usage: csr.py [--graph] FROM.mtx TO.csr", file=sys.stderr)
        return 2
    try:
        write_csr(paths[1], *read_matrix_market(paths[0]), with_values)
    except (OSError, ValueError, IndexError) as error:
        print(f"csr.py: {paths[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
