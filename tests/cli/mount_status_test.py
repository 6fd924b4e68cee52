#!/usr/bin/env python3
"""`aprime status` tells what a mount is doing, to its user only; whatever else comes by the mount's socket
does no harm."""

import json
import os
import socket
import stat
import struct
import subprocess
import threading
import time
import unittest

from command import APRIME, stop
from mounted import MountedTest, detach, run_as

NOBODY = 65534
STATUS_KEYS = ["source", "mountpoint", "process", "version", "devices", "files", "dirty_bytes",
               "resident_bytes", "faults", "bytes_filled", "bytes_copied_back", "bytes_bounced", "evictions",
               "writeback_errors"]


def identity(path):
    """Tells a socket from a later one of that name: the kernel gives the number in it to the next mount. None
    if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


class Status(MountedTest):
    def status(self, path=None):
        process = self.aprime("status", path or self.mountpoint, "--json")
        self.assertEqual((process.returncode, process.stderr), (0, b""))
        status = json.loads(process.stdout)
        self.assertEqual(list(status), STATUS_KEYS)
        self.assertEqual([list(device) for device in status["devices"]],
                         [["name", "description", "memory", "chosen_because"]])
        return status

    def device(self):
        return os.stat(self.mountpoint).st_dev

    def socket_path(self):
        device = self.device()
        own = "/run/aprime" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}/aprime"
        for directory in (own, f"/tmp/aprime-{os.geteuid()}"):
            path = os.path.join(directory, f"{os.major(device)}-{os.minor(device)}.sock")
            if os.path.exists(path):
                return path
        self.fail("no socket")

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(connection.close)
        connection.settimeout(60)
        connection.connect(self.socket_path())
        return connection

    def receive(self, connection):
        text = b""
        while part := connection.recv(65536):
            text += part
        self.assertEqual(struct.unpack("<I", text[:4])[0], len(text) - 4)
        return json.loads(text[4:])

    def answer(self, text, length=None):
        """What the process answers to one message of any bytes; it then ends the connection."""
        connection = self.connect()
        connection.sendall(struct.pack("<I", len(text) if length is None else length) + text)
        answer = self.receive(connection)
        self.assertEqual((answer["version"], answer["type"]), (1, "error"))
        return answer["body"]["message"]

    def message(self, **changed):
        return json.dumps({"version": 1, "mount": self.device(), "type": "status", "body": {}, **changed})

    def test_status_of_an_idle_mount(self):
        self.start_mount()
        for path in (self.mountpoint, self.mountpoint + "/", self.at("whatever")):
            status = self.status(path)
            self.assertEqual((status["source"], status["mountpoint"]), (self.source, self.mountpoint))
            self.assertEqual((status["process"], status["files"]), (self.daemon.pid, []))
        text = self.aprime("status", self.mountpoint).stdout.decode()
        self.assertIn(f"{self.source} on {self.mountpoint}", text)
        self.assertIn("No file is mapped", text)

    def test_socket_is_the_users_alone_and_goes_with_the_mount(self):
        self.start_mount()
        path = self.socket_path()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o700)
        socket = identity(path)
        self.end_daemon(self.daemon)
        self.assertNotEqual(identity(path), socket)

    def test_where_there_is_no_mount_it_is_said(self):
        for path in (self.source, "/proc"):
            self.assert_refused(1, "status", path, names=[path, "no mount of aprime"])
        missing = os.path.join(self.directory, "missing")
        self.assert_refused(1, "status", missing, names=[missing, "no such file"])
        self.assert_refused(2, "status", names="MOUNTPOINT")

    def test_mount_whose_daemon_dies_while_it_is_looked_at_is_stale(self):
        self.start_mount()
        stop(self.daemon)
        asking = subprocess.Popen([APRIME, "status", self.mountpoint], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        time.sleep(0.5)  # for it to wait for the daemon; should it be slower, it finds the daemon dead
        self.daemon.kill()
        out, err = asking.communicate(timeout=60)
        self.assertEqual((asking.returncode, out), (1, b""))
        for name in (self.mountpoint, "stale", "aprime unmount"):
            self.assertIn(name, err.decode())

    def test_stale_mount_is_recognised_and_its_socket_goes_with_it(self):
        self.start_mount()
        path = self.socket_path()
        self.daemon.kill()
        self.daemon.wait(timeout=60)
        for where in (self.mountpoint, self.at("file"), os.path.relpath(self.mountpoint)):
            self.assert_refused(1, "status", where, names=[self.mountpoint, "stale", "aprime unmount"])
        left_behind = identity(path)
        self.assertIsNotNone(left_behind)
        self.assertEqual(self.aprime("unmount", self.mountpoint).returncode, 0)
        self.assertNotEqual(identity(path), left_behind)

    def test_mount_after_one_that_was_killed_is_served(self):
        for _ in range(3):  # the device number is likely to be the same
            self.start_mount()
            self.assertEqual(self.status()["process"], self.daemon.pid)
            self.daemon.kill()
            self.daemon.wait(timeout=60)
            detach(self.mountpoint)

    def test_removed_socket_is_told(self):
        self.start_mount()
        path = self.socket_path()
        os.unlink(path)
        self.assert_refused(1, "status", self.mountpoint, names=[self.mountpoint, path, "nobody listens"])
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.bind(path)
        os.chmod(path, 0o666)
        self.assert_refused(1, "status", self.mountpoint, names=[self.mountpoint, "not this user's alone"])
        self.daemon.terminate()
        self.daemon.communicate(timeout=60)
        self.assertTrue(os.path.exists(path), "not its own")
        os.unlink(path)

    def test_process_that_answers_otherwise_is_told(self):
        self.start_mount()
        path = self.socket_path()
        os.unlink(path)
        stranger = socket.socket(socket.AF_UNIX)
        self.addCleanup(stranger.close)
        stranger.bind(path)
        self.addCleanup(os.unlink, path)
        os.chmod(path, 0o600)
        stranger.listen()

        def answer(text, length):
            connection, _ = stranger.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(struct.pack("<I", length or len(text)) + text)

        for text, length, names in (
                (self.message(version=2).encode(), None, ["version 2", "unmount and mount again"]),
                (self.message(type="status").encode(), None, ["makes no sense"]),
                (b"x", 0xffffffff, ["makes no sense"]), (b"", 5, ["unmounted meanwhile"]),
                (b"garbage", None, ["no JSON"])):
            with self.subTest(text=text):
                thread = threading.Thread(target=answer, args=(text, length))
                thread.start()
                self.assert_refused(1, "status", self.mountpoint, names=[self.mountpoint, *names])
                thread.join()
        self.end_daemon(self.daemon)

    def test_messages_that_make_no_sense_are_refused_and_harm_nobody(self):
        self.start_mount()
        for text, length, says in (
                (b"garbage", None, "no JSON"), (b"", None, "no JSON"), (b"\xff\xfe", None, "no JSON"),
                (b"[" * 100000, None, "no JSON"), (b"[]", None, "version none"), (b"1", None, "version none"),
                (b"GET / HTTP/1.1", 0xffffffff, "longer than"), (b"", 1 << 21, "longer than"),
                (self.message(version=2).encode(), None, "version 2"),
                (self.message(version="1").encode(), None, "version \"1\""),
                (self.message(mount=1).encode(), None, "another mount"),
                (self.message(type="").encode(), None, "no type"),
                (self.message(type=7).encode(), None, "no type"),
                (self.message(body=[]).encode(), None, "no body"),
                (self.message(type="dance").encode(), None, "dance")):
            with self.subTest(text=text[:60]):
                self.assertIn(says, self.answer(text, length))
        self.assertEqual(self.status()["files"], [])

    def test_callers_that_say_nothing_or_go_keep_nobody_waiting(self):
        self.start_mount()
        silent = [self.connect() for _ in range(5)]
        silent[0].sendall(b"\x10\0")
        silent[1].sendall(struct.pack("<I", 1 << 19) + b"{")
        silent[2].close()
        self.status()
        # More than are answered at once: the others are told so.
        for _ in range(80):
            silent.append(self.connect())
        answers = self.receive(silent[-1])
        self.assertIn("try again later", answers["body"]["message"])
        for connection in silent:
            connection.close()

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
    def test_other_users_are_not_answered(self):
        self.start_mount("--allow-other")
        self.assert_refused(1, "status", self.mountpoint, preexec_fn=run_as(NOBODY),
                            names=[self.mountpoint, "user 0"])
        # Even one who gets at the socket.
        path = self.socket_path()
        script = ("import os, socket, sys\nfd = os.open(sys.argv[1], os.O_PATH)\nos.setresuid(*[65534] * 3)\n"
                  "s = socket.socket(socket.AF_UNIX)\ns.connect(f'/proc/self/fd/{fd}')\n"
                  "print(s.recv(4096)[4:].decode())")
        os.chmod(path, 0o666)
        out = self.run_program("python3", "-c", script, path)
        self.assertIn("mount of user 0", json.loads(out)["body"]["message"])
        os.chmod(path, 0o600)
        self.assertEqual(self.status()["process"], self.daemon.pid)

    def test_status_to_a_full_standard_output_is_an_error(self):
        self.start_mount()
        with open("/dev/full", "wb") as full:
            process = subprocess.run([APRIME, "status", self.mountpoint], stdout=full,
                                     stderr=subprocess.PIPE, timeout=120)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"standard output", process.stderr)


if __name__ == "__main__":
    unittest.main()
