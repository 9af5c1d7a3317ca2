"""A small ASGI app for tests: depending on the path, it answers at once, slowly, never, or dies.

Environment, read at import or at startup:
  IMPORT_SLEEP=SECONDS  the import takes this long
  IMPORT_GATE=FILE      the import waits until the file is there
  IMPORT_FAIL=1         the import raises
  LIFESPAN_FAIL=1       the startup fails

Paths:
  /pid          the worker's process id
  /env?name=X   a variable of the worker's environment
  /slow?s=2     answers after so many seconds; the event loop is free meanwhile
  /block?s=2    the same, with the event loop blocked
  /spin         an endless loop
  /deadlock     waits for a lock that is never free
  /grow?mib=64  takes so much more memory, for good
  /sse          an event every 0.1 s until the client leaves
  /shout?mb=1   writes so much to standard error
  /crash?status=3  ends the worker (Gunicorn takes 3 and 4 for a failed boot and ends itself)
  /pool         starts a process pool, which stays
  /ws           WebSocket: an echo
  anything else, /health included: an empty JSON object
"""

import asyncio
import concurrent.futures
import json
import os
import sys
import threading
import time
from urllib.parse import parse_qs

time.sleep(float(os.environ.get("IMPORT_SLEEP") or 0))
while not os.path.exists(os.environ.get("IMPORT_GATE", "/")):
    time.sleep(0.02)
if os.environ.get("IMPORT_FAIL") == "1":
    raise RuntimeError("IMPORT_FAIL is set")

GROWN = []
POOLS = []


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"] == "/sse":
        await events(receive, send)
    else:
        await answer(send, await body_for(scope))


async def body_for(scope):
    """The body of the response, after doing what the path asks for."""
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
    match scope["path"]:
        case "/pid":
            return {"pid": os.getpid()}
        case "/env":
            return {"value": os.environ.get(query["name"])}
        case "/pool":
            POOLS.append(concurrent.futures.ProcessPoolExecutor(1))
            return {"pid": os.getpid(), "child": POOLS[-1].submit(os.getpid).result()}
        case "/slow":
            await asyncio.sleep(float(query.get("s", 1)))
        case "/block":
            time.sleep(float(query.get("s", 1)))
        case "/spin":
            while True:
                pass
        case "/deadlock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        case "/grow":
            # Not zeros, for which the kernel would not allocate memory.
            GROWN.append(b"x" * (int(query["mib"]) << 20))
            return {"pid": os.getpid()}
        case "/shout":
            sys.stderr.write(("x" * 1023 + "\n") * (int(query["mb"]) << 10))
        case "/crash":
            os._exit(int(query.get("status", 3)))
    return {}


async def answer(send, body):
    """A JSON response."""
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def events(receive, send):
    """An event stream that only the client ends."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    gone = asyncio.create_task(until(receive, "http.disconnect"))
    number = 0
    while not gone.done():
        await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
        number += 1
        await asyncio.wait([gone], timeout=0.1)


async def until(receive, kind):
    """Receives messages until one is of this kind."""
    while (await receive())["type"] != kind:
        pass


async def echo(receive, send):
    """A WebSocket that sends back whatever it gets."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def lifespan(receive, send):
    """Startup and shutdown of the application."""
    await receive()
    if os.environ.get("LIFESPAN_FAIL") == "1":
        await send({"type": "lifespan.startup.failed", "message": "LIFESPAN_FAIL is set"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
