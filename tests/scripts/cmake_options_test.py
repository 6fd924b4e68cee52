#!/usr/bin/env python3
# usage: cmake_options_test.py CMAKE SOURCE_DIR CXX
"""What the project makes of its options, however a user spells them."""

import os
import subprocess
import sys
import tempfile
import unittest

CMAKE, SOURCE_DIR, CXX = sys.argv[1:4]
OFF = ("OFF", "FALSE", "0", "no")
ON = ("ON", "TRUE", "1", "yes")
LIBRARY_ONLY = ["-DAPRIME_BUILD_CLI=OFF", "-DAPRIME_BUILD_TESTS=OFF", "-DAPRIME_BUILD_BENCH=OFF"]


class Options(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.build_dir = directory.name

    def configure(self, **options):
        """Once more in the same build directory: what is not named is switched off."""
        defaults = {"BUILD_SHARED_LIBS": "OFF", "APRIME_ENABLE_CUDA": "OFF", "APRIME_ENABLE_MOUNT": "OFF",
                    "APRIME_ENABLE_NVTX": "OFF"}
        given = [f"-D{name}={value}" for name, value in {**defaults, **options}.items()]
        process = subprocess.run([CMAKE, "-S", SOURCE_DIR, "-B", self.build_dir,
                                  f"-DCMAKE_CXX_COMPILER={CXX}", *LIBRARY_ONLY, *given],
                                 capture_output=True, text=True, timeout=250, check=False)
        return process.returncode, " ".join((process.stdout + process.stderr).split())

    def package_config(self, **options):
        status, output = self.configure(**options)
        self.assertEqual(status, 0, output)
        with open(os.path.join(self.build_dir, "aprime-config.cmake"), encoding="utf-8") as file:
            return file.read()

    def test_the_package_of_a_static_library_is_the_same_however_that_is_said(self):
        static, shared = (self.package_config(BUILD_SHARED_LIBS=value) for value in ("OFF", "ON"))
        self.assertNotEqual(static, shared)
        for value in OFF:
            self.assertEqual(self.package_config(BUILD_SHARED_LIBS=value), static, value)
        for value in ON:
            self.assertEqual(self.package_config(BUILD_SHARED_LIBS=value), shared, value)

    def test_what_is_switched_off_is_not_looked_for_however_that_is_said(self):
        for value in OFF:
            status, output = self.configure(APRIME_ENABLE_CUDA=value, APRIME_ENABLE_MOUNT=value,
                                            APRIME_ENABLE_NVTX=value)
            self.assertEqual(status, 0, output)
            self.assertNotRegex(output, r"CUDA|nvcc|fuse", value)
            self.assertIn("NVTX: switched off", output)

    def test_what_must_be_there_and_is_not_is_an_error_however_that_is_said(self):
        for option, absent in {"APRIME_ENABLE_CUDA": {"CMAKE_CUDA_COMPILER": "/bin/false"},
                               "APRIME_ENABLE_MOUNT": {"PKG_CONFIG_EXECUTABLE": "/bin/false"}}.items():
            for value in ON:
                status, output = self.configure(**{option: value}, **absent)
                self.assertEqual(status, 1, output)
                self.assertRegex(output, f"{option} is ON: ", value)

    def test_what_is_neither_is_refused_by_name(self):
        for option in ("APRIME_ENABLE_CUDA", "APRIME_ENABLE_MOUNT", "APRIME_ENABLE_NVTX"):
            for value in ("OF", "", "none"):
                status, output = self.configure(**{option: value})
                self.assertEqual(status, 1, output)
                self.assertIn(f'{option} is "{value}"; set it to AUTO, ON or OFF', output)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
