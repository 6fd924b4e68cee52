#!/usr/bin/env python3
"""Workloads on files of compressed sparse rows, on every device, with matrices and vectors larger than the
device memory. Results are compared with what Python computes, besides --verify."""

import array
import os
import subprocess
import sys
import unittest

from command import DEVICES, SMALL, CliTest, csr

# The five leases of a sparse product need 20 granules.
EACH_DEVICE = [["--device", device, "--granule", granule, "--device-memory", memory]
               for device in DEVICES
               for granule, memory in ([("4K", "128K")] if SMALL else [("4K", "128K"), ("64K", "1280K")])]


class CsrWorkloads(CliTest):
    def vector(self, count):
        # Small whole numbers: their sums are exact in whatever order.
        return array.array("f", [self.random.randrange(-9, 9) for _ in range(count)])

    def check_product(self, rows, columns, entries):
        x = self.vector(columns)
        expected = array.array("f", bytes(4 * rows))
        for row, column, value in entries:
            expected[row] += value * x[column]
        matrix = self.csr(rows, columns, entries)
        x_path = self.file(x.tobytes(), "x")
        for options in EACH_DEVICE:
            y = self.file(b"\xff" * 4 * rows, "y")
            report = self.run_json("spmv", matrix, x_path, y, *options)
            self.assertEqual(report["result"], {"rows": rows, "columns": columns, "nonzeros": len(entries)})
            self.assertEqual(report["file"], y)
            self.assertEqual(self.content(y), expected.tobytes())

    def entry(self, row, column):
        return row, column, float(self.random.randrange(-9, 9))

    def test_spmv_of_short_rows(self):
        rows, columns = (2000, 3000) if SMALL else (30000, 20000)
        self.check_product(rows, columns, [self.entry(row, self.random.randrange(columns))
                                           for row in range(rows) for _ in range(self.random.randrange(5))])

    def test_spmv_of_a_row_longer_than_a_lease_and_of_many_empty_ones(self):
        rows, columns = 9000, 6000
        entries = [self.entry(4567, column) for column in range(columns)]
        entries += [self.entry(0, 0), self.entry(4566, 5999), self.entry(4568, 0), self.entry(8999, 17)]
        self.check_product(rows, columns, entries)

    def test_rows_without_entries_cost_nothing(self):
        rows = 5000 if SMALL else 1000000
        ends = [0, rows // 2, rows - 1]
        x = self.vector(3)
        x_path = self.file(x.tobytes(), "x")
        for used in ([], ends[:1], ends[1:2], ends[2:], ends[:2], ends[1:], ends):
            entries = [(row, column, 2.0) for row in used for column in range(3)]
            expected = array.array("f", bytes(4 * rows))
            for row in used:
                expected[row] = 2 * sum(x)
            matrix = self.csr(rows, 3, entries)
            for device in DEVICES:
                with self.subTest(used=used, device=device):
                    y = self.file(b"\xff" * 4 * rows, "y")
                    report = self.run_json("spmv", matrix, x_path, y, "--device", device)
                    self.assertEqual(self.content(y), expected.tobytes())
                    self.assertLess(report["seconds"], 10)

    def test_rows_without_entries_beside_rows_that_fill_a_lease(self):
        # 2048 non-zeros are what one of the small leases holds.
        for size in (2047, 2048, 2049, 4096):
            for row in (0, 1500, 2999):
                self.check_product(3000, size, [self.entry(row, column) for column in range(size)])
            self.check_product(9000, size, [self.entry(row, column) for row in (1022, 1023, 1024, 7000)
                                            for column in range(size)])

    def test_spmv_of_long_rows(self):
        columns = 500
        self.check_product(60, columns, [self.entry(row, column) for row in range(60)
                                         for column in range(columns) if self.random.random() < 0.5])

    def test_spmv_of_values_that_are_rounded(self):
        entries = [(row, self.random.randrange(300), self.random.gauss(0, 1))
                   for row in range(200) for _ in range(50)]
        x = array.array("f", [self.random.gauss(0, 1) for _ in range(300)])
        self.run_json("spmv", self.csr(200, 300, entries), self.file(x.tobytes(), "x"),
                      self.file(bytes(800), "y"))

    def test_spmv_without_rows_or_entries(self):
        self.check_product(0, 0, [])
        self.check_product(0, 5, [])
        self.check_product(5, 0, [])
        self.check_product(3, 3, [])

    def test_spmv_holds_while_the_cpu_reads_and_writes(self):
        entries = [self.entry(row, self.random.randrange(2000)) for row in range(2000) for _ in range(4)]
        matrix, x = self.csr(2000, 2000, entries), self.file(self.vector(2000).tobytes(), "x")
        for options in EACH_DEVICE:
            y = self.file(bytes(8000), "y")
            self.run_json("spmv", matrix, x, y, *options, "--concurrent-host")

    def laplace(self, n):
        """Of a line, with 3 in place of 2 in the diagonal: well-conditioned, whatever its size."""
        return [(row, column, 3.0 if row == column else -1.0)
                for row in range(n) for column in (row - 1, row, row + 1) if 0 <= column < n]

    def test_cg_finds_the_solution(self):
        n = 500 if SMALL else 6000
        entries = self.laplace(n)
        solution = self.vector(n)
        b = array.array("f", bytes(4 * n))
        for row, column, value in entries:
            b[row] += value * solution[column]
        matrix, b_path = self.csr(n, n, entries), self.file(b.tobytes(), "b")
        for options in EACH_DEVICE:
            x = self.file(bytes(4 * n), "x")
            result = self.run_json("cg", matrix, b_path, x, *options)["result"]
            self.assertLessEqual(result["residual"], 1e-5)
            self.assertGreater(result["iterations"], 3)
            for found, right in zip(array.array("f", self.content(x)), solution):
                self.assertAlmostEqual(found, right, delta=1e-2)
            # The solution is a first guess that needs no iteration.
            self.assertEqual(self.run_json("cg", matrix, b_path, x, *options)["result"]["iterations"], 0)

    def test_cg_of_no_equations_and_of_a_right_side_of_zeros(self):
        empty = self.file(b"", "empty")
        self.run_json("cg", self.csr(0, 0, [], "none"), empty, self.file(b"", "x"))
        x = self.file(self.vector(10).tobytes(), "x")
        self.run_json("cg", self.csr(10, 10, self.laplace(10)), self.file(bytes(40), "b"), x)
        self.assertEqual(self.content(x), bytes(40))

    def test_cg_says_when_it_does_not_converge(self):
        n = 400
        matrix = self.csr(n, n, [(row, column, 2.0 if row == column else -1.0)
                                 for row, column, _ in self.laplace(n)])
        b, x = self.file(array.array("f", [1] * n).tobytes(), "b"), self.file(bytes(4 * n), "x")
        self.assert_refused(1, "run", "cg", matrix, b, x, "--iterations", "3", names=[x, "3 iterations"])
        self.assertNotEqual(self.content(x), bytes(4 * n))
        self.run_json("cg", matrix, b, x, "--tolerance", "0.5", "--iterations", "5000")
        # Small numbers are told as what they are.
        matrix, x = self.csr(n, n, self.laplace(n)), self.file(bytes(4 * n), "x")
        text = self.assert_refused(1, "run", "cg", matrix, b, x, "--iterations", "50", "--tolerance", "1e-30",
                                   names=[x, "50 iterations"])
        self.assertRegex(text, r"the residual is [1-9][0-9.]*e-\d+ of")

    def test_cg_says_when_the_matrix_is_not_positive_definite(self):
        matrix = self.csr(2, 2, [(0, 0, -1.0), (1, 1, -1.0)])
        b, x = self.file(array.array("f", [1, 1]).tobytes(), "b"), self.file(bytes(8), "x")
        text = self.assert_refused(1, "run", "cg", matrix, b, x, names=[matrix, "positive definite"])
        self.assertNotIn("too small", text)

    def test_cg_leaves_a_guess_where_numbers_are_out_of_the_range_of_floats(self):
        # Products that are 0; a solution, and steps to it, that are infinite; products of the first guess.
        for value, right, guess, name in ((1e-10, 1e-38, 0, "matrix: is not positive definite, or"),
                                          (1e-30, 1e10, 0, "x: the solution"),
                                          (1e-30, 1e10, 1, "x: the solution"),
                                          (1e-30, 1e10, 3e38, "x: the solution"),
                                          (1e-44, 10, 0, "x: the solution"),
                                          (1e20, 3e38, 0, "x: the solution"),
                                          (1e30, 1, 1e10, "out of the range")):
            for device in DEVICES:
                with self.subTest(value=value, right=right, guess=guess, device=device):
                    matrix = self.csr(1, 1, [(0, 0, value)])
                    b = self.file(array.array("f", [right]).tobytes(), "b")
                    before = array.array("f", [guess]).tobytes()
                    x = self.file(before, "x")
                    self.assert_refused(1, "run", "cg", matrix, b, x, "--device", device, names=name)
                    self.assertEqual(self.content(x), before)

    def test_cg_whose_solution_is_nearly_out_of_the_range_of_floats(self):
        # The bounds of its elements that cost nothing are too large.
        matrix = self.csr(2, 2, [(0, 0, 1e-30), (1, 1, 2e-30)])
        b = self.file(array.array("f", [3e8, 2e8]).tobytes(), "b")
        for options in EACH_DEVICE:
            x = self.file(bytes(8), "x")
            self.run_json("cg", matrix, b, x, *options)
            for found, right in zip(array.array("f", self.content(x)), (3e38, 1e38)):
                self.assertAlmostEqual(found / right, 1, delta=1e-4)

    def test_cg_names_the_file_with_values_that_are_no_numbers(self):
        good, n = self.file(array.array("f", [1, 1]).tobytes(), "good"), 2
        for value in (float("nan"), float("inf"), -float("inf")):
            bad = self.file(array.array("f", [1, value]).tobytes(), "bad")
            x = self.file(bytes(8), "x")
            matrix = self.csr(n, n, [(0, 0, 2.0), (1, 1, 2.0)])
            self.assert_refused(1, "run", "cg", matrix, bad, x, names=[f"{bad}: has right sides", "finite"])
            self.assert_refused(1, "run", "cg", matrix, good, bad,
                                names=[f"{bad}: has first guesses", "finite"])
            matrix = self.csr(n, n, [(0, 0, value), (1, 1, 2.0)])
            for b in (good, self.file(bytes(8), "zeros")):
                self.assert_refused(1, "run", "cg", matrix, b, x,
                                    names=f"{matrix}: has values that are infinite or no numbers")
            self.assertEqual(self.content(x), bytes(8))

    def levels(self, vertices, edges, source):
        neighbours = [[] for _ in range(vertices)]
        for row, column, _ in edges:
            neighbours[row].append(column)
        levels = {source: 0}
        queue = [source]
        for vertex in queue:
            for neighbour in neighbours[vertex]:
                if neighbour not in levels:
                    levels[neighbour] = levels[vertex] + 1
                    queue.append(neighbour)
        return levels

    def test_bfs_reaches_what_can_be_reached(self):
        vertices = 800 if SMALL else 4000
        edges = [(self.random.randrange(vertices), self.random.randrange(vertices), 1.0)
                 for _ in range(3 * vertices)]
        # One vertex with many neighbours, and a long path at the end.
        edges += [(5, column, 1.0) for column in range(0, vertices, 3)]
        edges += [(vertex, vertex + 1, 1.0) for vertex in range(vertices - 20, vertices - 1)]
        levels = self.levels(vertices, edges, 7)
        graph = self.csr(vertices, vertices, edges, "graph", with_values=False)
        digests = set()
        for options in EACH_DEVICE:
            for more in ([], ["--concurrent-host"]):
                result = self.run_json("bfs", graph, "--source", "7", *options, *more)["result"]
                self.assertEqual((result["reached"], result["depth"]), (len(levels), max(levels.values())))
                digests.add(result["digest"])
        self.assertEqual(len(digests), 1)

    def test_bfs_of_a_vertex_without_edges_and_of_a_matrix(self):
        for source, reached, depth in ((0, 3, 2), (2, 1, 0)):
            graph = self.csr(3, 3, [(0, 1, 2.0), (1, 2, 2.0)])
            for device in DEVICES:
                result = self.run_json("bfs", graph, "--source", str(source), "--device", device)["result"]
                self.assertEqual((result["reached"], result["depth"]), (reached, depth))

    def test_a_matrix_market_file_becomes_compressed_sparse_rows(self):
        source = self.file(b"%%MatrixMarket matrix coordinate real symmetric\n% comment\n"
                           b"3 3 4\n1 1 2\n2 2 3\n3 3 4\n3 1 -1\n", "matrix.mtx")
        matrix = os.path.join(self.directory, "matrix")
        subprocess.run([sys.executable, csr.__file__, source, matrix], check=True)
        x, y = self.file(array.array("f", [1, 10, 100]).tobytes(), "x"), self.file(bytes(12), "y")
        self.run_json("spmv", matrix, x, y)
        self.assertEqual(list(array.array("f", self.content(y))), [-98, 30, 399])
        for wrong in (b"%%MatrixMarket matrix array real general\n1 1\n1\n",
                      b"%%MatrixMarket matrix coordinate real general\n1 1 1\n1 2 1\n",
                      b"%%MatrixMarket matrix coordinate real general\n1 1 2\n1 1 1\n"):
            process = subprocess.run([sys.executable, csr.__file__, self.file(wrong, "wrong"), matrix],
                                     capture_output=True)
            self.assertEqual(process.returncode, 1)
            self.assertRegex(process.stderr, rb"\Acsr.py: [^\n]*wrong: [^\n]+\n\Z")

    def convert(self, content, target):
        command = [sys.executable, csr.__file__, self.file(content, "source.mtx"), target]
        process = subprocess.run(command, capture_output=True, timeout=60)
        return process.returncode, process.stderr.decode()

    def test_a_matrix_market_file_that_is_wrong_is_refused_and_leaves_no_file(self):
        general = b"%%MatrixMarket matrix coordinate real general\n"
        symmetric, integer = general.replace(b"general", b"symmetric"), general.replace(b"real", b"integer")
        target = self.file(b"old", "target")
        for content, name in ((general, "ends before"), (general + b"% only this\n\n", "ends before"),
                              (general + b"1 1\n", "line 2"), (general + b"1 1 -1\n", "line 2"),
                              (general + b"%\n1 1 1\n1 1 1e39\n", "line 4: has 1e39"),
                              (general + b"1 1 1\n1 1 1e999\n", "line 3: has 1e999"),
                              (general + b"1 1 1\n1 1\n", "line 3"), (general + b"1 1 1\n1 1 x\n", "line 3"),
                              (general + b"1 1 1\n2 1 1\n", "line 3: has an entry at row 2"),
                              (general + b"10 9 1\n1_0 1 1\n", "line 3: has 1_0"),
                              (general + b"9 10 1\n1 1_0 1\n", "line 3: has 1_0"),
                              (general + b"1 1 1\n1 1 1_0\n", "line 3: has 1_0"),
                              (general + b"1 1 1\n1 1 1e-50\n", "line 3: has 1e-50, which is out of"),
                              (general + b"1 1 1\n1 1 -0.1e-999\n", "line 3: has -0.1e-999, which is out of"),
                              (integer + b"1 1 1\n1 1 1.5\n", "line 3: has 1.5, which is no integer"),
                              (integer + b"1 1 1\n1 1 1_0\n", "line 3: has 1_0"),
                              (integer + b"1 1 1\n1 1 1" + 400 * b"0" + b"\n", "line 3"),
                              (symmetric + b"2 2 2\n2 1 1\n1 2 1\n", "line 4: has an entry above"),
                              (general + b"1 1 2\n1 1 1\n", "1 entries and not 2"),
                              (general + b"1 4294967297 0\n", "line 2: has 4294967297 columns"),
                              (general + b"%d 1 0\n" % 10**18, "memory"),
                              (general + b"%d 1 0\n" % 10**30, "memory"),
                              (symmetric + b"2 3 1\n1 1 1\n", "line 2: has 2 rows and 3 columns")):
            with self.subTest(name=name):
                status, text = self.convert(content, target)
                self.assertEqual(status, 1)
                self.assertRegex(text, r"\Acsr.py: [^\n]*source.mtx: [^\n]+\n\Z")
                self.assertIn(name, text)
                self.assertEqual(self.content(target), b"old")
        self.assertEqual(sorted(os.listdir(self.directory)), ["source.mtx", "target"])

    def test_values_of_a_matrix_market_file_are_numbers_of_its_type(self):
        for kind, word, value in (("real", "-1.5e-45", -2.0**-149), ("real", "0e5", 0), ("real", "-0.0", 0),
                                  ("real", "+.5E1", 5), ("real", "-inf", -float("inf")),
                                  ("integer", "-07", -7), ("integer", "+16777216", 2**24)):
            with self.subTest(word=word):
                target = os.path.join(self.directory, "target")
                content = f"%%MatrixMarket matrix coordinate {kind} general\n1 1 1\n+1 01 {word}\n"
                self.assertEqual(self.convert(content.encode(), target), (0, ""))
                self.assertEqual(list(array.array("f", self.content(target)[-4:])), [value])

    def test_a_target_that_cannot_be_written_is_named(self):
        content = b"%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 3.4028235e38\n"
        for target in (os.path.join(self.directory, "missing", "target"), "/dev/full", self.directory):
            status, text = self.convert(content, target)
            self.assertEqual(status, 1)
            self.assertRegex(text, r"\Acsr.py: %s: [^\n]+\n\Z" % target)
        link, target = os.path.join(self.directory, "link"), self.file(b"old", "target")
        os.symlink("target", link)
        self.assertEqual(self.convert(content, link), (0, ""))
        self.assertTrue(os.path.islink(link))
        self.assertEqual(self.content(target)[:8], csr.MAGIC)

    def test_the_source_is_no_target(self):
        content = b"%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 1\n"
        source = os.path.join(self.directory, "source.mtx")
        link = os.path.join(self.directory, "link")
        os.symlink(source, link)
        for target in (source, link):
            status, text = self.convert(content, target)
            self.assertEqual((status, text.count(target)), (1, 1))
            self.assertEqual(self.content(source), content)

    def test_targets_that_are_no_files(self):
        content = b"%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 1\n"
        target = os.path.join(self.directory, "target")
        # A file of that name is somebody else's.
        self.file(b"not ours", "target.tmp")
        self.assertEqual(self.convert(content, target), (0, ""))
        self.assertEqual(self.content(target + ".tmp"), b"not ours")
        process = subprocess.run([sys.executable, csr.__file__, os.path.join(self.directory, "source.mtx"),
                                  "/dev/stdout"], capture_output=True, timeout=60)
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertEqual(process.stdout, self.content(target))

    def test_a_target_keeps_its_mode_and_a_new_one_has_the_usual(self):
        content = b"%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 1\n"
        target, usual = os.path.join(self.directory, "target"), self.file(b"", "usual")
        self.assertEqual(self.convert(content, target), (0, ""))
        self.assertEqual(os.stat(target).st_mode, os.stat(usual).st_mode)
        os.chmod(target, 0o640)
        self.assertEqual(self.convert(content, target), (0, ""))
        self.assertEqual(os.stat(target).st_mode & 0o777, 0o640)

    def test_comments_may_be_in_any_encoding_and_names_of_any_characters(self):
        content = (b"%%MatrixMarket matrix coordinate real general\n% M\xfcller\n% M\xc3\xbcller\n"
                   b"1 1 1\n1 1 1\n")
        self.assertEqual(self.convert(content, os.path.join(self.directory, "target")), (0, ""))
        status, text = self.convert(content + b"1 1 \xb2\n", os.path.join(self.directory, "target"))
        self.assertEqual((status, "line 6" in text), (1, True))
        status, text = self.convert(content, os.path.join(self.directory, "a\n\x1b[1mb", "target"))
        self.assertEqual(status, 1)
        self.assertRegex(text, r"\Acsr.py: [^\n]*a\\n\\x1b\[1mb/target: [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main()
