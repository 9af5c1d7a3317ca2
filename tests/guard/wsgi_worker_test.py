"""The beginning and the end of a worker that serves a WSGI app: warm-up, and event streams, without a server."""

import os
import random
import signal
import struct
import sys
import threading
import time
import unittest

from guard_test import SIZE, board, failure, slot
from wsgi_test import LEAVE_BY, call, finish, guard

SPREAD = 88
WARMING_UP = 8


class Case(unittest.TestCase):
    def setUp(self):
        self.board = board()
        self.addCleanup(os.close, self.board)

    def leave(self, seconds=10.0, spread=0):
        """Tells the worker to leave within so many seconds, and its streams to end within so many milliseconds."""
        os.pwrite(self.board, struct.pack("=Q", time.monotonic_ns() + int(seconds * 1e9)), SIZE + LEAVE_BY)
        os.pwrite(self.board, struct.pack("=I", spread), SIZE + SPREAD)

    def stay(self):
        os.pwrite(self.board, bytes(8), SIZE + LEAVE_BY)


class StreamTest(Case):
    def begun(self, app, **constants):
        module = guard(app, BOARD=self.board, LIMIT=9, **constants)
        guarded = module.app
        module._begin_wsgi()
        return guarded

    def halves(self, headers=(), is_generator=False):
        """An app whose events come in two chunks, and what happened to its generator."""
        happened = []

        def chunks():
            try:
                while True:
                    yield b"data: 1\n"
                    yield b"\n"
            finally:
                happened.append("closed")

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/event-stream"), *headers])
            return chunks()

        def generator(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/event-stream"), *headers])
            yield from chunks()

        return self.begun(generator if is_generator else app), happened

    def test_a_stream_ends_between_two_events_and_the_app_is_closed(self):
        for is_generator in (False, True):
            app, happened = self.halves(is_generator=is_generator)
            body = call(app)[1]
            chunks = iter(body)
            self.assertEqual(next(chunks), b"data: 1\n")
            self.leave()
            self.assertEqual(list(chunks), [b"\n"])
            body.close()
            self.assertEqual((happened, slot(self.board).in_flight), (["closed"], 0))
            self.setUp()

    def test_a_compressed_stream_ends_after_any_chunk(self):
        app, _ = self.halves([("Content-Encoding", "gzip")])
        chunks = iter(call(app)[1])
        next(chunks)
        self.leave()
        self.assertEqual(list(chunks), [])

    def test_streams_end_one_after_the_other_and_go_on_if_the_worker_stays(self):
        random.seed(1)
        app, _ = self.halves()
        streams = [iter(call(app)[1]) for _ in range(8)]
        self.leave(spread=600_000)
        self.assertEqual([next(stream) for stream in streams], [b"data: 1\n"] * 8)
        self.stay()
        self.assertEqual([next(stream) for stream in streams], [b"\n"] * 8)

    def test_an_event_that_takes_too_long_is_cut(self):
        app, _ = self.halves()
        chunks = iter(call(app)[1])
        next(chunks)
        self.leave(seconds=1)
        self.assertEqual(list(chunks), [])

    def test_a_stream_that_begins_at_a_leaving_worker_ends_at_once(self):
        app, _ = self.halves()
        self.leave(spread=600_000)
        response, body = call(app)
        self.assertEqual((list(body), response.closes), ([], True))

    def test_what_is_no_stream_or_answers_a_post_goes_on(self):
        app, _ = self.halves()
        work = iter(call(app, method="POST")[1])
        self.leave()
        self.assertEqual([next(work) for _ in range(3)], [b"data: 1\n", b"\n", b"data: 1\n"])

        def plain(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return iter([b"1", b"2"])

        self.setUp()
        body = call(self.begun(plain))[1]
        self.assertIs(type(iter(body)), type(iter([])), "the server iterates over the app's own iterator")
        self.leave()
        self.assertEqual(finish(body), b"12")


class WarmUpTest(Case):
    def begin(self, app, paths=("/ready",), greenlets=None, **begun):
        module = guard(app, BOARD=self.board, WARM_UP=paths)
        module._FIRST_PAUSE, module._SLOW = 0.01, 0.05
        module._FUNCTIONS["some"] = module._FUNCTIONS[None]
        module.app
        module._begin_wsgi(greenlets, **begun)

    def state(self):
        return slot(self.board).state

    def test_a_worker_is_ready_when_its_app_has_answered_each_path_below_500(self):
        for greenlets in (None, "some"):
            seen, closed, told = [], [], []

            class Body(list):
                def close(self):
                    closed.append(1)

            def app(environ, start_response):
                seen.append(environ)
                self.assertEqual((self.state(), slot(self.board).flags & WARMING_UP), (1, WARMING_UP))
                if len(seen) == 1:
                    raise ValueError("not yet")
                if len(seen) == 2:
                    told.append(failure(self.board))
                    start_response("503 Not yet", [])
                else:
                    start_response("404 Not Found", [])
                return Body([b""])

            self.begin(app, ("/gr%C3%BCn?x=1", "/other"), greenlets)
            self.assertEqual((self.state(), slot(self.board).flags & WARMING_UP), (2, 0))
            self.assertEqual([one["PATH_INFO"] for one in seen], ["/gr\xc3\xbcn"] * 3 + ["/other"])
            self.assertEqual((seen[0]["QUERY_STRING"], seen[0]["SERVER_NAME"]), ("x=1", "127.0.0.1"))
            self.assertEqual((len(closed), failure(self.board)), (3, ""))
            self.assertIn("raised ValueError: not yet", told[0])
            self.setUp()

    def test_a_stream_has_answered_when_it_begins(self):
        def stream(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            while True:
                yield b"data: 1\n\n"

        self.begin(stream)
        self.assertEqual(self.state(), 2)

    def test_a_slow_app_is_reported_and_the_server_told_that_the_worker_is_alive(self):
        notified = []

        def app(environ, start_response):
            deadline = time.monotonic() + 5
            while len(notified) < 20 and time.monotonic() < deadline:
                time.sleep(0.005)
            start_response("200 OK", [])
            return []

        said, sys.stderr = sys.stderr, __import__("io").StringIO()
        try:
            self.begin(app, notify=lambda: notified.append(1))
            text = sys.stderr.getvalue()
        finally:
            sys.stderr = said
        self.assertEqual((self.state(), text.count("/ready has not been answered for 0.05 s")), (2, 1))

    def test_a_worker_that_is_told_to_stop_meanwhile_is_not_ready(self):
        for greenlets in (None, "some"):
            heard = []
            before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
            self.addCleanup(signal.signal, signal.SIGTERM, before)

            def app(environ, start_response):
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
                time.sleep(20 if greenlets is None else 0.5)

            begun = time.monotonic()
            self.begin(app, greenlets=greenlets)
            self.assertLess(time.monotonic() - begun, 5)
            self.assertEqual((self.state(), slot(self.board).flags & WARMING_UP, heard), (1, 0, [1]))
            self.setUp()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
