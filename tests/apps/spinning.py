"""An ASGI app whose background work may never rest.

Paths:
  /swallow      a task of a cancelled scope of AnyIO ignores its cancellation: AnyIO cancels it again and again
  /call_soon    a callback that schedules itself again
  /thread       a thread that never rests
  /sse?ms=1     an event every so many milliseconds until the client leaves
  anything else, /health included: an empty response
"""

import asyncio
import threading
import time
from urllib.parse import parse_qs

import anyio

BACKGROUND = set()


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    match scope["path"]:
        case "/swallow":
            BACKGROUND.add(asyncio.create_task(leave_behind()))
        case "/call_soon":
            again(asyncio.get_running_loop())
        case "/thread":
            threading.Thread(target=never_rests, daemon=True).start()
        case "/sse":
            return await events(receive, send, float(parse_qs(scope["query_string"].decode())["ms"][0]) / 1000)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def leave_behind():
    """A task that waits for another one whose cancellation has no effect."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                pass


def again(loop):
    """Schedules itself."""
    loop.call_soon(again, loop)


def never_rests():
    """Uses a processor."""
    while True:
        pass


async def events(receive, send, pause):
    """An event stream that needs a processor for itself, until its client has gone."""
    await receive()
    gone = asyncio.create_task(receive())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    while not gone.done():
        until = time.monotonic() + pause
        while time.monotonic() < until:
            pass
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await asyncio.sleep(0)
