"""An ASGI app for tests of the guard, in every form that servers accept.

Paths:
  /wait         answers when the file that GATE names is there
  /wait/PATH    the same
  /sse          an event stream until the client leaves
  /traces       which traces of the launcher can be seen
  anything else: an empty answer
WebSockets are accepted, and closed when the client leaves.
"""

import asyncio
import json
import os
import sys

from lifespan import serve_lifespan

GATE = os.environ.get("GATE", "/nowhere")


async def app(scope, receive, send):
    """The application."""
    if scope["type"] == "lifespan":
        await serve_lifespan(receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        await request(scope["path"].removeprefix(scope.get("root_path", "")), receive, send)


async def request(path, receive, send):
    if path == "/sse":
        return await events(receive, send)
    if path.startswith("/wait"):
        while not os.path.exists(GATE):
            await asyncio.sleep(0.02)
    await answer(send, traces() if path == "/traces" else {})


async def events(receive, send):
    """Server-sent events, until the client leaves or cannot be sent to."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    gone = asyncio.ensure_future(leaving(receive))
    try:
        while not gone.done():
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.wait([gone], timeout=0.02)
    finally:
        gone.cancel()


async def leaving(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


def traces():
    """Path entries, variables and finders that are not the server's or the user's."""
    import subprocess

    show = "import os; print(os.environ.get('PYTHONPATH'))"
    child = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "path": [entry for entry in sys.path if entry.startswith("/proc/") or entry == "/"],
        "variable": os.environ.get("PYTHONPATH"),
        "in a child": child,
        "finders": [type(finder).__module__ for finder in sys.meta_path if "mcp_launch" in type(finder).__module__],
    }


async def answer(send, body):
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def make(debug=False):
    """A factory."""
    return app


class Nested:
    """An attribute of an attribute."""

    app = staticmethod(app)


class Callable:
    """A class, of which an instance is the application."""

    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)


instance = Callable()


def double(scope):
    """An application of two calls (ASGI 2)."""

    async def rest(receive, send):
        await app(scope, receive, send)

    return rest


def wsgi(environ, start_response):
    """Not an ASGI application."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"wsgi"]
