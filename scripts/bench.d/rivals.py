"""mcp-launch next to what else runs four workers on one machine: rows for scripts/bench.

Servers alone and under other supervisors, in turns: each turn starts every contestant four times, in a random order, and
measures with each start what can follow each other. What a contestant cannot do at all is a row without a figure.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contestants import Running, all_contestants, write_apps
from crowd import CAPACITY, SLOW, WORKERS, ask_on, names, one_silent, request, slow_ones, wait_for_workers
from evenness import unevenness
from figures import Row, Section
from guard import Field, ask, pss
from launcher import progress

# How long a worker that is stopped may stay, and a server that was told to stop, in seconds, before it counts as never.
PATIENCE = 40
# Clients during a reload: some that come as fast as they are served, and some with slow requests.
FAST, LONG = 8, 4
# How long the servers are watched after a broken release and after the death of the main process, in seconds.
WATCHED = 8


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def reloads(running, number):
    """Requests lost, and all, of clients that come from before the first reload until all workers are new ones; and the
    seconds of each reload."""
    lost = answered = 0
    is_over = False

    async def client(path):
        nonlocal lost, answered
        while not is_over:
            status, _ = await ask(running.port, path, patience=5 + SLOW)
            lost += status != 200
            answered += status == 200
            if status is None:
                await asyncio.sleep(0.02)

    clients = [asyncio.ensure_future(client(path)) for path in [*FAST * ["/"], *LONG * ["/slow"]]]
    times = []
    for _ in range(number):
        before = await asyncio.to_thread(names, running.port, 60)
        running.note_processes()
        begun = time.monotonic()
        running.process.send_signal(signal.SIGHUP)
        while any(alive(int(pid)) for pid in before) and time.monotonic() < begun + PATIENCE:
            await asyncio.sleep(0.05)
        times.append(time.monotonic() - begun)
        await asyncio.sleep(0.5)
    is_over = True
    await asyncio.gather(*clients)
    return lost, lost + answered, times


def failing(port):
    """How many of the fresh requests of some seconds fail, and how many there are."""
    failed = asked = 0
    until = time.monotonic() + WATCHED
    while time.monotonic() < until:
        status, _ = asyncio.run(ask(port, "/", patience=2))
        failed, asked = failed + (status != 200), asked + 1
        time.sleep(0.02)
    return failed, asked


def broken_release(running, directory):
    """The share of fresh requests that fail after a reload with a syntax error in the app, in percent."""
    files = {path: path.read_text() for path in Path(directory).glob("rivals_*.py")}
    try:
        for path in files:
            path.write_text("def broken(:\n")
        running.process.send_signal(signal.SIGHUP)
        failed, asked = failing(running.port)
    finally:
        for path, text in files.items():
            path.write_text(text)
    return 100 * failed / asked


def main_killed(running):
    """The share of fresh requests that fail after the death of the main process, in percent, and what becomes of it."""
    running.note_processes()
    os.kill(running.main(), signal.SIGKILL)
    failed, asked = failing(running.port)
    serving = names(running.port, 60)
    if serving:
        os.kill(int(next(iter(serving))), signal.SIGKILL)
        time.sleep(5)
    again, until = set(), time.monotonic() + 10
    while len(again) < WORKERS and time.monotonic() < until:
        again |= names(running.port, 20)
    running.all.update(map(int, again))
    running.note_processes()
    note = "then nobody replaces workers" if again else "then nothing serves"
    return 100 * failed / asked, "then workers are replaced" if len(again) >= WORKERS else note


def hung(running):
    """The share of fresh requests that fail while a worker is stopped, in percent, and the seconds until that is gone;
    None for never."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        worker = int(ask_on(client, close=True)[1])
    os.kill(worker, signal.SIGSTOP)
    begun = time.monotonic()
    while alive(worker) and time.monotonic() < begun + PATIENCE:
        time.sleep(0.1)
    took = time.monotonic() - begun
    if not alive(worker):
        return took
    os.kill(worker, signal.SIGCONT)
    return None


def stop(running):
    """The seconds from SIGTERM until nothing is left, with an open stream; None for never. Whether a slow request that
    came before was answered."""
    running.note_processes()

    async def told():
        slow = asyncio.ensure_future(ask(running.port, "/slow", patience=5 + SLOW))
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        running.process.terminate()
        while time.monotonic() < begun + PATIENCE:
            if running.process.poll() is not None and not any(alive(pid) for pid in running.all):
                break
            await asyncio.sleep(0.02)
        took = time.monotonic() - begun
        return took if took < PATIENCE else None, (await slow)[0] == 200

    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(request("/stream"))
        while b"tick" not in client.recv(4096):
            pass
        # Read on, as a browser does, and leave when the server ends the stream.
        client.settimeout(None)
        reader = subprocess.Popen([sys.executable, "-c", READ_ON, str(client.fileno())], pass_fds=[client.fileno()])
        try:
            return asyncio.run(told())
        finally:
            reader.kill()
            reader.wait()


READ_ON = "import os, sys\nwhile os.read(int(sys.argv[1]), 65536):\n    pass"

# What is measured: a title and a unit for each.
STARTED, MEMORY = "from the start to the first answer", "memory of what is no worker, PSS"
EVEN = {order: f"64 keep-alive connections {text}, most / mean" for order, text in [("one-by-one", "one by one"), ("at-once", "at once")]}
EXACT, EXACT_MORE = "4 x 16: of 64 slow requests answered", "4 x 16: of 80 slow requests answered"
SILENT, HUNG = "one of four stopped: fresh requests failing", "a stopped worker is replaced after"
LOST, RELOAD = "requests lost in reloads", "a reload"
BROKEN, KILLED = "broken release: fresh requests failing", "main process killed: fresh requests failing"
STOP = "a stop with an open stream"
UNITS = {
    STARTED: "s",
    MEMORY: "MiB",
    **dict.fromkeys(EVEN.values(), ""),
    EXACT: "",
    EXACT_MORE: "",
    SILENT: "%",
    HUNG: "s",
    LOST: "",
    RELOAD: "s",
    BROKEN: "%",
    KILLED: "%",
    STOP: "s",
}


class Results:
    """Everything measured of one contestant."""

    def __init__(self):
        self.samples = {what: [] for what in UNITS}
        self.notes = {what: [] for what in UNITS}
        self.requests = 0

    def add(self, what, value, note=""):
        if value is not None:
            self.samples[what].append(value)
        if note and note not in self.notes[what]:
            self.notes[what].append(note)

    def row(self, name, what):
        return Row(name, self.samples[what], UNITS[what], note="; ".join(self.notes[what]))


def measure(field, contestant, results, number):
    """One turn."""
    with Running(field, contestant) as running:
        results.add(STARTED, running.started_after)
        results.add(MEMORY, pss(running.managers()) / 2**20)
        for order, what in EVEN.items():
            if contestant.keeps_connections:
                results.add(what, unevenness(field, f"127.0.0.1:{running.port}", "plain", order, 1)[0])
            else:
                results.add(what, None, "one connection per worker")
        if contestant.reloads:
            lost, asked, times = asyncio.run(reloads(running, number))
            results.requests += asked
            results.notes[LOST][:1] = [f"of {results.requests} in all"]
            results.add(LOST, lost)
            for seconds in times:
                results.add(RELOAD, seconds if seconds < PATIENCE else None, "" if seconds < PATIENCE else "some never end")
        else:
            for what in (LOST, RELOAD, BROKEN):
                results.add(what, None, "it has no reload")
        if running.answers():
            seconds, is_answered = stop(running)
            results.add(STOP, seconds, "" if seconds is not None else f"not within {PATIENCE} s")
            results.add(STOP, None, "" if is_answered else "a slow request was lost")
        else:
            results.add(LOST, None, "then nothing serves")
    with Running(field, contestant) as running:
        failed, times = one_silent(running, "stopped")
        results.add(SILENT, 100 * failed / len(times))
        results.add(HUNG, seconds := hung(running), "" if seconds is not None else f"not within {PATIENCE} s")
        if contestant.reloads:
            # A worker that was still to be started would import the broken app whoever runs it.
            wait_for_workers(running.port)
            results.add(BROKEN, broken_release(running, field.directory))
    with Running(field, contestant) as running:
        results.add(KILLED, *main_killed(running))
    if not contestant.has_limit:
        for what in (EXACT, EXACT_MORE):
            results.add(what, None, "it has no limit")
        return
    with Running(field, contestant, limited=True) as running:
        for what, more in [(EXACT, 0), (EXACT_MORE, 16)]:
            answered, refused = asyncio.run(slow_ones(running.port, WORKERS * CAPACITY + more, 0.004))
            results.add(what, answered)
            if more:
                quick = sum(took < 0.5 for took in refused)
                results.add(what, None, f"{quick} refused within 0.5 s")
            time.sleep(1)


def add_options(parser):
    parser.add_argument("--rivals-rounds", type=int, default=3, help="turns of mcp-launch and its rivals (3)")
    parser.add_argument("--rivals-reloads", type=int, default=20, help="reloads in all turns together (20)")
    parser.add_argument("--rival", action="append", help="only contestants whose name has this; may be repeated")


def sections(options, installation):
    directory = tempfile.mkdtemp(dir=installation.root)
    field = Field(options, directory)
    write_apps(directory)
    contestants = all_contestants(field)
    if options.rival:
        contestants = {name: way for name, way in contestants.items() if any(part in name for part in options.rival)}
    results = {name: Results() for name in contestants}
    rounds = options.rivals_rounds
    for turn in range(rounds):
        number = options.rivals_reloads * (turn + 1) // rounds - options.rivals_reloads * turn // rounds
        for name in random.sample(list(contestants), len(contestants)):
            measure(field, contestants[name], results[name], number)
        progress("rivals", turn + 1, rounds)
    for what in UNITS:
        yield Section(f"Rivals: {what}", [results[name].row(name, what) for name in contestants])
