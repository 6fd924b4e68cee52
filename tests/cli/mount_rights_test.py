#!/usr/bin/env python3
"""Rights on a mount are those that the source itself would give, whoever serves it and whoever asks."""

import os
import stat
import struct
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
    def test_extended_attributes_of_root_are_for_root(self):
        self.start_mount("--allow-other")
        for path in (self.plain("file"), self.plain("bare")):
            with open(path, "wb"):
                pass
        os.symlink("nowhere", self.plain("symlink"))
        os.setxattr(self.plain("file"), "user.one", b"1")
        os.setxattr(self.plain("file"), "trusted.two", b"2")
        os.setxattr(self.plain("bare"), "trusted.two", b"2")
        os.setxattr(self.at("symlink"), "trusted.three", b"3", follow_symlinks=False)
        self.assertEqual(os.getxattr(self.plain("symlink"), "trusted.three", follow_symlinks=False), b"3")
        self.assertEqual(os.listxattr(self.at("symlink"), follow_symlinks=False), ["trusted.three"])
        self.assertEqual(sorted(os.listxattr(self.at("file"))), ["trusted.two", "user.one"])
        script = ("import os, sys; print([os.listxattr(p, follow_symlinks=False) for p in sys.argv[1:]])")
        for tree in (self.source, self.mountpoint):
            paths = [os.path.join(tree, name) for name in ("file", "bare", "symlink")]
            seen = self.run_program("python3", "-c", script, *paths, preexec_fn=run_as(NOBODY))
            self.assertEqual(seen.decode(), "[['user.one'], [], []]\n", tree)
        os.removexattr(self.at("symlink"), "trusted.three", follow_symlinks=False)
        self.assertEqual(os.listxattr(self.plain("symlink"), follow_symlinks=False), [])

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


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(*entries):
    """As the kernel takes it: each entry is a tag, rights, and the id where the tag has one."""
    version, no_id = 2, 0xFFFFFFFF
    return struct.pack("<I", version) + b"".join(
        struct.pack("<HHI", tag, rights, *(who or [no_id])) for tag, rights, *who in entries)


@unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
class Acls(MountedTest):
    """Everything is done twice, on the mount and on a plain directory, and must come to the same."""

    def setUp(self):
        super().setUp()
        self.trees = []
        for name in ("through the mount", "plain"):
            os.mkdir(self.plain(name))
            os.chmod(self.plain(name), 0o777)
        self.trees = [self.at("through the mount"), self.plain("plain")]
        try:
            os.setxattr(self.trees[1], ACCESS, acl((USER_OBJ, 7), (GROUP_OBJ, 7), (OTHER, 7)))
        except OSError as error:
            self.skipTest(f"the file system has no ACLs: {error}")
        self.start_mount("--allow-other")

    def state(self, tree):
        """Modes, owners and ACLs, as the source has them and as the mount shows them."""
        found = {}
        directory = os.path.basename(tree)
        for top in (self.plain(directory), tree):
            for path, _, names in os.walk(top):
                for full in (path, *(os.path.join(path, name) for name in names)):
                    s = os.stat(full)
                    values = {name: os.getxattr(full, name) for name in os.listxattr(full)}
                    seen = (oct(s.st_mode), s.st_uid, s.st_gid, values)
                    self.assertEqual(found.setdefault(os.path.relpath(full, top), seen), seen)
        return found

    def on_both(self, act):
        for tree in self.trees:
            act(tree)
        there, here = self.state(self.trees[1]), self.state(self.trees[0])
        self.assertEqual(here, there)
        return here

    def can(self, test, user, groups, name):
        """Whether the shell's `test` says so, for both trees."""
        def become():
            os.setgroups(groups)
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        answers = set()
        for tree in self.trees:
            process = subprocess.run(["sh", "-c", test, "sh", os.path.join(tree, name)], preexec_fn=become,
                                     capture_output=True, timeout=60)
            answers.add(process.returncode == 0)
        self.assertEqual(len(answers), 1, (test, user, groups, name))
        return answers.pop()

    def test_rights_are_what_the_acl_gives(self):
        def make(tree):
            path = os.path.join(tree, "file")
            with open(path, "wb") as f:
                f.write(b"text")
            os.chown(path, 0, 4300)
            os.chmod(path, 0o600)
            os.setxattr(path, ACCESS, acl((USER_OBJ, 6), (USER, 6, 4242), (GROUP_OBJ, 0), (GROUP, 4, 4301),
                                          (MASK, 6), (OTHER, 0)))
        self.on_both(make)
        read, write = 'cat "$1"', ': >> "$1"'
        self.assertEqual((self.can(read, 4242, [], "file"), self.can(write, 4242, [], "file")), (True, True))
        self.assertFalse(self.can(read, NOBODY, [4300], "file"))
        self.assertTrue(self.can(read, NOBODY, [4301], "file"))
        self.assertFalse(self.can(write, NOBODY, [4301], "file"))
        self.on_both(lambda tree: os.chmod(os.path.join(tree, "file"), 0o640))
        self.assertTrue(self.can(read, 4242, [], "file"))
        self.assertFalse(self.can(write, 4242, [], "file"))
        self.on_both(lambda tree: os.removexattr(os.path.join(tree, "file"), ACCESS))
        self.assertFalse(self.can(read, 4242, [], "file"))

    def test_default_acl_takes_the_place_of_the_mask(self):
        script = ('umask 027; cd "$1"; echo > file; mkdir directory; mkfifo fifo; ln -s file symlink; '
                  'mkdir -m 2750 own; : > own/file; chmod 4751 file; '
                  'python3 -c "import os; os.close(os.open(\'.\', os.O_TMPFILE | os.O_RDWR, 0o666))"')

        def make(tree):
            for name in ("masked", "inherits"):
                os.mkdir(os.path.join(tree, name))
                os.chmod(os.path.join(tree, name), 0o777)
            os.setxattr(os.path.join(tree, "inherits"), DEFAULT,
                        acl((USER_OBJ, 7), (USER, 7, 4242), (GROUP_OBJ, 7), (MASK, 7), (OTHER, 5)))
            for name in ("masked", "inherits"):
                self.run_program("sh", "-ec", script, "sh", os.path.join(tree, name),
                                 preexec_fn=run_as(NOBODY))
        made = self.on_both(make)
        self.assertEqual(made["masked/directory"][0], oct(stat.S_IFDIR | 0o750))
        self.assertEqual(made["inherits/directory"][0], oct(stat.S_IFDIR | 0o775))
        self.assertIn(DEFAULT, made["inherits/directory"][3])

    def test_owner_outside_the_group_loses_its_bit_with_a_new_acl(self):
        script = "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))"
        value = acl((USER_OBJ, 7), (USER, 7, 4242), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)).hex()

        def make(tree):
            path = os.path.join(tree, "file")
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.chown(path, NOBODY, 4300)
            os.chmod(path, 0o2755)
            self.run_program("python3", "-c", script, path, ACCESS, value, preexec_fn=run_as(NOBODY))
        self.on_both(make)


if __name__ == "__main__":
    unittest.main()
