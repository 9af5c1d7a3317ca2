"""The guard without a server: what it does to the app it is put around, in one process of one interpreter.

The first argument is the guard's text. Everything is bounded by the test that runs this file.
"""

import asyncio
import contextlib
import fcntl
import io
import os
import random
import signal
import socket
import struct
import sys
import time
import types
import unittest

with open(sys.argv[1], encoding="utf-8") as text:
    SOURCE = text.read()

DEFAULTS = {
    "SERVER": "gunicorn",
    "APP": "app:app",
    "FACTORY": False,
    "CALLS_FACTORIES": False,
    "WORKER_CLASS": None,
    "LIMIT": 2,
    "MAX_STREAMS": None,
    "HEALTH_PATH": "/health",
    "EXEMPT": (),
    "DEALS": False,
    "BOARD": None,
    "LINE": None,
    "LISTENERS": (),
    "BACKLOG": 128,
    "MAX_REQUESTS": None,
    "POKE": None,
    "BEAT": 0.01,
    "GRACE": 25,
}
SLOTS, SIZE = 20, 128
STREAM = [(b"Content-Type", b"text/event-stream; charset=utf-8")]


def guard(app, **constants):
    """The guard's module, as if the server had been told of this app."""
    server = types.ModuleType("gunicorn.util")
    server.import_app = app if constants.pop("raises", False) else lambda name: app
    sys.modules["gunicorn"], sys.modules["gunicorn.util"] = types.ModuleType("gunicorn"), server
    module = types.ModuleType("mcp_launch_guard")
    module.__dict__.update(DEFAULTS, **constants)
    exec(compile(SOURCE, "guard.py", "exec"), module.__dict__)
    return module


def board():
    fd = os.memfd_create("board")
    os.ftruncate(fd, SIZE * (SLOTS + 1) + 1024)
    os.pwrite(fd, struct.pack("=8sIIII", b"MCPLGRD1", 2, SLOTS, 1, os.getpid()), 0)
    return fd


def slot(fd, index=0):
    names = "pid state claimed heartbeat in_flight high_water served rejected lag most_lag streams flags".split()
    names += "connections turns listener limit leave_by".split()
    values = struct.unpack("=IIQQIIQQIIIIIIIIQ", os.pread(fd, 88, SIZE * (index + 1)))
    return types.SimpleNamespace(**dict(zip(names, values)))


def failure(fd):
    data = os.pread(fd, 1024, SIZE * (SLOTS + 1))
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


class GuardTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.board = board()

    async def asyncSetUp(self):
        # Of the loops that Python makes for tests some report everything that is slow.
        asyncio.get_running_loop().set_debug(False)

    def tearDown(self):
        os.close(self.board)

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
        time.sleep(0.1)
        await asyncio.sleep(0.03)
        state = slot(self.board)
        self.assertGreater(state.heartbeat, first)
        self.assertGreaterEqual(state.most_lag, 50_000)
        self.assertEqual(state.served, 1)
        self.assertEqual(state.flags & 1, 1, "SIGABRT shows where it is")

    async def test_a_copy_of_the_listening_socket_is_lent_to_who_asks_for_it(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        # As an app may do that knows no better.
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
            self.assertFalse(os.get_inheritable(theirs.fileno()), "what the app starts does not have it")

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

    async def test_apps_of_every_form_are_served(self):
        async def answer(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})

        def plain(scope, receive, send):
            return answer(scope, receive, send)

        def double(scope):
            return lambda receive, send: answer(scope, receive, send)

        class Double:
            def __init__(self, scope):
                self.scope = scope

            async def __call__(self, receive, send):
                await answer(self.scope, receive, send)

        class Instance:
            async def __call__(self, scope, receive, send):
                await answer(scope, receive, send)

        class Awaitable:
            def __init__(self, scope, receive, send):
                self.rest = answer(scope, receive, send)

            def __await__(self):
                return self.rest.__await__()

        for app in (answer, plain, double, Double, Instance(), Awaitable):
            client = Client(guard(app).app)
            await client.call
            self.assertEqual(client.status, 200, app)
        for factory in (lambda: answer, Instance, lambda debug=False: Instance()):
            client = Client(guard(factory, CALLS_FACTORIES=True).app)
            await client.call
            self.assertEqual(client.status, 200, factory)

    async def test_a_factory_that_fails_when_it_is_called_fails_the_startup(self):
        def factory():
            raise ValueError("no such thing")

        app = guard(factory, CALLS_FACTORIES=True, BOARD=self.board).app
        client = Client(app, kind="lifespan", state={})
        with contextlib.redirect_stderr(io.StringIO()):
            await client.call
        self.assertEqual(client.sent[0]["type"], "lifespan.startup.failed")
        self.assertEqual(failure(self.board), "ValueError: no such thing")

    async def test_an_app_that_cannot_be_imported_says_why_and_fails_as_it_does_without_us(self):
        def load(name):
            raise ModuleNotFoundError("No module named 'app'")

        with self.assertRaises(ModuleNotFoundError):
            guard(load, raises=True, BOARD=self.board)
        self.assertEqual(failure(self.board), "ModuleNotFoundError: No module named 'app'")

    async def test_servers_take_it_for_asgi_3(self):
        import inspect

        app = guard(Gate()).app
        self.assertTrue(inspect.iscoroutinefunction(app.__call__))
        with self.assertRaises(TypeError):
            app()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
