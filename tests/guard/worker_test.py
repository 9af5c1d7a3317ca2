"""The guard without a server: what it reports of a worker, and its slot on the scoreboard."""

import asyncio
import contextlib
import fcntl
import io
import os
import signal
import socket
import struct
import sys
import time
import unittest
from unittest import mock

from guard_test import SIZE, SLOTS, STREAM, Client, Gate, GuardTestCase, failure, guard, slot


class WorkerTest(GuardTestCase):
    async def test_the_lifespan_goes_through_untouched_and_is_told_on_the_board(self):
        seen = {}

        async def app(scope, receive, send):
            scope["state"]["here"] = self
            seen["startup"] = (await receive())["type"]
            seen["starting"] = slot(self.board).state
            await send({"type": "lifespan.startup.complete"})
            seen["ready"] = slot(self.board).state
            seen["shutdown"] = (await receive())["type"]
            seen["stopping"] = slot(self.board).state
            await send({"type": "lifespan.shutdown.complete"})

        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        client = Client(guard(app, BOARD=self.board).app, kind="lifespan", messages=messages, state={})
        await client.call
        self.assertIs(client.scope["state"]["here"], self)
        self.assertEqual(seen, {"startup": "lifespan.startup", "starting": 1, "ready": 2,
                                "shutdown": "lifespan.shutdown", "stopping": 3})
        self.assertEqual(len(client.sent), 2)
        self.assertEqual((slot(self.board).pid, slot(self.board).flags & 2), (os.getpid(), 0))

    async def test_an_app_without_lifespan_raises_as_it_does_without_us_and_is_ready(self):
        async def app(scope, receive, send):
            assert scope["type"] == "http"

        with self.assertRaises(AssertionError):
            await Client(guard(app, BOARD=self.board).app, kind="lifespan", state={}).call
        self.assertEqual(slot(self.board).state, 2)

    async def test_a_startup_that_fails_is_not_ready_and_says_why(self):
        async def app(scope, receive, send):
            await send({"type": "lifespan.startup.failed", "message": "no\ndatabase"})

        await Client(guard(app, BOARD=self.board).app, kind="lifespan", state={}).call
        self.assertEqual(slot(self.board).state, 1)
        self.assertIn("no database", failure(self.board))

    async def test_a_server_without_lifespan_makes_the_first_request_the_sign_of_life(self):
        gate = Gate()
        gate.open.set()
        await Client(guard(gate, BOARD=self.board).app).call
        self.assertEqual((slot(self.board).state, slot(self.board).flags & 2), (2, 2))

    async def test_the_loop_tells_that_it_turns_and_how_late_it_is(self):
        gate = Gate()
        gate.open.set()
        app = guard(gate, BOARD=self.board).app
        await Client(app).call
        first = slot(self.board).heartbeat
        self.clock.sleep(0.1)
        await asyncio.sleep(0.03)
        state = slot(self.board)
        self.assertGreater(state.heartbeat, first)
        self.assertGreaterEqual(state.most_lag, 50_000)
        self.assertEqual(state.served, 1)
        self.assertEqual(state.flags & 1, 1, "SIGABRT shows where it is")

    async def test_when_the_launcher_has_been_killed_the_worker_leaves_as_if_it_had_been_told(self):
        gate = Gate(STREAM)
        launcher = os.fork()
        if launcher == 0:
            signal.pause()
        os.pwrite(self.board, struct.pack("=I", launcher), 20)
        stream = Client(guard(gate, BOARD=self.board).app)
        task = stream.start()
        await asyncio.sleep(1)
        self.assertEqual(slot(self.board).leave_by, 0)
        os.kill(launcher, signal.SIGKILL)
        os.waitpid(launcher, 0)
        await self.until(lambda: slot(self.board).leave_by)
        self.assertAlmostEqual(slot(self.board).leave_by, self.clock.monotonic_ns() + 25e9, delta=1e8)
        await self.until(lambda: stream.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}, 2)
        task.cancel()

    async def test_a_worker_whose_parents_died_while_it_started_ends(self):
        module = guard(Gate(), BOARD=self.board)
        ended = []
        with mock.patch.object(os, "getppid", lambda: 1), mock.patch.object(os, "kill", lambda *call: ended.append(call)):
            for launcher, calls in ((1, []), (2**22 + 1, [(7, signal.SIGTERM)])):
                ended.clear()
                module._orphans_end(7, launcher, [1] * 16)(time.monotonic_ns())
                self.assertEqual([call for call in ended if call[0] == 7], calls)

    async def test_a_copy_of_the_listening_socket_is_lent_to_who_asks_for_it(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        # As an app may do.
        socket.setdefaulttimeout(5)
        self.addCleanup(socket.setdefaulttimeout, None)
        with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
            ours.setblocking(False)
            gate = Gate()
            gate.open.set()
            app = guard(gate, BOARD=self.board, LINE=theirs.fileno()).app
            await Client(app).call
            inode = os.fstat(listener.fileno()).st_ino
            loop = asyncio.get_running_loop()
            before = len(os.listdir("/proc/self/fd"))
            for asked, lent in [(f"7 {inode}", True), ("7 8", False)] * 5:
                await loop.sock_sendall(ours, asked.encode())
                while True:
                    try:
                        text, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.001)
                self.assertEqual((text, len(descriptors)), (b"+" if lent else b"-", int(lent)))
                for descriptor in descriptors:
                    self.assertEqual(os.fstat(descriptor).st_ino, inode)
                    os.close(descriptor)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before, "nothing is left open")
            self.assertFalse(os.get_inheritable(theirs.fileno()), "programs that the app starts do not inherit it")

    async def test_a_number_that_means_something_else_here_is_no_line(self):
        gate = Gate()
        gate.open.set()
        with open(os.devnull, "rb") as other:
            await Client(guard(gate, BOARD=self.board, LINE=other.fileno()).app).call
        await Client(guard(gate, BOARD=self.board, LINE=9999).app).call

    async def test_a_process_that_a_worker_forks_leaves_its_slot_alone(self):
        gate = Gate()
        gate.open.set()
        app = guard(gate, BOARD=self.board).app
        await Client(app).call
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                inside = Client(app).call
                inside.send(None)
            os._exit(slot(self.board).high_water)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 1)
        self.assertEqual((slot(self.board).pid, slot(self.board).in_flight), (os.getpid(), 0))

    async def test_slots_of_the_dead_are_taken_again(self):
        gate = Gate()
        gate.open.set()
        for round in range(3 * SLOTS):
            module = guard(gate, BOARD=self.board)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    with contextlib.suppress(StopIteration):
                        module._claim_slot()[0][0] = os.getpid()
                    os.write(write, b"x")
                    signal.pause()
                os._exit(1)
            os.close(write)
            self.assertEqual(os.read(read, 1), b"x", "no slot in round %d" % round)
            os.close(read)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.assertEqual(slot(self.board, 1).pid, 0, "always the first one")

    async def test_a_full_board_and_one_that_is_not_there_keep_nobody_from_serving(self):
        gate = Gate()
        gate.open.set()
        holder = os.fork()
        if holder == 0:
            with contextlib.suppress(BaseException):
                fcntl.lockf(self.board, fcntl.LOCK_EX, SIZE * SLOTS, SIZE)
                os.write(1, b"")
                os.pwrite(self.board, b"held", 64)
                signal.pause()
            os._exit(1)
        while os.pread(self.board, 4, 64) != b"held":
            time.sleep(0.001)
        closed = os.open("/dev/null", os.O_RDONLY)
        os.close(closed)
        try:
            for number, word in ((self.board, "full"), (closed, "no scoreboard"), (0, "no scoreboard")):
                said = io.StringIO()
                with contextlib.redirect_stderr(said):
                    app = guard(gate, BOARD=number).app
                    for _ in range(3):
                        client = Client(app)
                        await client.call
                        self.assertEqual(client.status, 200)
                self.assertEqual(said.getvalue().count(word), 1, said.getvalue())
        finally:
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)

    async def test_a_closed_standard_error_is_no_obstacle(self):
        gate = Gate()
        gate.open.set()
        for error in (None, io.StringIO()):
            if error is not None:
                error.close()
            before, sys.stderr = sys.stderr, error
            try:
                client = Client(guard(gate, BOARD=0).app)
                await client.call
            finally:
                sys.stderr = before
            self.assertEqual(client.status, 200)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
