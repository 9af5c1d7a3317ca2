"""Servers with four workers, and clients of theirs: what the rows about the distribution of clients share."""

import asyncio
import os
import signal
import socket
import time

from guard import Server, ask, free_port, processes
from launcher import cpu_time

WORKERS = 4
CAPACITY = 16
CONNECTIONS = 64
SLOW = 1.5
# The servers with their worker classes, by how they are called in tables.
SERVERS = {
    "Gunicorn, uvicorn workers": ("gunicorn", "uvicorn_worker.UvicornWorker"),
    "Gunicorn, asgi": ("gunicorn", "asgi"),
    "Granian": ("granian", None),
}

APP = '''
import asyncio
import os
import time

from lifespan import serve_lifespan

NAME = str(os.getpid()).encode()
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(NAME))]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    path = scope["path"]
    if path == "/slow":
        await asyncio.sleep(SLOW)
    elif path == "/database":
        await asyncio.sleep(0.02)
    elif path == "/block":
        time.sleep(float(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": NAME})
'''


def contestant(field, server, worker_class=None, launched=True, **settings):
    """A function that starts one with four workers."""

    def start():
        port = free_port()
        if launched:
            of_class = ["--worker-class", worker_class] if worker_class else []
            argv = [field.options.binary, "--server", server, "--workers", str(WORKERS), *of_class, "dealing_app:app"]
        elif server == "gunicorn":
            bind = ["--bind", f"127.0.0.1:{port}", "--keep-alive", "30"]
            argv = ["gunicorn", "--worker-class", worker_class, "--workers", str(WORKERS), *bind, "dealing_app:app"]
        else:
            own = ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
            argv = ["granian", *own, "--workers", str(WORKERS), "dealing_app:app"]
        if not launched:
            argv[0] = f"{field.options.venv}/bin/{argv[0]}"
        environment = {**field.environment(port), "PYTHONPATH": field.directory, "GUNICORN_KEEP_ALIVE": "30", **settings}
        running = Server(argv, environment, field.directory, port)
        wait_for_workers(port)
        return running

    return start


def wait_for_workers(port):
    """Until all of them answer, or half a minute."""
    until = time.monotonic() + 30
    while len(names(port, 40)) < WORKERS and time.monotonic() < until:
        time.sleep(0.1)


def request(path, close=True):
    connection = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{connection}\r\n".encode()


def ask_on(client, path="/", close=False):
    client.sendall(request(path, close))
    text = b""
    while b"\r\n\r\n" not in text or not text.partition(b"\r\n\r\n")[2]:
        more = client.recv(4096)
        if not more:
            raise OSError("closed")
        text += more
    head, _, body = text.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def names(port, count):
    """The workers that answer this many fresh connections."""
    found = set()
    for _ in range(count):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                found.add(ask_on(client, close=True)[1])
        except (OSError, ValueError):
            pass
    return found


async def slow_ones(port, count, pause):
    """How many of `count` slow requests are answered, and the times of the refusals."""
    asked = []
    for _ in range(count):
        asked.append(asyncio.ensure_future(ask(port, "/slow", patience=10)))
        if pause:
            await asyncio.sleep(pause)
    answers = await asyncio.gather(*asked)
    await asyncio.sleep(0.2)
    refused = [took for status, took in answers if status == 503]
    return sum(status == 200 for status, _ in answers), refused


async def while_silent(port, seconds=3.0):
    """Fresh requests, one after the other: how many there are, how many fail, and the times."""
    until = time.monotonic() + seconds
    failed, times = 0, []
    while time.monotonic() < until:
        status, took = await ask(port, "/", patience=2)
        failed += status != 200
        times.append(took)
    return failed, times


def cpu_seconds(pid):
    """The CPU time of a process and of all that descend from it."""
    return sum(map(cpu_time, processes(pid))) / 1e9


def one_silent(running, how):
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        worker = int(ask_on(client)[1])
        if how == "stopped":
            os.kill(worker, signal.SIGSTOP)
            time.sleep(1.5)
            found = asyncio.run(while_silent(running.port))
            os.kill(worker, signal.SIGCONT)
        elif how == "in time.sleep":
            client.sendall(request("/block?8", close=False))
            time.sleep(1.5)
            found = asyncio.run(while_silent(running.port))
            client.recv(4096)
        else:

            async def both():
                async def block():
                    for _ in range(8):
                        await ask(running.port, "/block?0.3", patience=10)

                blocking = asyncio.ensure_future(block())
                found = await while_silent(running.port, 2.5)
                await blocking
                return found

            found = asyncio.run(both())
    time.sleep(0.3)
    return found
