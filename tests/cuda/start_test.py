#!/usr/bin/env python3
# usage: start_test.py APRIME CUDA_PROGRAM
"""A program built with CUDA starts on any machine and says which device it uses and why; where there is a
GPU, it runs there."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

APRIME, CUDA_PROGRAM = sys.argv[1:3]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class Start(unittest.TestCase):
    def setUp(self):
        self.info = json.loads(run(APRIME, "info", "--json").stdout)
        self.cuda = next(device for device in self.info["devices"] if device["name"] == "cuda")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "data.f32")
        with open(self.path, "wb") as file:
            file.write(os.urandom(1 << 20))

    def test_links_no_driver(self):
        for program in APRIME, CUDA_PROGRAM:
            needed = run("readelf", "--dynamic", program).stdout
            self.assertIn("NEEDED", needed)
            self.assertNotIn("libcuda", needed)

    def test_info_says_what_there_is_and_why(self):
        self.assertTrue(self.cuda["description"])
        if self.cuda["available"]:
            self.assertEqual(self.info["default_device"], "cuda")
        else:
            self.assertEqual(self.info["default_device"], "emulated")
            self.assertIn(self.cuda["description"].removeprefix("no CUDA device: "),
                          self.info["default_because"])
        self.assertNotIn("built without CUDA", self.cuda["description"])
        self.assertIn(self.info["default_because"], run(APRIME, "info").stdout)

    def test_run_says_which_device_and_why(self):
        process = run(APRIME, "run", "histogram", self.path, "--verify")
        self.assertEqual(process.returncode, 0, process.stderr)
        self.assertIn(self.info["default_because"], process.stdout)

    def test_a_device_that_is_asked_for_is_used_or_refused(self):
        process = run(APRIME, "run", "histogram", self.path, "--device", "cuda", "--verify", "--json")
        if self.cuda["available"]:
            self.assertEqual(json.loads(process.stdout)["device"], "cuda")
        else:
            self.assertEqual(process.returncode, 1)
            self.assertEqual(process.stderr.count("\n"), 1)
            self.assertIn("no CUDA device: ", process.stderr)

    def test_a_program_that_nvcc_compiles(self):
        process = run(CUDA_PROGRAM, self.path)
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
