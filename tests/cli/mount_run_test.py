#!/usr/bin/env python3
"""`aprime run` on files of a mount runs in the process that serves it: kernels and programs on the mount
share one set of bytes, and to the user it is a run as any other."""

import array
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

from command import APRIME, DEVICES, SMALL, start
from mounted import LIBC, MountedTest

# Bytes of holes, on which a run works for long enough to be met in its middle, whatever the machine does. (A
# sanitizer leaves less address space.)
LARGE = 16 << 30 if SMALL else 1 << 40
NO_FLUSHER = ["--dirty-age", "0"]


class MountedRuns(MountedTest):
    def put(self, content, name="file"):
        """Writes a file by way of the mount; returns its path there."""
        with open(self.at(name), "wb") as f:
            f.write(content)
        return self.at(name)

    def sparse_on_mount(self, size, name="large"):
        with open(self.plain(name), "wb") as f:
            f.truncate(size)
        return self.at(name)

    def status(self):
        process = self.aprime("status", self.mountpoint, "--json")
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        return json.loads(process.stdout)

    def file_status(self, name="file"):
        return next(file for file in self.status()["files"] if file["path"] == name)

    def test_a_program_may_go_on_with_a_file_that_it_made_read_only(self):
        # A daemon that may do what its user may, and no more.
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        self.start_mount(prefix=drop)
        fd = os.open(self.at("file"), os.O_CREAT | os.O_RDWR, 0o444)
        self.addCleanup(os.close, fd)
        os.write(fd, b"x" * 100)
        before = self.aprime("run", "histogram", self.at("file"))
        self.assertEqual((before.returncode, before.stderr), (0, b""))
        self.assertEqual(os.pwrite(fd, b"yes", 3), 3)
        os.fsync(fd)
        self.assertEqual(self.seen_by_another_process(self.plain("file")), b"xxxyes" + b"x" * 94)

    def seen_by_another_process(self, path):
        return self.run_program("cat", path)

    def sync(self, path):
        fd = os.open(path, os.O_RDWR)
        os.fsync(fd)
        os.close(fd)

    def connect(self):
        """To the mount's process, as `aprime run` does."""
        device = os.stat(self.mountpoint).st_dev
        name = f"{os.major(device)}-{os.minor(device)}.sock"
        own = "/run/aprime" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}/aprime"
        directory = own if os.path.exists(os.path.join(own, name)) else f"/tmp/aprime-{os.geteuid()}"
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(100)
        connection.connect(os.path.join(directory, name))
        return connection

    def say(self, connection, kind, body):
        text = json.dumps({"version": 1, "mount": os.stat(self.mountpoint).st_dev, "type": kind,
                           "body": body}).encode()
        connection.sendall(struct.pack("<I", len(text)) + text)

    def hear(self, connection):
        length = struct.unpack("<I", connection.recv(4, socket.MSG_WAITALL))[0]
        return json.loads(connection.recv(length, socket.MSG_WAITALL))

    def first_answer(self, body):
        connection = self.connect()
        self.say(connection, "run", body)
        return self.hear(connection)

    def start_run(self, *arguments):
        process = start("run", *arguments)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def wait_until(self, condition, process=None):
        deadline = time.monotonic() + 100
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.assertTrue(process is None or process.poll() is None, "it has ended")
            time.sleep(0.005)

    def wait_until_running(self, process):
        filled = self.status()["bytes_filled"]
        self.wait_until(lambda: self.status()["bytes_filled"] > filled + (1 << 16), process)

    def assert_plain_error(self, process, status, *names):
        out, err = process.communicate(timeout=120)
        self.assertEqual((process.returncode, out), (status, b""), err)
        self.assertRegex(err.decode(), r"\Aaprime: [^\n]+\n\Z")
        for name in names:
            self.assertIn(name, err.decode())


class Results(MountedRuns):
    def test_all_see_what_a_kernel_stored_before_anybody_synced(self):
        text = b"Some text. " * 20000
        for device in DEVICES:
            with self.subTest(device=device):
                self.start_mount(*NO_FLUSHER, "--device", device)
                path = self.put(text)
                with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
                    m[:4] = b"soME"  # stored to a page, and not synced: the kernel sees it
                    report = self.run_json("uppercase", path)
                    self.assertEqual((report["device"], report["file"], report["bytes"]),
                                     (device, path, len(text)))
                    self.assertEqual(m[:11], b"SOME TEXT. ")
                    self.assertEqual(m[-11:], b"SOME TEXT. ")
                self.assertEqual(self.seen_by_another_process(path), text.upper())
                self.sync(path)
                self.assertEqual(self.content(self.plain("file")), text.upper())
                self.end_daemon(self.daemon)

    def test_dirty_bytes_are_told_until_fsync(self):
        self.start_mount(*NO_FLUSHER)
        path = self.put(b"x" * (4 << 16) + b"y")
        self.assertEqual(self.aprime("run", "uppercase", path).returncode, 0)
        file = self.file_status()
        self.assertEqual(file["granules"]["device"], 5)
        self.assertEqual(file["dirty_bytes"], (4 << 16) + 1)
        self.assertEqual(self.status()["dirty_bytes"], (4 << 16) + 1)
        self.assertEqual(self.content(self.plain("file"))[:1], b"x")
        self.sync(path)
        file = self.file_status()
        self.assertEqual((file["granules"]["shared"], file["dirty_bytes"]), (5, 0))
        self.assertEqual(self.content(self.plain("file")), b"X" * (4 << 16) + b"Y")
        text = self.aprime("status", self.mountpoint).stdout.decode()
        self.assertRegex(text, r"host +home +shared +device +unsaved +mount +dirty +size +file\n")
        self.assertRegex(text, r"\n +0 +0 +5 +0 +0 +0 +0 B +256.0 KiB +file\n")
        # What is on the device already is not copied there once more: only the kernel's counters are.
        self.assertLessEqual(self.run_json("histogram", path)["bytes_filled"], 1 << 16)

    def test_end_of_the_mount_writes_what_devices_have(self):
        self.start_mount(*NO_FLUSHER)
        path = self.put(b"text" * 50000)
        self.assertEqual(self.aprime("run", "uppercase", path).returncode, 0)
        self.end_daemon(self.daemon)
        self.assertEqual(self.content(self.plain("file")), b"TEXT" * 50000)

    def test_every_workload_runs_on_a_mount(self):
        self.start_mount("--granule", "4K")
        floats = array.array("f", [self.random.randrange(9) for _ in range(4096)])
        words = self.words(4096)
        matrix = self.at("matrix")
        self.csr(64, 64, [(i, i, 2.0) for i in range(64)], os.path.relpath(matrix, self.directory))
        graph = self.at("graph")
        self.csr(64, 64, [(i, i + 1, 1.0) for i in range(63)], os.path.relpath(graph, self.directory),
                 with_values=False)
        small = floats[:64].tobytes()
        workloads = [
            ["histogram", words.tobytes()], ["grep", "\udcff\"", b"a\xff\"b"],
            ["reduce", floats.tobytes()],
            ["reduce", array.array("f", [float("inf"), -1.0]).tobytes()],
            ["saxpy", floats.tobytes(), floats.tobytes(), "--a", "1.1"],
            ["transpose", floats.tobytes(), "--rows", "64"], ["sort", words.tobytes()],
            ["uppercase", b"text"], ["scan", words.tobytes()],
            ["matmul", floats.tobytes(), floats.tobytes(), bytes(4 * 4096), "--rows", "64"],
            ["blackscholes", array.array("f", [42, 40, 0.5, 0, 0] * 99).tobytes(), "--rate", "0.1",
             "--volatility", "0.2"],
            ["spmv", matrix, small, small], ["cg", matrix, small, small, "--tolerance", "1e-5"],
            ["bfs", graph, "--source", "0"], ["atomics", bytes(4000), "--increments", "3"]]
        for arguments in workloads[::3] if SMALL else workloads:
            with self.subTest(workload=arguments[0]):
                on_mount = [self.put(a, f"in {n}") if isinstance(a, bytes) else a
                            for n, a in enumerate(arguments)]
                here = [self.file(a, f"in {n}") if isinstance(a, bytes)
                        else a.replace(self.mountpoint, self.source) for n, a in enumerate(arguments)]
                self.assertEqual(self.run_json(*on_mount)["result"], self.run_json(*here)["result"])
                for n, a in enumerate(arguments):
                    if isinstance(a, bytes):
                        self.assertEqual(self.seen_by_another_process(self.at(f"in {n}")),
                                         self.content(here[n]))

    def test_cpu_reads_and_writes_meanwhile(self):
        self.start_mount(*NO_FLUSHER)
        path = self.put(b"text" * 30000)
        self.run_json("uppercase", path, "--concurrent-host")
        self.run_json("histogram", path, "--concurrent-host", "--host-access", "bounce")
        self.assertEqual(self.seen_by_another_process(path), b"TEXT" * 30000)

    def test_file_is_found_by_whatever_path(self):
        self.start_mount()
        os.mkdir(self.at("a directory"))
        path = self.put(b"text", "a directory/f\udcffile \u00e9")
        link = os.path.join(self.directory, "link")
        os.symlink(path, link)
        os.symlink("../a directory/./f\udcffile \u00e9", self.at("a directory", "inner link"))
        for given, cwd in ((path, "/"), (link, "/"), (self.at("a directory", "inner link"), "/"),
                           (os.path.relpath(path, self.directory), self.directory),
                           ("../" + os.path.relpath(path, self.mountpoint), self.at("a directory"))):
            with self.subTest(given=given):
                process = self.aprime("run", "histogram", given, "--json", cwd=cwd)
                self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertEqual([file["size"] for file in self.status()["files"]], [4])

    def test_several_runs_at_once(self):
        self.start_mount()
        paths = [self.put(b"text %d " % n * 20000, f"file {n}") for n in range(3 if SMALL else 6)]
        runs = [self.start_run("uppercase", path, "--verify", "--json") for path in paths]
        for n, run in enumerate(runs):
            out, err = run.communicate(timeout=200)
            self.assertEqual((run.returncode, err), (0, b""))
            self.assertEqual(self.seen_by_another_process(paths[n]), b"TEXT %d " % n * 20000)
        self.assertEqual(len(self.status()["files"]), len(paths))

    def test_runs_and_programs_that_write_meanwhile(self):
        self.start_mount()
        path = self.put(b"a" * (4 << 16))
        stop = threading.Event()

        def write():
            with open(path, "r+b", buffering=0) as f:
                while not stop.is_set():
                    os.pwrite(f.fileno(), b"a" * 4096, self.random.randrange(63) * 4096)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                self.assertEqual(self.aprime("run", "uppercase", path).returncode, 0)
        finally:
            stop.set()
            writer.join()
        self.assertEqual(self.aprime("run", "uppercase", path, "--verify").returncode, 0)
        self.assertEqual(self.seen_by_another_process(path), b"A" * (4 << 16))

    def test_file_that_grows_shrinks_or_is_replaced_between_runs(self):
        self.start_mount(*NO_FLUSHER)
        path = self.put(b"a" * 200000)
        self.run_json("uppercase", path)
        with open(path, "ab") as f:
            f.write(b"b" * 200000)
        self.run_json("uppercase", path)
        self.assertEqual(self.seen_by_another_process(path), b"A" * 200000 + b"B" * 200000)
        os.truncate(path, 100000)
        self.assertEqual(self.run_json("histogram", path)["bytes"], 100000)
        os.rename(self.put(b"c" * 1000, "new"), path)
        self.run_json("uppercase", path)
        self.assertEqual(self.seen_by_another_process(path), b"C" * 1000)

    def test_unlinked_file_is_let_go(self):
        self.start_mount(*NO_FLUSHER)
        path = self.put(b"a" * 200000)
        self.run_json("uppercase", path)
        self.assertGreater(self.status()["resident_bytes"], 0)
        os.unlink(path)
        self.wait_until(lambda: self.status()["resident_bytes"] == 0)

    def test_text_for_people(self):
        self.start_mount()
        text = self.aprime("run", "grep", "a", self.put(b"banana"), "--verify").stdout.decode()
        self.assertRegex(text, r"matches +3\n")
        self.assertRegex(text, r"verified +yes\n")


class Refusals(MountedRuns):
    def test_what_cannot_work_is_told_as_elsewhere(self):
        self.start_mount()
        path, outside = self.put(b"12345"), self.file(b"1234", "outside")
        for arguments, names in ((["sort", path], [path, "5 bytes"]),
                                 (["histogram", self.at("none")], [self.at("none"), "no such file"]),
                                 (["histogram", self.mountpoint], [self.mountpoint, "directory"]),
                                 (["saxpy", path, outside, "--a", "1"], [outside, "one runtime"]),
                                 (["saxpy", outside, path, "--a", "1"], [outside, "one runtime"]),
                                 (["saxpy", path, path, "--a", "1"], [path])):
            with self.subTest(arguments=arguments):
                self.assert_refused(1, "run", *arguments, names=names)
        missing = self.at("none")
        self.assertNotIn("create", self.assert_refused(1, "run", "uppercase", missing, names=missing))
        self.assert_refused(2, "run", "nothing", path, names="nothing")
        self.assert_refused(2, "run", "grep", "", path, names="LITERAL")
        self.assertEqual(self.seen_by_another_process(path), b"12345")

    def test_options_of_the_mount_are_not_chosen_anew(self):
        self.start_mount("--granule", "16K", "--device", "emulated-strict")
        path = self.put(b"text")
        for option, value in (("--granule", "64K"), ("--device-memory", "2M"), ("--device", "emulated"),
                              ("--device", "auto"), ("--device-memory-kind", "managed")):
            self.assert_refused(2, "run", "histogram", path, option, value,
                                names=[option, "chosen at `aprime mount`"])
        self.run_json("histogram", path, "--granule", "16384", "--device", "emulated-strict",
                      "--device-memory", "1024K", "--host-access", "migrate")

    def test_files_of_two_mounts(self):
        self.start_mount()
        first = self.put(b"1234")
        self.source, self.mountpoint = (os.path.join(self.directory, n) for n in ("source 2", "mounted 2"))
        for path in (self.source, self.mountpoint):
            os.mkdir(path)
        mountpoint = self.mountpoint
        self.addCleanup(lambda: subprocess.run(["umount", "-l", mountpoint], capture_output=True))
        self.start_mount()
        second = self.put(b"1234")
        self.assert_refused(1, "run", "saxpy", first, second, "--a", "1", names=[second, "one runtime"])

    def test_symlinks_lead_nowhere_outside_the_source(self):
        self.start_mount()
        outside = self.file(b"secret", "outside")
        # The name is resolved by the caller, who may follow what he likes; the mount's process does not.
        os.symlink(outside, self.plain("symlink"))
        for path in ("symlink", "../outside", "x/../../outside", "/etc/passwd", ""):
            answer = self.first_answer({"workload": "histogram", "arguments": {"FILE": path},
                                        "concurrent_host": False, "given": {}})
            self.assertEqual(answer["type"], "error", path)
        for body in ({}, {"workload": 1}, {"workload": "histogram", "arguments": {}},
                     {"workload": "none", "arguments": {}, "concurrent_host": False, "given": {}},
                     {"workload": "histogram", "arguments": {"FILE": "\u1234"}, "concurrent_host": False,
                      "given": {}}, {"workload": "transpose", "arguments": {"FILE": "a", "--rows": 0}}):
            answer = self.first_answer(body)
            self.assertEqual((answer["type"], answer["body"]["code"]), ("error", "invalid_argument"))
        self.status()

    def test_a_full_standard_output_is_an_error(self):
        self.start_mount()
        with open("/dev/full", "wb") as full:
            process = subprocess.run([APRIME, "run", "histogram", self.put(b"x"), "--json"], stdout=full,
                                     stderr=subprocess.PIPE, timeout=100)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(process.stderr, rb"\Aaprime: standard output[^\n]+\n\Z")

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a small file system")
    def test_full_source_loses_nothing(self):
        self.assertEqual(LIBC.mount(b"none", self.source.encode(), b"tmpfs", 0, b"size=1M"), 0)
        self.addCleanup(LIBC.umount2, self.source.encode(), 2)
        self.start_mount(*NO_FLUSHER)
        path = self.sparse_on_mount(8 << 20, "file")
        self.assert_refused(1, "run", "sort", path, names=[path, "nothing was changed"])


class Ends(MountedRuns):
    def test_interrupt_ends_the_run_and_not_the_mount(self):
        self.start_mount()
        run = self.start_run("grep", "x", self.sparse_on_mount(LARGE))
        self.wait_until_running(run)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=100)
        self.assertEqual(run.returncode, 130, err)
        self.assertRegex(err, rb"\Aaprime: interrupted after [^\n]+ of [0-9]+ [GT]iB \(searching\)\n\Z")
        filled = self.status()["bytes_filled"]
        self.run_json("histogram", self.put(b"text"))
        self.assertLess(self.status()["bytes_filled"] - filled, 1 << 20)

    def test_the_check_of_verify_can_be_interrupted(self):
        self.start_mount()
        run = self.start_run("grep", "x", self.sparse_on_mount(LARGE), "--verify")
        time.sleep(1)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
        self.assertEqual(run.returncode, -signal.SIGINT)
        self.run_json("histogram", self.put(b"text"))

    def test_run_whose_caller_is_killed_ends(self):
        self.start_mount()
        run = self.start_run("grep", "x", self.sparse_on_mount(LARGE))
        self.wait_until_running(run)
        run.kill()
        run.communicate(timeout=100)
        seen = [0]

        def is_quiet():
            before, seen[0] = seen[0], self.status()["bytes_filled"]
            return seen[0] == before

        self.wait_until(is_quiet)
        self.run_json("histogram", self.put(b"text"))

    def test_mount_is_busy_while_a_run_is_on_it(self):
        self.start_mount()
        run = self.start_run("grep", "x", self.sparse_on_mount(LARGE))
        self.wait_until_running(run)
        self.assert_refused(1, "unmount", self.mountpoint, names=[self.mountpoint, "use it"])
        # Ended all the same, it ends the run.
        self.daemon.send_signal(signal.SIGTERM)
        self.assert_plain_error(run, 1, self.mountpoint, "unmounted")
        self.end_daemon(self.daemon)

    def test_run_that_would_leave_a_file_half_changed_is_finished_without_its_caller(self):
        self.start_mount()
        rows, columns = 512, 1024
        values = self.words(rows * columns)
        self.put(values.tobytes())
        connection = self.connect()
        self.say(connection, "run", {"workload": "transpose", "arguments": {"FILE": "file", "--rows": rows},
                                     "concurrent_host": False, "given": {}})
        self.assertEqual(self.hear(connection)["type"], "ready")
        self.say(connection, "go", {})
        connection.close()
        self.wait_until(lambda: self.status()["faults"]["device_write"] > 0)
        self.end_daemon(self.daemon)
        transposed = array.array("I")
        for column in range(columns):
            transposed.extend(values[column::columns])
        self.assertEqual(self.content(self.plain("file")), transposed.tobytes())

    def test_killed_daemon_is_told(self):
        self.start_mount()
        path = self.sparse_on_mount(LARGE)
        run = self.start_run("grep", "x", path)
        self.wait_until_running(run)
        self.daemon.kill()
        self.daemon.wait(timeout=60)
        self.assert_plain_error(run, 1, self.mountpoint, "aprime unmount")
        self.assert_refused(1, "run", "grep", "x", path, names=[self.mountpoint, "stale", "aprime unmount"])


if __name__ == "__main__":
    unittest.main()
