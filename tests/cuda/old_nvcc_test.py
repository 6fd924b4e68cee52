#!/usr/bin/env python3
# usage: old_nvcc_test.py CMAKE CUDA_CMAKE NVCC
"""What cmake/cuda.cmake does with the nvcc of an older CUDA: one that calls the real NVCC, gives another
version and refuses the architectures that it would not know."""

import os
import subprocess
import sys
import tempfile
import unittest

CMAKE, CUDA_CMAKE, NVCC = sys.argv[1:4]

PROJECT = f"""
cmake_minimum_required(VERSION 3.25)
project(old LANGUAGES CXX)
include({os.path.dirname(CUDA_CMAKE)}/options.cmake)
include({CUDA_CMAKE})
message(STATUS "APRIME_CUDA is ${{APRIME_CUDA}}")
"""


class OldNvcc(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        with open(os.path.join(self.directory, "CMakeLists.txt"), "w") as file:
            file.write(PROJECT)

    def configure(self, version, *options):
        release = version.rpartition(".")[0]
        nvcc = os.path.join(self.directory, "nvcc")
        with open(nvcc, "w") as file:
            file.write(f"""#!/usr/bin/env bash
[[ $* != *compute_1[02]0* ]] || exit 1
[[ $* == --version ]] || exec {NVCC} "$@"
{NVCC} --version | sed 's/release [0-9.]*/release {release}/; s/V[0-9][0-9.]*/V{version}/'
""")
        os.chmod(nvcc, 0o700)
        process = subprocess.run([CMAKE, "-S", self.directory, "-B", os.path.join(self.directory, "build"),
                                  "-DCMAKE_CUDA_COMPILER=" + nvcc, *options],
                                 capture_output=True, text=True, timeout=250, check=False)
        return process, " ".join((process.stdout + process.stderr).split())

    def test_architectures_that_it_does_not_know_are_left_out(self):
        process, output = self.configure("12.4.131", "-DAPRIME_ENABLE_CUDA=ON",
                                         "-DCMAKE_CUDA_ARCHITECTURES=90;100;120-real")
        self.assertEqual(process.returncode, 0, output)
        self.assertRegex(output, r"for architectures 90 ")
        self.assertIn("APRIME_CUDA is ON", output)

    def test_one_that_is_too_old_is_not_used_and_named(self):
        process, output = self.configure("11.8.89", "-DAPRIME_ENABLE_CUDA=AUTO")
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("nvcc is of CUDA 11.8.89", output)
        self.assertIn("APRIME_CUDA is OFF", output)

    def test_one_that_is_too_old_but_must_be_used_is_refused(self):
        process, output = self.configure("11.8.89", "-DAPRIME_ENABLE_CUDA=ON")
        self.assertEqual(process.returncode, 1, output)
        self.assertIn("an nvcc of CUDA 12.0 or later is needed", output)
        self.assertIn("nvcc is of CUDA 11.8.89", output)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
