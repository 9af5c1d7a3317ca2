"""An ASGI app whose workers cannot serve before a dependency is there.

Environment, read at import or at startup:
  DEPENDENCY=PATH    the dependency is there when this file is
  NO_LIFESPAN=1      the app raises when it is told to start

Paths:
  /ready   503 until the dependency is there
  /raise   raises until then
  /stream  an endless event stream
  /seen    what this worker was asked before, warm-up included, and by whom
"""

import asyncio
import json
import os

DEPENDENCY = os.environ["DEPENDENCY"]
SEEN = []
KEYS = ("path", "query_string", "raw_path", "scheme", "client", "headers", "state", "http_version")


def describe(scope):
    """What the tests compare, as JSON."""
    return json.loads(json.dumps({key: scope.get(key) for key in KEYS}, default=bytes.decode))


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        if os.environ.get("NO_LIFESPAN"):
            raise NotImplementedError("no lifespan")
        await lifespan(scope, receive, send)
        return
    path, is_there = scope["path"], os.path.exists(DEPENDENCY)
    body = json.dumps({"pid": os.getpid(), "seen": SEEN}).encode()
    SEEN.append(describe(scope))
    if path == "/raise" and not is_there:
        raise RuntimeError("no dependency")
    status = 503 if path == "/ready" and not is_there else 200
    kind = b"text/event-stream" if path == "/stream" else b"application/json"
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    while path == "/stream" and (await next_message(receive))["type"] != "http.disconnect":
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": body})


async def next_message(receive):
    """What the client does next; an event is due in the meantime."""
    try:
        return await asyncio.wait_for(receive(), 0.1)
    except TimeoutError:
        return {"type": "nothing"}


async def lifespan(scope, receive, send):
    """Starts at once, with a value that requests find in their state."""
    await receive()
    scope["state"]["made"] = "at startup"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
