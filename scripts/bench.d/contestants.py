"""What runs four workers on one machine: servers alone, under other supervisors, and behind mcp-launch."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crowd import APP, CAPACITY, SLOW, WORKERS, names, wait_for_workers
from guard import Server, free_port, processes

STREAM = '''    if path == "/stream":
        gone = asyncio.ensure_future(client_gone(receive))
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"data: tick\\n\\n", "more_body": True})
            await asyncio.wait([gone], timeout=0.1)
        return
'''
CLIENT_GONE = '''

async def client_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass
'''
WSGI = '''
import os
import time


def app(environ, start_response):
    # Asked each time, because uWSGI imports the app before it forks.
    name = str(os.getpid()).encode()
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(SLOW)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(name)))])
    return [name]


def events():
    while True:
        yield b"data: tick\\n\\n"
        time.sleep(0.1)
'''
SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile=%(directory)s/supervisord-%(port)d.pid

[fcgi-program:app]
socket=tcp://127.0.0.1:%(port)d
command=%(venv)s/bin/uvicorn --fd 0 --timeout-keep-alive 30 rivals_app:app
process_name=%%(process_num)d
numprocs=4
stopwaitsecs=30
stdout_logfile=NONE
stderr_logfile=NONE
"""


def write_apps(directory):
    """The app, for ASGI and for WSGI."""
    slow = '    if path == "/slow":'
    (Path(directory) / "rivals_app.py").write_text(APP.replace(slow, STREAM + slow).replace("SLOW", str(SLOW)) + CLIENT_GONE)
    (Path(directory) / "rivals_wsgi.py").write_text(WSGI.replace("SLOW", str(SLOW)))


@dataclasses.dataclass
class Contestant:
    """What runs four workers."""

    # From a port, and whether there is a limit of requests, to its command line.
    command: Callable
    environment: dict = dataclasses.field(default_factory=dict)
    # What is added to that for a limit of requests.
    limit: dict = dataclasses.field(default_factory=dict)
    # Whether SIGHUP has it replace its workers.
    reloads: bool = True
    # Whether one worker serves several connections at a time, which stay open.
    keeps_connections: bool = True
    has_limit: bool = False


def all_contestants(field):
    venv, directory, app = f"{field.options.venv}/bin", field.directory, "rivals_app:app"
    four = ["--workers", str(WORKERS)]

    def gunicorn(worker_class):
        own = ["--keep-alive", "30", "--worker-class", worker_class, *four, app]
        return Contestant(lambda port, limited: [f"{venv}/gunicorn", "--bind", f"127.0.0.1:{port}", *own])

    def granian(port, limited):
        own = ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), *four]
        return [f"{venv}/granian", *own, *(["--backpressure", str(CAPACITY)] if limited else []), app]

    def uvicorn(port, limited):
        own = ["--port", str(port), "--timeout-keep-alive", "30", *four]
        return [f"{venv}/uvicorn", *own, *(["--limit-concurrency", str(CAPACITY)] if limited else []), app]

    def hypercorn(port, limited):
        return ["hypercorn", "--bind", f"127.0.0.1:{port}", "--keep-alive", "30", *four, app]

    def supervisord(port, limited):
        path = Path(directory) / f"supervisord-{port}.conf"
        path.write_text(SUPERVISORD % {"directory": directory, "port": port, "venv": field.options.venv})
        return ["supervisord", "--configuration", str(path)]

    def uwsgi(port, limited):
        own = ["--pythonpath", directory, "--http-socket", f"127.0.0.1:{port}", "--master", "--die-on-term"]
        return ["uwsgi_python3", *own, "--need-app", "--processes", str(WORKERS), "--module", "rivals_wsgi:app"]

    def launched(server, *more):
        limit = {"GUNICORN_BACKPRESSURE": str(CAPACITY), "GRANIAN_BACKPRESSURE": str(CAPACITY)}
        command = lambda port, limited: [field.options.binary, "--server", server, *four, *more, app]
        return Contestant(command, {"GUNICORN_KEEP_ALIVE": "30"}, limit, has_limit=True)

    found = {
        "Gunicorn, uvicorn workers": gunicorn("uvicorn_worker.UvicornWorker"),
        "Gunicorn, asgi": gunicorn("asgi"),
        "Granian": Contestant(granian, has_limit=True),
        "uvicorn --workers": Contestant(uvicorn, has_limit=True),
        "hypercorn": Contestant(hypercorn, reloads=False),
        "supervisord, uvicorn": Contestant(supervisord),
        "uWSGI (WSGI)": Contestant(uwsgi, keeps_connections=False),
        "mcp-launch, Gunicorn": launched("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker"),
        "mcp-launch, Granian": launched("granian"),
    }
    for name, program in [("hypercorn", "hypercorn"), ("supervisord, uvicorn", "supervisord"), ("uWSGI (WSGI)", "uwsgi_python3")]:
        if not shutil.which(program):
            print(f"bench: {name} is left out: no {program}", file=sys.stderr)
            del found[name]
    return found


class Running:
    """A contestant that answers with all its workers. It ends with everything that it has started."""

    def __init__(self, field, contestant, limited=False):
        self.port = free_port()
        environment = {**field.environment(self.port), "PYTHONPATH": field.directory, "PATH": os.environ["PATH"]}
        environment |= contestant.environment | (contestant.limit if limited else {})
        begun = time.monotonic()
        self.process = Server(contestant.command(self.port, limited), environment, field.directory, self.port).process
        self.started_after = time.monotonic() - begun
        wait_for_workers(self.port)
        self.all = set()
        self.note_processes()

    def note_processes(self):
        """Those of now are ended at the end, whoever is their parent then."""
        if self.process.poll() is None:
            self.all.update(list(processes(self.process.pid))[1:])

    def answers(self):
        """Whether it answers, or comes to that within half a minute."""
        until = time.monotonic() + 30
        while not names(self.port, 1):
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def main(self):
        """The server's main process, which is mcp-launch's child if there is one."""
        is_ours = Path(f"/proc/{self.process.pid}/comm").read_text().startswith("mcp-launch")
        own, *others = processes(self.process.pid)
        return others[0] if is_ours else own

    def managers(self):
        """All its processes that serve nobody."""
        workers = names(self.port, 60)
        return [pid for pid in processes(self.process.pid) if str(pid).encode() not in workers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.note_processes()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.note_processes()
            self.process.kill()
            self.process.wait()
        for pid in self.all:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
