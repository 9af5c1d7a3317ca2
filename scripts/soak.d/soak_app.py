"""The small app of the soak. Every answer can be checked: it repeats what was asked for.

  /echo?ID      {"id": "ID", "pid": the worker's}
  /slow?S       the same after S seconds
  /upload       the length and the checksum of the request's body
  /events       an event stream: data: 0, data: 1, …
  /block?S      blocks the event loop
  /ws           WebSocket: an echo
  anything else an empty object

Beside that it works in the background, as apps do: often for a moment, now and then for longer in a thread. It is no fault
that a worker without clients uses a processor for that.
"""

import asyncio
import json
import os
import time
import zlib

OFTEN, MOMENT = 0.15, 0.03  # seconds from one moment of work to the next, and of work
SELDOM, LONGER = 25, 3


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        background = asyncio.gather(often(), seldom())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        background.cancel()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"] == "/events":
        await events(receive, send)
    else:
        await answer(send, await body_for(scope, receive))


def work(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def often():
    while True:
        work(MOMENT)
        await asyncio.sleep(OFTEN)


async def seldom():
    while True:
        await asyncio.sleep(SELDOM)
        await asyncio.to_thread(work, LONGER)


async def body_for(scope, receive):
    query = scope["query_string"].decode()
    match scope["path"]:
        case "/slow":
            await asyncio.sleep(float(query))
        case "/block":
            time.sleep(float(query))
        case "/upload":
            return await digest(receive)
        case "/echo":
            pass
        case _:
            return {}
    return {"id": query, "pid": os.getpid()}


async def digest(receive):
    length, checksum = 0, 1
    while True:
        message = await receive()
        body = message.get("body", b"")
        length, checksum = length + len(body), zlib.adler32(body, checksum)
        if not message.get("more_body"):
            return {"length": length, "checksum": checksum}


async def answer(send, body):
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def events(receive, send):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    gone = asyncio.ensure_future(until(receive, "http.disconnect"))
    number = 0
    try:
        while not gone.done():
            body = b"data: %d\n\n" % number
            await send({"type": "http.response.body", "body": body, "more_body": True})
            number += 1
            await asyncio.wait([gone], timeout=0.1)
    finally:
        gone.cancel()


async def until(receive, kind):
    while (await receive())["type"] != kind:
        pass


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
