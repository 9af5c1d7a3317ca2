"""A WSGI app whose workers cannot serve before a dependency is there: when the file DEPENDENCY is.

Paths:
  /ready   503 until then
  /hang    is not answered until then
  /stream  an endless event stream
  /seen    what this worker was asked before, warm-up included
"""

import json
import os
import time

SEEN = []
KEYS = ("PATH_INFO", "QUERY_STRING", "HTTP_HOST", "HTTP_USER_AGENT", "SERVER_PORT", "wsgi.url_scheme")


def app(environ, start_response):
    """The WSGI application."""
    path, is_there = environ["PATH_INFO"], os.path.exists(os.environ["DEPENDENCY"])
    body = json.dumps({"pid": os.getpid(), "seen": SEEN}).encode()
    SEEN.append({key: environ.get(key) for key in KEYS})
    if path == "/hang" and not is_there:
        time.sleep(600)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return iter(lambda: time.sleep(600), 0)
    start_response("200 OK" if is_there or path != "/ready" else "503 Service Unavailable", [])
    return [body]
