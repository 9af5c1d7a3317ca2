"""The small app with a configurable memory use, for tests with too little memory.

Environment:
  SHARED_MIB=N, WORKER_MIB=N   memory that the import takes, and that each worker takes at its startup
  RELEASE_FILE=PATH            the name of the release, read at import; the path /release answers with it

Some releases are broken, by their names:
  raises        the import raises
  huge          the import takes 2 GiB
  second-fails  the startup of every worker but the first one fails
"""

import json
import os
from pathlib import Path

import hello

RELEASE = Path(os.environ["RELEASE_FILE"]).read_text().strip()
if RELEASE == "raises":
    raise RuntimeError("this release is broken")

MIB = 1 << 20
SHARED = b"s" * (MIB * int(os.environ.get("SHARED_MIB", 0)))
if RELEASE == "huge":
    SHARED = b"h" * (2048 * MIB)
OWN = []


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        if RELEASE == "second-fails" and not is_first():
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "this worker is broken"})
            return
        OWN.append(b"w" * (MIB * int(os.environ.get("WORKER_MIB", 0))))
    if scope["type"] == "http" and scope["path"] == "/release":
        await hello.answer(send, {"release": RELEASE})
    else:
        await hello.app(scope, receive, send)


def wsgi(environ, start_response):
    """The same as a minimal WSGI app."""
    if not OWN:
        OWN.append(b"w" * (MIB * int(os.environ.get("WORKER_MIB", 0))))
    body = {"/release": {"release": RELEASE}, "/pid": {"pid": os.getpid()}}.get(environ["PATH_INFO"], {})
    content = json.dumps(body).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return [content]


def is_first():
    """Whether this is the first worker of this release."""
    try:
        Path(os.environ["RELEASE_FILE"] + ".first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
