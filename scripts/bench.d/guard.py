"""What the guard costs, and what it achieves: rows for scripts/bench, with the real servers.

Contestants take turns, each on one worker, with wrk on another core. A ratio is the median of the ratios within a
turn. What happens under overload is shown side by side: a server alone, and the same one under mcp-launch.
"""

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from figures import Row, Section, Target
from launcher import progress

LIMIT = 60  # seconds that anything may take to start or to end
CAPACITY = 8  # requests that a worker may have in flight, in the overload test
CLIENTS = 3 * CAPACITY
SLOW = 0.5  # seconds that a request takes then
PATIENCE = 2.0  # seconds that a client waits

APP = '''
import asyncio

from lifespan import serve_lifespan

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    if scope["path"] == "/slow":
        await asyncio.sleep(SLOW)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A responsive server with one worker, under mcp-launch or alone."""

    def __init__(self, argv, environment, directory, port, log=subprocess.DEVNULL):
        self.port = port
        self.process = subprocess.Popen(
            argv,
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + LIMIT
        while status_of(port, "/health") != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                sys.exit(f"bench: it does not start: {' '.join(argv)}")
            time.sleep(0.05)

    def memory(self):
        """Proportional set size of all its processes, in bytes."""
        return pss(processes(self.process.pid))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def pss(pids):
    """Proportional set size of these processes, in bytes."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    sizes = [re.search(r"^Pss: +(\d+) kB", rollup, re.M) for rollup in rollups]
    return sum(int(size.group(1)) * 1024 for size in sizes if size)


def processes(pid):
    """A process and all that descend from it: parents before their children."""
    pids = [pid]
    for pid in pids:
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, task.read_text().split())


def status_of(port, path):
    """The status of one response, or None if there was none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            return int(client.recv(64).split()[1])
    except (OSError, IndexError, ValueError):
        return None


class Field:
    """Everything that is needed to start a contestant."""

    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        (Path(directory) / "bench_app.py").write_text(APP.replace("SLOW", str(SLOW)))
        shutil.copy(Path(__file__).parents[2] / "tests/apps/lifespan.py", directory)

    def environment(self, port, **more):
        venv = self.options.venv
        return {
            "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": self.directory,
            "VIRTUAL_ENV": venv,
            "XDG_RUNTIME_DIR": self.directory,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            **more,
        }

    def launched(self, server, app="bench_app:app", **settings):
        """Under mcp-launch, with one worker."""
        port = free_port()
        argv = [self.options.binary, "--server", server, "--workers", "1", app]
        return Server(argv, self.environment(port, **settings), self.directory, port)

    def alone(self, server, app="bench_app:app"):
        """As started by hand, with one worker; Granian gets the capacity as its own backpressure."""
        port = free_port()
        if server == "gunicorn":
            own = ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
        else:
            own = ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--backpressure", str(CAPACITY)]
        argv = [f"{self.options.venv}/bin/{server}", "--workers", "1", *own, app]
        return Server(argv, {**self.environment(port), "PYTHONPATH": self.directory}, self.directory, port)


def throughput(port, path, connections, seconds):
    """Requests per second and the 99th percentile in milliseconds, as measured by wrk."""
    argv = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency"]
    output = subprocess.run([*argv, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    text = output.stdout
    if "Non-2xx" in text:
        sys.exit(f"bench: {path} is not answered with 200:\n{text}")
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)), float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


# Contestants, and how they are set up; {} is the server.
WITHOUT, WITH, ADAPTIVE = "without the guard", "with it", "with it and a limit that adapts"
EVERYTHING = "with all that it can do"
GUARDS = {
    WITHOUT: {"MCP_LAUNCH_GUARD": "off"},
    WITH: {"{}_BACKPRESSURE": "512"},
    ADAPTIVE: {"{}_BACKPRESSURE": "auto"},
    # Reports of what a worker does, and of workers that spin, are always on.
    EVERYTHING: {"{}_BACKPRESSURE": "auto", "MCP_LAUNCH_REQUEST_TIMEOUT": "30s,/export=5m"},
}


def cost(field, title, app, path, rounds, seconds, fresh=False, **settings):
    """Sections with and without the guard, for both servers, in turns. Two processes of the same program differ by up to
    a tenth from each other (where its memory lies, the seed of its hashes): with `fresh`, each turn has its own."""
    servers = {}
    taken = {(server, guard): [] for server in ["gunicorn", "granian"] for guard in GUARDS}
    try:
        for turn in range(rounds):
            if fresh or not servers:
                stop_all(servers)
                for server, guard in taken:
                    own = {name.format(server.upper()): value for name, value in GUARDS[guard].items()}
                    servers[server, guard] = field.launched(server, app, **own, **settings)
                for running in servers.values():
                    throughput(running.port, path, 32, 1)
            order = list(servers)
            random.shuffle(order)
            for name in order:
                taken[name].append(throughput(servers[name].port, path, 32, seconds))
            progress(f"guard, {title}", turn + 1, rounds)
    finally:
        stop_all(servers)
    for server in ["gunicorn", "granian"]:
        target = Target(1 / 0.95, "ratio") if path == "/" else None
        # Time per request, so that more is worse, as in all other rows.
        times = [
            Row(guard, [1000 / rate for rate, _ in taken[server, guard]], target=None if guard == WITHOUT else target)
            for guard in GUARDS
        ]
        tails = [Row(guard, [tail for _, tail in taken[server, guard]]) for guard in GUARDS]
        yield Section(f"{title}, {server}: time for a request", times, WITHOUT)
        yield Section(f"{title}, {server}: p99 of 32 clients", tails, WITHOUT)


def stop_all(servers):
    while servers:
        servers.popitem()[1].stop()


async def ask(port, path, patience=PATIENCE):
    """One request on a connection of its own: status (none: no answer in time) and seconds."""
    start = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            status = int((await reader.readline()).split()[1])
    except (TimeoutError, OSError, IndexError, ValueError):
        status = None
    finally:
        if writer is not None:
            writer.close()
    return status, time.monotonic() - start


async def crowd(port, seconds):
    """Three times as many clients as the capacity send requests; another one requests the health path at the same time."""
    until = time.monotonic() + seconds
    answers, health = [], []

    async def client():
        while time.monotonic() < until:
            answer = await ask(port, "/slow")
            answers.append(answer)
            if answer[0] == 503:
                # As Retry-After requests, on the scale of this test.
                await asyncio.sleep(SLOW / 5)

    async def prober():
        while time.monotonic() < until:
            health.append(await ask(port, "/health"))
            await asyncio.sleep(0.1)

    await asyncio.gather(prober(), *(client() for _ in range(CLIENTS)))
    return answers, health


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000


def overload(field, seconds):
    """A section for each server alone and under mcp-launch: what happens to requests beyond the capacity."""
    limits = {"GUNICORN_BACKPRESSURE": str(CAPACITY), "GRANIAN_BACKPRESSURE": str(CAPACITY)}
    contestants = {
        "Gunicorn alone": lambda: field.alone("gunicorn"),
        "Gunicorn, mcp-launch": lambda: field.launched("gunicorn", **limits),
        "Granian alone": lambda: field.alone("granian"),
        "Granian, mcp-launch": lambda: field.launched("granian", **limits),
    }
    for done, (name, start) in enumerate(contestants.items()):
        progress("overload", done, len(contestants))
        server = start()
        try:
            answers, health = asyncio.run(crowd(server.port, seconds))
            memory = server.memory()
        finally:
            server.stop()
        answered = [took for status, took in answers if status == 200]
        rejected = [took for status, took in answers if status == 503]
        rows = [
            Row("answered", [len(answered)], ""),
            Row("rejected with 503", [len(rejected)], ""),
            Row("timed out", [sum(status is None for status, _ in answers)], ""),
        ]
        for what, times in [("an answer", answered), ("a 503", rejected), ("/health", [took for _, took in health])]:
            if times:
                # The documented limit for a saturated server.
                most = Target(50) if what == "a 503" else None
                rows.append(Row(f"{what}, p50", [percentile(times, 0.5)], target=most))
                rows.append(Row(f"{what}, p99", [percentile(times, 0.99)]))
        rows.append(Row("/health, failed", [sum(status != 200 for status, _ in health)], ""))
        rows.append(Row("memory in all, PSS", [memory / 2**20], "MiB"))
        yield Section(f"{CLIENTS} clients, capacity {CAPACITY}: {name}", rows)
    progress("overload", len(contestants), len(contestants))


def gateway_settings():
    return {
        "JWT_SECRET_KEY": os.urandom(32).hex(),
        "AUTH_ENCRYPTION_SECRET": os.urandom(32).hex(),
        "PLATFORM_ADMIN_PASSWORD": os.urandom(16).hex() + "-Aa1",
        "RATE_LIMITING_ENABLED": "false",
        "LOG_LEVEL": "ERROR",
    }


def add_options(parser):
    parser.add_argument("--guard-rounds", type=int, default=9, help="turns with the guard and without (9)")


def sections(options, installation):
    if not shutil.which("wrk"):
        print("bench: the guard is left out: no wrk (apt-get install wrk)", file=sys.stderr)
        return
    directory = str(installation.root)
    field = Field(options, directory)
    yield from cost(field, "empty app", "bench_app:app", "/", options.guard_rounds, 3, fresh=True)
    database = {"DATABASE_URL": f"sqlite:///{directory}/mcp.db", **gateway_settings()}
    # The first start creates the database, so it runs alone.
    field.launched("granian", "mcpgateway.main:app", **database).stop()
    rounds = max(options.guard_rounds // 2, 3)
    yield from cost(field, "gateway's /health", "mcpgateway.main:app", "/health", rounds, 3, **database)
    yield from overload(field, 10)
