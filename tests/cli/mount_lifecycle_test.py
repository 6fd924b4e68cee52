#!/usr/bin/env python3
"""A mount begins and ends cleanly; what cannot work is refused in one clear line; nothing written is lost."""

import errno
import mmap
import os
import resource
import shutil
import signal
import subprocess
import time
import unittest

from command import APRIME, stop
from mounted import LIBC, NOBODY, MountedTest, detach, is_mounted


class Lifecycle(MountedTest):
    def write(self, path, content):
        with open(path, "wb") as f:
            f.write(content)

    def assert_mount_refused(self, source, mountpoint, names):
        for options in (["--foreground"], []):
            arguments = ["mount", source, mountpoint, "--device-memory", "1M", *options]
            self.assert_refused(1, *arguments, names=names)

    def wait_until_unmounted(self):
        deadline = time.monotonic() + 60
        while is_mounted(self.mountpoint):
            self.assertLess(time.monotonic(), deadline, "still mounted")
            time.sleep(0.01)

    def test_bad_paths_are_refused(self):
        missing, file = os.path.join(self.directory, "missing"), self.file(b"")
        self.assert_mount_refused(missing, self.mountpoint, [missing, "no such directory"])
        self.assert_mount_refused(self.source, missing, [missing, "no such directory"])
        self.assert_mount_refused(file, self.mountpoint, [file, "no directory"])
        self.assert_mount_refused(self.source, file, [file, "no directory"])
        os.mkdir(self.plain("inside"))
        self.assert_mount_refused(self.source, self.plain("inside"), [self.plain("inside"), "contain itself"])
        self.assert_mount_refused(self.source, self.source, [self.source, "contain itself"])
        self.assert_mount_refused(self.plain("inside"), self.source,
                                  [self.source, "would hide", self.plain("inside")])
        self.assert_refused(2, "mount", self.source, names="MOUNTPOINT")
        self.assert_refused(1, "unmount", missing, names=[missing, "no such directory"])
        self.assert_refused(1, "unmount", self.source, names=[self.source, "nothing is mounted"])
        self.assert_refused(1, "unmount", "/proc", names=["/proc", "no mount of aprime"])
        self.assertFalse(is_mounted(self.mountpoint))

    def test_second_mount_on_a_mount_is_refused(self):
        self.start_mount()
        self.assert_mount_refused(self.source, self.mountpoint, [self.mountpoint, "mount of aprime already"])

    def test_a_mount_in_the_foreground_that_cannot_say_so_is_an_error(self):
        command = [APRIME, "mount", self.source, self.mountpoint, "--device-memory", "1M", "--foreground"]
        with open("/dev/full", "wb") as full:
            process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(process.stderr, rb"\Aaprime: standard output[^\n]+\n\Z")
        self.assertFalse(is_mounted(self.mountpoint))

    def test_background_mount_and_unmount(self):
        process = self.aprime("mount", self.source, self.mountpoint, "--device-memory", "1M")
        self.assertEqual((process.returncode, process.stdout, process.stderr), (0, b"", b""))
        self.write(self.at("file"), b"text")
        self.assertEqual(self.content(self.plain("file")), b"text")
        with open(self.at("file"), "rb"):
            self.assert_refused(1, "unmount", self.mountpoint, names=[self.mountpoint, "use it"])
        process = self.aprime("unmount", self.mountpoint)
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertFalse(is_mounted(self.mountpoint))

    def test_daemon_has_all_descriptors_that_it_may_have(self):
        self.start_mount(prefix=["prlimit", "--nofile=256:1000"])
        with open("/proc/self/status") as status, open("/proc/sys/fs/nr_open") as most:
            capabilities = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
            cap_sys_resource = 1 << 24
            limit = int(most.read()) if capabilities & cap_sys_resource else 1000
        self.assertEqual(resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE), (limit, limit))

    def test_background_mount_with_closed_streams(self):
        self.write(self.plain("file"), b"text")
        for closed in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
            with self.subTest(closed=closed):
                detach(self.mountpoint)
                process = self.aprime("mount", self.source, self.mountpoint, "--device-memory", "1M",
                                      prefix=["timeout", "60", "sh", "-c", f'exec "$@" {closed}', "sh"])
                self.assertEqual((process.returncode, process.stdout, process.stderr), (0, b"", b""))
                # Reading a file of a dead mount fails; of one that hangs, it waits.
                self.assertEqual(self.run_program("timeout", "60", "cat", self.at("file")), b"text")
                process = self.aprime("unmount", self.mountpoint)
                self.assertEqual((process.returncode, process.stderr), (0, b""))

    def test_unmounted_from_outside_while_a_file_is_open(self):
        self.start_mount()
        with open(self.at("file"), "w+b", buffering=0) as f:
            f.write(b"before")
            process = self.aprime("unmount", "--lazy", self.mountpoint)
            self.assertEqual((process.returncode, process.stderr), (0, b""))
            self.assertFalse(is_mounted(self.mountpoint))
            # Open files are served until the last one is closed; then the daemon ends by itself.
            f.write(b" and after")
            self.assertIsNone(self.daemon.poll())
        self.assertEqual(self.daemon.wait(timeout=60), 0)
        self.assertEqual(self.content(self.plain("file")), b"before and after")

    def mount_in_background(self, *options):
        process = self.aprime("mount", self.source, self.mountpoint, "--dirty-age", "0", *options)
        self.assertEqual((process.returncode, process.stderr), (0, b""))

    def unmount(self, *options):
        process = self.aprime("unmount", *options, self.mountpoint)
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertFalse(is_mounted(self.mountpoint))

    def run_uppercase(self):
        self.assertEqual(self.aprime("run", "uppercase", self.at("file")).returncode, 0)

    def test_unmount_returns_when_what_devices_have_is_written(self):
        size = 64 << 20
        for options in ([], ["--lazy"]):
            with self.subTest(options=options):
                self.write(self.plain("file"), b"x" * size)
                self.mount_in_background("--device-memory", "80M")
                self.run_uppercase()
                with open(self.plain("file"), "rb", buffering=0) as f:
                    f.seek(-1, os.SEEK_END)
                    self.unmount(*options)
                    self.assertEqual(f.read(), b"X")
                # Nothing is written over what a successor writes.
                self.mount_in_background("--device-memory", "1M")
                with open(self.at("file"), "r+b", buffering=0) as f:
                    f.seek(size - 3)
                    f.write(b"new")
                    os.fsync(f.fileno())
                self.unmount()
                self.assertEqual(self.content(self.plain("file")), b"X" * (size - 3) + b"new")

    def test_lazy_unmount_does_not_wait_for_programs(self):
        self.start_mount("--dirty-age", "0")
        self.write(self.at("file"), b"text")
        self.run_uppercase()
        with open(self.at("file"), "rb", buffering=0) as f:
            self.unmount("--lazy")
            self.assertIsNone(self.daemon.poll())
            self.assertEqual(f.read(), b"TEXT")
        self.assertEqual(self.daemon.wait(timeout=60), 0)
        self.assertEqual(self.content(self.plain("file")), b"TEXT")

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a small file system")
    def test_unmount_tells_what_could_not_be_written(self):
        self.assertEqual(LIBC.mount(b"none", self.source.encode(), b"tmpfs", 0, b"size=1M"), 0)
        self.addCleanup(LIBC.umount2, self.source.encode(), 2)
        size = 256 << 10
        self.write(self.plain("file"), b"x" * size)
        self.mount_in_background("--device-memory", "1M")
        self.run_uppercase()
        # Its space on the disk goes to another file.
        self.run_program("fallocate", "--punch-hole", "--length", str(size), self.plain("file"))
        with open(self.plain("filler"), "wb", buffering=0) as filler:
            with self.assertRaises(OSError):
                while True:
                    self.assertGreater(filler.write(b"y" * 65536), 0)
        self.assert_refused(1, "unmount", self.mountpoint, names=[self.at("file"), "unmounted, but", "full"])
        self.assertFalse(is_mounted(self.mountpoint))

    def test_lazily_unmounted_daemon_that_is_ended_leaves_its_successor_alone(self):
        self.start_mount()
        fd = os.open(self.at("file"), os.O_CREAT | os.O_RDWR)
        os.write(fd, b"text")
        self.assertEqual(self.aprime("unmount", "--lazy", self.mountpoint).returncode, 0)
        predecessor = self.daemon
        self.start_mount()
        predecessor.send_signal(signal.SIGTERM)
        self.assertEqual(predecessor.wait(timeout=60), 0)
        with self.assertRaises(OSError):
            os.close(fd)
        self.assertTrue(is_mounted(self.mountpoint))
        self.assertEqual(self.content(self.at("file")), b"text")
        self.write(self.at("other"), b"goes on")
        self.assertEqual(self.content(self.plain("other")), b"goes on")
        # The predecessor's end shall find nothing mounted.
        self.end_daemon(self.daemon)

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount on it")
    def test_daemon_that_is_ended_leaves_what_covers_its_mount_alone(self):
        self.start_mount()
        self.assertEqual(LIBC.mount(b"none", self.mountpoint.encode(), b"tmpfs", 0, b"size=64k"), 0)
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(timeout=60), 0)
        self.write(self.at("file"), b"text")
        self.assertFalse(os.path.exists(self.plain("file")))
        detach(self.mountpoint)

    def test_sigterm_writes_stored_pages_back_and_unmounts(self):
        # Few, for which the kernel's flusher does not come by itself, and more than it gets done.
        for pages, is_lazily_unmounted in [(8, False), (8, True), *[(16384, False), (16384, True)] * 3]:
            with self.subTest(pages=pages, is_lazily_unmounted=is_lazily_unmounted):
                self.start_mount()
                self.write(self.at("file"), bytes(pages * 4096))
                fd = os.open(self.at("file"), os.O_RDWR)
                with mmap.mmap(fd, 0) as m:
                    # Before it stores: the start of a program that inherits the descriptor, and closes it,
                    # has the pages written.
                    if is_lazily_unmounted:
                        self.unmount("--lazy")
                    for page in range(pages):
                        m[page * 4096:page * 4096 + 6] = b"stored"
                    self.daemon.send_signal(signal.SIGTERM)
                    self.assertEqual(self.daemon.wait(timeout=60), 0)
                    self.assertFalse(is_mounted(self.mountpoint))
                    content = self.content(self.plain("file"))
                    self.assertEqual(content.count(b"stored" + bytes(4090)), pages)
                for function in (lambda: os.pread(fd, 1, 0), lambda: os.close(fd)):
                    with self.assertRaises(OSError) as caught:
                        function()
                    self.assertIn(caught.exception.errno, (errno.ENOTCONN, errno.ECONNABORTED))

    def test_killed_daemon_leaves_the_tree_whole_and_a_stale_mount_that_is_recognised(self):
        self.start_mount()
        fd = os.open(self.at("file"), os.O_CREAT | os.O_RDWR)
        os.write(fd, b"synced")
        os.fsync(fd)
        os.mkdir(self.at("directory"))
        self.daemon.kill()
        self.daemon.wait(timeout=60)
        with self.assertRaises(OSError):
            os.close(fd)
        self.assertEqual(self.content(self.plain("file")), b"synced")
        self.assertEqual(sorted(os.listdir(self.source)), ["directory", "file"])
        self.assert_mount_refused(self.source, self.mountpoint, [self.mountpoint, "stale"])
        self.assert_mount_refused(self.source, self.mountpoint + "/", [self.mountpoint, "stale"])
        other = os.path.join(self.directory, "other")
        os.mkdir(other)
        self.assert_mount_refused(self.mountpoint, other, [self.mountpoint, "stale", "aprime unmount"])
        self.assert_mount_refused(self.at("inside"), other, [self.at("inside"), "stale"])
        process = self.aprime("unmount", self.mountpoint)
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertFalse(is_mounted(self.mountpoint))
        self.start_mount()
        self.assertEqual(self.content(self.at("file")), b"synced")

    def test_daemon_that_answers_no_more_is_forced_out(self):
        self.start_mount()
        self.write(self.at("file"), b"text")
        self.addCleanup(self.daemon.kill)
        stop(self.daemon)
        hanging = subprocess.Popen(["rm", self.at("file")], stderr=subprocess.PIPE)
        with self.assertRaises(subprocess.TimeoutExpired):
            hanging.wait(timeout=0.3)
        self.assert_refused(2, "unmount", "--force", "--lazy", self.mountpoint, names="--lazy")
        process = self.aprime("unmount", "--force", self.mountpoint)
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.assertFalse(is_mounted(self.mountpoint))
        self.assertIn(b"rm: ", hanging.communicate(timeout=60)[1])
        self.assertNotEqual(hanging.returncode, 0)
        # It leaves its successor alone when it goes on.
        forced_out = self.daemon
        self.start_mount()
        forced_out.send_signal(signal.SIGCONT)
        self.assertEqual(forced_out.wait(timeout=60), 0)
        self.assertTrue(is_mounted(self.mountpoint))
        self.assertEqual(self.content(self.at("file")), b"text")
        process = self.aprime("status", self.mountpoint)
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        self.end_daemon(self.daemon)
        self.assert_refused(1, "unmount", "--force", self.mountpoint, names=[self.mountpoint, "nothing is"])

    def test_without_descriptors_errors_are_told_and_it_goes_on(self):
        for n in range(200):
            self.write(self.plain(f"file {n}"), b"%d" % n)
        self.start_mount(prefix=["prlimit", "--nofile=100:100"])
        seen = set()
        opened = []
        self.addCleanup(lambda: [f.close() for f in opened])
        for n in range(200):
            try:
                opened.append(open(self.at(f"file {n}"), "rb", buffering=0))
            except OSError as error:
                seen.add(error.errno)
        self.assertEqual(seen, {errno.EMFILE})
        self.assertGreater(len(opened), 10)
        for n, f in enumerate(opened[:5]):
            self.assertEqual(f.read(), b"%d" % n)
        while opened:
            opened.pop().close()
        # The kernel gives back what it no longer needs when its caches are emptied; here, when names go.
        for n in range(50):
            os.unlink(self.plain(f"file {n}"))
        time.sleep(1.1)
        for n in range(50):
            self.assertFalse(os.path.exists(self.at(f"file {n}")))
        self.assertEqual(self.content(self.at("file 150")), b"150")

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a small file system")
    def test_full_source(self):
        self.assertEqual(LIBC.mount(b"none", self.source.encode(), b"tmpfs", 0, b"size=256k"), 0)
        self.addCleanup(LIBC.umount2, self.source.encode(), 2)
        self.start_mount()
        with open(self.at("file"), "wb", buffering=0) as f:
            with self.assertRaises(OSError) as caught:
                for _ in range(100):
                    self.assertGreater(f.write(b"x" * 8192), 0)
            self.assertEqual(caught.exception.errno, errno.ENOSPC)
            size = os.fstat(f.fileno()).st_size
            f.truncate(4096)
            f.write(b"y" * 100)
        self.assertGreater(size, 100000)
        self.assertEqual(self.content(self.plain("file"))[:4096], b"x" * 4096)
        self.end_daemon(self.daemon)

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_ordinary_user_mounts(self):
        aprime = os.path.join(self.directory, "aprime")
        shutil.copy(APRIME, aprime)
        for path in (self.source, self.mountpoint):
            os.chown(path, NOBODY, NOBODY)
        # As on a distribution, where everybody may use /dev/fuse: in a mount namespace of the test's own.
        script = f"""set -e
            mkdir {self.directory}/dev
            mount -t tmpfs none {self.directory}/dev
            mknod -m 666 {self.directory}/dev/fuse c 10 229
            mount --bind {self.directory}/dev/fuse /dev/fuse
            exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups sh -ec '
                {aprime} mount {self.source} {self.mountpoint} --device-memory 1M
                echo text > {self.mountpoint}/file
                mkdir {self.mountpoint}/directory
                ln {self.mountpoint}/file {self.mountpoint}/directory/link
                cat {self.mountpoint}/directory/link
                stat -c "%u %h" {self.mountpoint}/file
                {aprime} unmount {self.mountpoint}
                ls {self.mountpoint}'"""
        process = subprocess.run(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, timeout=120)
        self.assertEqual((process.stdout, process.returncode), (f"text\n{NOBODY} 2\n".encode(), 0))
        self.assertEqual(os.stat(self.plain("directory/link")).st_uid, NOBODY)


if __name__ == "__main__":
    unittest.main()
