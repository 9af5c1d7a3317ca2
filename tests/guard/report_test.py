"""What a worker reports for the record of its end, without a server: its open requests and its memory."""

import asyncio
import io
import os
import struct
import sys
import threading
import time
import unittest

from guard_test import REPORT, REPORTS, STREAM, Client, Gate, GuardTestCase, board, guard, slot

HALVES, HALF = 40, 2028


def report(fd, index=0):
    """Memory, its peak and its growth, and the requests, each as a line without its time."""
    space = os.pread(fd, REPORT, REPORTS + REPORT * index)
    half = struct.unpack("=I", space[:4])[0]
    if not half:
        return (), []
    start = HALVES + HALF * (half - 1)
    length = struct.unpack_from("=I", space, start)[0]
    lines = space[start + 4 : start + 4 + length].decode("ascii").splitlines()
    return struct.unpack_from("=QQq", space, 8), [line.split(" ", 1)[1] for line in lines]


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


class ReportTest(GuardTestCase):
    async def test_open_requests_are_told_the_oldest_first_and_without_secrets(self):
        gate = Gate()
        app = guard(gate, BOARD=self.board, LIMIT=10).app
        first = Client(app, "/slow/0123456789abcdef0123", method="POST").start()
        await until(lambda: report(self.board)[1] == ["POST /slow/..."])
        others = [Client(app, path).start() for path in ("/b\n\x1b", "/health")]
        await until(lambda: len(report(self.board)[1]) == 3)
        self.assertEqual(report(self.board)[1], ["POST /slow/...", "GET /b\\n\\x1b", "GET /health"])
        gate.open.set()
        await asyncio.gather(first, *others)
        await until(lambda: report(self.board)[1] == [])

    async def test_streams_are_no_open_requests(self):
        gates = [Gate(STREAM), Gate()]
        app = guard(gates[0], BOARD=self.board, LIMIT=10).app
        clients = [Client(app, path).start() for path in ("/events", "/health")]
        await until(lambda: slot(self.board).streams == 2)
        beat = slot(self.board).heartbeat
        await until(lambda: slot(self.board).heartbeat > beat)
        self.assertEqual(report(self.board)[1], [])
        gates[0].open.set()
        await asyncio.gather(*clients)

    async def test_a_request_that_fails_is_not_open_any_more(self):
        async def app(scope, receive, send):
            await asyncio.sleep(0.05)
            raise KeyError

        client = Client(guard(app, BOARD=self.board).app).start()
        await until(lambda: report(self.board)[1] == ["GET /"])
        with self.assertRaises(KeyError):
            await client
        await until(lambda: report(self.board)[1] == [])

    async def test_ten_thousand_open_requests_are_as_cheap_as_those_that_are_told(self):
        gate = Gate()
        module = guard(gate, BOARD=self.board, LIMIT=None)
        app = module.app
        clients = [Client(app, "/%d" % number).start() for number in range(10_000)]
        await until(lambda: len(report(self.board)[1]) > 50)
        self.assertEqual(report(self.board)[1][:2], ["GET /0", "GET /1"])
        requests = module._OpenRequests()
        for number in range(10_000):
            requests.newest[number] = "GET", "/%d" % number
        taken = []
        for now in range(20):
            began = time.perf_counter()
            requests.beat(now)
            requests.lines(HALF)
            taken.append(time.perf_counter() - began)
        self.assertLess(min(taken), 0.01)
        gate.open.set()
        await asyncio.gather(*clients)
        await until(lambda: report(self.board)[1] == [])

    async def test_memory_and_its_peak_are_told_and_its_growth_when_it_is_known(self):
        module = guard(Gate(), BOARD=self.board)
        requests = module._OpenRequests()
        space = memoryview(bytearray(REPORT))
        told = module._Report(space, requests)
        values = lambda: struct.unpack_from("=QQq", space, 8)
        self.assertEqual(values(), (0, 0, -(1 << 63)))
        for seconds in range(100, 130, 5):
            told.beat(seconds * 10**9)
        resident, peak, growth = values()
        self.assertTrue(1 << 20 < resident <= peak < 1 << 33, (resident, peak))
        self.assertEqual(growth, -(1 << 63))
        ballast = bytearray(os.urandom(16 << 20))
        told.beat(130 * 10**9)
        self.assertGreater(values()[2], 15 << 20, "more than 16 MiB in half a minute")
        del ballast

    async def test_what_a_worker_left_stays_while_there_are_other_slots(self):
        def claim():
            module = guard(Gate(), BOARD=self.board)
            slot_words, slot_longs = module._claim_slot()[:2]
            slot_longs[module._HEARTBEAT] = time.monotonic_ns()
            slot_words[module._PID] = os.getpid()

        child = os.fork()
        if child == 0:
            claim()
            os._exit(0)
        os.waitpid(child, 0)
        claim()
        self.assertEqual([slot(self.board, index).pid for index in (0, 1)], [child, os.getpid()])


class WsgiReportTest(unittest.TestCase):
    def test_requests_in_threads_are_told_until_they_end(self):
        fd, gate = board(), threading.Event()

        def app(environ, start_response):
            gate.wait(10)
            start_response("200 OK", [])
            return [b"done"]

        wrapped, begin = guard(app, BOARD=fd, WSGI=True, LIMIT=10)._guard_wsgi(app)
        begin(None, 10, None)

        def request():
            environ = {"PATH_INFO": "/caf\xc3\xa9", "REQUEST_METHOD": "PUT", "wsgi.input": io.BytesIO()}
            body = wrapped(environ, lambda status, headers, *rest: None)
            b"".join(body)
            body.close()

        threads = [threading.Thread(target=request) for _ in range(3)]
        for thread in threads:
            thread.start()
        asyncio.run(until(lambda: report(fd)[1] == ["PUT /caf\\xe9"] * 3))
        gate.set()
        for thread in threads:
            thread.join()
        asyncio.run(until(lambda: report(fd)[1] == []))
        os.close(fd)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
