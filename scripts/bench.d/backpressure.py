"""A limit that the launcher finds (`auto`) against fixed limits and other servers, on an app with a known knee.

Each request needs one of ten connections for 20 ms, so ten requests at a time are enough for 500 answers per second, and
more of them only wait longer. The load is open: requests come at random times, on connections of their own, whether or
not others have been answered. What counts is the goodput: answers within a deadline, per second.
"""

import asyncio
import mmap
import random
import statistics
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from figures import Row, Section, Target
from guard import Field, Server, free_port
from launcher import progress

CONNECTIONS, SERVICE, SLOW = 10, 0.02, 0.08
CAPACITY = CONNECTIONS / SERVICE
DEADLINE = 0.2
SWEEP = [8, 10, 12, 16, 24, 48]
SETTLED = 10  # seconds after a change within which a limit that adapts must have done so
REGRET = 10  # percent

APP = """
import asyncio
import mmap
import os
import struct

from lifespan import serve_lifespan

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
connections = asyncio.Semaphore(CONNECTIONS)
service = mmap.mmap(os.open("SERVICE_FILE", os.O_RDONLY), 8, access=mmap.ACCESS_READ)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    if scope["path"] != "/health":
        async with connections:
            await asyncio.sleep(struct.unpack("d", service[:])[0])
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


class Client(asyncio.Protocol):
    """One request."""

    def __init__(self, answers):
        self.answers, self.begun = answers, time.monotonic()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data):
        if self.answers is not None:
            status = int(data.split(maxsplit=2)[1])
            self.answers.append((self.begun, status, time.monotonic() - self.begun))
            self.answers = None
        self.transport.close()


class Answers(list):
    """When requests began, their status, and the seconds that it took."""

    def goodput(self, begin, end, deadline=DEADLINE):
        good = [1 for begun, status, took in self if begin <= begun < end and status == 200 and took <= deadline]
        return len(good) / (end - begin)

    def refused(self):
        return sum(status == 503 for _, status, _ in self)


async def load(port, rate, seconds):
    """So many requests per second; the answers, and when it began."""
    loop, answers, tasks = asyncio.get_running_loop(), Answers(), set()
    begin = due = time.monotonic()
    while due < begin + seconds:
        due += random.expovariate(rate)
        pause = due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        task = loop.create_task(loop.create_connection(lambda: Client(answers), "127.0.0.1", port))
        tasks.add(task)
        task.add_done_callback(lambda done: (tasks.discard(done), done.cancelled() or done.exception()))
    await asyncio.sleep(2 * DEADLINE)
    for task in tasks:
        task.cancel()
    return answers, begin


class Pool:
    """The app, and how long a request needs a connection."""

    def __init__(self, options, directory):
        self.field = Field(options, directory)
        file = Path(directory) / "service"
        file.write_bytes(struct.pack("d", SERVICE))
        with file.open("r+b") as opened:
            self.service = mmap.mmap(opened.fileno(), 8)
        source = APP.replace("CONNECTIONS", str(CONNECTIONS), 1).replace("SERVICE_FILE", str(file))
        source = source.replace("Semaphore(CONNECTIONS)", f"Semaphore({CONNECTIONS})")
        (Path(directory) / "bench_pool.py").write_text(source)

    def takes(self, seconds):
        self.service[:] = struct.pack("d", seconds)

    def launched(self, server, limit):
        settings = {} if limit is None else {f"{server.upper()}_BACKPRESSURE": str(limit)}
        return self.field.launched(server, "bench_pool:app", **settings)

    def alone(self, program, *arguments):
        port = free_port()
        argv = [f"{self.field.options.venv}/bin/{program}", *arguments, "--host", "127.0.0.1", "--port", str(port)]
        environment = {**self.field.environment(port), "PYTHONPATH": self.field.directory}
        return Server([*argv, "bench_pool:app"], environment, self.field.directory, port)


def measured(server, rate, seconds):
    """Goodput from the first request on, and the answers."""
    try:
        answers, begin = asyncio.run(load(server.port, rate, seconds))
    finally:
        server.stop()
    return answers.goodput(begin, begin + seconds), answers


def overload(pool, server, seconds):
    """Fixed limits, and the one that adapts, at three times the capacity."""
    goodputs = {}
    for limit in [*SWEEP, None, "auto"]:
        progress(f"backpressure, {server}", len(goodputs), len(SWEEP) + 2)
        length = 2 * seconds if limit == "auto" else seconds
        goodputs[limit], _ = measured(pool.launched(server, limit), 3 * CAPACITY, length)
    best = max(goodputs[limit] for limit in SWEEP)
    rows = [Row(f"limit {limit}", [goodputs[limit]], "/s") for limit in SWEEP]
    rows.append(Row("default (512)" if server == "granian" else "default (none)", [goodputs[None]], "/s"))
    rows.append(Row("auto, its start included", [goodputs["auto"]], "/s"))
    regret = 100 * (1 - goodputs["auto"] / best)
    rows.append(Row("auto, regret against the best", [regret], "%", target=Target(REGRET)))
    return Section(f"{server}, {3 * CAPACITY:.0f} requests/s: within {1000 * DEADLINE:.0f} ms", rows)


def others(pool, seconds):
    """Other ways to limit, with the limit that was best for this app, and with a larger one."""
    rows = []
    for limit in [16, 64]:
        uvicorn = pool.alone("uvicorn", "--limit-concurrency", str(limit), "--no-access-log")
        rows.append(Row(f"uvicorn --limit-concurrency {limit}", [measured(uvicorn, 3 * CAPACITY, seconds)[0]], "/s"))
        granian = pool.alone("granian", "--interface", "asgi", "--backpressure", str(limit))
        rows.append(Row(f"Granian alone, --backpressure {limit}", [measured(granian, 3 * CAPACITY, seconds)[0]], "/s"))
    return Section(f"alone, {3 * CAPACITY:.0f} requests/s: within {1000 * DEADLINE:.0f} ms", rows)


def below(pool, server, seconds):
    """No refusal below the knee."""
    rate = 0.8 * CAPACITY
    goodput, answers = measured(pool.launched(server, "auto"), rate, seconds)
    rows = [
        Row("goodput", [goodput], "/s"),
        Row("refused", [answers.refused()], "", target=Target(0)),
        Row("latency, p50", [1000 * statistics.median(took for _, _, took in answers)]),
    ]
    return Section(f"{server}, auto, {rate:.0f} requests/s", rows)


def change(pool, server, seconds):
    """The back end becomes four times slower and recovers, at three times the capacity of before."""

    async def phases(port):
        changes = []

        async def switch():
            for service in [SERVICE, SLOW, SERVICE]:
                pool.takes(service)
                changes.append(time.monotonic())
                await asyncio.sleep(seconds)

        (answers, _), _ = await asyncio.gather(load(port, 3 * CAPACITY, 3 * seconds), switch())
        return answers, changes

    running = pool.launched(server, "auto")
    try:
        answers, changes = asyncio.run(phases(running.port))
    finally:
        pool.takes(SERVICE)
        running.stop()
    rows = []
    for name, service, begin in [("slower", SLOW, changes[1]), ("recovered", SERVICE, changes[2])]:
        able = CONNECTIONS / service
        found = [answers.goodput(begin + second, begin + second + 2) for second in range(seconds - 2)]
        reached = next((second for second, rate in enumerate(found) if rate >= 0.9 * able), seconds)
        rows.append(Row(f"{name}: until 90 % of {able:.0f}/s", [reached], "s", target=Target(SETTLED)))
        settled = answers.goodput(begin + SETTLED, begin + seconds - 1)
        rows.append(Row(f"{name}: after {SETTLED} s, below {able:.0f}/s by", [100 * (1 - settled / able)], "%", target=Target(REGRET)))
    return Section(f"{server}, auto: back end 4 × slower, then as before", rows)


@contextmanager
def busy(number):
    """Other programs that want as much of the processors as they can get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def add_options(parser):
    parser.add_argument("--backpressure-seconds", type=int, default=10, help="of load for each fixed limit (10)")
    parser.add_argument("--backpressure-beside", type=int, default=0, help="busy loops beside that (0)")


def sections(options, installation):
    pool = Pool(options, str(installation.root))
    seconds = options.backpressure_seconds
    with busy(options.backpressure_beside):
        for server in ["gunicorn", "granian"]:
            yield overload(pool, server, seconds)
            yield below(pool, server, 2 * seconds)
            yield change(pool, server, 2 * seconds)
        yield others(pool, seconds)
