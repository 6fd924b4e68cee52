#!/usr/bin/env python3
"""Rights on a mount are those that the source itself would give, whoever serves it and whoever asks."""

import os
import subprocess
import unittest

from mounted import NOBODY, MountedTest, run_as


class DaemonOfAnOrdinaryUser(MountedTest):
    def setUp(self):
        super().setUp()
        # Root may do anything: without these capabilities it has an owner's rights only.
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        self.start_mount(prefix=drop)

    def test_open_file_can_be_cut_whatever_its_mode(self):
        fd = os.open(self.at("file"), os.O_CREAT | os.O_RDWR, 0o444)
        self.addCleanup(os.close, fd)
        os.write(fd, b"x" * 100)
        os.ftruncate(fd, 10)
        self.assertEqual(self.content(self.plain("file")), b"x" * 10)
        os.fchmod(fd, 0)
        os.ftruncate(fd, 20)
        self.assertEqual(os.pread(fd, 100, 0), b"x" * 10 + bytes(10))


@unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
class OtherUsers(MountedTest):
    def test_nobody_else_gets_in(self):
        self.start_mount()
        process = subprocess.run(["ls", self.mountpoint], capture_output=True, preexec_fn=run_as(NOBODY),
                                 timeout=60)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn(b"Permission denied", process.stderr)

    def test_with_allow_other_everybody_has_his_own_rights(self):
        self.start_mount("--allow-other")
        os.chmod(self.source, 0o1777)
        with open(self.plain("private"), "wb") as f:
            f.write(b"root's")
        os.chmod(self.plain("private"), 0o600)
        script = ('set -e; echo mine > "$1/mine"; mkdir "$1/directory"; ln -s x "$1/symlink"; '
                  'mkfifo "$1/fifo"; if cat "$1/private"; then exit 1; fi; '
                  'if rm -f "$1/private"; then exit 2; fi')
        self.run_program("sh", "-c", script, "sh", self.mountpoint, preexec_fn=run_as(NOBODY))
        for name in ("mine", "directory", "symlink", "fifo"):
            status = os.lstat(self.plain(name))
            self.assertEqual((status.st_uid, status.st_gid), (NOBODY, NOBODY), name)
        # What root makes afterwards is root's: no thread has kept the other's identity.
        for n in range(20):
            os.mkdir(self.at(f"root {n}"))
            self.assertEqual(os.stat(self.plain(f"root {n}")).st_uid, 0)


if __name__ == "__main__":
    unittest.main()
