"""Limits that adapt: the worker reads its limit from the board, and reports there how long requests take."""

import asyncio
import os
import random
import struct
import sys
import threading
import time
import types
import unittest

import guard_test
from guard_test import SIZE, STREAM, Client, Gate, GuardTestCase, board, turn
from wsgi_test import call, finish

LIMIT, SUMS = SIZE + 4 * 19, SIZE + 4 * 27


def guard(app, **constants):
    return guard_test.guard(app, **{"ADAPTS": True, **constants})


def set_limit(fd, limit):
    """What the launcher does."""
    os.pwrite(fd, struct.pack("=I", limit), LIMIT)


def sums(fd):
    """The number of requests, and the sums of their latencies and of the squares of these, in seconds."""
    number, squares, latency = struct.unpack("=IQI", os.pread(fd, 16, SUMS))
    return types.SimpleNamespace(number=number, latency=latency / 1e5, squares=squares / 1e12)


class AsgiTest(GuardTestCase):
    async def test_the_limit_is_what_the_launcher_writes(self):
        gate = Gate()
        app = guard(gate, BOARD=self.board).app

        async def statuses(number):
            clients = [Client(app) for _ in range(number)]
            tasks = [client.start() for client in clients]
            await turn()
            inside = gate.inside
            gate.open.set()
            await asyncio.gather(*tasks)
            gate.open.clear()
            return inside, sorted(client.status for client in clients)

        self.assertEqual(await statuses(3), (2, [200, 200, 503]), "as at the start")
        set_limit(self.board, 5)
        self.assertEqual(await statuses(6), (5, [200] * 5 + [503]))
        set_limit(self.board, 1)
        self.assertEqual(await statuses(3), (1, [200, 503, 503]))

    async def test_without_a_slot_the_first_limit_holds(self):
        gate = Gate()
        app = guard(gate).app
        inside = [Client(app).start() for _ in range(2)]
        await turn()
        refused = Client(app)
        await refused.call
        self.assertEqual(refused.status, 503)
        gate.open.set()
        await asyncio.gather(*inside)

    async def test_it_reports_how_long_requests_take_that_count(self):
        async def app(scope, receive, send):
            await asyncio.sleep(0.05)
            headers = STREAM if scope["path"] == "/stream" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        guarded = guard(app, BOARD=self.board, LIMIT=8).app
        requests = [("/", "GET"), ("/", "POST"), ("/health", "GET"), ("/stream", "GET"), ("/stream", "POST")]
        await asyncio.gather(*(Client(guarded, path, method=method).call for path, method in requests))
        while not sums(self.board).number:
            await asyncio.sleep(0.01)
        found = sums(self.board)
        self.assertEqual(found.number, 3)
        self.assertTrue(0.14 < found.latency < 3, found)
        self.assertTrue(0.006 < found.squares < 9, found)

    async def test_it_wakes_the_launcher_only_while_it_is_busy(self):
        gate = Gate()
        reader, writer = os.pipe2(os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        app = guard(gate, BOARD=self.board, LIMIT=8, POKE=writer).app

        async def is_woken(seconds=0.1):
            try:
                os.read(reader, 4096)
            except BlockingIOError:
                pass
            await asyncio.sleep(seconds)
            try:
                return bool(os.read(reader, 4096))
            except BlockingIOError:
                return False

        inside = [Client(app).start() for _ in range(3)]
        await turn()
        self.assertFalse(await is_woken(), "less than half of the limit")
        inside.append(Client(app).start())
        self.assertTrue(await is_woken(), "half of it")
        gate.open.set()
        await asyncio.gather(*inside)
        await is_woken()
        self.assertFalse(await is_woken(), "idle")


class ThreadsTest(unittest.TestCase):
    def setUp(self):
        self.board = board()
        self.addCleanup(os.close, self.board)

    def begun(self, app, **constants):
        module = guard(app, WSGI=True, BOARD=self.board, **constants)
        guarded = module.app
        module._begin_wsgi(None, 64)
        return guarded

    def admitted(self, app, number):
        """How many of so many requests at a time are admitted."""
        bodies = [call(app) for _ in range(number)]
        admitted = sum(response.status == 200 for response, _ in bodies)
        for _, body in bodies:
            finish(body)
        return admitted

    def test_the_limit_is_what_the_launcher_writes(self):
        def hello(environ, start_response):
            start_response("200 OK", [])
            return [b"hello"]

        app = self.begun(hello)
        self.assertEqual(self.admitted(app, 10), 2)
        for limit in (6, 3, 9, 1, 4):
            set_limit(self.board, limit)
            self.assertEqual(self.admitted(app, 10), limit)
        held = [call(app)[1] for _ in range(4)]
        set_limit(self.board, 2)
        self.assertEqual(self.admitted(app, 3), 0, "more are inside than the new limit")
        for body in held:
            finish(body)
        self.assertEqual(self.admitted(app, 3), 2)
        while sums(self.board).number < 31:
            time.sleep(0.01)

    def test_many_threads_never_exceed_a_limit_that_changes(self):
        lock, inside, excess = threading.Lock(), [0], []

        def app(environ, start_response):
            with lock:
                inside[0] += 1
                if inside[0] > 8:
                    excess.append(inside[0])
            time.sleep(0.0005)
            with lock:
                inside[0] -= 1
            start_response("200 OK", [])
            return [b""]

        guarded = self.begun(app, LIMIT=8)
        until = time.monotonic() + 1

        def client():
            while time.monotonic() < until:
                finish(call(guarded)[1])

        threads = [threading.Thread(target=client) for _ in range(16)]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            set_limit(self.board, random.randint(1, 8))
            time.sleep(0.002)
        for thread in threads:
            thread.join()
        self.assertEqual(excess, [])
        set_limit(self.board, 5)
        self.assertEqual(self.admitted(guarded, 10), 5, "no permit was lost or made up")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
