#!/usr/bin/env python3
"""Every workload gives the right result on every device, with files larger than the device memory. Results
are compared with what Python computes, besides --verify."""

import array
import unittest

from command import DEVICES, EACH_DEVICE, SMALL, CliTest


class Workloads(CliTest):
    SIZE = (1 << 20) + (1 << 18) if SMALL else 3 << 20

    def test_histogram_counts_every_byte(self):
        data = self.random.randbytes(self.SIZE + 1)
        path = self.file(data)
        for options in EACH_DEVICE:
            report = self.run_json("histogram", path, *options)
            self.assertEqual(report["result"]["bins"], [data.count(value) for value in range(256)])
            self.assertEqual((report["workload"], report["file"]), ("histogram", path))
            self.assertEqual(report["bytes"], len(data))
            self.assertEqual(report["device"], options[1])
            self.assertGreater(report["evictions"], 0)
            self.assertGreaterEqual(report["bytes_filled"], len(data))
        self.assertEqual(self.content(path), data)

    def test_grep_counts_overlapping_matches_across_every_border(self):
        data = bytearray(self.random.randbytes(self.SIZE))
        for border in range(4096, len(data) - 8, 4096):
            data[border - 3:border + 4] = b"needles"
        data[:5] = b"aaaaa"
        data[-3:] = b"aaa"
        path = self.file(data)
        needles = data.count(b"needles")
        runs = sum(data.startswith(b"aaa", at) for at in range(len(data)) if data[at] == ord("a"))
        for options in EACH_DEVICE:
            self.assertEqual(self.run_json("grep", "needles", path, *options)["result"], {"matches": needles})
            self.assertEqual(self.run_json("grep", "aaa", path, *options)["result"], {"matches": runs})

    def test_grep_finds_a_literal_longer_than_a_granule(self):
        literal = "x" * 6000
        path = self.file(b"x" * 6001 + b"." + b"x" * 5999)
        report = self.run_json("grep", literal, path, "--granule", "4K", "--device-memory", "256K")
        self.assertEqual(report["result"], {"matches": 2})

    def test_grep_finds_nothing_in_a_file_shorter_than_the_literal(self):
        self.assertEqual(self.run_json("grep", "abc", self.file(b"ab"))["result"], {"matches": 0})

    def test_reduce_adds_floats(self):
        # Small whole numbers: their sums are exact in whatever order.
        values = array.array("f", [self.random.randrange(-1000, 1000) for _ in range(self.SIZE // 4 + 1)])
        path = self.file(values.tobytes())
        for options in EACH_DEVICE:
            self.assertEqual(self.run_json("reduce", path, *options)["result"], {"sum": sum(values)})

    def test_reduce_of_values_whose_float_sum_overflows(self):
        path = self.file(array.array("f", [3e38] * 1000 + [-3e38] * 1000).tobytes())
        self.assertEqual(self.run_json("reduce", path)["result"], {"sum": 0.0})

    def test_saxpy_changes_y_and_leaves_x(self):
        count = self.SIZE // 4 + 1
        y = array.array("f", [self.random.randrange(1000) for _ in range(count)])
        x = array.array("f", [self.random.randrange(1000) for _ in range(count)])
        expected = array.array("f", [-2.5 * a + b for a, b in zip(x, y)]).tobytes()
        x_path = self.file(x.tobytes(), "x")
        for options in EACH_DEVICE:
            y_path = self.file(y.tobytes(), "y")
            report = self.run_json("saxpy", y_path, x_path, "--a", "-2.5", *options)
            self.assertEqual((report["file"], report["bytes"]), (y_path, 8 * count))
            self.assertEqual(self.content(y_path), expected)
        self.assertEqual(self.content(x_path), x.tobytes())

    def test_saxpy_is_fused(self):
        # The product needs more than 24 bits: rounded before the addition it would cancel to 0.
        near_one = 1 + 2.0**-23
        y = self.file(array.array("f", [-(1 + 2.0**-22)]).tobytes(), "y")
        x = self.file(array.array("f", [near_one]).tobytes(), "x")
        self.run_json("saxpy", y, x, "--a", repr(near_one))
        self.assertEqual(array.array("f", self.content(y))[0], 2.0**-46)

    def test_transpose_of_any_shape(self):
        shapes = [(1, 70000), (70000, 1), (2, 200003), (200003, 2),
                  (613, 977), (977, 613), (5, 100000), (600, 600)]
        for rows, columns in shapes[4:] if SMALL else shapes:
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
        values = self.words(self.SIZE // 4 + 3)
        few = self.words(self.SIZE // 4, bits=2)
        descending = array.array("I", range(self.SIZE // 4, 0, -1))
        for name, given in (("random", values), ("few", few), ("descending", descending)):
            expected = array.array("I", sorted(given)).tobytes()
            for options in EACH_DEVICE:
                with self.subTest(values=name):
                    path = self.file(given.tobytes())
                    self.run_json("sort", path, *options)
                    self.assertEqual(self.content(path), expected)

    def test_uppercase_changes_ascii_letters_only(self):
        data = self.random.randbytes(self.SIZE + 1)
        for options in EACH_DEVICE:
            path = self.file(data)
            self.run_json("uppercase", path, *options)
            self.assertEqual(self.content(path), data.upper())

    def test_an_empty_file_is_fine(self):
        path, other = self.file(b""), self.file(b"", "other")
        for arguments in (["histogram", path], ["grep", "x", path], ["reduce", path], ["sort", path],
                          ["saxpy", path, other, "--a", "1"], ["transpose", path, "--rows", "3"],
                          ["uppercase", path]):
            for device in DEVICES:
                with self.subTest(workload=arguments[0], device=device):
                    self.assertEqual(self.run_json(*arguments, "--device", device)["bytes"], 0)
        self.assertEqual(self.content(path), b"")

    def test_a_single_element_is_fine(self):
        path = self.file(b"abcd")
        for arguments in (["sort"], ["transpose", "--rows", "1"], ["reduce"], ["histogram"]):
            self.run_json(*arguments, path)
        self.assertEqual(self.content(path), b"abcd")

    def test_every_host_access_gives_the_same_result(self):
        values = self.words(self.SIZE // 16)
        for access in ("migrate", "bounce", "adaptive"):
            for options in EACH_DEVICE:
                path = self.file(values.tobytes())
                self.run_json("sort", path, "--host-access", access, *options)
                self.assertEqual(self.content(path), array.array("I", sorted(values)).tobytes())

    def test_results_hold_while_the_cpu_reads_and_writes(self):
        data = self.words(self.SIZE // 16).tobytes()
        other = self.file(data, "other")
        for arguments in (["histogram"], ["grep", "e"], ["sort"], ["uppercase"],
                          ["transpose", "--rows", "16"], ["saxpy", "--a", "0.5"]):
            for options in EACH_DEVICE:
                with self.subTest(workload=arguments[0]):
                    files = [self.file(data)] + ([other] if arguments[0] == "saxpy" else [])
                    self.run_json(arguments[0], *arguments[1:], *files, *options, "--concurrent-host")
        self.assertEqual(self.content(other), data)


if __name__ == "__main__":
    unittest.main()
