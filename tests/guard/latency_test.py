"""How long requests take, as a worker counts it on the scoreboard."""

import asyncio
import os
import struct
import sys
import threading
import time
import types
import unittest

import guard_test
from guard_test import COUNTS, STREAM, Client, Gate, GuardTestCase, board, guard, turn
from wsgi_test import call, finish

LATEST, EARLIER = 0, 384


def counts(fd, where=LATEST):
    """What the first slot's owner has counted: requests served and rejected, the sum of their latencies, the buckets."""
    values = struct.unpack("=42Q", os.pread(fd, 336, COUNTS + where))
    return types.SimpleNamespace(at=values[0], served=values[1], rejected=values[2], sum=values[3] / 1e9, buckets=values[4:])


def within(found, least, most):
    """How many requests took so long."""
    bounds = guard(None)._BOUNDS
    return sum(found.buckets[bounds.index(least) + 1 : bounds.index(most) + 1])


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


class AsgiTest(GuardTestCase):
    async def test_requests_are_counted_by_how_long_they_took(self):
        async def app(scope, receive, send):
            await asyncio.sleep(0.05)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guarded = guard(app, BOARD=self.board, LIMIT=3).app
        await asyncio.gather(*(Client(guarded, method=method).call for method in ("GET", "POST", "POST", "GET")))
        await until(lambda: counts(self.board).served == 3)
        found = counts(self.board)
        self.assertEqual((sum(found.buckets), found.rejected), (3, 1), "a refused one took no time")
        self.assertEqual(within(found, 0.03, 2.0), 3)
        self.assertTrue(0.14 < found.sum < 3, found)

    async def test_streams_and_exempt_requests_are_not_among_them(self):
        gate = Gate(STREAM)
        guarded = guard(gate, BOARD=self.board, EXEMPT=("/ready",)).app
        requests = [Client(guarded, "/stream"), Client(guarded, "/health"), Client(guarded, "/ready")]
        tasks = [request.start() for request in [*requests, Client(guarded, "/work", method="POST")]]
        await turn()
        gate.accept = True
        gate.open.set()
        await asyncio.gather(*tasks, Client(guarded, "/socket", kind="websocket").call)
        await until(lambda: counts(self.board).served == 5)
        self.assertEqual(sum(counts(self.board).buckets), 1, "the stream that answers a POST is work")

    async def test_a_process_that_the_worker_forks_counts_nothing(self):
        gate = Gate()
        gate.open.set()
        guarded = guard(gate, BOARD=self.board).app
        await Client(guarded).call
        await until(lambda: sum(counts(self.board).buckets) == 1)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                request = Client(guarded, method="POST").call
                try:
                    request.send(None)
                except StopIteration:
                    status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        await asyncio.sleep(0.03)
        self.assertEqual(sum(counts(self.board).buckets), 1)


class EarlierTest(unittest.TestCase):
    """What had been counted about ten seconds ago."""

    def setUp(self):
        module = guard(None)
        self.counts, self.longs = [0] * 96, [0] * 16
        self.latencies = module._Latencies()
        self.latencies.begin(0, self.counts)
        self.rejected = module._REJECTED

    def beat(self, seconds, served, *took):
        self.latencies.recent += took
        self.longs[self.rejected] = served // 10
        self.latencies.publish(int(seconds * 1e9), served, None, self.longs)
        latest, earlier = self.counts[:48], self.counts[48:]
        self.assertEqual(latest[:3], [int(seconds * 1e9), served, served // 10])
        return (latest[0] - earlier[0]) / 1e9, latest[1] - earlier[1], sum(latest[4:42]) - sum(earlier[4:42])

    def test_it_follows_at_a_distance(self):
        self.assertEqual(self.beat(0.25, 1, 0.1), (0.25, 1, 1))
        served = 1
        for quarter in range(2, 400):
            served += 1
            length, number, timed = self.beat(quarter / 4, served, 0.1)
            if quarter >= 44:
                self.assertTrue(10 <= length <= 11.25, (quarter, length))
            self.assertEqual((number, timed), (length * 4, length * 4))

    def test_a_worker_that_stood_still_has_done_nothing_meanwhile(self):
        for second in range(20):
            self.beat(second, 100 * second, *[0.01] * 100)
        self.assertEqual(self.beat(70, 1901, 51.0), (10, 1, 1))
        length, number, _ = self.beat(71, 1902)
        self.assertEqual((length, number), (11, 2))
        for second in range(72, 90):
            length, number, _ = self.beat(second, 1902)
        self.assertEqual((length, number), (10, 0))


class ThreadsTest(unittest.TestCase):
    def setUp(self):
        self.board = board()
        self.addCleanup(os.close, self.board)

    def begun(self, app, **constants):
        module = guard_test.guard(app, WSGI=True, BOARD=self.board, **constants)
        guarded = module.app
        module._begin_wsgi(None, 64)
        return guarded

    def wait(self, served):
        deadline = time.monotonic() + 20
        while counts(self.board).served < served and time.monotonic() < deadline:
            time.sleep(0.005)
        return counts(self.board)

    def test_requests_of_many_threads_are_counted_once(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"hello"]

        guarded = self.begun(app, LIMIT=32)
        client = lambda: [finish(call(guarded)[1]) for _ in range(500)]
        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = self.wait(4000)
        self.assertEqual((sum(found.buckets), found.served), (4000, 4000))

    def test_a_request_takes_until_its_body_has_been_sent_and_a_stream_does_not_count(self):
        def app(environ, start_response):
            start_response("200 OK", STREAM_HEADERS if environ["PATH_INFO"] == "/stream" else [])
            return iter([b"hello"])

        guarded = self.begun(app)
        bodies = [call(guarded, path)[1] for path in ("/", "/stream")]
        time.sleep(0.1)
        for body in bodies:
            finish(body)
        finish(call(guarded, "/health")[1])
        found = self.wait(3)
        self.assertEqual((sum(found.buckets), within(found, 0.07, 7.0)), (1, 1))


STREAM_HEADERS = [(name.decode(), value.decode()) for name, value in STREAM]

if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
