"""Requests that take too long, without a server: what is logged, and what becomes of them."""

import asyncio
import contextlib
import io
import os
import re
import struct
import sys
import threading
import time
import unittest
from unittest import mock

import guard_test
from guard_test import SIZE, STREAM, Client, GuardTestCase, board

LIMITS = (60_000_000, (("/none/not", 60_000_000), ("/none", 0), ("/long", 10_000_000_000)))


def guard(app, **constants):
    return guard_test.guard(app, **{"TIME_LIMITS": LIMITS, "LIMIT": 10, **constants})


def stuck(fd):
    return struct.unpack("=I", os.pread(fd, 4, SIZE + 124))[0]


def wait_until(condition):
    """For what happens in other threads."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


class App:
    """An app that waits, as far down as the path says."""

    def __init__(self, headers=(), begins=False, ignores=False):
        self.headers, self.begins, self.ignores, self.open = list(headers), begins, ignores, asyncio.Event()

    async def __call__(self, scope, receive, send):
        if self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while not self.open.is_set():
            try:
                await self.wait_deep_down(scope["path"])
            except asyncio.CancelledError:
                if not self.ignores:
                    raise
        if not self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"done"})

    async def wait_deep_down(self, path):
        if path.startswith("/task"):
            await asyncio.gather(self.wait_in_a_task(), asyncio.sleep(0))
        await self.open.wait()

    async def wait_in_a_task(self):
        await self.open.wait()


class TimeLimitTest(GuardTestCase):
    def setUp(self):
        super().setUp()
        self.log = io.StringIO()
        patch = mock.patch.object(sys, "stderr", self.log)
        patch.start()
        self.addCleanup(patch.stop)

    def client(self, app, path="/", **constants):
        constants = {"BOARD": self.board, **constants}
        client = Client(guard(app, **constants).app, path)
        client.task = client.start()
        return client

    async def test_a_request_that_takes_too_long_is_answered_504_and_its_stack_is_logged(self):
        client = self.client(App(), "/slow?token=secret")
        await client.task
        self.assertEqual(client.status, 504)
        self.assertEqual(client.task.cancelled(), False)
        log = self.log.getvalue()
        self.assertRegex(log, r"GET /slow has taken \d+\.\d s, the limit is 0\.06 s: cancelled\n")
        self.assertRegex(log, r"in wait_deep_down\n    await self.open.wait\(\)\n(.*\n)*.*await fut")
        self.assertNotIn("secret", log)

    async def test_the_stack_includes_tasks_that_the_request_waits_for(self):
        client = self.client(App(), "/task")
        await client.task
        log = self.log.getvalue()
        self.assertRegex(log, r"waiting for the task 'Task-\d+':\n(.*\n)*.*in wait_in_a_task\n")

    async def test_a_response_that_has_begun_is_broken_off(self):
        client = self.client(App(begins=True))
        with self.assertRaisesRegex(Exception, "had begun"):
            await client.task
        self.assertEqual([message.get("body") for message in client.sent], [None, b"begun"])

    async def test_limits_follow_the_longest_prefix_and_the_health_path_has_none(self):
        app = App()
        module = guard(app, BOARD=self.board).app
        clients = {path: Client(module, path) for path in ["/none/x", "/long", "/health", "/none/not", "/other"]}
        tasks = {path: client.start() for path, client in clients.items()}
        await self.until(lambda: tasks["/none/not"].done() and tasks["/other"].done())
        self.assertEqual({path for path, task in tasks.items() if not task.done()}, {"/none/x", "/long", "/health"})
        app.open.set()
        await asyncio.gather(*tasks.values())
        self.assertEqual({path: client.status for path, client in clients.items()}["/long"], 200)

    async def test_event_streams_have_no_limit_once_they_are_open(self):
        app = App(STREAM, begins=True)
        client = self.client(app)
        client.scope["method"] = "POST"
        await asyncio.sleep(0.2)
        self.assertFalse(client.task.done())
        app.open.set()
        await client.task

    async def test_work_after_the_response_has_no_limit(self):
        for last in ({"type": "http.response.body"}, {"type": "http.response.pathsend", "path": "/file"}):
            with self.subTest(last):
                open_again = asyncio.Event()

                async def app(scope, receive, send):
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send(last)
                    await open_again.wait()

                client = self.client(app)
                await asyncio.sleep(0.2)
                self.assertFalse(client.task.done())
                open_again.set()
                await client.task
                self.assertEqual(self.log.getvalue(), "")

    async def test_a_request_that_ignores_its_cancellation_counts_as_stuck_until_it_ends(self):
        app = App(ignores=True)
        client = self.client(app)
        await self.until(lambda: stuck(self.board) == 1)
        self.assertIn("cancelled", self.log.getvalue())
        app.open.set()
        await client.task
        await self.until(lambda: stuck(self.board) == 0)

    async def test_a_cancellation_from_outside_stays_one(self):
        client = self.client(App(), "/long")
        await asyncio.sleep(0.05)
        client.task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await client.task
        self.assertEqual(client.sent, [])

    async def test_requests_that_only_waited_for_a_blocked_loop_are_not_ended(self):
        async def app(scope, receive, send):
            if scope["path"] == "/block":
                self.clock.sleep(0.3)
            else:
                await asyncio.sleep(0.02)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        module = guard(app, BOARD=self.board).app
        innocent, culprit = Client(module, "/"), Client(module, "/block")
        first = innocent.start()
        await asyncio.sleep(0.015)
        await asyncio.gather(first, culprit.start())
        self.assertEqual([innocent.status, culprit.status], [200, 200])

    async def test_paths_are_logged_without_what_may_be_a_secret_and_on_one_line(self):
        shown = guard(App())._without_tokens
        self.assertEqual(shown("/reset/eyJhbGciOiJIUzI1NiJ9abc"), "/reset/...")
        self.assertEqual(shown("/a/0123456789abcdef0/b"), "/a/.../b")
        self.assertEqual(shown("/tools/42/call"), "/tools/42/call")
        self.assertEqual(shown("/internationalization"), "/internationalization")
        self.assertEqual(shown("/a\nb?c"), "/a\\nb")

    async def test_a_deep_stack_is_cut(self):
        async def deep(depth):
            if depth:
                return await deep(depth - 1)
            await asyncio.sleep(60)

        async def app(scope, receive, send):
            await deep(400)

        client = self.client(app)
        await client.task
        self.assertEqual(client.status, 504)
        log = self.log.getvalue()
        self.assertRegex(log, r"\[\d+ frames left out\]")
        self.assertIn("asyncio.sleep(60)", log)
        self.assertLess(len(log), 20_000)

    async def test_when_thousands_take_too_long_at_once_all_are_ended_and_some_are_logged(self):
        app = App()
        module = guard(app, BOARD=self.board, LIMIT=None).app
        clients = [Client(module, "/%d" % number) for number in range(10_000)]
        await asyncio.gather(*(client.start() for client in clients))
        self.assertEqual({client.status for client in clients}, {504})
        log = self.log.getvalue()
        logged = [line for line in log.splitlines() if " has taken " in line]
        more = [int(count) for count in re.findall(r"(\d+) more requests have taken too long", log)]
        self.assertEqual(len(logged) + sum(more), 10_000)
        self.assertLess(len(log), 200_000)

    async def test_when_nobody_reads_the_log_any_more_requests_are_ended_all_the_same(self):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", buffering=1) as log, mock.patch.object(sys, "stderr", log):
            client = self.client(App())
            await client.task
            self.assertEqual(client.status, 504)
            with contextlib.suppress(BrokenPipeError):
                log.close()


class WsgiTimeLimitTest(unittest.TestCase):
    def test_the_stack_of_the_thread_however_deep_is_logged_and_the_request_counts_as_stuck_until_it_ends(self):
        fd, gate, log = board(), threading.Event(), io.StringIO()

        def view(environ, start_response):
            gate.wait(30)
            start_response("200 OK", [])
            return [b"done"]

        self.addCleanup(sys.setrecursionlimit, sys.getrecursionlimit())
        sys.setrecursionlimit(30_000)
        self.addCleanup(threading.stack_size, threading.stack_size())
        with mock.patch.object(sys, "stderr", log):
            module = guard(view, BOARD=fd, WSGI=True)
            wrapped, begin = module._guard_wsgi(view)
            begin(None, 10, None)

            # The request begins deep down: to get there can take longer than it may.
            def request(depth):
                if depth:
                    return request(depth - 1)
                environ = {"PATH_INFO": "/view", "REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO()}
                body = wrapped(environ, lambda status, headers, *rest: None)
                b"".join(body)
                body.close()

            threading.stack_size(256 << 20)
            thread = threading.Thread(target=request, args=(10_000,))
            thread.start()
            wait_until(lambda: stuck(fd) == 1)
            gate.set()
            thread.join()
            wait_until(lambda: stuck(fd) == 0)
        self.assertRegex(log.getvalue(), r"POST /view has taken .*: a WSGI app's request cannot be cancelled\n")
        self.assertRegex(log.getvalue(), r"\[99\d\d frames left out\]\n")
        self.assertIn("in view\n", log.getvalue())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
