"""An ASGI app with streams that only the client or the server ends. All other paths are those of `hello`.

Paths:
  /idle    an event stream with one event, and nothing more
  /halves  an event stream with an event every second, each sent in two halves
  /work    an event stream that answers a POST: three events in 1.5 s, and then it ends
"""

import asyncio

import hello

STREAM = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


async def app(scope, receive, send):
    """The ASGI application."""
    stream = {"/idle": idle, "/halves": halves, "/work": work}.get(scope.get("path"))
    if stream is None or scope["type"] != "http":
        await hello.app(scope, receive, send)
    else:
        await send(STREAM)
        await stream(receive, send)


async def idle(receive, send):
    """Waits for its client to leave."""
    await chunk(send, b"data: 0\ndata: 0\n\n")
    await hello.until(receive, "http.disconnect")


async def halves(receive, send):
    """Does not check whether the client has left."""
    number = 0
    while True:
        await chunk(send, b"data: %d\n" % number)
        await asyncio.sleep(0.1)
        await chunk(send, b"data: %d\n\n" % number)
        await asyncio.sleep(0.9)
        number += 1


async def work(receive, send):
    """Has an end."""
    for number in range(3):
        await chunk(send, b"data: %d\ndata: %d\n\n" % (number, number))
        await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b""})


async def chunk(send, body):
    """A part of the response that is not the last."""
    await send({"type": "http.response.body", "body": body, "more_body": True})
