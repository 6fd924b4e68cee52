#!/usr/bin/env python3
# usage: gpu_check_test.py GPU_CHECK GPU_INPUTS
"""scripts/gpu_check as far as it goes without a GPU: what it says where there is none, the files that it
gives to the workloads, and what it does where programs hang. `scripts/gpu_check --rehearse` runs the
workloads themselves."""

import array
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

GPU_CHECK, GPU_INPUTS = sys.argv[1:3]


class GpuCheck(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def run_with(self, programs, *arguments):
        """With nothing in PATH but a few programs, of those that are given as text."""
        path = os.path.join(self.directory, "bin")
        os.mkdir(path)
        for name in "bash", "dirname", "env", "sed":
            os.symlink(shutil.which(name), os.path.join(path, name))
        for name, text in programs.items():
            self.write_program(os.path.join(path, name), text)
        return subprocess.run([shutil.which("bash"), GPU_CHECK, *arguments], capture_output=True, text=True,
                              timeout=60, check=False, env={**os.environ, "PATH": path})

    def write_program(self, path, text):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("#!/usr/bin/env bash\n" + text)
        os.chmod(path, 0o700)

    def assert_refused(self, process, status, text):
        self.assertEqual(process.returncode, status, process)
        self.assertRegex(process.stderr, rf"\Ascripts/gpu_check: [^\n]*{text}[^\n]*\n\Z")
        self.assertEqual(process.stdout, "")

    def test_without_a_driver_it_says_so_and_does_nothing(self):
        self.assert_refused(self.run_with({}), 1, "no GPU, or no NVIDIA driver")

    def test_a_driver_without_a_gpu_is_no_gpu(self):
        self.assert_refused(self.run_with({"nvidia-smi": "exit 9\n"}), 1, "no GPU")

    def test_unknown_arguments_are_refused(self):
        self.assert_refused(self.run_with({}, "--fast"), 2, "unknown argument --fast")

    def test_programs_that_are_not_there_are_refused(self):
        for arguments in ["--built"], ["--built", self.directory]:
            shutil.rmtree(os.path.join(self.directory, "bin"), ignore_errors=True)
            self.assert_refused(self.run_with({}, *arguments), 2, "--built needs the directory")

    def test_without_packages_to_install_it_builds_with_what_there_is(self):
        process = self.run_with({"nvidia-smi": "", "dpkg-query": "exit 1\n", "apt-get": "exit 100\n",
                                 "sudo": "exec \"$@\"\n", "cmake": "echo configured; exit 7\n"})
        self.assertEqual((process.returncode, process.stdout.splitlines()[-1]), (7, "configured"), process)
        self.assertIn("goes on with what is installed", process.stderr)

    def test_what_hangs_is_ended_and_the_table_is_written_in_time(self):
        tree = os.path.join(self.directory, "tree")
        pids = os.path.join(self.directory, "pids")
        built = os.path.join(tree, "built")
        os.makedirs(os.path.join(tree, "bench", "results"))
        os.makedirs(os.path.join(tree, "scripts"))
        shutil.copy(GPU_CHECK, os.path.join(tree, "scripts"))
        with open(os.path.join(tree, "scripts", "gpu_inputs.py"), "w") as file:
            file.write("import os, sys\n"
                       "for name in 'x y A B C options matrix b solution graph rows'.split():\n"
                       "    open(os.path.join(sys.argv[1], name), 'w').close()\n")
        hangs = f"trap '' TERM\necho $$ >> {pids}\nexec sleep 60\n"
        self.write_program(os.path.join(built, "aprime"), hangs)
        self.write_program(os.path.join(built, "aprime_bench"),
                           "echo '| measured |' > \"${1#--table=}\"\n" + hangs)
        for name in "cuda_contract_test", "cuda_program", "cuda_registration_test":
            self.write_program(os.path.join(built, name), "")
        fakes = os.path.join(self.directory, "fakes")
        self.write_program(os.path.join(fakes, "nvidia-smi"), "echo 'A GPU'\n")
        process = subprocess.run([os.path.join(tree, "scripts", "gpu_check"), "--built", built],
                                 capture_output=True, text=True, timeout=60, check=False,
                                 env={**os.environ, "PATH": fakes + ":" + os.environ["PATH"],
                                      "TMPDIR": self.directory, "APRIME_GPU_CHECK_HURRY": "60"})
        self.assertEqual(process.returncode, 1, process)
        self.assertIn("FAILED (status 137, it took too long): histogram @x", process.stdout)
        self.assertIn("FAILED (not begun: no time left): ", process.stdout)
        with open(os.path.join(tree, "bench", "results", "a-gpu.md")) as file:
            table = file.read()
        self.assertIn("| measured |", table)
        self.assertIn("did not come to its end", table)
        self.assertRegex(process.stdout, r"\n\d+ passed, \d+ failed\n\Z")
        with open(pids) as file:
            started = file.read().split()
        deadline = time.monotonic() + 10  # who was killed has yet to be reaped
        while alive := [pid for pid in started if os.path.exists("/proc/" + pid)]:
            self.assertLess(time.monotonic(), deadline, f"{alive} live on")
            time.sleep(0.1)

    def test_help_tells_how_to_use_it(self):
        process = self.run_with({}, "--help")
        self.assertEqual(process.returncode, 0)
        self.assertTrue(process.stdout.startswith("usage: scripts/gpu_check"), process.stdout)

    def test_inputs_are_what_workloads_take(self):
        for size in 1 << 16, 3 << 20:
            subprocess.run([sys.executable, "-B", GPU_INPUTS, self.directory, str(size)], check=True)
            sizes = {name: os.path.getsize(os.path.join(self.directory, name))
                     for name in ("x", "y", "options", "b", "solution", "A", "B", "C")}
            with open(os.path.join(self.directory, "rows")) as file:
                rows = int(file.read())
            self.assertEqual((sizes["x"], sizes["y"]), (size, size))
            self.assertEqual(sizes["options"] % 20, 0)
            self.assertEqual(sizes["b"], sizes["solution"])
            self.assertEqual({sizes[name] for name in "ABC"}, {4 * rows * rows})
            with open(os.path.join(self.directory, "x"), "rb") as file:
                values = array.array("f", file.read())
            self.assertTrue(all(-1 <= value <= 1 for value in values))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
