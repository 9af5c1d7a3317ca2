"""Apps whose requests need one of 10 connections for SERVICE_TIME seconds (0.02): ASGI and WSGI."""

import asyncio
import os
import threading
import time

from lifespan import serve_lifespan

SERVICE_TIME = float(os.environ.get("SERVICE_TIME", "0.02"))
HEADERS = [("content-type", "text/plain"), ("content-length", "2")]

connections = asyncio.Semaphore(10)
connections_of_threads = threading.Semaphore(10)


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    async with connections:
        await asyncio.sleep(SERVICE_TIME)
    headers = [(name.encode(), value.encode()) for name, value in HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi(environ, start_response):
    """The WSGI application."""
    with connections_of_threads:
        time.sleep(SERVICE_TIME)
    start_response("200 OK", HEADERS)
    return [b"ok"]
