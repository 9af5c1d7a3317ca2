"""mcp-launch next to what else distributes clients among four workers of one machine: rows for scripts/bench."""

import asyncio
import os
import signal
import subprocess
import time

from crowd import CAPACITY, WORKERS, children, contestant, names, one_silent, slow_ones
from evenness import TITLES, unevenness
from figures import Row, Section
from guard import Server, ask, free_port

RELOADS = 3
# How long a worker that is stopped may stay, in seconds, before it is said that nobody replaces it.
PATIENCE = 45
# Clients that come as fast as they are served, during a reload.
FAST = 8


def alone(field, *argv, **settings):
    """A function that starts a server without mcp-launch."""

    def start():
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in argv]
        environment = {**field.environment(port), "PYTHONPATH": field.directory, **settings}
        running = Server([f"{field.options.venv}/bin/{words[0]}", *words[1:]], environment, field.directory, port)
        until = time.monotonic() + 30
        while len(names(port, 40)) < WORKERS and time.monotonic() < until:
            time.sleep(0.1)
        return running

    return start


def all_ways(field, limited):
    """The contestants. With a limit where they have one, only those."""
    four, app = ["--workers", str(WORKERS)], "dealing_app:app"
    gunicorn = ["gunicorn", "--bind", "127.0.0.1:PORT", "--keep-alive", "30", *four]
    uvicorn_class = ["--worker-class", "uvicorn_worker.UvicornWorker"]
    granian = ["granian", "--interface", "asgi", "--port", "PORT", *four]
    uvicorn = ["uvicorn", "--port", "PORT", "--timeout-keep-alive", "30", *four]
    ours = {"GUNICORN_BACKPRESSURE": str(CAPACITY), "GRANIAN_BACKPRESSURE": str(CAPACITY)} if limited else {}
    ways = {
        "Granian": alone(field, *granian, *(["--backpressure", str(CAPACITY)] if limited else []), app),
        "uvicorn --workers": alone(field, *uvicorn, *(["--limit-concurrency", str(CAPACITY)] if limited else []), app),
        "mcp-launch, Gunicorn": contestant(field, "gunicorn", "uvicorn_worker.UvicornWorker", **ours),
        "mcp-launch, Granian": contestant(field, "granian", **ours),
    }
    if limited:
        return ways
    return {
        "Gunicorn, uvicorn workers": alone(field, *gunicorn, *uvicorn_class, app),
        "Gunicorn, asgi": alone(field, *gunicorn, "--worker-class", "asgi", app),
        "Gunicorn --reuse-port": alone(field, *gunicorn, *uvicorn_class, "--reuse-port", app),
        **ways,
    }


def rivals(field):
    for order in TITLES:
        rows = []
        for name, running in started(all_ways(field, False)):
            taken = unevenness(field, f"127.0.0.1:{running.port}", "plain", order, 5)
            rows.append(Row(name, taken, "", note=f"worst {max(taken):.2f}"))
        yield Section(f"Rivals: 64 connections {TITLES[order]}, most / mean", rows)
    yield from exactness(field)
    for title, unit, measure in [
        ("Rivals: fresh requests failing, one of four stopped", "%", silence),
        (f"Rivals: requests lost in {RELOADS} reloads", "", reloads),
        ("Rivals: a stopped worker is replaced after", "s", hung),
        ("Rivals: fresh requests failing, main process killed", "%", killed),
    ]:
        rows = []
        for name, running in started(all_ways(field, False)):
            value, note = measure(running)
            rows.append(Row(name, [value], unit, note=note))
        yield Section(title, rows)


def started(ways):
    for name, start in ways.items():
        running = start()
        try:
            yield name, running
        finally:
            end(running)


def end(running):
    """Ends it, whatever was done to it, and those of its processes that outlive it."""
    everything = children(running.process.pid) if running.process.poll() is None else []
    everything += getattr(running, "orphans", [])
    running.process.terminate()
    try:
        running.process.wait(10)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
    for pid in everything:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def exactness(field):
    """64 slow requests that the workers may have together, one every 4 ms, and 16 more."""
    rows = []
    for name, running in started(all_ways(field, True)):
        admitted, _ = asyncio.run(slow_ones(running.port, WORKERS * CAPACITY, 0.004))
        asyncio.run(asyncio.sleep(1))
        begun = time.monotonic()
        answered, refused = asyncio.run(slow_ones(running.port, WORKERS * CAPACITY + 16, 0.004))
        quick = sum(took < 0.5 for took in refused)
        note = f"of 80: {answered} answered, {quick} refused within 0.5 s, all over after {time.monotonic() - begun:.1f} s"
        rows.append(Row(name, [admitted], "", note=note))
    yield Section("Rivals: 4 x 16, of 64 slow requests answered", rows)


def silence(running):
    failed, times = one_silent(running, "stopped")
    return 100 * failed / len(times), f"of {len(times)}"


def main_process(running):
    """The server's, which is mcp-launch's child if there is one."""
    with open(f"/proc/{running.process.pid}/comm") as name:
        is_ours = not name.read().startswith(("gunicorn", "granian", "uvicorn", "python"))
    return children(running.process.pid)[0] if is_ours else running.process.pid


def reloads(running):
    """Failures of fast clients, from before the first reload until all workers are new ones."""

    async def load():
        lost = answered = 0
        is_over = False

        async def client():
            nonlocal lost, answered
            while not is_over:
                status, _ = await ask(running.port, "/", patience=5)
                lost += status != 200
                answered += status == 200

        clients = [asyncio.ensure_future(client()) for _ in range(FAST)]
        begun = time.monotonic()
        for _ in range(RELOADS):
            before = await asyncio.to_thread(names, running.port, 60)
            running.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 40
            while any(alive(int(pid)) for pid in before) and time.monotonic() < until:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
        took = (time.monotonic() - begun) / RELOADS
        is_over = True
        await asyncio.gather(*clients)
        return lost, f"of {lost + answered}, {took:.1f} s a reload"

    return asyncio.run(load())


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def hung(running):
    worker = int(names(running.port, 1).pop())
    os.kill(worker, signal.SIGSTOP)
    begun = time.monotonic()
    while alive(worker) and time.monotonic() < begun + PATIENCE:
        time.sleep(0.1)
    took = time.monotonic() - begun
    return took, "never, it seems" if alive(worker) else ""


def killed(running):
    """Failures in the 8 s after the main process was killed, and whether a dead worker is replaced afterwards."""
    main = main_process(running)
    running.orphans = children(main) if main == running.process.pid else []
    os.kill(main, signal.SIGKILL)
    failed = asked = 0
    until = time.monotonic() + 8
    while time.monotonic() < until:
        status, _ = asyncio.run(ask(running.port, "/", patience=2))
        failed, asked = failed + (status != 200), asked + 1
        if status is None:
            time.sleep(0.02)
    serving = names(running.port, 60)
    if serving:
        os.kill(int(next(iter(serving))), signal.SIGKILL)
        time.sleep(5)
    again, until = set(), time.monotonic() + 10
    while len(again) < WORKERS and time.monotonic() < until:
        again |= names(running.port, 20)
    note = "nobody replaces workers" if again else "nothing serves"
    note = "dead workers are replaced" if len(again) >= WORKERS else note
    return 100 * failed / asked, f"of {asked}; {note}"
