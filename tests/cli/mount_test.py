#!/usr/bin/env python3
"""A mount is a file system as a person expects one: operations do what they do on the source itself."""

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import subprocess
import unittest

from command import APRIME
from mounted import LIBC, MountedTest

PUNCH_HOLE, KEEP_SIZE, COLLAPSE_RANGE, ZERO_RANGE = 2, 1, 8, 16
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fallocate(fd, mode, offset, size):
    check(LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)))


def rename_with(flags, old, new):
    check(LIBC.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))


def link_opened(fd, name):
    at_symlink_follow = 0x400
    check(LIBC.linkat(AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, name.encode(), at_symlink_follow))


class Tree(MountedTest):
    def setUp(self):
        super().setUp()
        self.start_mount()

    def assert_fails(self, error, function, *arguments, **options):
        with self.assertRaises(OSError) as caught:
            function(*arguments, **options)
        self.assertEqual(caught.exception.errno, error)

    def write(self, path, content):
        with open(path, "wb") as f:
            f.write(content)

    def test_names_are_those_of_the_source(self):
        self.write(self.at("file"), b"text")
        os.mkdir(self.at("directory"))
        os.symlink("file", self.at("symlink"))
        os.link(self.at("file"), self.at("link"))
        os.link(self.at("symlink"), self.at("second symlink"), follow_symlinks=False)
        os.mkfifo(self.at("fifo"))
        for path in (self.mountpoint, self.source):
            self.assertEqual(sorted(os.listdir(path)),
                             ["directory", "fifo", "file", "link", "second symlink", "symlink"])
        self.assertEqual(self.content(self.plain("link")), b"text")
        self.assertEqual(os.stat(self.at("file")).st_nlink, 2)
        self.assertTrue(os.path.samefile(self.at("file"), self.at("link")))
        self.assertEqual(os.readlink(self.at("second symlink")), "file")
        self.assertEqual(self.content(self.at("symlink")), b"text")
        self.assertTrue(stat.S_ISFIFO(os.stat(self.at("fifo")).st_mode))
        os.unlink(self.at("link"))
        self.assert_fails(errno.ENOENT, os.stat, self.at("link"))
        self.assert_fails(errno.ENOTDIR, os.rmdir, self.at("file"))
        self.assert_fails(errno.EISDIR, os.unlink, self.at("directory"))
        self.write(self.at("directory", "inner"), b"")
        self.assert_fails(errno.ENOTEMPTY, os.rmdir, self.at("directory"))
        self.assert_fails(errno.EEXIST, os.open, self.at("file"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        self.assert_fails(errno.ENAMETOOLONG, os.mkdir, self.at("n" * 256))
        os.unlink(self.at("directory", "inner"))
        os.rmdir(self.at("directory"))
        self.assertFalse(os.path.exists(self.plain("directory")))

    def test_large_directory_is_listed_whole(self):
        names = sorted(f"entry {n:04} with a name that fills the reply" for n in range(1500))
        for name in names:
            self.write(self.plain(name), b"")
        self.assertEqual(sorted(os.listdir(self.mountpoint)), names)
        with os.scandir(self.mountpoint) as entries:  # removed while it is read, as rm -r does
            for entry in entries:
                os.unlink(entry.path)
        self.assertEqual(os.listdir(self.source), [])

    def test_rename_with_and_without_flags(self):
        self.write(self.at("a"), b"a")
        self.write(self.at("b"), b"b")
        self.assert_fails(errno.EEXIST, rename_with, RENAME_NOREPLACE, self.at("a"), self.at("b"))
        rename_with(RENAME_EXCHANGE, self.at("a"), self.at("b"))
        self.assertEqual((self.content(self.at("a")), self.content(self.plain("b"))), (b"b", b"a"))
        with open(self.at("b"), "rb") as replaced:
            os.rename(self.at("a"), self.at("b"))
            self.assertEqual(replaced.read(), b"a")
        self.assertEqual(os.listdir(self.source), ["b"])
        os.mkdir(self.at("into"))
        os.rename(self.at("b"), self.at("into", "c"))
        self.assertEqual(self.content(self.at("into", "c")), b"b")

    def test_unlinked_file_lives_while_it_is_open(self):
        with open(self.at("file"), "w+b") as f:
            f.write(b"before")
            f.flush()
            os.unlink(self.at("file"))
            self.assertEqual(os.listdir(self.source), [])
            f.write(b" after")
            f.flush()
            os.fsync(f.fileno())
            self.assertEqual(os.pread(f.fileno(), 100, 0), b"before after")
            self.assertEqual(os.fstat(f.fileno()).st_size, 12)
            os.truncate(f.fileno(), 3)
            self.assertEqual(os.pread(f.fileno(), 100, 0), b"bef")

    def test_unnamed_file_gets_a_name_or_goes(self):
        try:
            fd = os.open(self.mountpoint, os.O_TMPFILE | os.O_RDWR, 0o640)
        except OSError as error:
            self.assertEqual(error.errno, errno.EOPNOTSUPP)  # a kernel before 6.1
            return
        os.write(fd, b"text")
        self.assertEqual((os.fstat(fd).st_nlink, stat.S_IMODE(os.fstat(fd).st_mode)), (0, 0o640))
        self.assertEqual(os.listdir(self.source), [])
        link_opened(fd, self.at("named"))
        os.pwrite(fd, b"T", 0)
        os.close(fd)
        self.assertEqual(self.content(self.plain("named")), b"Text")
        fd = os.open(self.mountpoint, os.O_TMPFILE | os.O_EXCL | os.O_WRONLY, 0o600)
        self.assert_fails(errno.ENOENT, link_opened, fd, self.at("never"))
        os.close(fd)
        self.assertEqual(os.listdir(self.mountpoint), ["named"])

    def test_attributes(self):
        self.write(self.at("file"), b"x" * 5000)
        os.chmod(self.at("file"), 0o640)
        os.utime(self.at("file"), ns=(1_000_000_001, 2_000_000_002))
        here, there = os.stat(self.at("file")), os.stat(self.plain("file"))
        for name in ("st_mode", "st_size", "st_ino", "st_uid", "st_gid", "st_nlink", "st_mtime_ns",
                     "st_atime_ns", "st_blocks"):
            self.assertEqual(getattr(here, name), getattr(there, name), name)
        self.assertEqual((here.st_atime_ns, here.st_mtime_ns), (1_000_000_001, 2_000_000_002))
        os.symlink("nowhere", self.at("symlink"))
        os.utime(self.at("symlink"), ns=(3, 4), follow_symlinks=False)
        self.assertEqual(os.lstat(self.plain("symlink")).st_mtime_ns, 4)
        os.truncate(self.at("file"), 100)
        os.truncate(self.at("file"), 300)
        self.assertEqual(self.content(self.plain("file")), b"x" * 100 + bytes(200))
        self.write(self.at("file"), b"replaced")
        self.assertEqual(self.content(self.plain("file")), b"replaced")
        self.assertEqual(os.statvfs(self.mountpoint).f_blocks, os.statvfs(self.source).f_blocks)
        umask = os.umask(0o027)
        self.addCleanup(os.umask, umask)
        os.close(os.open(self.at("masked"), os.O_CREAT | os.O_WRONLY, 0o777))
        self.assertEqual(stat.S_IMODE(os.stat(self.plain("masked")).st_mode), 0o750)
        os.umask(0)
        os.mkdir(self.at("unmasked"), 0o777)
        self.assertEqual(stat.S_IMODE(os.stat(self.plain("unmasked")).st_mode), 0o777)

    def test_extended_attributes(self):
        self.write(self.at("file"), b"")
        os.setxattr(self.at("file"), "user.one", b"1" * 200)
        os.setxattr(self.at("file"), "user.two", b"")
        self.assertEqual(sorted(os.listxattr(self.at("file"))), ["user.one", "user.two"])
        self.assertEqual(os.getxattr(self.plain("file"), "user.one"), b"1" * 200)
        self.assert_fails(errno.EEXIST, os.setxattr, self.at("file"), "user.one", b"", os.XATTR_CREATE)
        os.removexattr(self.at("file"), "user.two")
        self.assertEqual(os.listxattr(self.plain("file")), ["user.one"])
        self.assert_fails(errno.ENODATA, os.getxattr, self.at("file"), "user.two")

    def test_holes_and_fallocate(self):
        self.write(self.at("file"), b"x" * 65536)
        with open(self.at("file"), "r+b", buffering=0) as f:
            fd = f.fileno()
            fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 16384, 16384)
            self.assertEqual(self.content(self.plain("file")), b"x" * 16384 + bytes(16384) + b"x" * 32768)
            self.assertEqual(os.lseek(fd, 0, os.SEEK_HOLE), 16384)
            self.assertEqual(os.lseek(fd, 16384, os.SEEK_DATA), 32768)
            self.assert_fails(errno.ENXIO, os.lseek, fd, 65536, os.SEEK_DATA)
            fallocate(fd, ZERO_RANGE, 32768, 4096)
            self.assertEqual(os.pread(fd, 8192, 32768), bytes(4096) + b"x" * 4096)
            fallocate(fd, KEEP_SIZE, 65536, 65536)
            self.assertEqual(os.fstat(fd).st_size, 65536)
            fallocate(fd, 0, 65536, 4096)
            self.assertEqual(os.fstat(fd).st_size, 69632)
            # The kernel lets no FUSE file system have this one.
            self.assert_fails(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE_RANGE, 0, 4096)

    def test_copy_file_range(self):
        self.write(self.at("from"), bytes(range(256)) * 256)
        with open(self.at("from"), "rb") as source, open(self.at("to"), "wb") as target:
            self.assertEqual(os.copy_file_range(source.fileno(), target.fileno(), 50000, 100, 10), 50000)
        copied = self.content(self.plain("from"))[100:50100]
        self.assertEqual(self.content(self.plain("to")), bytes(10) + copied)

    def test_appends_of_several_processes_lose_nothing(self):
        script = "for i in $(seq 200); do echo $1 $i >> \"$2\"; done"
        writers = [subprocess.Popen(["sh", "-c", script, "sh", name, self.at("log")]) for name in "ab"]
        for writer in writers:
            self.assertEqual(writer.wait(timeout=120), 0)
        lines = self.content(self.plain("log")).decode().splitlines()
        self.assertEqual(sorted(lines), sorted(f"{name} {i}" for name in "ab" for i in range(1, 201)))

    def test_locks_keep_other_processes_out(self):
        self.write(self.at("file"), b"")
        script = ("import fcntl, sys\nf = open(sys.argv[1], 'r+b')\n"
                  "try:\n  getattr(fcntl, sys.argv[2])(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                  "except BlockingIOError: sys.exit(9)")
        for kind in ("lockf", "flock"):
            with open(self.at("file"), "r+b") as f:
                getattr(fcntl, kind)(f, fcntl.LOCK_EX)
                command = ["python3", "-c", script, self.at("file"), kind]
                self.assertEqual(subprocess.run(command, timeout=60).returncode, 9)
            self.assertEqual(subprocess.run(command, timeout=60).returncode, 0)

    def test_direct_io(self):
        self.write(self.at("file"), b"a" * 16384)
        buffer = mmap.mmap(-1, 4096)
        fd = os.open(self.at("file"), os.O_RDWR | os.O_DIRECT)
        self.addCleanup(os.close, fd)
        self.assertEqual(os.preadv(fd, [buffer], 8192), 4096)
        self.assertEqual(buffer[:], b"a" * 4096)
        buffer[:] = b"b" * 4096
        self.assertEqual(os.pwritev(fd, [buffer], 4096), 4096)
        self.assertEqual(self.content(self.plain("file")), b"a" * 4096 + b"b" * 4096 + b"a" * 8192)

    def test_shared_mapping_is_one_for_all_processes(self):
        self.write(self.at("file"), bytes(3 * 4096 + 100))
        script = ("import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 0)\n"
                  "assert m[5000:5005] == b'first', m[5000:5005]\nm[9000:9006] = b'second'\n")
        with open(self.at("file"), "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            m[5000:5005] = b"first"
            self.run_program("python3", "-c", script, self.at("file"))
            self.assertEqual(m[9000:9006], b"second")
            # read(2) and the mapping are the same bytes.
            self.assertEqual(os.pread(f.fileno(), 5, 5000), b"first")
            os.pwrite(f.fileno(), b"third", 12000)
            self.assertEqual(m[12000:12005], b"third")
            m.flush()
            content = self.content(self.plain("file"))
        self.assertEqual(len(content), 3 * 4096 + 100)
        self.assertEqual((content[5000:5005], content[9000:9006]), (b"first", b"second"))

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a file system")
    def test_file_systems_below_the_source_share_no_inode_number(self):
        self.write(self.plain("file"), b"x")
        for name in ("a", "b"):
            os.mkdir(self.plain(name))
            check(LIBC.mount(b"none", self.plain(name).encode(), b"tmpfs", 0, b"size=1M"))
            self.addCleanup(LIBC.umount2, self.plain(name).encode(), 2)
            # Each counts from the same number on.
            self.write(self.plain(name, "file"), name.encode())
        self.assertEqual(os.stat(self.plain("a", "file")).st_ino, os.stat(self.plain("b", "file")).st_ino)
        numbers = {os.stat(self.at(path)).st_ino for path in ("file", "a/file", "b/file", "a", "b")}
        self.assertEqual(len(numbers), 5)
        self.assertEqual(os.stat(self.at("file")).st_ino, os.stat(self.plain("file")).st_ino)
        for name in ("a", "b"):
            with os.scandir(self.at(name)) as entries:
                listed = [entry.inode() for entry in entries]
            self.assertEqual(listed, [os.stat(self.at(name, "file")).st_ino])
        process = subprocess.run(["cmp", self.at("a", "file"), self.at("b", "file")], capture_output=True)
        self.assertEqual(process.returncode, 1, "different files")

    def test_kernel_of_another_process_on_a_mounted_file(self):
        self.write(self.at("file"), b"Some text. " * 50000)
        self.run_program(APRIME, "demo", self.at("file"), "--device-memory", "1M")
        self.assertEqual(self.content(self.plain("file")), b"SOME TEXT. " * 50000)

    def test_directory_swapped_for_a_symlink_leads_nowhere(self):
        outside = os.path.join(self.directory, "outside")
        for path in (outside, self.plain("inside")):
            os.mkdir(path)
        self.write(os.path.join(outside, "secret"), b"secret")
        directory = os.open(self.at("inside"), os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, directory)
        os.rename(self.plain("inside"), self.plain("moved"))
        os.symlink(outside, self.plain("inside"))
        # The daemon goes on to serve the directory that was opened, not what has its name now.
        self.assert_fails(errno.ENOENT, os.open, "secret", os.O_RDONLY, dir_fd=directory)
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
        self.assertEqual(os.listdir(self.plain("moved")), ["new"])
        self.assertEqual(os.listdir(outside), ["secret"])


# Root would take more.
FEW_DESCRIPTORS = [*(["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 else []),
                   "prlimit", "--nofile=1000:1000"]


class ManyFiles(MountedTest):
    """The kernel keeps in mind what programs have looked at, and each of these is a descriptor."""

    def test_a_tree_larger_than_the_limit_on_open_files(self):
        for directory in range(3):
            os.makedirs(self.plain("t", str(directory)))
            for n in range(1000):
                with open(self.plain("t", str(directory), f"file-{n}"), "w", encoding="ascii") as f:
                    f.write(f"{directory} {n}")
        self.start_mount(prefix=FEW_DESCRIPTORS)
        kept = [open(self.at("t", "0", f"file-{n}"), encoding="ascii") for n in range(0, 1000, 5)]
        self.addCleanup(lambda: [f.close() for f in kept])
        for _ in range(2):
            self.assertEqual(len(self.run_program("ls", "-lR", self.at("t")).splitlines()), 3014)
        for n in range(1000):
            os.rename(self.at("t", "1", f"file-{n}"), self.at("t", "1", f"renamed-{n}"))
        for n in range(1000):
            self.assertEqual(self.content(self.at("t", "1", f"renamed-{n}")), f"1 {n}".encode())
            self.assertEqual(self.content(self.at("t", "2", f"file-{n}")), f"2 {n}".encode())
        self.assertEqual([f.read() for f in kept], [f"0 {n}" for n in range(0, 1000, 5)])
        self.run_program("rm", "-r", self.at("t"))

    def test_files_of_several_names_and_files_that_are_gone(self):
        os.mkdir(self.plain("t"))
        for n in range(1500):
            with open(self.plain("t", f"file-{n}"), "wb"):
                pass
            os.link(self.plain("t", f"file-{n}"), self.plain("t", f"link-{n}"))
        self.start_mount(prefix=FEW_DESCRIPTORS)
        for name in ("file", "link"):
            for n in range(1500):
                self.assertEqual(os.stat(self.at("t", f"{name}-{n}")).st_nlink, 2)
        for name in ("file", "link"):
            for n in range(1500):
                os.unlink(self.plain("t", f"{name}-{n}"))
        for n in range(1500):
            with open(self.plain("t", f"new-{n}"), "wb"):
                pass
        for n in range(1500):
            self.assertEqual(os.stat(self.at("t", f"new-{n}")).st_nlink, 1)

    def test_what_is_open_keeps_its_name(self):
        for n in range(1500):
            with open(self.plain(f"file-{n}"), "wb"):
                pass
        self.start_mount(prefix=FEW_DESCRIPTORS)
        with open(self.at("file-0"), "rb") as kept:
            self.run_program("ls", "-l", self.mountpoint)
            self.assertEqual(os.readlink(f"/proc/self/fd/{kept.fileno()}"), self.at("file-0"))


if __name__ == "__main__":
    unittest.main()
