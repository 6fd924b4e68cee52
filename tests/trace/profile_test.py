#!/usr/bin/env python3
# usage: profile_test.py PROFILE
"""scripts/profile, between an nsys and a cmake that only write down how they are called."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROFILE = Path(sys.argv.pop(1))

TOOLS = ("bash", "dirname", "env", "realpath", "sed")
RECORDER = """#!/usr/bin/env bash
printf '%s\\0' {name} "$@" $'\\n' >> "$CALLS"
[[ ${{1-}} != profile ]] || exit "${{STATUS-0}}"
"""


class Profile(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.bin = self.root / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.scripts = self.root / "tree" / "scripts"
        self.scripts.mkdir(parents=True)
        shutil.copy(PROFILE, self.scripts)
        self.program(self.scripts / "setup", "setup")
        self.program(self.bin / "cmake", "cmake")
        self.calls = self.root / "calls"
        self.calls.touch()
        self.here = self.root / "here"
        self.here.mkdir()

    def program(self, path, name):
        path.write_text(RECORDER.format(name=name), encoding="utf-8")
        path.chmod(0o755)

    def profile(self, *arguments, **environment):
        return subprocess.run([self.scripts / "profile", *arguments], cwd=self.here, text=True, timeout=60,
                              capture_output=True, check=False,
                              env={"PATH": str(self.bin), "CALLS": str(self.calls), **environment})

    def recorded(self, program):
        calls = [call.split("\0")[:-1] for call in self.calls.read_text(encoding="utf-8").split("\n\0")]
        return [call[1:] for call in calls if call and call[0] == program]

    def test_without_nsys_one_line_says_what_to_install(self):
        process = self.profile("histogram", "data.bin")
        self.assertEqual((process.returncode, process.stdout), (1, ""))
        self.assertRegex(process.stderr, r"\Ascripts/profile: [^\n]*install[^\n]*Nsight Systems[^\n]*\n\Z")
        self.assertEqual(self.recorded("cmake"), [], "nothing is built in vain")

    def test_help_and_bad_usage(self):
        process = self.profile("--help")
        self.assertEqual(process.returncode, 0)
        self.assertIn("usage: scripts/profile WORKLOAD FILE [ARGUMENT...]", process.stdout)
        for arguments in ((), ("histogram",), ("--unknown", "data.bin")):
            process = self.profile(*arguments)
            self.assertEqual((process.returncode, process.stdout), (2, ""), arguments)
            self.assertRegex(process.stderr, r"\Ascripts/profile: [^\n]+--help[^\n]*\n\Z")

    def test_profiles_the_command_and_prints_statistics(self):
        self.program(self.bin / "nsys", "nsys")
        process = self.profile("histogram", "my data.bin", "--granule", "4K")
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        profile, stats = self.recorded("nsys")
        aprime = str(self.root / "tree/build/release/bin/aprime")
        report = str(self.here / "histogram")
        self.assertEqual(profile[0], "profile")
        self.assertEqual(profile[profile.index(aprime):],
                         [aprime, "run", "histogram", "my data.bin", "--granule", "4K"])
        switches = profile[1:profile.index(aprime)]
        for switch in ("--trace=cuda,nvtx,osrt", "--cuda-um-cpu-page-faults=true",
                       "--cuda-um-gpu-page-faults=true", f"--output={report}"):
            self.assertIn(switch, switches)
        self.assertEqual((stats[0], stats[-1]), ("stats", f"{report}.nsys-rep"))
        for name in ("nvtx_sum", "nvtx_gpu_proj_sum", "cuda_api_sum", "cuda_gpu_mem_size_sum", "um_sum"):
            self.assertIn(f"--report={name}", stats)
        self.assertTrue(any("aprime_cli" in call for call in self.recorded("cmake")))

    def test_the_report_goes_where_it_is_wanted(self):
        self.program(self.bin / "nsys", "nsys")
        (self.root / "reports").mkdir()
        self.profile("grep", "needle", "data.bin", PROFILE_DIR=str(self.root / "reports"))
        self.assertIn(f"--output={self.root}/reports/grep", self.recorded("nsys")[0])

    def test_a_workload_that_fails_fails_here_too(self):
        self.program(self.bin / "nsys", "nsys")
        self.assertEqual(self.profile("histogram", "data.bin", STATUS="3").returncode, 3)
        self.assertEqual(len(self.recorded("nsys")), 2, "what was recorded until then is shown")


if __name__ == "__main__":
    unittest.main()
