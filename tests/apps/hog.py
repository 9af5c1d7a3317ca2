"""An app in which a thread keeps the interpreter in code in C: nothing else runs any more."""

import re
import threading

from lifespan import serve_lifespan


def keep_the_interpreter():
    re.match("(a+)+$", 60 * "a" + "b")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    if scope["path"] == "/hog":
        threading.Thread(target=keep_the_interpreter, daemon=True).start()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
