#!/usr/bin/env python3
# usage: csr.py [--graph] FROM.mtx TO.csr
"""Makes a file of compressed sparse rows, as `aprime run spmv`, `cg` and `bfs` read it, of a Matrix Market
file (https://math.nist.gov/MatrixMarket/formats.html): `coordinate`, with `real`, `integer` or `pattern`
entries, `general` or `symmetric`. A pattern's values are 1. --graph leaves the values out. Holds the matrix
in memory."""

import array
import contextlib
import math
import os
import re
import stat
import struct
import sys
import tempfile

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
    with whole_file(path) as f:
        f.write(header + offsets.tobytes() + numbers.tobytes())
        if with_values:
            f.write(values.tobytes())


def mode_for(path):
    """Of what is there, or of what would be made there."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(os.stat(path).st_mode)
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def whole_file(path):
    """For writing; it takes the place of what is there when it is complete."""
    named = path
    path = os.path.realpath(path)
    if os.path.exists(named) and not os.path.isfile(path):
        with open(named, "wb") as f:  # a device or a pipe, which may have no other name than /dev/stdout
            yield f
        return
    fd, unfinished = tempfile.mkstemp(prefix=os.path.basename(path)[:100] + ".", dir=os.path.dirname(path))
    try:
        with open(fd, "wb") as f:
            yield f
        os.chmod(unfinished, mode_for(path))
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def counts_of(words):
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise ValueError("has not the numbers of rows, columns and entries")
    return map(int, words)


def integer_of(word):
    # int() takes underscores, too.
    if not re.fullmatch("[+-]?[0-9]+", word):
        raise ValueError(f"has {word}, which is no integer")
    return int(word)


def value_of(word, kind):
    if kind == "integer":
        integer_of(word)
    if "_" in word:
        raise ValueError(f"has {word}, which is no number")
    value = float(word)
    try:
        value, = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        value = math.inf
    is_zero = not any(digit in "123456789" for digit in word.lower().partition("e")[0])
    if (math.isinf(value) and "inf" not in word.lower()) or (value == 0 and not is_zero):
        raise ValueError(f"has {word}, which is out of the range of float32")
    return value


def read_matrix_market(path):
    """Returns rows, columns and entries. Raises ValueError."""
    # Comments are in any encoding; a number that is none is found where it is read.
    with open(path, encoding="ascii", errors="replace") as f:
        kind = f.readline().lower().split()
        if kind[:3] != ["%%matrixmarket", "matrix", "coordinate"] or len(kind) != 5:
            raise ValueError("does not begin with %%MatrixMarket matrix coordinate TYPE SYMMETRY")
        if kind[3] not in ("real", "integer", "pattern") or kind[4] not in ("general", "symmetric"):
            raise ValueError(f"has {kind[3]} {kind[4]} entries, which are not supported")
        words_of_entry = 2 if kind[3] == "pattern" else 3
        sizes = None
        entries = []
        found = 0
        for number, line in enumerate(f, 2):
            words = line.split()
            if not words or line.startswith("%"):
                continue
            try:
                if sizes is None:
                    sizes = rows, columns, count = tuple(counts_of(words))
                    if columns > 2**32:
                        raise ValueError(f"has {columns} columns; 32 bits number 2^32 of them")
                    if kind[4] == "symmetric" and rows != columns:
                        raise ValueError(f"has {rows} rows and {columns} columns, and calls itself symmetric")
                    continue
                if len(words) != words_of_entry:
                    raise ValueError(f"has {len(words)} words; an entry has {words_of_entry}")
                row, column = integer_of(words[0]) - 1, integer_of(words[1]) - 1
                if not (0 <= row < rows and 0 <= column < columns):
                    raise ValueError(f"has an entry at row {row + 1}, column {column + 1}, out of range")
                if kind[4] == "symmetric" and column > row:
                    raise ValueError(f"has an entry above the diagonal at row {row + 1}, column "
                                     f"{column + 1}; a symmetric matrix is given by its lower triangle")
                value = 1.0 if kind[3] == "pattern" else value_of(words[2], kind[3])
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            entries.append((row, column, value))
            if kind[4] == "symmetric" and row != column:
                entries.append((column, row, value))
            found += 1
    if sizes is None:
        raise ValueError("ends before the line with the numbers of rows, columns and entries")
    if found != count:
        raise ValueError(f"has {found} entries and not {count}, as it says")
    return rows, columns, entries


def fail(path, why):
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{path}: {why}")
    print(f"csr.py: {line}", file=sys.stderr)
    return 1


def main(arguments):
    if arguments == ["--help"]:
        print(__doc__)
        return 0
    with_values = arguments[:1] != ["--graph"]
    paths = arguments if with_values else arguments[1:]
    if len(paths) != 2:
        print("csr.py: usage: csr.py [--graph] FROM.mtx TO.csr", file=sys.stderr)
        return 2
    at_work_on = paths[0]
    try:
        rows, columns, entries = read_matrix_market(paths[0])
        at_work_on = paths[1]
        if os.path.isfile(paths[1]) and os.path.samefile(*paths):
            return fail(paths[1], "is the file that is read; give another one to write")
        write_csr(paths[1], rows, columns, entries, with_values)
    except OSError as error:
        return fail(at_work_on, error.strerror)
    except ValueError as error:
        return fail(at_work_on, error)
    except (MemoryError, OverflowError):
        return fail(paths[0], "is too large for this machine's memory")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
