"""A mount served by the command under test, for the tests of the mount."""

import os
import select
import signal
import subprocess
import threading

from command import APRIME, LIBC, CliTest, die_with_parent

# Longer than any test takes; then the daemon is killed, which wakes every program that waits for it.
TEST_SECONDS_MAX = 240
NOBODY = 65534


def is_mounted(path):
    with open("/proc/self/mountinfo") as mounts:
        return any(line.split()[4] == path for line in mounts)


def detach(path):
    """Whatever state the mount is in, it is gone afterwards."""
    mnt_detach = 2
    while is_mounted(path):
        if LIBC.umount2(path.encode(), mnt_detach) != 0:
            subprocess.run(["fusermount3", "-uqz", path], timeout=60, check=True)


def run_as(user):
    def drop():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    return drop


class MountedTest(CliTest):
    def setUp(self):
        super().setUp()
        self.directory = os.path.realpath(self.directory)
        os.chmod(self.directory, 0o755)
        self.source = os.path.join(self.directory, "source")
        self.mountpoint = os.path.join(self.directory, "mounted")
        os.mkdir(self.source)
        os.mkdir(self.mountpoint)
        self.addCleanup(detach, self.mountpoint)
        self.daemon = None

    def start_mount(self, *options, prefix=()):
        """Mounts, served in the foreground by `self.daemon`."""
        command = [*prefix, APRIME, "mount", self.source, self.mountpoint, "--foreground",
                   "--device-memory", "1M", *options]
        self.daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       preexec_fn=die_with_parent)
        self.addCleanup(self.end_daemon, self.daemon)
        watchdog = threading.Timer(TEST_SECONDS_MAX, self.daemon.kill)
        watchdog.daemon = True
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        readable, _, _ = select.select([self.daemon.stdout], [], [], 120)
        line = self.daemon.stdout.readline() if readable else b""
        if line != f"{self.source} is mounted on {self.mountpoint}\n".encode():
            self.daemon.kill()
            self.fail(f"no mount: {line!r} {self.daemon.communicate()[1]!r}")

    def end_daemon(self, daemon):
        """It ends cleanly, has nothing to complain of, and leaves no mount behind."""
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
        try:
            _, err = daemon.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.communicate()
            raise
        if daemon.returncode != -signal.SIGKILL:
            complaints = err.decode(errors="replace")
            self.assertEqual((daemon.returncode, complaints), (0, ""), complaints)
            self.assertFalse(is_mounted(self.mountpoint))

    def run_program(self, *command, cwd=None, **options):
        process = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=200, **options)
        self.assertEqual(process.returncode, 0, process.stdout.decode(errors="replace"))
        return process.stdout

    def at(self, *names):
        return os.path.join(self.mountpoint, *names)

    def plain(self, *names):
        return os.path.join(self.source, *names)
