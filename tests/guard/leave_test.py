"""How the guard disconnects the clients of a worker that leaves, without a server."""

import asyncio
import os
import struct
import sys
import unittest
import unittest.mock

import clock
import guard_test
from guard_test import SIZE, SLOTS, STREAM, Client, Gate, GuardTestCase, board, slot, turn

CLOSE = (b"connection", b"close")
SPREAD, LEAVE_BY = 88, 80


def guard(app, **constants):
    """The guard with short times."""
    module = guard_test.guard(app, **constants)
    module._LOOK, module._TO_END = 0.02, 0.1
    return module


def tell(fd, seconds=20.0, spread=0.0, index=0):
    """Asks a worker to leave, as the launcher does; with 0 seconds, to stay."""
    leave_by = clock.running().monotonic_ns() + int(seconds * 1e9) if seconds else 0
    os.pwrite(fd, struct.pack("=I", int(spread * 1000)), SIZE * (index + 1) + SPREAD)
    os.pwrite(fd, struct.pack("=Q", leave_by), SIZE * (index + 1) + LEAVE_BY)
    os.pwrite(fd, struct.pack("=I", int(spread * 1000)), 32)
    os.pwrite(fd, struct.pack("=Q", leave_by), 24)


def sent(client):
    return b"".join(message.get("body", b"") for message in client.sent)


def has_ended(client):
    last = client.sent[-1]
    return last["type"] == "http.response.body" and not last.get("more_body")


class Events:
    """An app that sends the given chunks, one by one."""

    def __init__(self, headers=STREAM):
        self.queue = asyncio.Queue()
        self.headers, self.errors, self.inside = list(headers), [], 0

    async def __call__(self, scope, receive, send):
        self.inside += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            while (chunk := await self.queue.get()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.inside -= 1


class Echo:
    """A web socket's app."""

    def __init__(self):
        self.heard = []

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            self.heard.append(message["type"])
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message["text"]})


class LeaveTest(GuardTestCase):
    async def test_all_answers_of_a_worker_that_leaves_end_their_connection_and_of_one_that_stays_do_not(self):
        gate = Gate([(b"Connection", b"keep-alive"), (b"x-a", b"1")])
        gate.open.set()
        app = guard(gate, BOARD=self.board, EXEMPT=("/free",)).app
        await Client(app).call
        for leaves in (True, False):
            tell(self.board, 20 if leaves else 0)
            for method, path in [("GET", "/"), ("POST", "/"), ("GET", "/health"), ("POST", "/free")]:
                client = Client(app, path, method=method)
                await client.call
                headers = client.sent[0]["headers"]
                self.assertEqual(CLOSE in headers, leaves, (method, path))
                self.assertIn((b"x-a", b"1"), headers)
                self.assertEqual(sum(name.lower() == b"connection" for name, _ in headers), 1)

    async def test_an_answer_that_begins_after_the_worker_was_told_ends_its_connection(self):
        started = asyncio.Event()

        async def app(scope, receive, send):
            await started.wait()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b""})

        app = guard(app, BOARD=self.board).app
        clients = [Client(app), Client(app, method="POST")]
        tasks = [client.start() for client in clients]
        await turn()
        tell(self.board)
        started.set()
        await asyncio.gather(*tasks)
        self.assertEqual([client.sent[0]["headers"] for client in clients], [[CLOSE], [CLOSE]])

    async def test_http_2_has_no_such_header_and_a_long_body_may_still_be_on_its_way(self):
        gate = Gate()
        gate.open.set()
        app = guard(gate, BOARD=self.board).app
        await Client(app).call
        tell(self.board)
        long = [(b"content-length", b"100000")]
        for more in ({"http_version": "2"}, {"headers": long}, {"headers": [(b"transfer-encoding", b"chunked")]}):
            client = Client(app, method="POST", **more)
            await client.call
            self.assertNotIn(CLOSE, client.sent[0]["headers"], more)

    async def test_an_idle_stream_is_ended_and_its_app_too(self):
        for first in ([], [b": hello\n\n"], [b"data: 1\r\n", b"\r", b"\n"], [b"data: 1\n", b"\r\n"], [b"data: 1\r\r"]):
            events = Events()
            fd = board()
            app = guard(events, BOARD=fd).app
            client = Client(app)
            task = client.start()
            for chunk in first:
                events.queue.put_nowait(chunk)
            await turn()
            await turn()
            tell(fd)
            await self.until(lambda: has_ended(client))
            self.assertEqual(sent(client), b"".join(first))
            await asyncio.wait_for(task, 5)
            self.assertEqual([type(error) for error in events.errors], [asyncio.CancelledError])

    async def test_no_event_is_cut_in_two(self):
        events = Events()
        app = guard(events, BOARD=self.board).app
        client = Client(app)
        task = client.start()
        events.queue.put_nowait(b"data: 1\n\ndata: ")
        await turn()
        tell(self.board)
        await asyncio.sleep(0.2)
        for chunk in (b"2\n", b"data: 3\n", b"\n"):
            self.assertFalse(has_ended(client))
            events.queue.put_nowait(chunk)
            await turn()
        await self.until(lambda: has_ended(client))
        self.assertEqual(sent(client), b"data: 1\n\ndata: 2\ndata: 3\n\n")
        events.queue.put_nowait(b"data: 4\n\n")
        await asyncio.wait_for(task, 5)
        self.assertEqual([type(error) for error in events.errors], [ConnectionResetError])
        self.assertEqual(slot(self.board).streams, 0)

    async def test_an_event_that_is_never_complete_does_not_hold_the_worker_up(self):
        events = Events()
        app = guard(events, BOARD=self.board).app
        client = Client(app)
        task = client.start()
        events.queue.put_nowait(b"data: half")
        await turn()
        tell(self.board, 2.3)
        await self.until(lambda: has_ended(client))
        await asyncio.wait_for(task, 5)

    async def test_streams_end_bit_by_bit_and_so_do_web_sockets(self):
        events, echo = Events(), Echo()

        async def both(scope, receive, send):
            await (echo if scope["type"] == "websocket" else events)(scope, receive, send)

        app = guard(both, BOARD=self.board, LIMIT=None).app
        clients = [Client(app, kind="websocket" if number % 5 == 0 else "http") for number in range(100)]
        tasks = [client.start() for client in clients]
        await turn()
        self.assertEqual(slot(self.board).streams, 100)
        tell(self.board, 20, spread=1.0)
        ended = {}
        start = self.clock.monotonic()

        def look():
            for number, client in enumerate(clients):
                last = client.sent[-1]["type"]
                if number not in ended and last in ("http.response.body", "websocket.close"):
                    ended[number] = self.clock.monotonic() - start
            return len(ended) == 100

        await self.until(look)
        times = sorted(ended.values())
        self.assertGreater(times[89] - times[9], 0.6)
        self.assertLess(times[-1], 1.6)
        self.assertLess(max(b - a for a, b in zip(times, times[1:])), 0.3)
        closes = [client.sent[-1].get("code") for client in clients[::5]]
        self.assertEqual(closes, [1012] * 20)
        await asyncio.wait_for(asyncio.gather(*tasks), 5)

    async def test_a_web_socket_whose_server_waits_for_a_message_is_closed(self):
        """Like Granian's, which cannot close it in the meantime."""
        echo = Echo()
        app = guard(echo, BOARD=self.board).app
        loop = asyncio.get_running_loop()
        waiting = []

        def receive():
            future = loop.create_future()
            if waiting:
                waiting.append(future)
            else:
                waiting.append(None)
                future.set_result({"type": "websocket.connect"})
            return future

        sent_messages = []

        async def send(message):
            if message["type"] == "websocket.close":
                self.assertTrue(waiting[-1].cancelled())
            sent_messages.append(message)

        scope = {"type": "websocket", "path": "/", "headers": []}
        task = asyncio.ensure_future(app(scope, receive, send))
        await turn()
        tell(self.board)
        await asyncio.wait_for(task, 5)
        self.assertEqual(sent_messages[-1]["code"], 1012)
        self.assertEqual(echo.heard, ["websocket.disconnect"])

    async def test_a_worker_that_stays_after_all_keeps_what_is_open(self):
        events = Events()
        app = guard(events, BOARD=self.board).app
        client = Client(app)
        task = client.start()
        await turn()
        # When its one stream ends within this time is a matter of chance.
        with unittest.mock.patch("random.random", return_value=0.5):
            tell(self.board, 20, spread=30)
            await asyncio.sleep(0.2)
        tell(self.board, 0)
        await asyncio.sleep(0.2)
        tell(self.board, 0)
        events.queue.put_nowait(b"data: 1\n\n")
        await turn()
        self.assertFalse(has_ended(client))
        events.queue.put_nowait(None)
        await task
        self.assertEqual(events.errors, [])

    async def test_a_stream_that_begins_in_a_worker_that_leaves_ends_at_once_and_its_connection_too(self):
        events = Events()
        app = guard(events, BOARD=self.board).app
        warm_up = Client(app)
        task = warm_up.start()
        events.queue.put_nowait(None)
        await task
        tell(self.board, 20, spread=30)
        for path in ("/", "/health"):
            client = Client(app, path)
            task = client.start()
            await asyncio.wait_for(task, 5)
            self.assertIn(CLOSE, client.sent[0]["headers"])
            self.assertTrue(has_ended(client))

    async def test_a_stream_that_answers_a_post_is_work_and_is_not_ended(self):
        events = Events()
        app = guard(events, BOARD=self.board).app
        client = Client(app, method="POST")
        task = client.start()
        events.queue.put_nowait(b"data: 1\n\n")
        await turn()
        tell(self.board)
        await asyncio.sleep(0.2)
        self.assertFalse(has_ended(client))
        events.queue.put_nowait(None)
        await task

    async def test_the_shutdown_waits_for_requests_in_other_workers_of_a_generation_that_leaves(self):
        for leaves in (True, False):
            fd = board()
            times = []

            async def app(scope, receive, send):
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                times.append(self.clock.monotonic())
                await send({"type": "lifespan.shutdown.complete"})

            other = struct.pack("=IIQQII", os.getppid(), 2, 1, 1, 1, 1)
            os.pwrite(fd, other, SIZE * 3)
            messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
            client = Client(guard(app, BOARD=fd).app, kind="lifespan", messages=messages)
            if leaves:
                tell(fd, 20, index=SLOTS - 1)
            start = self.clock.monotonic()
            task = client.start()
            await asyncio.sleep(0.2)
            self.assertEqual(bool(times), not leaves)
            # Idle except for a request that does not count; then completely idle; the same for one that has died.
            os.pwrite(fd, struct.pack("=I", 0), SIZE * 3 + 24)
            os.pwrite(fd, struct.pack("=I", 1), SIZE * 3 + 92)
            await asyncio.sleep(0.2)
            self.assertEqual(bool(times), not leaves)
            os.pwrite(fd, struct.pack("=I", 0), SIZE * 3 + 92)
            await asyncio.wait_for(task, 5)
            self.assertEqual(times[0] - start > 0.3, leaves)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
