"""An ASGI app that streams: ten server-sent events, one every ten milliseconds, then the end."""

import asyncio

import hello

EVENTS = 10
PAUSE = 0.01
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await hello.lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    for number in range(EVENTS):
        event = f'event: progress\ndata: {{"step": {number}, "of": {EVENTS}}}\n\n'
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await asyncio.sleep(PAUSE)
    await send({"type": "http.response.body", "body": b""})
