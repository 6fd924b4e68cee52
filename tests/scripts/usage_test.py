#!/usr/bin/env python3
# usage: usage_test.py SCRIPTS_DIR
"""What every script says of itself, and of arguments that it does not take."""

import os
import subprocess
import sys
import unittest

SCRIPTS = sys.argv[1]


class Usage(unittest.TestCase):
    def run_script(self, name, *arguments):
        return subprocess.run([os.path.join(SCRIPTS, name), *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False)

    def test_help_is_printed_on_request(self):
        for name in sorted(os.listdir(SCRIPTS)):
            if name == "__pycache__":
                continue
            with self.subTest(script=name):
                process = self.run_script(name, "--help")
                self.assertEqual((process.returncode, process.stderr), (0, ""))
                self.assertTrue(process.stdout)

    def test_wrong_arguments_are_refused_in_one_line(self):
        for name, *arguments in (["csr.py", "--bogus"], ["csr.py"],
                                 ["failures.py", "--bogus"], ["failures.py"],
                                 ["gpu_check", "--bogus"], ["gpu_inputs.py", "--bogus"], ["gpu_inputs.py"],
                                 ["gpu_inputs.py", "directory", "many"], ["profile", "--bogus"],
                                 ["run", "--bogus"], ["run", "/none/1", "/none/2"],
                                 ["setup", "--bogus"], ["test", "--bogus"], ["tidy.py", "--bogus"]):
            with self.subTest(script=name, arguments=arguments):
                process = self.run_script(name, *arguments)
                self.assertEqual((process.returncode, process.stdout), (2, ""))
                self.assertRegex(process.stderr, rf"\A[^\n]*{name}: [^\n]+\n\Z")

    def test_records_that_cannot_be_read_are_named(self):
        for path in ("/none/junit.xml", __file__):
            process = self.run_script("failures.py", path)
            self.assertEqual((process.returncode, process.stdout), (1, ""))
            self.assertRegex(process.stderr, rf"\A[^\n]*failures.py: {path}: [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
