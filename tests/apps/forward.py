"""An ASGI app whose workers do things for each other: all work is done by the worker that started first.

Workers talk over a Unix socket in the folder that WORK_FOLDER names. The owner has no HTTP connection for this work.

Paths:
  /pid     the worker's process id
  /owner   whether this worker is the owner
  /forward?s=2  has the owner work for so many seconds, and answers with the owner's process id
"""

import asyncio
import os
from urllib.parse import parse_qs

import hello

PLACE = os.environ["WORK_FOLDER"] + "/" + str(os.getppid())
OWNER = None


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["path"] == "/forward":
        seconds = parse_qs(scope["query_string"].decode())["s"][0]
        await hello.answer(send, {"by": await ask_owner(seconds)})
    elif scope["path"] == "/owner":
        await hello.answer(send, {"owner": OWNER is not None})
    else:
        await hello.app(scope, receive, send)


async def ask_owner(seconds):
    """Has the work done by the owner."""
    reader, writer = await asyncio.open_unix_connection(PLACE)
    writer.write(seconds.encode() + b"\n")
    answer = await reader.readline()
    writer.close()
    return int(answer)


async def work(reader, writer):
    """Does the work for another worker."""
    await asyncio.sleep(float(await reader.readline()))
    writer.write(b"%d\n" % os.getpid())
    await writer.drain()
    writer.close()


async def lifespan(receive, send):
    """The first worker of a generation that starts becomes the owner, until it shuts down."""
    global OWNER
    await receive()
    try:
        os.close(os.open(PLACE + ".owner", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
    else:
        OWNER = await asyncio.start_unix_server(work, PLACE)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if OWNER is not None:
        OWNER.close()
    await send({"type": "lifespan.shutdown.complete"})
