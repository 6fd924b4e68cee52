#!/usr/bin/env python3
"""Workloads that put a file into another order, on every device, with files larger than the device memory.
Results are compared with what Python computes, besides --verify."""

import array
import unittest

from command import EACH_DEVICE, SIZE, SMALL, CliTest


class OrderWorkloads(CliTest):
    def test_transpose_of_any_shape(self):
        shapes = [(307, 311), (5, 20000), (300, 300), (1, 70000), (70000, 1), (2, 50003), (50003, 2),
                  (311, 307), (600, 600)]
        for rows, columns in shapes[:3] if SMALL else shapes:
            matrix = self.words(rows * columns)
            expected = array.array("I")
            for column in range(columns):
                expected.extend(matrix[column::columns])
            for options in EACH_DEVICE:
                with self.subTest(rows=rows, columns=columns):
                    path = self.file(matrix.tobytes())
                    report = self.run_json("transpose", path, "--rows", str(rows), *options)
                    self.assertEqual(report["result"], {"rows": columns, "columns": rows})
                    self.assertEqual(self.content(path), expected.tobytes())

    def test_sort_of_a_file_larger_than_the_device(self):
        values = self.words(SIZE // 8 + 3)
        few = self.words(SIZE // 8, bits=2)
        descending = array.array("I", range(SIZE // 8, 0, -1))
        for name, given in (("random", values), ("few", few), ("descending", descending)):
            expected = array.array("I", sorted(given)).tobytes()
            for options in EACH_DEVICE:
                with self.subTest(values=name):
                    path = self.file(given.tobytes())
                    self.run_json("sort", path, *options)
                    self.assertEqual(self.content(path), expected)


if __name__ == "__main__":
    unittest.main()
