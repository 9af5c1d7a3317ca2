"""An ASGI app that has nothing to do: an empty JSON object at /, 404 elsewhere, 500 at /fail.

ONLY_UNDER=NAME, read at import: the import fails under any other server.
"""

import os
import sys

only_under = os.environ.get("ONLY_UNDER")
if only_under and only_under not in sys.modules:
    raise RuntimeError(f"this app wants {only_under}")

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    status = {"/": 200, "/fail": 500}.get(scope["path"], 404)
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"{}"})
