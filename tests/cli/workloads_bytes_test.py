#!/usr/bin/env python3
"""Workloads on the bytes of any file, on every device, with files larger than the device memory. Results are
compared with what Python computes, besides --verify."""

import json
import unittest

from command import DEVICES, EACH_DEVICE, SIZE, SMALL, CliTest


class BytesWorkloads(CliTest):
    def test_histogram_counts_every_byte(self):
        data = self.random.randbytes(SIZE + 1)
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
        data = bytearray(self.random.randbytes(SIZE))
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

    def test_grep_finds_a_literal_longer_than_the_pieces_that_are_searched(self):
        # One granule fits beside the shorter literal; work limits the other one's pieces to four.
        memory_for = {20000: "136K"} if SMALL else {20000: "136K", 30000: "256K"}
        for size, memory in memory_for.items():
            literal = "ab" * (size // 2)
            runs = (0, size // 2, size, size // 2 - 1, size // 2 + 2)
            data = b"x".join(b"ab" * count for count in runs)
            path = self.file(data + b"a")
            matches = sum(data.startswith(literal.encode(), at) for at in range(len(data)))
            options = ["--granule", "4K", "--device-memory", memory]
            for device in DEVICES:
                with self.subTest(size=size, device=device):
                    report = self.run_json("grep", literal, path, *options, "--device", device)
                    self.assertEqual(report["result"], {"matches": matches})

    def test_grep_finds_nothing_in_a_file_shorter_than_the_literal(self):
        self.assertEqual(self.run_json("grep", "abc", self.file(b"ab"))["result"], {"matches": 0})

    def test_uppercase_changes_ascii_letters_only(self):
        data = self.random.randbytes(SIZE + 1)
        for options in EACH_DEVICE:
            path = self.file(data)
            self.run_json("uppercase", path, *options)
            self.assertEqual(self.content(path), data.upper())

    def test_grep_of_a_literal_that_looks_like_an_option(self):
        path = self.file(b"-x or --verify")
        for literal in ("-x", "--verify"):
            process = self.aprime("run", "grep", "--json", "--", literal, path)
            self.assertEqual(json.loads(process.stdout)["result"], {"matches": 1})


if __name__ == "__main__":
    unittest.main()
