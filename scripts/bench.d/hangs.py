"""Requests that hang, on servers with a time limit: rows for scripts/bench.

One request hangs at a time, in one of three ways, while others come all the time. What counts is whether the log names the
line where it hung, how many of the others were lost, and how long it took until the hanging request was over. All servers
have four workers and the same limit.
"""

import asyncio
import itertools
import re
import shutil
import sys
import time
from pathlib import Path

from figures import Row, Section, Target
from guard import Field, Server, ask, free_port
from launcher import progress

WORKERS, LIMIT = 4, 2
# How long a client of a hanging request waits, in seconds: then it counts as never over. How long the others wait.
PATIENCE, INNOCENT_PATIENCE = 10, 10
# Others at a time, on connections of their own.
INNOCENTS = 4
# How long after its end the log may name the line, and until the next one hangs.
PAUSE = 1.0

KINDS = {
    "/await": "a wait for what never comes",
    "/sleep": "time.sleep in the event loop",
    "/regex": "a C call that keeps the GIL",
}
PATTERN = 're.match("(a+)+$", 60 * "a" + "b")'
ASGI = f'''
import asyncio
import re
import time

from lifespan import serve_lifespan


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    path = scope["path"]
    if path == "/innocent":
        await asyncio.sleep(0.1)
    elif path == "/await":
        await asyncio.Event().wait()
    elif path == "/sleep":
        time.sleep(3600)
    elif path == "/regex":
        {PATTERN}
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": b"ok"}})
'''
WSGI = f'''
import re
import threading
import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/innocent":
        time.sleep(0.1)
    elif path == "/await":
        threading.Event().wait()
    elif path == "/sleep":
        time.sleep(3600)
    elif path == "/regex":
        {PATTERN}
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
'''
CULPRITS = {"/await": "Event().wait()", "/sleep": "time.sleep(3600)", "/regex": "re.match"}


def line_of(source, path):
    """The number of the line where such a request hangs."""
    lines = source.splitlines()
    return next(number for number, line in enumerate(lines, 1) if CULPRITS[path] in line)


class Contestant:
    def __init__(self, name, source, start):
        self.name, self.source, self.start = name, source, start

    def names_line(self, path):
        """What the log contains if it names the line."""
        module = "hangs_asgi" if self.source is ASGI else "hangs_wsgi"
        return re.compile(rf'{module}\.py"?,? (?:line|lineno =) {line_of(self.source, path)}\b')


def contestants(field):
    directory = Path(field.directory)
    (directory / "hangs_asgi.py").write_text(ASGI)
    (directory / "hangs_wsgi.py").write_text(WSGI)
    limits = {"MCP_LAUNCH_REQUEST_TIMEOUT": f"{LIMIT}s", "MCP_LAUNCH_WORKER_TIMEOUT": f"{LIMIT}s"}

    def run(log, *argv, **environment):
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in argv]
        return Server(words, {**field.environment(port), **environment}, field.directory, port, log)

    def ours(server):
        argv = [field.options.binary, "--server", server, "--workers", str(WORKERS), "hangs_asgi:app"]
        return lambda log: run(log, *argv, **limits)

    gunicorn = [f"{field.options.venv}/bin/gunicorn", "--bind", "127.0.0.1:PORT", "--workers", str(WORKERS)]
    gunicorn += ["--timeout", str(LIMIT)]
    uvicorn_class = ["--worker-class", "uvicorn_worker.UvicornWorker"]
    found = [
        Contestant("mcp-launch, Gunicorn (uvicorn)", ASGI, ours("gunicorn")),
        Contestant("mcp-launch, Granian", ASGI, ours("granian")),
        Contestant("Gunicorn, uvicorn workers", ASGI, lambda log: run(log, *gunicorn, *uvicorn_class, "hangs_asgi:app")),
        Contestant("Gunicorn, sync workers", WSGI, lambda log: run(log, *gunicorn, "hangs_wsgi:app")),
    ]
    uwsgi = shutil.which("uwsgi_python3")
    if uwsgi:
        argv = [uwsgi, "--pythonpath", field.directory, "--http-socket", "127.0.0.1:PORT", "--master", "--need-app"]
        argv += ["--processes", str(WORKERS), "--enable-threads", "--die-on-term", "--module", "hangs_wsgi:app"]
        argv += ["--harakiri", str(LIMIT), "--harakiri-verbose", "--py-tracebacker", f"{field.directory}/traces"]
        found.append(Contestant("uWSGI, harakiri", WSGI, lambda log: run(log, *argv)))
    else:
        print("bench: uWSGI is left out (apt-get install uwsgi-plugin-python3)", file=sys.stderr)
    return found


class Trial:
    """What happened to hanging requests of one kind, and to the others meanwhile."""

    def __init__(self, port, log):
        self.port, self.log = port, log
        self.hung = self.named = self.innocents = self.lost = 0
        self.took = []

    async def run(self, path, pattern, number):
        is_over = False

        async def innocent():
            while not is_over:
                status, _ = await ask(self.port, "/innocent", INNOCENT_PATIENCE)
                self.innocents += 1
                self.lost += status != 200
                if status is None:
                    await asyncio.sleep(0.02)

        innocents = [asyncio.ensure_future(innocent()) for _ in range(INNOCENTS)]
        for _ in range(number):
            await self.hang(path, pattern)
        is_over = True
        await asyncio.gather(*innocents)

    async def hang(self, path, pattern):
        before = self.log.stat().st_size
        _, seconds = await ask(self.port, path, PATIENCE)
        until = time.monotonic() + PAUSE
        is_named = False
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            is_named = is_named or pattern.search(self.log.read_bytes()[before:].decode("utf-8", "replace")) is not None
        self.hung += 1
        self.named += is_named
        self.took.append(seconds)


def trial(contestant, path, number, log):
    """Starts the contestant anew, so that nothing is left over from another kind."""
    log.write_bytes(b"")
    with log.open("ab") as output:
        running = contestant.start(output)
    try:
        found = Trial(running.port, log)
        asyncio.run(found.run(path, contestant.names_line(path), number))
        return found
    finally:
        running.stop()


def add_options(parser):
    parser.add_argument("--hangs", type=int, default=100, help="requests that hang, of all three kinds (100)")
    kinds = [path.strip("/") for path in KINDS]
    parser.add_argument("--hang", choices=kinds, action="append", help="only this kind; may be given more than once")


def sections(options, installation):
    field = Field(options, str(installation.root))
    runners, log = contestants(field), installation.root / "log"
    shares = [options.hangs // 3 + (rest < options.hangs % 3) for rest in range(3)]
    wanted = [(path, number) for path, number in zip(KINDS, shares, strict=True) if path.strip("/") in (options.hang or path)]
    done, turns = itertools.count(1), len(wanted) * len(runners)
    for path, number in wanted:
        title = KINDS[path]
        named, lost, took = [], [], []
        for contestant in runners:
            found = trial(contestant, path, number, log)
            progress("hangs", next(done), turns)
            is_ours = contestant.name.startswith("mcp-launch")
            note = f"{found.named} of {found.hung}"
            named.append(Row(contestant.name, [100 * found.named / found.hung], "%", note=note))
            target = Target(0) if is_ours and path == "/await" else None
            lost.append(Row(contestant.name, [found.lost], "", target=target, note=f"of {found.innocents}"))
            never = sum(seconds >= PATIENCE for seconds in found.took)
            note = f"{never} of {found.hung} were not over after {PATIENCE} s" if never else ""
            took.append(Row(contestant.name, found.took, "s", note=note))
        yield Section(f"{title}: the log names the line", named)
        yield Section(f"{title}: innocent requests lost", lost)
        yield Section(f"{title}: until it is over", took)
