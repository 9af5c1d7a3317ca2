"""The guard around a WSGI app without a server."""

import contextlib
import gc
import io
import os
import random
import struct
import sys
import threading
import time
import unittest
import weakref

import guard_test
from guard_test import SIZE, board, failure, slot

LEAVE_BY = 80


def guard(app, **constants):
    return guard_test.guard(app, **{"WSGI": True, **constants})


class Input:
    """A request's body that nobody may touch."""

    def __getattr__(self, name):
        raise AssertionError("the body was touched: " + name)


class Response:
    """What Gunicorn's `start_response` belongs to."""

    def __init__(self):
        self.started, self.written, self.closes = [], [], False

    def start_response(self, status, headers, exc_info=None):
        self.started.append((status, list(headers), exc_info))
        return self.written.append

    def force_close(self):
        self.closes = True

    @property
    def status(self):
        return int(self.started[-1][0].split()[0])

    def header(self, name):
        return next((value for key, value in self.started[-1][1] if key.lower() == name), None)


def call(app, path="/", method="GET", **environ):
    response = Response()
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": Input(), **environ,
    }
    return response, app(environ, response.start_response)


def finish(body):
    """What servers do with a body."""
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


class File:
    """As Gunicorn's FileWrapper."""

    def __init__(self, file):
        self.file = file
        self.close = file.close

    def __iter__(self):
        return iter([self.file.read()])


class WsgiTest(unittest.TestCase):
    def setUp(self):
        self.board = board()
        self.addCleanup(os.close, self.board)

    def begun(self, app, greenlets=None, **constants):
        module = guard(app, BOARD=self.board, **constants)
        guarded = module.app
        module._begin_wsgi(greenlets)
        return guarded

    def wait_until(self, condition):
        deadline = time.monotonic() + 5
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def in_flight(self):
        return slot(self.board).in_flight

    def test_beyond_the_limit_is_a_503_that_leaves_the_body_alone(self):
        app = self.begun(hello)
        inside = [call(app)[1] for _ in range(2)]
        for method, said in (("POST", True), ("HEAD", False)):
            response, body = call(app, method=method)
            self.assertEqual((response.status, response.header("retry-after")), (503, "1"))
            self.assertEqual(bool(finish(body)), said)
        self.assertEqual(self.in_flight(), 2)
        self.wait_until(lambda: slot(self.board).rejected == 2)
        self.assertEqual([finish(body) for body in inside], [b"hello"] * 2)
        self.assertEqual(self.in_flight(), 0)
        self.assertEqual(call(app)[0].status, 200)

    def test_health_and_exempt_paths_are_always_admitted(self):
        app = self.begun(hello, LIMIT=1, EXEMPT=("/free/", "/gr\u00fcn"))
        full = call(app)[1]
        green = "/grün".encode().decode("latin-1")
        for path, status in (("/health", 200), ("/free/x", 200), (green, 200), ("/freedom", 503)):
            self.assertEqual(call(app, path)[0].status, status, path)
        self.assertEqual(self.in_flight(), 1)
        finish(full)

    def test_a_request_ends_when_its_body_is_closed_and_only_once(self):
        closed = []

        class Body:
            def __iter__(self):
                return iter([b"a", b"b"])

            def close(self):
                closed.append(1)

        def app(environ, start_response):
            start_response("200 OK", [])
            return Body()

        app = self.begun(app)
        body = call(app)[1]
        self.assertEqual(b"".join(body), b"ab")
        self.assertEqual((self.in_flight(), closed), (1, []))
        body.close()
        body.close()
        self.assertEqual(self.in_flight(), 0)
        abandoned = call(app)[1]
        self.assertEqual(self.in_flight(), 1)
        del abandoned
        gc.collect()
        self.assertEqual(self.in_flight(), 0, "a server that forgets to close it")

    def test_a_close_that_raises_gives_the_room_back(self):
        class Body(list):
            def close(self):
                raise ValueError

        def app(environ, start_response):
            return Body()

        body = call(app := self.begun(app))[1]
        with self.assertRaises(ValueError):
            body.close()
        self.assertEqual(self.in_flight(), 0)

    def test_an_app_that_raises_gives_the_room_back(self):
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/now":
                raise ValueError
            start_response("200 OK", [])

            def chunks():
                yield b"a"
                raise KeyError

            return chunks()

        app = self.begun(app)
        with self.assertRaises(ValueError):
            call(app, "/now")
        with self.assertRaises(KeyError):
            finish(call(app)[1])
        self.assertEqual(self.in_flight(), 0)

    def test_a_generator_starts_its_response_when_it_is_iterated(self):
        def app(environ, start_response):
            start_response("200 OK", [("X", "y")])
            yield b"late"

        response, body = call(self.begun(app))
        self.assertEqual(response.started, [])
        self.assertEqual((finish(body), response.status, self.in_flight()), (b"late", 200, 0))

    def test_write_and_exc_info_are_passed_on(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                raise ValueError
            except ValueError:
                write = start_response("500 Oh", [], sys.exc_info())
            write(b"written")
            return []

        response, body = call(self.begun(app))
        finish(body)
        self.assertEqual(response.written, [b"written"])
        self.assertIs(response.started[1][2][0], ValueError)

    def test_a_file_reaches_the_server_as_what_it_is(self):
        file = io.BytesIO(b"data")

        def app(environ, start_response):
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](file)

        _, body = call(self.begun(app), **{"wsgi.file_wrapper": File})
        self.assertIs(type(body), File)
        self.assertEqual(self.in_flight(), 1)
        self.assertEqual((finish(body), file.closed, self.in_flight()), (b"data", True, 0))

    def test_what_a_request_took_is_free_at_its_end_and_not_at_the_next_garbage_collection(self):
        class Environ(dict):
            """A dictionary of which it can be seen when it is freed."""

        def chunks(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"a"

        def events(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return (b"data: %d\n\n" % number for number in range(3))

        def file(environ, start_response):
            start_response("200 OK", [])
            return File(io.BytesIO(b"data"))

        for app, limits in ((hello, None), (hello, (10**9, ())), (chunks, None), (events, None), (file, None)):
            guarded = self.begun(app, TIME_LIMITS=limits)
            environ = Environ({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.file_wrapper": File})
            gc.disable()
            try:
                body = guarded(environ, Response().start_response)
                finish(body)
                freed = [weakref.ref(one) for one in (environ, *([body] if app is file else []))]
                del environ, body
                left = [reference() for reference in freed]
            finally:
                gc.enable()
            self.assertEqual(set(left), {None}, app)

    def test_threads_count_exactly(self):
        inside, most, guarding = 0, 0, threading.Lock()

        def app(environ, start_response):
            nonlocal inside, most
            with guarding:
                inside += 1
                most = max(most, inside)
            if random.random() < 0.2:
                time.sleep(0.0005)
            start_response("200 OK", [])
            with guarding:
                inside -= 1
            if random.random() < 0.1:
                raise ValueError
            return [b""]

        app = self.begun(app, LIMIT=3)
        statuses = []

        def client():
            for _ in range(300):
                with contextlib.suppress(ValueError):
                    response, body = call(app)
                    finish(body)
                    statuses.append(response.status)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        self.addCleanup(sys.setswitchinterval, before)
        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((most, slot(self.board).high_water), (3, 3))
        # With the next heartbeat.
        rejected = statuses.count(503)
        counts = lambda state: (state.in_flight, state.rejected, state.served)
        self.wait_until(lambda: counts(slot(self.board)) == (0, rejected, 2400 - rejected))

    def test_a_worker_is_ready_from_its_start_and_its_thread_tells_that_the_interpreter_runs(self):
        self.begun(hello)
        state = slot(self.board)
        self.assertEqual((state.pid, state.state, state.limit), (os.getpid(), 2, 2))
        self.wait_until(lambda: slot(self.board).heartbeat > state.heartbeat)

    def test_without_a_board_only_the_limit_holds(self):
        module = guard(hello, LIMIT=1)
        app = module.app
        module._begin_wsgi()
        body = call(app)[1]
        self.assertEqual(call(app)[0].status, 503)
        finish(body)

    def test_a_worker_with_fewer_threads_has_no_higher_limit(self):
        module = guard(hello, LIMIT=9, BOARD=self.board)
        app = module.app
        module._begin_wsgi(None, 1)
        self.assertEqual(slot(self.board).limit, 1)
        finish(call(app)[1])

    def leave(self):
        os.pwrite(self.board, struct.pack("=Q", time.monotonic_ns() + 10**10), SIZE + LEAVE_BY)

    def test_a_leaving_worker_closes_its_connections(self):
        app = self.begun(hello)
        self.leave()
        response, body = call(app)
        finish(body)
        self.assertTrue(response.closes, "Gunicorn's response has a method")
        started = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
        for changed, closes in (({}, True), ({"SERVER_PROTOCOL": "HTTP/2.0"}, False), ({"CONTENT_LENGTH": "70000"}, False)):
            started.clear()
            finish(app({**environ, **changed}, lambda status, headers: started.append(headers)))
            self.assertEqual(("Connection", "close") in started[0], closes, changed)

    def stream(self, environ, start_response):
        start_response("200 OK", [("content-type", "text/event-stream; charset=utf-8")])
        return iter([b"data: 1\n\n"])

    def test_an_event_stream_of_a_thread_counts_until_it_ends(self):
        app = self.begun(self.stream)
        body = call(app)[1]
        self.assertEqual((self.in_flight(), slot(self.board).streams), (1, 0))
        finish(body)
        self.assertEqual(self.in_flight(), 0)

    def test_an_event_stream_of_a_greenlet_leaves_the_count_and_has_a_limit_of_its_own(self):
        module = guard(self.stream, BOARD=self.board, LIMIT=1, MAX_STREAMS=2)
        module._FUNCTIONS["some"] = module._FUNCTIONS[None]
        app = module.app
        module._begin_wsgi("some")
        open_ones = [call(app)[1] for _ in range(2)]
        self.assertEqual((self.in_flight(), slot(self.board).streams), (0, 2))
        response, body = call(app)
        self.assertEqual(response.status, 503)
        finish(body)
        work = call(app, method="POST")[1]
        self.assertEqual(self.in_flight(), 1, "an answer to a POST is work")
        for body in [*open_ones, work]:
            finish(body)
        self.assertEqual((self.in_flight(), slot(self.board).streams), (0, 0))

    def test_an_app_that_is_a_generator_is_refused_when_it_begins_one_stream_too_many(self):
        def generator(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            yield b"data: 1\n\n"

        module = guard(generator, BOARD=self.board, LIMIT=1, MAX_STREAMS=1)
        module._FUNCTIONS["some"] = module._FUNCTIONS[None]
        app = module.app
        module._begin_wsgi("some")
        first = call(app)[1]
        chunks = iter(first)
        self.assertEqual(next(chunks), b"data: 1\n\n")
        response, body = call(app)
        self.assertEqual(finish(body), module._BUSY)
        self.assertEqual(([started[0] for started in response.started], response.header("retry-after")),
                         (["503 Service Unavailable"], "1"))
        self.assertEqual((self.in_flight(), slot(self.board).streams), (0, 1))
        first.close()
        self.assertEqual(finish(call(app)[1]), b"data: 1\n\n")

    def test_an_asgi_app_is_refused_with_what_would_be_right(self):
        async def app(scope, receive, send):
            pass

        for server, instead in (("gunicorn", "--worker-class"), ("granian", "GRANIAN_INTERFACE=asgi")):
            module = guard(app, BOARD=self.board)
            module.SERVER = server
            with self.assertRaisesRegex(TypeError, instead):
                module.app
            self.assertIn("app:app is an ASGI app", failure(self.board))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
