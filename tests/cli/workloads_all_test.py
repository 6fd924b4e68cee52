#!/usr/bin/env python3
"""What holds for all workloads, whatever they compute: files of no and of one element, every way in which the
CPU may get at bytes, and CPU threads that read and write meanwhile."""

import array
import threading
import unittest

from command import DEVICES, EACH_DEVICE, SIZE, CliTest


class AllWorkloads(CliTest):
    def test_an_empty_file_is_fine(self):
        path, other = self.file(b""), self.file(b"", "other")
        for arguments in (["histogram", path], ["grep", "x", path], ["reduce", path], ["sort", path],
                          ["saxpy", path, other, "--a", "1"], ["transpose", path, "--rows", "3"],
                          ["uppercase", path], ["scan", path], ["atomics", path, "--increments", "9"],
                          ["matmul", path, other, self.file(b"", "product"), "--rows", "3"],
                          ["blackscholes", path, "--rate", "0", "--volatility", "1"]):
            for device in DEVICES:
                with self.subTest(workload=arguments[0], device=device):
                    self.assertEqual(self.run_json(*arguments, "--device", device)["bytes"], 0)
        self.assertEqual(self.content(path), b"")

    def test_a_single_element_is_fine(self):
        path = self.file(b"abcd")
        for arguments in (["sort"], ["transpose", "--rows", "1"], ["reduce"], ["histogram"], ["scan"]):
            self.run_json(*arguments, path)
        self.assertEqual(self.content(path), b"abcd")

    def test_every_host_access_gives_the_same_result(self):
        values = self.words(SIZE // 16)
        for access in ("migrate", "bounce", "adaptive"):
            for options in EACH_DEVICE:
                path = self.file(values.tobytes())
                self.run_json("sort", path, "--host-access", access, *options)
                self.assertEqual(self.content(path), array.array("I", sorted(values)).tobytes())

    def test_results_hold_while_the_cpu_reads_and_writes(self):
        data = self.words(SIZE // 16).tobytes()
        other = self.file(data, "other")
        for arguments in (["histogram"], ["grep", "e"], ["sort"], ["uppercase"], ["scan"],
                          ["transpose", "--rows", "16"], ["saxpy", "--a", "0.5"]):
            for options in EACH_DEVICE:
                with self.subTest(workload=arguments[0]):
                    files = [self.file(data)] + ([other] if arguments[0] == "saxpy" else [])
                    self.run_json(*arguments, *files, *options, "--concurrent-host")
        self.assertEqual(self.content(other), data)

    def test_what_others_append_meanwhile_is_not_verified_and_stays(self):
        data = self.words(SIZE // 4).tobytes()
        path = self.file(data)
        done = threading.Event()

        def append():
            with open(path, "ab", buffering=0) as file:
                while not done.wait(0.002):
                    file.write(b"z" * (64 << 10))

        for arguments in (["histogram"], ["grep", "e"], ["reduce"], ["uppercase"], ["scan"], ["sort"],
                          ["atomics", "--increments", "1"], ["transpose", "--rows", "16"]):
            with self.subTest(workload=arguments[0]):
                self.file(data)
                done.clear()
                appender = threading.Thread(target=append)
                appender.start()
                try:
                    report = self.run_json(*arguments, path)
                finally:
                    done.set()
                    appender.join()
                content = self.content(path)
                self.assertGreater(len(content), report["bytes"])
                self.assertEqual(content[report["bytes"]:].strip(b"z"), b"")

    def test_atomics_keep_every_increment(self):
        counters = array.array("I", [2**32 - 3, *range(SIZE // 64)])
        expected = array.array("I", ((counter + 5) % 2**32 for counter in counters)).tobytes()
        for options in EACH_DEVICE:
            for more in ([], ["--concurrent-host"]):
                path = self.file(counters.tobytes())
                report = self.run_json("atomics", path, "--increments", "5", *options, *more)
                self.assertEqual(report["result"], {"counters": len(counters),
                                                    "increments": 5 * len(counters)})
                self.assertEqual(self.content(path), expected)

    def test_products_and_prices_hold_while_the_cpu_reads_and_writes(self):
        values = array.array("f", [self.random.randrange(9) for _ in range(128 * 128)])
        matrix = self.file(values.tobytes(), "a")
        options = self.file(array.array("f", [1.5, 2.5, 0.5, 0, 0] * 5000).tobytes(), "options")
        for device in EACH_DEVICE:
            product = self.file(bytes(4 * 128 * 128), "product")
            self.run_json("matmul", matrix, matrix, product, "--rows", "128", *device, "--concurrent-host")
            self.run_json("blackscholes", options, "--rate", "0", "--volatility", "1", *device,
                          "--concurrent-host")


if __name__ == "__main__":
    unittest.main()
