"""The guard does not change the form of an app and its messages, whatever form ASGI and the servers allow."""

import asyncio
import contextlib
import copy
import inspect
import io
import os
import pickle
import sys
import unittest
import unittest.mock

from guard_test import STREAM, Client, Gate, board, failure, guard, slot, turn

PLAIN = [(b"content-type", b"text/plain"), (b"x-a", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]


def answering(message):
    async def app(scope, receive, send):
        await send(message())
        await send({"type": "http.response.body", "body": b""})

    return app


class Application:
    """An app with state, methods and operators."""

    kind = "of the class"

    def __init__(self):
        self.state = {"pool": 1}

    @property
    def pool(self):
        return self.state["pool"]

    def method(self):
        return self

    def __len__(self):
        return 7

    def __getitem__(self, key):
        return self.state[key]

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})


class Double:
    """ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await send({"type": "http.response.start", "status": 200})


async def function(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})


function.mark = "of the function"


class FormsTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.board = board()
        self.addCleanup(os.close, self.board)

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)

    async def test_headers_may_be_anything_that_can_be_iterated_over_once(self):
        forms = {
            "list": lambda headers: headers,
            "tuple": tuple,
            "generator": lambda headers: (pair for pair in headers),
            "map": lambda headers: map(tuple, headers),
            "dictionary's items": lambda headers: dict(headers).items(),
            "lists": lambda headers: [list(pair) for pair in headers],
            "pairs that are iterators": lambda headers: [iter(pair) for pair in headers],
            "iterators throughout": lambda headers: map(iter, headers),
        }
        for name, form in forms.items():
            for headers in (PLAIN, STREAM, []):
                for method in ("GET", "POST"):
                    message = {"type": "http.response.start", "status": 200}
                    client = Client(guard(answering(lambda: {**message, "headers": form(headers)})).app, method=method)
                    await client.call
                    seen = [tuple(pair) for pair in client.sent[0]["headers"]]
                    wanted = list(dict(headers).items()) if name == "dictionary's items" else headers
                    self.assertEqual(seen, wanted, (name, method))

    async def test_headers_may_be_missing_and_what_is_none_reaches_the_server_as_it_is(self):
        for message in ({}, {"headers": None}):
            message = {"type": "http.response.start", "status": 204, **message}
            client = Client(guard(answering(lambda: message)).app)
            await client.call
            self.assertIs(client.sent[0], message)

    async def test_a_stream_is_known_by_its_content_type_however_that_is_written(self):
        types = [
            (b"text/event-stream", True),
            (b"text/event-stream; charset=utf-8", True),
            (b"text/event-stream;charset=utf-8", True),
            (b"TEXT/Event-Stream ; charset=utf-8", True),
            (b" text/event-stream", True),
            (bytearray(b"text/event-stream"), True),
            (memoryview(b"Text/event-stream"), True),
            ("text/event-stream", True),
            (b"text/event-streams", False),
            (b"text/event-stream-json", False),
            (b"application/json", False),
            (b"", False),
            (None, False),
        ]
        names = (b"content-type", b"Content-Type", b"CONTENT-TYPE", bytearray(b"Content-Type"), "Content-Type")
        for value, wanted in types:
            for name in names:
                for form in (list, tuple, iter):
                    headers = [(b"x-request-id", b"text/event-stream"), (name, value)]
                    gate = Gate()
                    module = guard(gate, BOARD=self.board)
                    gate.headers = form(headers)
                    task = Client(module.app).start()
                    await turn()
                    state = slot(self.board)
                    gate.open.set()
                    await asyncio.gather(task, return_exceptions=True)
                    self.assertEqual((state.streams, state.in_flight), (wanted, not wanted), (name, value))
                    self.board = board()
                    self.addCleanup(os.close, self.board)

    async def test_an_app_may_send_one_message_again_and_again(self):
        message = {"type": "http.response.start", "status": 200, "headers": tuple(map(list, PLAIN))}
        app = guard(answering(lambda: message)).app
        for _ in range(2):
            client = Client(app)
            await client.call
            self.assertIs(client.sent[0], message)

    async def test_only_a_stream_that_answers_a_get_leaves_the_count(self):
        for method, streams in (("GET", 1), ("POST", 0), ("PUT", 0), ("QUERY", 0), ("HEAD", 0)):
            gate = Gate(STREAM)
            memory = board()
            self.addCleanup(os.close, memory)
            app = guard(gate, LIMIT=1, MAX_STREAMS=1, BOARD=memory).app
            client = Client(app, method=method)
            task = client.start()
            await turn()
            self.assertEqual((slot(memory).streams, slot(memory).in_flight), (streams, 1 - streams), method)
            other = Client(app, method="POST").start() if streams else None
            await turn()
            refused = Client(app, method=method)
            await asyncio.wait_for(refused.call, 5)
            self.assertEqual(refused.status, 503, method)
            gate.open.set()
            await asyncio.gather(task, *([other] if other else []))
            self.assertEqual(client.status, 200)
            self.assertEqual((slot(memory).streams, slot(memory).in_flight), (0, 0), method)

    async def test_streams_that_answer_posts_have_no_limit_but_that_of_requests(self):
        gate = Gate(STREAM)
        app = guard(gate, LIMIT=3, MAX_STREAMS=1).app
        clients = [Client(app, method="POST") for _ in range(4)]
        tasks = [client.start() for client in clients]
        await turn()
        gate.open.set()
        await asyncio.gather(*tasks)
        self.assertEqual([client.status for client in clients], [200, 200, 200, 503])

    async def test_the_health_path_is_admitted_wherever_the_app_is_mounted(self):
        # The path as requested, with the root path in front (uvicorn) and without (Granian, Gunicorn's own).
        for root, free, refused in (
            ("", ["/health", "/free/a"], ["/api/health", "/healthy", "/freedom"]),
            ("/api", ["/api/health", "/health", "/api/free/a", "/free/a"], ["/apihealth", "/api/healthy", "/api/x"]),
            ("/api/", ["/api//health", "/api/health"], ["/api/healthy"]),
            ("/a/b", ["/a/b/health"], ["/a/health", "/b/health"]),
        ):
            for kind in ("http", "websocket"):
                gate = Gate(accept=kind == "websocket")
                app = guard(gate, LIMIT=1, EXEMPT=("/free/",)).app
                full = Client(app, root + "/x", root_path=root).start()
                await turn()
                inside = gate.inside
                tasks = [Client(app, path, kind, root_path=root).start() for path in free]
                await turn()
                self.assertEqual(gate.inside - inside, len(free), (root, kind))
                for path in refused:
                    client = Client(app, path, kind, root_path=root, extensions={"websocket.http.response": {}})
                    await asyncio.wait_for(client.call, 5)
                    self.assertEqual(client.status, 503, (root, path, kind))
                gate.open.set()
                await asyncio.gather(full, *tasks)

    async def test_the_first_request_may_be_for_the_health_path(self):
        gate = Gate()
        gate.open.set()
        app = guard(gate, LIMIT=0).app
        for path in ("/api/health", "/health"):
            client = Client(app, path, root_path="/api")
            await client.call
            self.assertEqual(client.status, 200)
        scope = Client(guard(gate, LIMIT=0).app, "/health")
        await scope.call
        self.assertEqual(scope.status, 200, "the root path may be missing")

    async def test_a_factory_that_fails_on_the_first_request_is_tried_again(self):
        calls = []

        def factory():
            calls.append(1)
            if len(calls) < 3:
                raise ConnectionError("no database")
            return function

        app = guard(factory, CALLS_FACTORIES=True, BOARD=self.board).app
        for _ in range(2):
            with self.assertRaisesRegex(ConnectionError, "no database"):
                await Client(app).call
            self.assertEqual(failure(self.board), "ConnectionError: no database")
            self.assertEqual(slot(self.board).state, 1, "it is not ready")
        for _ in range(2):
            client = Client(app)
            await client.call
            self.assertEqual(client.status, 200)
        self.assertEqual(len(calls), 3)
        self.assertEqual((slot(self.board).state, slot(self.board).in_flight), (2, 0))

    async def test_a_factory_that_fails_with_a_type_error_says_so_and_not_another(self):
        def factory():
            raise TypeError("from within")

        app = guard(factory, CALLS_FACTORIES=True, BOARD=self.board).app
        for _ in range(2):
            with self.assertRaisesRegex(TypeError, "from within"):
                await Client(app).call
        client = Client(app, kind="lifespan", state={})
        await client.call
        self.assertEqual(client.sent[0]["type"], "lifespan.startup.failed")
        self.assertIn("from within", client.sent[0]["message"])

    async def test_a_factory_that_makes_no_app_fails_the_startup(self):
        app = guard(lambda: None, CALLS_FACTORIES=True, BOARD=self.board).app
        client = Client(app, kind="lifespan", state={})
        await client.call
        self.assertEqual(client.sent[0]["type"], "lifespan.startup.failed")
        self.assertIn("None", failure(self.board))

    async def test_a_slot_that_cannot_be_had_keeps_nobody_from_serving(self):
        module = guard(function, BOARD=self.board)
        module._find_board = lambda: (self.board, 1 << 40, os.getpid())
        with contextlib.redirect_stderr(io.StringIO()) as said, unittest.mock.patch("mmap.mmap", side_effect=OSError("no memory")):
            for _ in range(2):
                client = Client(module.app)
                await client.call
                self.assertEqual(client.status, 200)
        self.assertIn("no memory", said.getvalue())

    def test_hooks_see_the_app_in_the_guard(self):
        app = Application()
        seen = guard(app).app
        self.assertIs(seen.method(), app)
        self.assertEqual((seen.kind, seen.pool, len(seen), seen["pool"]), ("of the class", 1, 7, 1))
        self.assertIsInstance(seen, Application)
        self.assertEqual((dir(seen), vars(seen), repr(seen)), (dir(app), vars(app), repr(app)))
        seen.added = 1
        seen.state["pool"] = 2
        self.assertEqual((app.added, seen.pool), (1, 2))
        del seen.added
        self.assertFalse(hasattr(app, "added") or hasattr(seen, "added"))
        with self.assertRaisesRegex(AttributeError, "'Application' object has no attribute 'missing'"):
            seen.missing
        self.assertTrue(seen == app and app == seen and seen == seen and seen != 1)
        self.assertEqual(len({app, seen}), 1)
        self.assertIsNot(seen, app)

    def test_hooks_see_functions_and_classes_in_the_guard(self):
        seen = guard(function).app
        self.assertEqual((seen.mark, seen.__name__, seen.__code__), ("of the function", "function", function.__code__))
        self.assertEqual(guard(Double).app.__name__, "Double")
        self.assertFalse(inspect.isfunction(seen) or inspect.isclass(guard(Double).app))

    def test_copies_and_pickles_are_the_apps(self):
        for app in (Application(), function, Double):
            seen = guard(app).app
            for made in (copy.copy(seen), copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))):
                self.assertIs(type(made), type(app))
        self.assertIs(copy.copy(guard(function).app), function)

    async def test_servers_take_every_form_for_asgi_3(self):
        def factory():
            return function

        for app in (Application(), function, Double, factory):
            seen = guard(app, CALLS_FACTORIES=True).app
            self.assertTrue(callable(seen))
            # What uvicorn checks about an object that is neither a class nor a function.
            self.assertFalse(inspect.isclass(seen) or inspect.isfunction(seen))
            self.assertTrue(inspect.iscoroutinefunction(getattr(seen, "__call__")))
            with self.assertRaises(TypeError):
                seen()
            client = Client(seen)
            await client.call
            self.assertEqual(client.status, 200)

    async def test_granian_has_the_plain_function(self):
        server = sys.modules["granian"] = sys.modules["granian._internal"] = type(sys)("granian._internal")
        self.addCleanup(sys.modules.pop, "granian")
        self.addCleanup(sys.modules.pop, "granian._internal")
        server.load_target = lambda name, factory: function
        self.assertTrue(inspect.isfunction(guard(function, SERVER="granian").app))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
