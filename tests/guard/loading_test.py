"""The guard without a server: how it loads apps of every form."""

import contextlib
import io
import sys
import unittest

from guard_test import Client, Gate, GuardTestCase, failure, guard


class LoadingTest(GuardTestCase):
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
