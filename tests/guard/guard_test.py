"""The guard without a server, in one process: which requests it admits. Also what the other tests of the guard share.

The first argument is the guard's text. The test that runs this file limits its time.
"""

import asyncio
import gc
import os
import random
import struct
import sys
import types
import unittest
import weakref

import clock

with open(sys.argv[1], encoding="utf-8") as text:
    SOURCE = text.read()

DEFAULTS = {
    "SERVER": "gunicorn",
    "APP": "app:app",
    "FACTORY": False,
    "CALLS_FACTORIES": False,
    "WORKER_CLASS": None,
    "WSGI": False,
    "LIMIT": 2,
    "ADAPTS": False,
    "MAX_STREAMS": None,
    "HEALTH_PATH": "/health",
    "EXEMPT": (),
    "WARM_UP": (),
    "SCHEME": "http",
    "HOST": "localhost",
    "ADDRESS": ("127.0.0.1", 80),
    "TIME_LIMITS": None,
    "DEALS": False,
    "BOARD": None,
    "LINE": None,
    "LISTENERS": (),
    "BACKLOG": 128,
    "MAX_REQUESTS": None,
    "POKE": None,
    "STACKS": None,
    "SPIN": None,
    "BEAT": 0.01,
    "GRACE": 25,
}
SLOTS, SIZE, REPORT = 20, 128, 4096
COUNTS, COUNTS_SIZE = SIZE * (SLOTS + 1), 768
REPORTS = COUNTS + COUNTS_SIZE * SLOTS
STREAM = [(b"Content-Type", b"text/event-stream; charset=utf-8")]


def guard(app, **constants):
    """The guard's module, as if the server had been configured with this app."""
    server = types.ModuleType("gunicorn.util")
    server.import_app = app if constants.pop("raises", False) else lambda name: app
    sys.modules["gunicorn"], sys.modules["gunicorn.util"] = types.ModuleType("gunicorn"), server
    module = types.ModuleType("mcp_launch_guard")
    module.__dict__.update(DEFAULTS, **constants)
    exec(compile(SOURCE, "guard.py", "exec"), module.__dict__)
    module.time = clock.running()
    return module


def board():
    fd = os.memfd_create("board")
    os.ftruncate(fd, REPORTS + REPORT * SLOTS + 1024)
    os.pwrite(fd, struct.pack("=8sIIII", b"MCPLGRD1", 3, SLOTS, 1, os.getpid()), 0)
    return fd


def slot(fd, index=0):
    names = "pid state claimed heartbeat in_flight high_water served rejected lag most_lag streams flags".split()
    names += "connections turns listener limit leave_by".split()
    values = struct.unpack("=IIQQIIQQIIIIIIIIQ", os.pread(fd, 88, SIZE * (index + 1)))
    return types.SimpleNamespace(**dict(zip(names, values)))


def failure(fd):
    data = os.pread(fd, 1024, REPORTS + REPORT * SLOTS)
    return data[4 : 4 + struct.unpack("=I", data[:4])[0]].decode()


class Client:
    """One request, and what came back."""

    def __init__(self, app, path="/", kind="http", messages=(), **scope):
        self.sent = []
        self.messages = list(messages) or [{"type": "websocket.connect" if kind == "websocket" else "http.request"}]
        self.scope = {"type": kind, "path": path, "method": "GET", "headers": [], **scope}
        self.call = app(self.scope, self.receive, self.send)

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        await asyncio.sleep(60)

    async def send(self, message):
        self.sent.append(message)

    def start(self):
        return asyncio.ensure_future(self.call)

    @property
    def status(self):
        return self.sent[0].get("status") if self.sent else None


async def turn():
    for _ in range(5):
        await asyncio.sleep(0)


class Gate:
    """An app whose requests stay until the gate is opened."""

    def __init__(self, headers=(), accept=False):
        self.open = asyncio.Event()
        self.inside, self.errors = 0, []
        self.headers, self.accept = list(headers), accept

    async def __call__(self, scope, receive, send):
        self.inside += 1
        try:
            if self.accept:
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await self.open.wait()
            await send({"type": "http.response.body", "body": b""})
        except OSError as error:
            self.errors.append(error)
            raise
        finally:
            self.inside -= 1


class GuardTestCase(unittest.IsolatedAsyncioTestCase):
    """Has a scoreboard, and an event loop whose clock moves only when there is nothing left to do."""

    def setUp(self):
        self.board = board()

    async def asyncSetUp(self):
        loop = asyncio.get_running_loop()
        # Some of the event loops that Python makes for tests report everything that is slow.
        loop.set_debug(False)
        self.clock = clock.Clock(loop)

    async def until(self, condition, seconds=30):
        deadline = self.clock.monotonic() + seconds
        while not condition():
            self.assertLess(self.clock.monotonic(), deadline)
            await asyncio.sleep(0.001)

    def tearDown(self):
        os.close(self.board)


class AdmissionTest(GuardTestCase):
    async def test_beyond_the_limit_is_a_503_at_once_and_the_room_comes_back(self):
        gate = Gate()
        app = guard(gate).app
        inside = [Client(app).start() for _ in range(2)]
        await turn()
        for method, body in (("POST", True), ("HEAD", False)):
            refused = Client(app, method=method)
            await asyncio.wait_for(refused.call, 1)
            self.assertEqual(refused.status, 503)
            self.assertIn((b"retry-after", b"1"), refused.sent[0]["headers"])
            self.assertEqual(bool(refused.sent[1]["body"]), body)
            self.assertEqual(len(refused.messages), 1, "the body is not read")
        self.assertEqual(gate.inside, 2)
        gate.open.set()
        await asyncio.gather(*inside)
        again = Client(app)
        await again.call
        self.assertEqual(again.status, 200)

    async def test_without_a_limit_nothing_is_refused(self):
        gate = Gate()
        app = guard(gate, LIMIT=None).app
        clients = [Client(app) for _ in range(200)]
        tasks = [client.start() for client in clients]
        await turn()
        self.assertEqual(gate.inside, 200)
        gate.open.set()
        await asyncio.gather(*tasks)
        self.assertEqual({client.status for client in clients}, {200})

    async def test_health_and_exempt_paths_are_admitted_and_do_not_count(self):
        gate = Gate()
        app = guard(gate, LIMIT=1, EXEMPT=("/free/",)).app
        free = [Client(app, path).start() for path in ("/health", "/free/a", "/free/b")]
        inside = Client(app).start()
        await turn()
        self.assertEqual(gate.inside, 4)
        refused = Client(app, "/freedom")
        await refused.call
        self.assertEqual(refused.status, 503)
        gate.open.set()
        await asyncio.gather(inside, *free)

    async def test_whatever_ends_a_request_gives_its_room_back(self):
        async def fails(scope, receive, send):
            if scope["path"] == "/raise":
                raise ValueError("on purpose")
            if scope["path"] == "/exit":
                raise asyncio.CancelledError
            await asyncio.sleep(60)

        module = guard(fails, BOARD=self.board)
        app = module.app
        with self.assertRaises(ValueError):
            await Client(app, "/raise").call
        with self.assertRaises(asyncio.CancelledError):
            await Client(app, "/exit").call
        cancelled = Client(app).start()
        await turn()
        self.assertEqual(slot(self.board).in_flight, 1)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        never_run = Client(app).start()
        never_run.cancel()
        await asyncio.gather(never_run, return_exceptions=True)
        closed = Client(app).call
        closed.send(None)
        self.assertEqual(slot(self.board).in_flight, 1)
        closed.close()
        self.assertEqual((slot(self.board).in_flight, slot(self.board).streams), (0, 0))

    async def test_what_a_request_took_is_free_at_its_end_and_not_at_the_next_garbage_collection(self):
        class Scope(dict):
            """A dictionary of which it can be seen when it is freed."""

        async def app(scope, receive, send):
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                return await send({"type": "websocket.close"})
            headers = STREAM if scope["path"] == "/stream" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            pass

        for constants in ({}, {"ADAPTS": True}, {"TIME_LIMITS": (10**9, ())}):
            guarded = guard(app, BOARD=self.board, **constants).app
            for kind, method, path in (
                ("http", "GET", "/"),
                ("http", "POST", "/"),
                ("http", "GET", "/health"),
                ("http", "GET", "/stream"),
                ("websocket", None, "/"),
            ):
                # The first one may be what the guard learns from.
                for _ in range(2):
                    scope = Scope(type=kind, method=method, path=path, headers=[])
                    freed = weakref.ref(scope)
                    gc.disable()
                    try:
                        await guarded(scope, receive, send)
                        del scope
                        left = freed()
                    finally:
                        gc.enable()
                self.assertIsNone(left, (kind, method, path, constants))

    async def test_ten_thousand_requests_with_random_aborts_leave_nothing_behind(self):
        chance = random.Random(4)

        async def app(scope, receive, send):
            headers = STREAM if scope["path"] == "/sse" else []
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                raise ValueError

        guarded = guard(app, LIMIT=20, MAX_STREAMS=5, BOARD=self.board).app
        for _ in range(200):
            tasks = []
            for _ in range(50):
                kind, path = chance.choice([("http", "/"), ("http", "/sse"), ("websocket", "/")])
                tasks.append(Client(guarded, path, kind).start())
            for task in chance.sample(tasks, 15):
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        state = slot(self.board)
        self.assertEqual((state.in_flight, state.streams), (0, 0))
        self.assertEqual(state.high_water, 20)
        self.assertGreater(state.rejected, 0)

    async def test_event_streams_leave_the_count_and_have_a_limit_of_their_own(self):
        gate = Gate(STREAM)
        app = guard(gate, LIMIT=1, MAX_STREAMS=2, BOARD=self.board).app
        streams = [Client(app), Client(app)]
        tasks = [client.start() for client in streams]
        await turn()
        self.assertEqual((slot(self.board).in_flight, slot(self.board).streams), (0, 2))
        third = Client(app)
        task = third.start()
        await turn()
        self.assertEqual([message["type"] for message in third.sent], ["http.response.start", "http.response.body"])
        self.assertEqual(third.status, 503)
        self.assertEqual((slot(self.board).in_flight, slot(self.board).streams), (0, 2))
        gate.open.set()
        await asyncio.gather(task, *tasks)
        self.assertEqual(len(gate.errors), 1, "sending on is as to a client that has gone")
        self.assertEqual([client.status for client in streams], [200, 200])
        state = slot(self.board)
        self.assertEqual((state.in_flight, state.streams, state.rejected), (0, 0, 1))

    async def test_a_websocket_counts_until_it_is_open(self):
        gate = Gate(accept=True)
        waiting = asyncio.Event()

        async def handshake(scope, receive, send):
            await waiting.wait()
            await gate(scope, receive, send)

        app = guard(handshake, LIMIT=1, MAX_STREAMS=1, BOARD=self.board).app
        first = Client(app, kind="websocket")
        task = first.start()
        await turn()
        self.assertEqual((slot(self.board).in_flight, slot(self.board).streams), (1, 0))
        refused = Client(app, kind="websocket", extensions={"websocket.http.response": {}})
        await refused.call
        self.assertEqual((refused.sent[0]["type"], refused.status), ("websocket.http.response.start", 503))
        waiting.set()
        await turn()
        self.assertEqual((slot(self.board).in_flight, slot(self.board).streams), (0, 1))
        old = Client(app, kind="websocket")
        await old.call
        self.assertEqual([(message["type"], message["code"]) for message in old.sent], [("websocket.close", 1013)])
        gate.open.set()
        await task
        self.assertEqual((slot(self.board).in_flight, slot(self.board).streams), (0, 0))

    async def test_of_websockets_that_are_accepted_together_no_more_are_open_than_may_be(self):
        gate = Gate(accept=True)
        waiting = asyncio.Event()

        async def handshake(scope, receive, send):
            await waiting.wait()
            await gate(scope, receive, send)

        app = guard(handshake, LIMIT=5, MAX_STREAMS=1).app
        clients = [Client(app, kind="websocket") for _ in range(3)]
        tasks = [client.start() for client in clients]
        await turn()
        waiting.set()
        await turn()
        gate.open.set()
        await asyncio.gather(*tasks)
        self.assertEqual([client.sent[0]["type"] for client in clients].count("websocket.accept"), 1)
        self.assertEqual(len(gate.errors), 2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
