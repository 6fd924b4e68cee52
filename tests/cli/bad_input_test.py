#!/usr/bin/env python3
"""Everything that cannot work is refused by one clear line, by the right status, and changes nothing."""

import os
import resource
import signal
import subprocess
import unittest

from command import APRIME, DEVICES, EACH_DEVICE, CliTest, punch_hole, start, stop, wait_for_first_byte


class BadInput(CliTest):
    def test_missing_file(self):
        path = os.path.join(self.directory, "missing")
        for device in DEVICES:
            self.assert_refused(1, "run", "histogram", path, "--device", device, names=path)
        # What a workload works on in place has to be there; a file for its product only needs its size.
        for command in (["run", "uppercase"], ["demo"]):
            self.assertNotIn("create", self.assert_refused(1, *command, path, names=[path, "no such file"]))
        data = self.file(bytes(4))
        self.assert_refused(1, "run", "matmul", data, data, path, "--rows", "1", names=[path, "truncate -s"])

    def test_names_of_any_bytes_are_told_in_one_line(self):
        path = os.path.join(self.directory, "a\nb\tc\x1b[1md\x7fe")
        shown = os.path.join(self.directory, r"a\nb\x09c\x1b[1md\x7fe")
        for arguments in (["run", "histogram", path], ["demo", path], ["unmount", path]):
            self.assert_refused(1, *arguments, names=shown)
        self.assert_refused(2, "run", path, names=shown)
        self.assert_refused(1, "run", "sort", self.file(b"12345", "x\ny"), names=r"x\ny: its size")

    def test_directory(self):
        self.assert_refused(1, "run", "histogram", self.directory, names=self.directory)

    def test_fifo(self):
        path = os.path.join(self.directory, "fifo")
        os.mkfifo(path)
        self.assert_refused(1, "run", "histogram", path, names=path)
        self.assert_refused(1, "run", "uppercase", path, names=path)

    def test_unreadable_and_read_only_files(self):
        # Root may do anything: without these capabilities it has an owner's rights only.
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        path = self.file(b"text")
        os.chmod(path, 0)
        self.assert_refused(1, "run", "histogram", path, prefix=drop, names=path)
        os.chmod(path, 0o400)
        for command in (["run", "uppercase"], ["run", "histogram", "--concurrent-host"], ["demo"]):
            text = self.assert_refused(1, *command, path, prefix=drop, names=[path, "use a copy"])
            self.assertNotIn("open it", text)
        self.assertEqual(self.content(path), b"text")

    def test_size_that_is_no_multiple_of_the_element(self):
        path, even = self.file(b"12345"), self.file(b"1234", "even")
        other = self.file(b"1234", "other")
        for arguments in (["sort", path], ["reduce", path], ["transpose", path, "--rows", "1"],
                          ["saxpy", path, even, "--a", "1"], ["saxpy", even, path, "--a", "1"],
                          ["scan", path], ["matmul", even, even, path, "--rows", "1"],
                          ["matmul", path, even, other, "--rows", "1"]):
            self.assert_refused(1, "run", *arguments,
                                names=[path, "5 bytes", "cut it to 4 or pad it to 8 bytes"])
        self.assert_refused(1, "run", "blackscholes", even, "--rate", "0", "--volatility", "1",
                            names=[even, "4 bytes", "pad it to 20 bytes"])
        self.assertEqual(self.content(path), b"12345")

    def test_one_file_to_read_and_to_store_to(self):
        # Whatever its size: an advice about that would have an input cut.
        matrix, odd = self.csr(2, 3, [(0, 2, 1.0)]), self.file(b"12345", "odd")
        a, b = self.file(bytes(24), "a"), self.file(bytes(48), "b")
        os.link(b, os.path.join(self.directory, "linked"))
        for arguments in (["saxpy", a, a, "--a", "1"], ["saxpy", odd, odd, "--a", "1"],
                          ["matmul", a, b, b, "--rows", "2"], ["matmul", a, b, a, "--rows", "4"],
                          ["matmul", a, b, os.path.join(self.directory, "linked"), "--rows", "2"],
                          ["spmv", matrix, a, a], ["spmv", matrix, a, matrix], ["cg", matrix, a, a]):
            with self.subTest(arguments=arguments):
                self.assert_refused(1, "run", *arguments, names=["is the same file as", "make a copy"])

    def test_rows_that_do_not_divide_the_matrix(self):
        path = self.file(bytes(40))
        self.assert_refused(1, "run", "transpose", path, "--rows", "3", names=[path, "3 rows"])

    def test_saxpy_with_unequal_files(self):
        y, x = self.file(bytes(8), "y"), self.file(bytes(12), "x")
        self.assert_refused(1, "run", "saxpy", y, x, "--a", "1", names=[y, x])

    def test_matmul_with_sizes_that_do_not_match(self):
        a, b, c, d = (self.file(bytes(4 * n), name)
                      for n, name in ((6, "a"), (12, "b"), (8, "c"), (12, "d")))
        self.run_json("matmul", a, b, c, "--rows", "2")
        for arguments, names in (([a, b, c, "--rows", "4"], [a, "6 values", "4 rows"]),
                                 ([a, c, b, "--rows", "2"], [c, "8 values", "3 rows"]),
                                 ([a, b, d, "--rows", "2"], [d, "2 rows of 4", f"--size 32 -- '{d}'"]),
                                 ([self.file(b"", "empty"), b, c, "--rows", "2"], [b, "0 rows"])):
            with self.subTest(names=names):
                self.assert_refused(1, "run", "matmul", *arguments, names=names)

    def test_matmul_of_which_no_file_could_hold_the_product(self):
        product = self.file(b"", "product")
        for rows in (1 << 31, 1 << 33):  # its bytes, or its values, are too many for 64 bits
            path = self.sparse(4 * rows)
            text = self.assert_refused(1, "run", "matmul", path, path, product, "--rows", str(rows),
                                       names=[product, "larger than any file"])
            self.assertNotIn("truncate", text)

    def test_blackscholes_with_impossible_parameters(self):
        path = self.file(bytes(20))
        for rate, volatility, name in (("nan", "1", "--rate"), ("0", "0", "--volatility"),
                                       ("0", "-1", "--volatility"), ("0", "inf", "--volatility")):
            self.assert_refused(2, "run", "blackscholes", path, "--rate", rate, "--volatility", volatility,
                                names=name)

    def test_files_that_are_no_compressed_sparse_rows(self):
        good = self.csr(2, 3, [(0, 2, 1.0), (1, 0, 1.0), (1, 1, 1.0)], "good")
        content = self.content(good)
        x, y = self.file(bytes(12), "x"), self.file(bytes(8), "y")
        for at, value, name in ((0, b"B", "APRIMCSR"), (8, b"\2", "version 2"), (12, b"\7", "type 7"),
                                (12, b"\0", "no values"), (16, b"\xff" * 8, "rows"),
                                (16, b"\0\0\0\0\1", "row offsets"), (24, b"\0\0\0\0\2", "columns"),
                                (32, b"\xff" * 8, "columns"), (40, b"\x41", "row offsets at byte 65"),
                                (40, b"\0", "row offsets at byte 0"), (48, b"\xfc" + b"\xff" * 7, "columns"),
                                (56, b"\xf0", "values"), (64, b"\1", "row 0 begins"),
                                (72, b"\4", "row 0 ends at non-zero 4"), (80, b"\2", "last row ends"),
                                (72, b"\xff" * 8, "row 0"), (88, b"\3", "non-zero 0"),
                                (96, b"\xff", "non-zero 2")):
            wrong = bytearray(content)
            self.assertNotEqual(wrong[at:at + len(value)], value)
            wrong[at:at + len(value)] = value
            with self.subTest(at=at, name=name):
                path = self.file(wrong, "wrong")
                for device in DEVICES:
                    self.assert_refused(1, "run", "spmv", path, x, y, "--device", device,
                                        names=[path, name])
        for size in (0, 63, 64, len(content) - 1):
            path = self.file(content[:size], "short")
            self.assert_refused(1, "run", "spmv", path, x, y, names=path)
        self.assertEqual(self.content(y), bytes(8))

    def test_bfs_in_files_that_are_no_graphs(self):
        graph = self.csr(3, 3, [(0, 1, 1.0), (1, 2, 1.0)], "graph", with_values=False)
        self.assert_refused(1, "run", "bfs", graph, "--source", "3", names=[graph, "3 vertices", "--source"])
        self.assert_refused(2, "run", "bfs", graph, "--source", "-1", names="--source")
        content = self.content(graph)
        for at, value, name in ((72, b"\7", "row 0 ends at non-zero 7"), (80, b"\0", "row 1"),
                                (100, b"\3", "non-zero 1"), (24, b"\2", "3 rows and 2 columns")):
            wrong = bytearray(content)
            wrong[at:at + 1] = value
            with self.subTest(name=name):
                path = self.file(wrong, "wrong")
                for device in DEVICES:
                    self.assert_refused(1, "run", "bfs", path, "--source", "0", "--device", device,
                                        names=[path, name])

    def test_sparse_products_with_vectors_of_a_wrong_size(self):
        matrix = self.csr(2, 3, [(0, 2, 1.0)])
        x, y = self.file(bytes(12), "x"), self.file(bytes(8), "y")
        x2, y2 = self.file(bytes(12), "x2"), self.file(bytes(8), "y2")
        self.assert_refused(1, "run", "spmv", matrix, y, y2, names=[y, matrix, "3 columns", "12 bytes"])
        self.assert_refused(1, "run", "spmv", matrix, x, x2, names=[x2, matrix, "2 rows", "8 bytes"])
        self.assert_refused(1, "run", "cg", matrix, y, y2, names=[matrix, "2 rows and 3 columns"])
        square = self.csr(2, 2, [(0, 0, 1.0)], "square")
        self.assert_refused(1, "run", "cg", square, x, y, names=[x, square, "8 bytes"])
        for tolerance in ("0", "nan", "inf"):
            self.assert_refused(2, "run", "cg", square, y, self.file(bytes(8), "z"), "--tolerance", tolerance,
                                names="--tolerance")

    def test_wrong_usage(self):
        path = self.file(b"x")
        for arguments, names in (([], "unmount"), (["nothing"], "command 'nothing'"),
                                 (["run"], ["WORKLOAD", "`aprime run --help`"]),
                                 (["run", "histogram"], ["FILE", "`aprime run histogram --help`"]),
                                 (["run", "grep", "-x", path], ["option -x", "`--`"]),
                                 (["run", "nothing", path], ["workload 'nothing'", "`aprime run --help`"]),
                                 (["run", "nothing", "--help"], "workload 'nothing'"),
                                 (["nothing", "--help"], "command 'nothing'"),
                                 (["run", "saxpy", path, path], "--a"),
                                 (["run", "saxpy", path, path, "--a", "b"], "--a"),
                                 (["run", "saxpy", path, path, "--a", ""], "--a"),
                                 (["run", "saxpy", path, path, "--a", "1e39"], ["--a", "1e39", "float32"]),
                                 (["run", "saxpy", path, path, "--a", "-1e39"], ["--a", "float32"]),
                                 (["run", "saxpy", path, path, "--a", "1e-50"], ["--a", "float32"]),
                                 (["run", "transpose", path, "--rows", "-1"], "--rows"),
                                 (["run", "transpose", path, "--rows", "0"], "--rows"),
                                 (["run", "transpose", path, "--rows", "2.5"], "--rows"),
                                 (["run", "matmul", path, path, path], "--rows"),
                                 (["run", "blackscholes", path, "--rate", "0"], "--volatility"),
                                 (["run", "cg", path, path, path, "--iterations", "0"], "--iterations"),
                                 (["run", "histogram", path, "--device", "tpu"], "tpu"),
                                 (["run", "histogram", path, "--host-access", "x"], "--host-access"),
                                 (["run", "histogram", path, "--nonsense"], "--nonsense"), (["demo"], "FILE"),
                                 (["mount", path, path, "--dirty-age", "-1"], ["--dirty-age", "'-1'"]),
                                 (["mount", path, path, "--dirty-age", "0x10"], ["--dirty-age", "'0x10'"]),
                                 (["mount", path, path, "--dirty-age", "2.5"], "--dirty-age"),
                                 (["mount", path, path, "--dirty-age", "9" * 12], "--dirty-age"),
                                 (["info", "extra"], "extra")):
            with self.subTest(arguments=arguments):
                self.assert_refused(2, *arguments, names=names)
        self.assert_refused(2, "run", "grep", "", path, names="LITERAL")
        self.assert_refused(2, "run", "atomics", self.file(bytes(4)), "--increments", "99999999999",
                            names="--increments")

    def test_numbers_that_are_too_large(self):
        path = self.file(bytes(4))
        most = str((1 << 64) - 1)
        for command in (["atomics", path, "--increments"], ["transpose", path, "--rows"]):
            self.assert_refused(2, "run", *command, "9" * 20, names=[command[-1], "too large", most])
            text = self.assert_refused(2, "run", *command, "9" * 20 + "x", names=command[-1])
            self.assertNotIn("too large", text)
        for size in ("999999999999T", "16777216T", "9" * 20, "9" * 20 + "T"):
            for option in ("--device-memory", "--granule"):
                self.assert_refused(2, "run", "histogram", path, option, size, names=[option, "too large"])

    def test_too_few_descriptors(self):
        path = self.file(b"text")
        for device in DEVICES:
            refused = 0
            for limit in range(5, 40):
                process = self.aprime("run", "histogram", path, "--device", device, preexec_fn=lambda: (
                    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))))
                if process.returncode == 0:
                    break
                text = process.stderr.decode()
                if text.startswith("aprime: "):  # and no loader's
                    self.assertIn("ulimit -n", text)
                    refused += 1
            self.assertEqual(process.returncode, 0)
            self.assertGreater(refused, 0)

    def test_files_whose_size_is_not_what_they_hold(self):
        # One says that it has no byte, the other that it has a page of them.
        for path in ("/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"):
            if not os.path.exists(path):
                continue
            for arguments in (["run", "histogram", path], ["run", "histogram", path, "--verify"],
                              ["run", "grep", "x", path], ["run", "uppercase", path], ["demo", path]):
                self.assert_refused(1, *arguments, names=[path, "copy it first"])

    def test_a_file_that_cannot_be_read(self):
        # It says that it is empty.
        for command in (["run", "histogram"], ["demo"]):
            self.assert_refused(1, *command, "/proc/self/mem", names=["/proc/self/mem", "Input/output error"])

    def test_granule_that_is_no_power_of_two_or_out_of_range(self):
        path = self.file(b"x")
        for granule in ("0", "1", "2K", "5000", "12K", "4M", "1T", "-4096", "4Q", "", "9" * 20, "16777216T"):
            with self.subTest(granule=granule):
                self.assert_refused(2, "run", "histogram", path, "--granule", granule, names="--granule")

    def test_device_memory_too_small(self):
        path = self.file(b"x")
        self.assert_refused(2, "run", "histogram", path, "--device-memory", "1023K",
                            names=["--device-memory", "1M"])
        search = ["grep", "x" * 50000, path, "--granule", "4K", "--device-memory"]
        text = self.assert_refused(1, "run", *search, "64K", names="--device-memory")
        enough = text.split("--device-memory ")[1].split()[0]
        self.run_json(*search, enough)

    def test_device_memory_that_the_machine_has_not(self):
        path = self.file(b"x")
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
        for device in DEVICES:
            for size in (str(memory + 4096), "1P", "100T"):
                for command in (["run", "histogram"], ["demo"]):
                    self.assert_refused(2, *command, path, "--device", device, "--device-memory", size,
                                        names=["--device-memory"] + ([str(memory)] if size != "1P" else []))

    def test_file_system_without_mmap(self):
        # Devices get their bytes by read(2), but the CPU's pointer needs a mapping.
        path = "/sys/kernel/mm/transparent_hugepage/enabled"
        for device in DEVICES:
            self.assert_refused(1, "run", "histogram", path, "--concurrent-host", "--device", device,
                                names=path)

    def test_truncated_by_another_process_while_dirty_on_the_device(self):
        for options in EACH_DEVICE:
            for _ in range(5):
                path = self.file(b"a" * (64 << 20))
                process = start("run", "uppercase", path, *options)
                self.addCleanup(process.kill)
                wait_for_first_byte(path, b"A", process)
                stop(process)
                os.truncate(path, 5000)
                process.send_signal(signal.SIGCONT)
                _, err = process.communicate(timeout=60)
                if process.returncode != 0:
                    break  # otherwise it may have come too late
            self.assertEqual(process.returncode, 1, err)
            self.assertRegex(err.decode(), r"\Aaprime: [^\n]*%s[^\n]+\n\Z" % path)
            # The file may have grown again, by a write back that met the truncation half-way: no system call
            # writes only below the end of a file. What was left keeps its bytes.
            self.assertEqual(self.content(path)[:5000].upper(), b"A" * 5000)

    def test_holes_punched_by_another_process_while_dirty_on_the_device(self):
        for options in EACH_DEVICE:
            path = self.file(b"a" * (16 << 20))
            process = start("run", "uppercase", path, *options)
            self.addCleanup(process.kill)
            wait_for_first_byte(path, b"A", process)
            punch_hole(path, 0, 8 << 20)
            _, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, err), (0, b""))
            content = self.content(path)
            self.assertEqual(len(content), 16 << 20)
            self.assertEqual(content[8 << 20:].strip(b"\0A"), b"")
            self.assertEqual(content[:8 << 20].strip(b"\0A"), b"")

    def test_no_disk_space_for_holes_is_told_before_anything_changes(self):
        data = self.words(1024).tobytes()
        text, content = self.run_on_small_disk(1, data, 8 << 20, "run", "sort", "FILE")
        self.assertIn("nothing was changed", text)
        self.assertEqual(content, data + bytes((8 << 20) - len(data)))

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a disk")
    def test_no_disk_space_for_holes_leaves_the_disk_as_it_was(self):
        # Real ones keep what they gave until there was no more.
        image, mount = self.sparse(64 << 20, "image"), os.path.join(self.directory, "disk")
        os.mkdir(mount)
        path, block = os.path.join(mount, "file"), 4096
        tools = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(block), "-O", "^has_journal", image],
                       env=tools, check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], env=tools, check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", mount], env=tools, check=True)

        def room():
            os.sync()
            return os.statvfs(mount).f_bfree

        holes = 2048
        with open(path, "wb") as f:
            for n in range(holes):
                f.seek(2 * n * block)
                f.write(b"data" * (block // 4))
            f.truncate(2 * holes * block)
        content = self.content(path)
        # Half of what is missing; or just that, but not what the lists of so many parts take besides.
        # What was read of the holes is in memory.
        for left in (holes // 2, holes):
            with self.subTest(left=left), open(os.path.join(mount, "ballast"), "ab") as ballast:
                ballast.truncate(0)
                os.posix_fallocate(ballast.fileno(), 0, (room() - left) * block)
                ballast.truncate((room() - left) * block + os.fstat(ballast.fileno()).st_size)
                before = os.stat(path).st_blocks, room()
                self.assertLess(abs(before[1] - left), 8)
                self.assert_refused(1, "run", "sort", path, names=[path, "space", "nothing was changed"])
                self.assertEqual(self.content(path), content)
                # Those lists may stay longer than they were.
                self.assertLess(abs(room() - before[1]), 64)
                self.assertLess(abs(os.stat(path).st_blocks - before[0]), 64 * 8)
        os.unlink(os.path.join(mount, "ballast"))
        self.run_json("sort", path)

    def test_disk_full_at_writeback(self):
        # One page with letters in each granule: the whole granule is copied back, and its holes have no room.
        data = bytearray(4 << 20)
        for at in range(0, len(data), 64 << 10):
            data[at:at + 4] = b"text"
        for memory in ("1M", "64M"):  # while it runs, and at its end
            with self.subTest(memory=memory):
                text, content = self.run_on_small_disk(1, data, len(data), "run", "uppercase", "FILE",
                                                       "--granule", "64K", "--device-memory", memory)
                self.assertRegex(text, r"space|large")
                # Nobody can sync again: the process has ended.
                self.assertIn("not in the file", text)
                self.assertNotIn("kept", text)
                self.assertEqual(content.upper(), data.upper())

    def test_disk_full_while_the_demo_looks_through_a_pointer(self):
        data = bytearray(4 << 20)
        for at in range(0, len(data), 64 << 10):
            data[at:at + 4] = b"text"
        text, content = self.run_on_small_disk(1, data, len(data), "demo", "FILE")
        self.assertRegex(text, "through a pointer.*full")
        self.assertNotIn("truncated", text)
        self.assertEqual(content.upper(), data.upper())

    def test_write_error_at_writeback(self):
        # What a system call refuses is no wrong usage.
        for options in EACH_DEVICE:
            path = self.file(b"a" * (4 << 20))

            def limit():
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

            self.assert_refused(1, "run", "uppercase", path, *options, names=[path, "ulimit -f"],
                                preexec_fn=limit)
            self.assertEqual(self.content(path).upper(), b"A" * (4 << 20))

    def run_on_small_disk(self, status, data, size, *arguments):
        """Runs with FILE on a file system with 1 MiB of room; where nobody may mount one, with a limit on
        file sizes that says the same. Returns what stderr said and the file's content afterwards."""
        mount = os.path.join(self.directory, "mount")
        os.makedirs(mount, exist_ok=True)
        path = os.path.join(mount, "file")
        source = self.file(data, "source")
        unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        # Copies of other tests' mounts would keep these alive.
        script = ('umount -a -l -t fuse.aprime 2> /dev/null; '
                  'set -e; mount -t tmpfs -o size=1M none "$1"; cp --sparse=always "$2" "$1/file"; '
                  'truncate -s "$3" "$1/file"; saved="$4"; file="$1/file"; shift 4; '
                  'set +e; "$@"; status=$?; cp --sparse=always "$file" "$saved"; exit $status')
        saved = os.path.join(self.directory, "saved")
        command = [APRIME, *(path if argument == "FILE" else argument for argument in arguments)]
        try_mount = [*unshare, "mount", "-t", "tmpfs", "none", mount]
        if subprocess.run(try_mount, capture_output=True).returncode == 0:
            arguments = [mount, source, str(size), saved, *command]
            process = subprocess.run([*unshare, "sh", "-c", script, "sh", *arguments], capture_output=True,
                                     timeout=60)
        else:
            with open(path, "wb") as f:
                f.write(data)
                f.truncate(size)

            def limit():
                resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))

            process = subprocess.run(command, capture_output=True, timeout=60, preexec_fn=limit)
            saved = path
        text = process.stderr.decode()
        self.assertEqual(process.returncode, status, text)
        if command[1] == "run":  # the demo tells what it has seen before
            self.assertEqual(process.stdout, b"")
        self.assertRegex(text, r"\Aaprime: [^\n]*%s[^\n]*\n\Z" % path)
        return text, self.content(saved)


if __name__ == "__main__":
    unittest.main()
