"""How clients are dealt out among four workers: rows for scripts/bench, with the real servers.

Each contestant is a server by itself or the same behind mcp-launch, and all take turns. Three promises are looked at:
even (64 keep-alive connections), exact (4 x 16 slow requests), only to those that can (one worker stopped or blocked);
and what all of it costs with wrk, in requests and in CPU time, next to the same server against itself.
"""

import asyncio
import collections
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import Row, Section, Target
from guard import Field, Server, free_port, percentile, throughput
from launcher import progress

WORKERS = 4
CAPACITY = 16
CONNECTIONS = 64
SLOW = 1.5

APP = '''
import asyncio
import os
import time

NAME = str(os.getpid()).encode()
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(NAME))]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
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
        until = time.monotonic() + 30
        while len(names(port, 40)) < WORKERS and time.monotonic() < until:
            time.sleep(0.1)
        return running

    return start


def request(path, close=True):
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{'Connection: close' if close else ''}\r\n\r\n".replace("\r\n\r\n\r\n", "\r\n\r\n").encode()


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
    """The workers that answer so many fresh connections."""
    found = set()
    for _ in range(count):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                found.add(ask_on(client, close=True)[1])
        except (OSError, ValueError):
            pass
    return found


def spread(port, at_once):
    """How 64 keep-alive connections are spread: the most that a worker has, as a multiple of the mean."""
    clients = []
    counts = collections.Counter()
    try:
        if at_once:
            for _ in range(CONNECTIONS):
                client = socket.socket()
                client.settimeout(10)
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                clients.append(client)
            for client in clients:
                client.settimeout(10)
                counts[ask_on(client)[1]] += 1
        else:
            for _ in range(CONNECTIONS):
                client = socket.create_connection(("127.0.0.1", port), timeout=10)
                clients.append(client)
                counts[ask_on(client)[1]] += 1
    finally:
        for client in clients:
            client.close()
    time.sleep(0.1)
    return max(counts.values()) / (CONNECTIONS / WORKERS)


async def fresh(port, path, patience=10):
    """Status of a request on a connection of its own, none if there is no answer; and how long it took."""
    start = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(path))
            status = int((await reader.readline()).split()[1])
    except (TimeoutError, OSError, IndexError, ValueError):
        status = None
    finally:
        if writer is not None:
            writer.close()
    return status, time.monotonic() - start


async def slow_ones(port, count, pause):
    """How many of so many slow requests are answered, and the times of the refusals."""
    asked = []
    for _ in range(count):
        asked.append(asyncio.ensure_future(fresh(port, "/slow")))
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
        status, took = await fresh(port, "/", patience=2)
        failed += status != 200
        times.append(took)
    return failed, times


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def cpu_seconds(pid):
    ticks = 0
    for each in [pid, *children(pid)]:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def evenness(field, rounds):
    ways = {
        "Gunicorn, uvicorn workers": contestant(field, "gunicorn", "uvicorn_worker.UvicornWorker", launched=False),
        "the same, mcp-launch": contestant(field, "gunicorn", "uvicorn_worker.UvicornWorker"),
        "Gunicorn, asgi": contestant(field, "gunicorn", "asgi", launched=False),
        "the same, mcp-launch ": contestant(field, "gunicorn", "asgi"),
        "Granian": contestant(field, "granian", launched=False),
        "the same, mcp-launch  ": contestant(field, "granian"),
    }
    for at_once in (False, True):
        rows = []
        for name, start in ways.items():
            running = start()
            try:
                taken = [spread(running.port, at_once) for _ in range(rounds)]
            finally:
                running.stop()
            target = Target(1.75 if at_once else 1.5) if "mcp-launch" in name else None
            rows.append(Row(name.strip(), taken, "", target=target, note=f"worst {max(taken):.2f}"))
        kind = "at once" if at_once else "one by one"
        yield Section(f"64 keep-alive connections {kind}: most / mean", rows)


def exactness(field, rounds):
    limits = {"GUNICORN_BACKPRESSURE": str(CAPACITY), "GRANIAN_BACKPRESSURE": str(CAPACITY)}
    ways = {
        "Gunicorn, uvicorn workers": contestant(field, "gunicorn", "uvicorn_worker.UvicornWorker", **limits),
        "Gunicorn, asgi": contestant(field, "gunicorn", "asgi", **limits),
        "Granian": contestant(field, "granian", **limits),
    }
    for name, start in ways.items():
        running = start()
        try:
            rows, refusals = [], []
            for count, pause in [(64, 0.004), (64, 0), (48, 0), (80, 0.004), (80, 0)]:
                taken = []
                for _ in range(rounds):
                    admitted, refused = asyncio.run(slow_ones(running.port, count, pause))
                    taken.append(admitted)
                    refusals += refused
                how = f"of {count}, {'one every 4 ms' if pause else 'at once'}"
                rows.append(Row(how, taken, "", note=f"least {min(taken)}, most {max(taken)}"))
            if refusals:
                rows.append(Row("a refusal, p50", [percentile(refusals, 0.5)]))
                rows.append(Row("a refusal, p99", [percentile(refusals, 0.99)], target=Target(50)))
        finally:
            running.stop()
        yield Section(f"4 x 16, slow requests admitted: {name}", rows)


def silence(field, rounds):
    ways = {
        "Gunicorn": contestant(field, "gunicorn", "uvicorn_worker.UvicornWorker", launched=False),
        "Gunicorn, mcp-launch": contestant(field, "gunicorn", "uvicorn_worker.UvicornWorker"),
        "Granian": contestant(field, "granian", launched=False),
        "Granian, mcp-launch": contestant(field, "granian"),
    }
    for how in ("stopped", "in time.sleep", "blocked for 0.3 s again and again"):
        rows = []
        for name, start in ways.items():
            failed, all_times = 0, []
            running = start()
            try:
                for _ in range(rounds):
                    lost, times = one_silent(running, how)
                    failed += lost
                    all_times += times
            finally:
                running.stop()
            rows.append(Row(f"{name}: failed", [failed / len(all_times) * 100], "%"))
            rows.append(Row(f"{name}: p50", [percentile(all_times, 0.5)]))
            rows.append(Row(f"{name}: p99", [percentile(all_times, 0.99)]))
        yield Section(f"One of four {how}: fresh requests", rows)


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
                        await fresh(running.port, "/block?0.3")

                blocking = asyncio.ensure_future(block())
                found = await while_silent(running.port, 2.5)
                await blocking
                return found

            found = asyncio.run(both())
    time.sleep(0.3)
    return found


def load(running, path, seconds, close):
    """Milliseconds per request as the clients see it, and CPU milliseconds per 1000 requests."""
    before = cpu_seconds(running.process.pid)
    argv = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--latency"]
    argv += ["--header", "Connection: close"] if close else []
    text = subprocess.run([*argv, f"http://127.0.0.1:{running.port}{path}"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text:
        sys.exit(f"bench: {path} is not answered 200:\n{text}")
    used = cpu_seconds(running.process.pid) - before
    line = next(line for line in text.splitlines() if "requests in" in line)
    requests = int(line.split()[0])
    rate = float(next(line for line in text.splitlines() if "Requests/sec" in line).split()[1])
    return 1000 / rate, used * 1e6 / requests


def cost(field, rounds, seconds):
    bare = "Gunicorn"
    ways = {
        bare: lambda of: contestant(field, "gunicorn", of, launched=False),
        "Gunicorn again": lambda of: contestant(field, "gunicorn", of, launched=False),
        "mcp-launch, balance off": lambda of: contestant(field, "gunicorn", of, MCP_LAUNCH_BALANCE="off"),
        "mcp-launch": lambda of: contestant(field, "gunicorn", of),
    }
    loads = {
        "empty app, keep-alive": ("/", False, Target(1 / 0.95, "ratio")),
        "empty app, fresh connections": ("/", True, Target(1 / 0.95, "ratio")),
        "20 ms app, keep-alive": ("/database", False, None),
    }
    for of in ("uvicorn_worker.UvicornWorker", "asgi"):
        running = {}
        try:
            for name, start in ways.items():
                running[name] = start(of)()
            taken = {(what, name): [] for what in loads for name in ways}
            for turn in range(-1, rounds):
                for what, (path, close, _) in loads.items():
                    order = list(ways)
                    random.shuffle(order)
                    for name in order:
                        found = load(running[name], path, seconds, close)
                        if turn >= 0:
                            taken[what, name].append(found)
                progress(f"dealing, {of}", turn + 1, rounds)
        finally:
            for each in running.values():
                each.stop()
        for what, (_, _, target) in loads.items():
            for index, kind, unit in ((0, "time for a request", "ms"), (1, "CPU for a request", "us")):
                rows = [
                    Row(name, [pair[index] for pair in taken[what, name]], unit, target=target if name == "mcp-launch" else None)
                    for name in ways
                ]
                yield Section(f"{what}, {of.rpartition('.')[2]}: {kind}", rows, bare)


def add_options(parser):
    parser.add_argument("--dealing-rounds", type=int, default=9, help="turns of each contestant under load (9)")
    parser.add_argument("--dealing-part", action="append", help="evenness, exactness, silence, cost; may be repeated (all)")


def sections(options, installation):
    directory = str(installation.root)
    field = Field(options, directory)
    (Path(directory) / "dealing_app.py").write_text(APP.replace("SLOW", str(SLOW)))
    parts = options.dealing_part or ["evenness", "exactness", "silence", "cost"]
    if "evenness" in parts:
        yield from evenness(field, 5)
    if "exactness" in parts:
        yield from exactness(field, 3)
    if "silence" in parts:
        yield from silence(field, 2)
    if "cost" in parts and shutil.which("wrk"):
        yield from cost(field, options.dealing_rounds, 2)
