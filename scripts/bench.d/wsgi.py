"""What the guard costs an empty Flask and an empty Django app, and what idle connections cost Granian's clients.

The bare server and mcp-launch have the same class and number of threads, and take turns, each with one worker. What makes
such figures unsteady is avoided: all servers stay on one core and wrk on the others, because threads that wait for Python's
lock on several cores make each turn different; and the servers are started anew for each turn, because a process that
happens to have more threads stays slower by up to a tenth. The CPU time of one client's requests is compared, one after the
other: it depends least on what else runs. With 16 clients, threads that wait for each other make a bare server differ from
itself by a tenth. It is measured a second time as well: how much it differs from itself shows how much the other figures
can mean.
"""

import os
import random
import shutil
import socket
import sys
import time
from pathlib import Path

from dealing import load
from figures import Row, Section, Target
from guard import Field, Server, free_port, status_of
from launcher import progress

BACKPRESSURE, THREADS, CLIENTS = 62, 64, 16
APPS = {
    "Flask": '''
from flask import Flask

app = Flask(__name__)


@app.get("/")
@app.get("/health")
def home():
    return "ok"
''',
    "Django": '''
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="bench", ROOT_URLCONF=__name__)


def home(request):
    return HttpResponse("ok")


urlpatterns = [path("", home), path("health", home)]
app = get_wsgi_application()
''',
}
# A public incident: at night 26 connections were idle, and a quarter of 3 requests a second was refused or waited.
IDLE, PACE, INCIDENT_BACKPRESSURE = 26, 1 / 3, 16


def bare(field, server, app, backpressure, threads):
    """The server as it is started by hand."""
    port = free_port()
    if server == "gunicorn":
        own = ["--worker-class", "gthread", "--threads", str(threads), "--bind", f"127.0.0.1:{port}"]
    else:
        own = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
        own += ["--blocking-threads", str(threads), "--backpressure", str(backpressure)]
    argv = [f"{field.options.venv}/bin/{server}", "--workers", "1", *own, app]
    return Server(argv, {**field.environment(port), "PYTHONPATH": field.directory}, field.directory, port)


def launched(field, server, app, backpressure):
    limit = {f"{server.upper()}_BACKPRESSURE": str(backpressure)}
    return field.launched(server, app, **limit)


def one_turn(field, server, app, seconds):
    """Of each contestant, which is started for this turn only: time and CPU for a request of one client and of CLIENTS."""
    cores, contestants = os.sched_getaffinity(0), {}
    try:
        # Inherited by the servers, and then by wrk.
        os.sched_setaffinity(0, {min(cores)})
        contestants["bare"] = bare(field, server, app, 1024, THREADS)
        contestants["bare again"] = bare(field, server, app, 1024, THREADS)
        contestants["mcp-launch"] = launched(field, server, app, BACKPRESSURE)
        os.sched_setaffinity(0, cores - {min(cores)} or cores)
        for running in contestants.values():
            load(running, "/", 1, connections=CLIENTS)
        found = {name: () for name in contestants}
        for clients in (1, CLIENTS):
            for name in random.sample(list(contestants), len(contestants)):
                found[name] += load(contestants[name], "/", seconds, connections=clients)
        return found
    finally:
        os.sched_setaffinity(0, cores)
        for running in contestants.values():
            running.stop()


def cost(field, rounds, seconds):
    """Four sections for each app and server: CPU and time for a request of one client and of CLIENTS."""
    for title in APPS:
        app = f"bench_{title.lower()}:app"
        for server in ["gunicorn", "granian"]:
            turns = []
            for turn in range(rounds):
                turns.append(one_turn(field, server, app, seconds))
                progress(f"{title}, {server}", turn + 1, rounds)
            for index, clients, kind, unit in (
                (1, "one client", "CPU", "us"),
                (0, "one client", "time", "ms"),
                (3, f"{CLIENTS} clients", "CPU", "us"),
                (2, f"{CLIENTS} clients", "time", "ms"),
            ):
                names = ["bare", "bare again", "mcp-launch"]
                rows = [Row(name, [found[name][index] for found in turns], unit) for name in names]
                if index == 1:
                    rows[-1].target = Target(1.03, "ratio")
                yield Section(f"empty {title} app, {server}, {clients}: {kind} for a request", rows, "bare")


def held_connection(port):
    """One that has had an answer and is kept; None if it gets none."""
    client = socket.create_connection(("127.0.0.1", port), timeout=2)
    client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
    try:
        client.recv(4096)
    except OSError:
        pass
    return client


def incident(field, requests):
    app = "bench_flask:app"
    contestants = {
        "Granian alone": lambda: bare(field, "granian", app, INCIDENT_BACKPRESSURE, INCIDENT_BACKPRESSURE // 2),
        "Granian, mcp-launch": lambda: launched(field, "granian", app, INCIDENT_BACKPRESSURE),
    }
    for name, start in contestants.items():
        server = start()
        idle = []
        try:
            idle = [held_connection(server.port) for _ in range(IDLE)]
            answers = []
            for _ in range(requests):
                begun = time.monotonic()
                answers.append((status_of(server.port, "/"), time.monotonic() - begun))
                time.sleep(max(begun + PACE - time.monotonic(), 0))
        finally:
            for client in idle:
                client.close()
            server.stop()
        good = [took for status, took in answers if status == 200]
        target = Target(0) if "mcp-launch" in name else None
        rows = [
            Row("answered", [len(good)], ""),
            Row("refused or without an answer in 2 s", [len(answers) - len(good)], "", target=target),
            Row("slowest answer", [1000 * max(good, default=0)]),
        ]
        yield Section(f"{IDLE} idle connections and 3 requests/s, backpressure {INCIDENT_BACKPRESSURE}: {name}", rows)


def add_options(parser):
    parser.add_argument("--wsgi-rounds", type=int, default=9, help="turns with a WSGI app, bare and under mcp-launch (9)")


def sections(options, installation):
    directory = str(installation.root)
    for title, source in APPS.items():
        (Path(directory) / f"bench_{title.lower()}.py").write_text(source)
    field = Field(options, directory)
    if shutil.which("wrk"):
        yield from cost(field, options.wsgi_rounds, 2)
    else:
        print("bench: the cost for WSGI is left out: no wrk (apt-get install wrk)", file=sys.stderr)
    yield from incident(field, 60)
