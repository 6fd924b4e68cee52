#!/usr/bin/env python3
"""Real programs on a mount find nothing that tells it from a plain file system."""

import os
import unittest

from command import SMALL
from mounted import MountedTest


class Programs(MountedTest):
    def setUp(self):
        super().setUp()
        self.start_mount()

    def make_tree(self, root):
        """Files, directories, links, odd modes and names, holes."""
        os.makedirs(os.path.join(root, "a", "b c"))
        for n in range(5 if SMALL else 40):
            with open(os.path.join(root, "a", "b c", f"file {n}"), "wb") as f:
                f.write(self.random.randbytes(self.random.randrange(70000)))
        os.symlink("../a", os.path.join(root, "a", "symlink"))
        os.link(os.path.join(root, "a", "b c", "file 0"), os.path.join(root, "hard"))
        os.chmod(os.path.join(root, "hard"), 0o4751)
        with open(os.path.join(root, "sparse"), "wb") as f:
            f.truncate(3 << 20)
            f.seek(1 << 20)
            f.write(b"in the middle")
        os.utime(os.path.join(root, "a"), ns=(10**18 + 1, 10**18 + 2))

    def assert_same(self, one, other):
        self.run_program("diff", "-r", "--no-dereference", one, other)
        changed = self.run_program("rsync", "-aHcni", "--delete", one + "/", other + "/")
        self.assertEqual(changed, b"")

    def test_cp_and_tar_and_rsync(self):
        original = os.path.join(self.directory, "original")
        os.mkdir(original)
        self.make_tree(original)
        self.run_program("cp", "-a", original, self.at("copied"))
        self.assert_same(original, self.at("copied"))
        self.run_program("tar", "-cSf", self.at("tar"), "-C", self.at("copied"), ".")
        os.mkdir(self.at("unpacked"))
        self.run_program("tar", "-xpSf", self.at("tar"), "-C", self.at("unpacked"))
        self.assert_same(original, self.at("unpacked"))
        self.run_program("rsync", "-aHc", self.at("unpacked") + "/", self.at("synced"))
        self.assert_same(original, self.plain("synced"))
        self.run_program("cp", "-a", self.at("synced"), os.path.join(self.directory, "back"))
        self.assert_same(original, os.path.join(self.directory, "back"))
        self.run_program("rm", "-r", *(self.at(name) for name in os.listdir(self.mountpoint)))
        self.assertEqual(os.listdir(self.source), [])

    def test_git(self):
        origin = self.at("origin")
        git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", origin]
        self.run_program("git", "init", "-q", origin)
        for n in range(3):
            with open(self.at("origin", f"file {n}"), "wb") as f:
                f.write(self.random.randbytes(30000))
            self.run_program(*git, "add", ".")
            self.run_program(*git, "commit", "-qm", f"commit {n}")
        self.run_program(*git, "gc", "-q")
        self.run_program("git", "clone", "-q", "--no-local", origin, self.at("clone"))
        self.run_program("git", "-C", self.at("clone"), "fsck", "--full", "--strict")
        self.assertEqual(self.run_program("git", "-C", self.plain("clone"), "status", "--porcelain"), b"")

    def test_sqlite(self):
        for mode in ("wal", "delete"):
            with self.subTest(mode=mode):
                rows = 200 if SMALL else 2000
                script = (f"pragma journal_mode={mode}; create table t(a integer primary key, b text); "
                          f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) "
                          "insert into t select i, hex(randomblob(100)) from n; "
                          "update t set b = b || 'x' where a % 3 = 0; begin; delete from t where a % 7 = 0; "
                          "rollback; vacuum; pragma wal_checkpoint(truncate);")
                database = self.at(f"{mode}.db")
                self.run_program("sqlite3", "-bail", database, script)
                # Two processes at once: the second sees each transaction of the first whole.
                client = f'sqlite3 "$1" ".timeout 60000" "{self.increments()}"'
                self.run_program("sh", "-c", f"{client} & {client} && wait $!", "sh", database)
                query = "pragma integrity_check; select count(*) from t; select n from counter;"
                for path in (database, self.plain(f"{mode}.db")):
                    answer = self.run_program("sqlite3", "-bail", path, query)
                    self.assertEqual(answer.split(), [b"ok", str(rows).encode(), b"20"])

    def increments(self):
        return ("create table if not exists counter(n); "
                "insert into counter select 0 where not exists (select 1 from counter); "
                + "begin immediate; update counter set n = n + 1; commit; " * 10)

    def test_fio_verifies_what_it_wrote(self):
        common = ["fio", "--minimal", f"--directory={self.mountpoint}", f"--size={4 if SMALL else 16}M",
                  "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randseed=7"]
        small = ["--rw=randwrite", "--bs=4k"]
        self.run_program(*common, *small, "--name=sync", "--ioengine=psync", "--numjobs=2")
        self.run_program(*common, *small, "--name=direct", "--ioengine=libaio", "--direct=1", "--iodepth=16")
        self.run_program(*common, *small, "--name=mapped", "--ioengine=mmap")
        self.run_program(*common, "--rw=write", "--bs=1m", "--name=large", "--ioengine=psync")


if __name__ == "__main__":
    unittest.main()
