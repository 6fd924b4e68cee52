"""What the tests of the command `aprime` share. Each is a program: NAME_test.py APRIME [unittest argument]"""

import array
import ctypes
import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.append(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir, "scripts"))
import csr

# The program under test. Taken off the arguments, which unittest reads next.
APRIME = sys.argv.pop(1)
LIBC = ctypes.CDLL(None, use_errno=True)
DEVICES = ("emulated", "emulated-strict")
SMALL = os.environ.get("APRIME_TEST_SCALE") == "small"
# Granules and device memories: smaller than most files below, so that files stream and granules are evicted.
# Under ThreadSanitizer each run costs seconds before it does anything, so that there are few and small ones.
EACH_DEVICE = [["--device", device, "--granule", granule, "--device-memory", memory]
               for device, granule, memory in (
                   [("emulated", "4K", "256K"), ("emulated-strict", "16K", "256K")] if SMALL else
                   [(device, granule, memory)
                    for device in DEVICES for granule, memory in (("4K", "256K"), ("64K", "1M"))])]
# Who starts the tests in the background has them ignore some signals, and so would the program under test.
for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
# Of such a file, in bytes.
SIZE = 384 << 10 if SMALL else 3 << 20
JSON_KEYS = ["workload", "device", "device_memory", "chosen_because", "file", "bytes", "seconds", "verified",
             "disagreement", "result", "host_traffic", "faults", "bytes_filled", "bytes_copied_back",
             "bytes_bounced", "evictions"]


class CliTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="aprime-cli-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.random = random.Random(1)

    def file(self, content, name="file"):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as f:
            f.write(content)
        return path

    def sparse(self, size, name="sparse"):
        path = self.file(b"", name)
        os.truncate(path, size)
        return path

    def csr(self, rows, columns, entries, name="matrix", **options):
        path = os.path.join(self.directory, name)
        csr.write_csr(path, rows, columns, entries, **options)
        return path

    def content(self, path):
        with open(path, "rb") as f:
            return f.read()

    def words(self, count, kind="I", bits=32):
        return array.array(kind, [self.random.getrandbits(bits) for _ in range(count)])

    def aprime(self, *arguments, prefix=(), **options):
        return subprocess.run([*prefix, APRIME, *arguments], capture_output=True, timeout=120, **options)

    def run_json(self, *arguments):
        """Runs a workload with --verify and checks what holds for every report."""
        process = self.aprime("run", *arguments, "--verify", "--json")
        self.assertEqual((process.returncode, process.stderr), (0, b""), arguments)
        report = json.loads(process.stdout)
        self.assertEqual(list(report), JSON_KEYS)
        self.assertEqual(list(report["faults"]), ["device_read", "device_write", "host_read", "host_write"])
        self.assertIs(report["verified"], True)
        self.assertEqual(process.stdout.count(b"\n"), 1)
        return report

    def assert_refused(self, status, *arguments, names, prefix=(), **options):
        """One clear line on stderr that names the thing, nothing on stdout, no signal."""
        process = self.aprime(*arguments, prefix=prefix, **options)
        text = process.stderr.decode()
        self.assertEqual(process.returncode, status, text)
        self.assertEqual(process.stdout, b"")
        self.assertRegex(text, r"\Aaprime: [^\n]+\n\Z")
        for name in [names] if isinstance(names, str) else names:
            self.assertIn(name, text)
        return text


def die_with_parent():
    pr_set_pdeathsig = 1
    LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL)


def start(*arguments, stderr=subprocess.PIPE, prefix=()):
    # A test that is killed, as ctest does when it takes too long, leaves nothing behind that runs on.
    return subprocess.Popen([*prefix, APRIME, *arguments], stdout=subprocess.PIPE, stderr=stderr,
                            preexec_fn=die_with_parent)


def wait_for_first_byte(path, byte, process, at=0):
    """Until the device's first granules came home, so that the run is in its middle."""
    deadline = time.monotonic() + 60
    with open(path, "rb", buffering=0) as f:
        while os.pread(f.fileno(), 1, at) != byte:
            has_ended = process.poll() is not None  # looked at first: it may store, and then end
            if os.pread(f.fileno(), 1, at) != byte and (has_ended or time.monotonic() > deadline):
                raise AssertionError(f"no store arrived: status {process.poll()}")


def stop(process):
    """Until every thread of it stands still: the signal reaches them one by one."""
    process.send_signal(signal.SIGSTOP)
    if process.returncode is not None:
        return  # it had ended, and is gone
    deadline = time.monotonic() + 60
    for task in os.listdir(f"/proc/{process.pid}/task"):
        while True:
            try:
                with open(f"/proc/{process.pid}/task/{task}/stat") as f:
                    if f.read().rpartition(")")[2].split()[0] in "TZ":
                        break
            except (FileNotFoundError, ProcessLookupError):
                break  # it has ended
            if time.monotonic() > deadline:
                raise AssertionError(f"process {process.pid} does not stop")


def punch_hole(path, offset, size):
    keep_size, punch = 1, 2
    with open(path, "r+b") as f:
        result = LIBC.fallocate(f.fileno(), punch | keep_size, ctypes.c_int64(offset), ctypes.c_int64(size))
        if result != 0 and ctypes.get_errno() != errno.EOPNOTSUPP:
            raise OSError(ctypes.get_errno(), "fallocate")
