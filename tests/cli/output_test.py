#!/usr/bin/env python3
"""What the command prints, and its exit status."""

import array
import json
import os
import pty
import select
import signal
import subprocess
import time
import unittest

from command import APRIME, DEVICES, EACH_DEVICE, SMALL, CliTest, start, wait_for_first_byte

# Of a file that is worked on for a second or so, granule by granule.
LONG = (12 if SMALL else 48) << 20


class Output(CliTest):
    def test_version(self):
        process = self.aprime("--version")
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertRegex(process.stdout, rb"\Aaprime \d+\.\d+\.\d+\n\Z")

    def test_help_names_every_workload_and_option(self):
        text = self.aprime("run", "--help").stdout.decode()
        for name in ("histogram", "grep", "saxpy", "transpose", "sort", "reduce", "uppercase", "scan",
                     "matmul", "blackscholes", "spmv", "cg", "bfs", "atomics"):
            self.assertIn(name, text)
            own = self.aprime("run", name, "--help")
            self.assertEqual(own.returncode, 0)
            for option in ("--device", "--granule", "--device-memory", "--host-access", "--concurrent-host",
                           "--verify", "--json", "Exit status"):
                self.assertIn(option, own.stdout.decode())

    def test_info_lists_devices_and_features(self):
        process = self.aprime("info", "--json")
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        info = json.loads(process.stdout)
        self.assertEqual([device["name"] for device in info["devices"]], ["cuda", *DEVICES])
        self.assertIn(info["default_device"], ["cuda", *DEVICES])
        self.assertTrue(info["default_because"])
        self.assertTrue(info["features"])
        self.assertIn("mount", [feature["name"] for feature in info["features"]])
        for feature in info["features"]:
            if not feature["available"]:
                self.assertTrue(feature["cost"] and feature["remedy"], feature)
        text = self.aprime("info").stdout.decode()
        for device in DEVICES:
            self.assertIn(device, text)

    def test_demo_shows_one_file_to_everybody(self):
        data = self.random.randbytes(1 << 20)
        for options in EACH_DEVICE:
            path = self.file(data)
            process = self.aprime("demo", path, *options)
            self.assertEqual((process.returncode, process.stderr), (0, b""))
            self.assertIn(b"Everybody saw the same bytes", process.stdout)
            self.assertRegex(process.stdout, rb"  \d+,\d{3} of them are lower-case letters")
            # It is this process that reads, as any other would.
            self.assertNotIn(b"Another process", process.stdout)
            self.assertEqual(self.content(path), data.upper())

    def test_demo_of_a_small_file(self):
        self.assertIn(b"It took 1 device fault to write", self.aprime("demo", self.file(b"text")).stdout)

    def test_demo_of_an_empty_file(self):
        self.assertEqual(self.aprime("demo", self.file(b"")).returncode, 0)

    def test_demo_of_a_file_that_is_truncated_while_the_cpu_reads_it(self):
        for _ in range(20):
            path = self.file(b"a" * LONG)
            process = start("demo", path, "--granule", "4K", "--device-memory", "64M")
            self.addCleanup(process.kill)
            for line in process.stdout:
                if line.startswith(b"3."):
                    os.truncate(path, 4096)
            _, err = process.communicate(timeout=60)
            # That it was too late for the CPU to notice is possible.
            if b"pointer" in err:
                self.assertRegex(err, rb"\Aaprime: %s: was truncated [^\n]+\n\Z" % path.encode())
                self.assertEqual(process.returncode, 1)
                return
            self.assertIn(process.returncode, (0, 1), err)
        self.fail("it always came too late")

    def test_without_verify_json_says_null(self):
        report = json.loads(self.aprime("run", "histogram", self.file(b"x"), "--json").stdout)
        self.assertIsNone(report["verified"])

    def test_json_says_what_the_text_says(self):
        path = self.file(array.array("f", [1, 2]).tobytes())
        report = self.run_json("reduce", path, "--device", "emulated", "--device-memory", "2M")
        self.assertEqual((report["device_memory"], report["chosen_because"]), (2 << 20, "it was asked for"))
        self.assertIsNone(report["disagreement"])
        self.assertIsNone(report["host_traffic"])
        report = self.run_json("reduce", path, "--concurrent-host")
        self.assertGreater(report["host_traffic"]["reads"], 0)
        self.assertGreater(report["host_traffic"]["writes"], 0)

    def test_json_of_numbers_that_it_does_not_have(self):
        for values, text in (([float("inf")], "inf"), ([-float("inf")], "-inf"), ([float("nan")], "nan")):
            path = self.file(array.array("f", values).tobytes())
            report = json.loads(self.aprime("run", "reduce", path, "--json").stdout)
            self.assertEqual(report["result"], {"sum": text})

    def test_text_for_people(self):
        text = self.aprime("run", "grep", "a", self.file(b"banana"), "--verify").stdout.decode()
        self.assertRegex(text, r"matches +3\n")
        self.assertRegex(text, r"verified +yes\n")

    def test_verify_finds_what_somebody_else_changed_meanwhile(self):
        # Another program writes into a part that the kernel has left behind, which must be noticed.
        for _ in range(5):
            path = self.file(b"a" * LONG)
            process = start("run", "uppercase", path, "--verify", "--json", "--granule", "4K",
                            "--device-memory", "64K")
            self.addCleanup(process.kill)
            wait_for_first_byte(path, b"A", process)
            with open(path, "r+b") as f:
                f.seek(2000)
                f.write(b"?")
            out, err = process.communicate(timeout=120)
            if process.returncode != 0:
                break  # otherwise it may have come too late
        self.assertEqual(process.returncode, 3, err)
        report = json.loads(out)
        self.assertIs(report["verified"], False)
        self.assertIn(report["disagreement"], err.decode())
        self.assertRegex(err.decode(), r"\Aaprime: [^\n]*%s[^\n]+\n\Z" % path)

    def test_a_full_standard_output_is_an_error(self):
        run = ["run", "histogram", self.file(b"x"), "--json"]
        for command in (run, ["--help"], ["run", "--help"], ["--version"]):
            with self.subTest(command=command), open("/dev/full", "wb") as full:
                process = subprocess.run([APRIME, *command], stdout=full, stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(process.returncode, 1)
                self.assertRegex(process.stderr, rb"\Aaprime: standard output[^\n]+\n\Z")

    def test_what_is_printed_to_a_closed_stream_is_in_no_file(self):
        for command, changes in ((["run", "uppercase"], True), (["demo"], True),
                                 (["run", "histogram", "--concurrent-host"], False)):
            for closed in ("<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&-", "<&- >&- 2>&-"):
                with self.subTest(command=command, closed=closed):
                    path = self.file(b"text\n" * 1000)
                    process = self.aprime(*command, path, prefix=["sh", "-c", f'exec "$@" {closed}', "sh"])
                    # What cannot be printed is an error, which ends the demo before it has begun.
                    is_error = " >&-" in f" {closed}"
                    self.assertEqual(process.returncode, int(is_error), process.stderr)
                    is_changed = changes and not (is_error and command == ["demo"])
                    self.assertEqual(self.content(path), (b"TEXT\n" if is_changed else b"text\n") * 1000)
        path = os.path.join(self.directory, "missing")
        process = self.aprime("run", "histogram", path, prefix=["sh", "-c", 'exec "$@" 2>&-', "sh"])
        self.assertEqual((process.returncode, process.stdout), (1, b""))

    def test_a_failing_standard_error_ends_nothing(self):
        with open("/dev/full", "wb") as full:
            status = subprocess.run([APRIME, "run", "nothing", "x"], stderr=full, timeout=60).returncode
        self.assertEqual(status, 2)
        # A terminal that goes away while the bar is drawn.
        path = self.file(b"a" * LONG)
        master, slave = pty.openpty()
        process = start("run", "uppercase", path, "--granule", "4K", "--device-memory", "64K", stderr=slave)
        self.addCleanup(process.kill)
        os.close(slave)
        wait_for_first_byte(path, b"A", process)
        os.close(master)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.content(path).strip(b"A"), b"")

    def test_sizes_may_have_binary_units(self):
        path = self.file(b"x")
        for size in ("1048576", "1024K", "1M", "1MiB", "1024kib", "1G"):
            self.run_json("histogram", path, "--device-memory", size)

    def test_a_terabyte_of_holes_starts_at_once_shows_progress_and_can_be_interrupted(self):
        path = self.sparse(1 << 40)
        master, slave = pty.openpty()
        # An interrupt is heeded when the pieces that are queued are through.
        process = start("run", "grep", "x", path, *(["--device-memory", "4M"] if SMALL else []), stderr=slave)
        self.addCleanup(process.kill)
        os.close(slave)
        shown = b""
        self.addCleanup(os.close, master)
        deadline = time.monotonic() + 100
        while b"/s" not in shown and time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                shown += os.read(master, 4096)
        self.assertRegex(shown, rb"searching \[[#.]+\] +\d+\.\d %  [\d.]+ \w+/s")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=100)
        self.assertEqual(process.returncode, 130)

    def test_an_interrupt_loses_nothing(self):
        # Under nohup it is ignored.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))
        for command in (["run", "uppercase"], ["demo"]):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                with self.subTest(command=command, signal=number):
                    for _ in range(5):
                        path = self.file(b"a" * LONG)
                        process = start(*command, path, "--granule", "4K", "--device-memory", "64K")
                        self.addCleanup(process.kill)
                        wait_for_first_byte(path, b"A", process)
                        process.send_signal(number)
                        _, err = process.communicate(timeout=60)
                        if process.returncode != 0:
                            break  # otherwise it may have come too late
                    self.assertEqual(process.returncode, 128 + number, err)
                    self.assertRegex(err, rb"\Aaprime: interrupted after [^\n]+\n\Z")
                    content = self.content(path)
                    upper = content.count(b"A")
                    self.assertEqual(content, b"A" * upper + b"a" * (len(content) - upper))

    @unittest.skipIf(SMALL, "a launch may take a minute")
    def test_an_interrupt_is_heeded_in_the_middle_of_much_work_on_few_bytes(self):
        n = 4096
        matrix, product = self.sparse(4 * n * n, "matrix"), self.sparse(4 * n * n, "product")
        near = self.file(b"a" * (8 << 20), "near")
        for command, interrupts in ((["matmul", matrix, matrix, product, "--rows", str(n)], 1),
                                    (["grep", "a" * 20000, near], 1),
                                    # Half of the increments are no result: it is asked twice.
                                    (["atomics", self.file(bytes(4096)), "--increments", str(1 << 24)], 2)):
            for device in DEVICES:
                with self.subTest(workload=command[0], device=device):
                    process = start("run", *command, "--device", device, "--device-memory", "512M")
                    self.addCleanup(process.kill)
                    for _ in range(interrupts):
                        time.sleep(1)
                        self.assertIsNone(process.poll())
                        process.send_signal(signal.SIGINT)
                    process.communicate(timeout=60)
                    self.assertEqual(process.returncode, 130)

    def test_the_check_of_verify_can_be_interrupted(self):
        # Before the run, while nothing has changed: the signal ends the process.
        for number in (signal.SIGINT, signal.SIGTERM):
            process = start("run", "grep", "x", self.sparse(1 << 40), "--verify")
            self.addCleanup(process.kill)
            time.sleep(1)
            process.send_signal(number)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, -number)

    def test_a_signal_that_is_ignored_from_the_start_stays_ignored(self):
        path = self.file(b"a" * LONG)
        process = start("run", "uppercase", path, "--granule", "4K", "--device-memory", "64K",
                        prefix=["sh", "-c", 'trap "" INT TERM HUP; exec "$@"', "sh"])
        self.addCleanup(process.kill)
        wait_for_first_byte(path, b"A", process)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        _, err = process.communicate(timeout=120)
        self.assertEqual((process.returncode, err), (0, b""))
        self.assertEqual(self.content(path).strip(b"A"), b"")

    def test_a_terminal_that_goes_away_leaves_no_file_half_changed(self):
        # Its end is told twice, and what is said about that has no reader any more.
        path = self.file(array.array("I", [1]).tobytes() * (LONG // 4))
        process = start("run", "scan", path, "--granule", "4K", "--device-memory", "64K")
        self.addCleanup(process.kill)
        wait_for_first_byte(path, b"\2", process, 4)
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        with process.stdout:
            process.stdout.read()
        self.assertEqual(process.wait(timeout=120), 0)
        self.assertEqual(self.content(path)[-4:], (LONG // 4).to_bytes(4, "little"))


if __name__ == "__main__":
    unittest.main()
