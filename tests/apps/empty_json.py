"""An ASGI app without work: an empty JSON object at /, 404 elsewhere, 500 at /fail.

ONLY_UNDER=NAME, read at import: the import fails under any other server.
"""

import os
import sys

from lifespan import serve_lifespan

only_under = os.environ.get("ONLY_UNDER")
if only_under and only_under not in sys.modules:
    raise RuntimeError(f"this app needs {only_under}")

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await serve_lifespan(receive, send)
        return
    status = {"/": 200, "/fail": 500}.get(scope["path"], 404)
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})
