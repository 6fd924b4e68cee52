#!/usr/bin/env python3
"""Rights on a mount are those that the source itself would give, whoever serves it and whoever asks."""

import os
import subprocess
import unittest

from command import APRIME
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

    def test_writes_of_others_end_set_user_id_bits(self):
        self.start_mount("--allow-other")
        for directory in (self.plain("a"), self.plain("b")):
            os.mkdir(directory)
        changes = {
            "write": 'printf y 1<> "$1"',
            "append": 'printf y >> "$1"',
            "truncate": 'truncate -s 1 "$1"',
            "replace": ': > "$1"',
            "fallocate": 'fallocate -l 9999 "$1"',
            "copy": 'python3 -c "import os, sys; f = os.open(sys.argv[1], os.O_RDWR);'
                    'os.copy_file_range(f, f, 1, 0, 5)" "$1"',
            "coherent": 'printf y >> "$1"',
        }
        for mode, user in ((0o4777, NOBODY), (0o6777, NOBODY), (0o2777, NOBODY), (0o6777, 0)):
            for change, script in changes.items():
                name = f"{change} {mode:o} {user}"
                for path in (self.plain("a", name), self.plain("b", name)):
                    with open(path, "wb") as f:
                        f.write(b"text" * 1000)
                    os.chmod(path, mode)
                if change == "coherent":
                    self.run_program(APRIME, "run", "uppercase", self.at("a", name))
                for path in (self.at("a", name), self.plain("b", name)):
                    self.run_program("sh", "-c", script, "sh", path, preexec_fn=run_as(user))
                paths = (self.plain("a", name), self.at("a", name), self.plain("b", name))
                found = [(oct(s.st_mode), s.st_size) for s in map(os.stat, paths)]
                self.assertEqual(found, found[:1] * 3, name)


if __name__ == "__main__":
    unittest.main()
