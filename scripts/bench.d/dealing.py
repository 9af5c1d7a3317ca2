"""How clients are distributed among four workers: rows for scripts/bench, with the real servers.

Each contestant is a server by itself or the same behind mcp-launch, and all take turns. Three guarantees are checked:
even (64 keep-alive connections), exact (4 x 16 slow requests), only to those that can (one worker stopped or blocked);
and what all of it costs with wrk, in requests and in CPU time, next to the same server against itself.
"""

import asyncio
import random
import shutil
import subprocess
import sys
from pathlib import Path

from crowd import APP, CAPACITY, CONNECTIONS, SERVERS, SLOW, contestant, cpu_seconds, one_silent, slow_ones, while_silent
from evenness import evenness
from figures import Row, Section, Target
from guard import Field, percentile
from launcher import progress


def exactness(field, rounds):
    limits = {"GUNICORN_BACKPRESSURE": str(CAPACITY), "GRANIAN_BACKPRESSURE": str(CAPACITY)}
    ways = {name: contestant(field, *server, **limits) for name, server in SERVERS.items()}
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
    for how in ("stopped", "in time.sleep"):
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
    yield blocking(ways, 5 * rounds)


def blocking(ways, rounds):
    """One of four workers is blocked for 0.3 s again and again. All take turns, so that the machine is the same for all:
    behind mcp-launch the 99th percentile is to be no worse than with the server alone."""
    running, taken = {}, {name: [] for name in ways}
    try:
        for name, start in ways.items():
            running[name] = start()
        for turn in range(rounds):
            for name in random.sample(list(ways), len(ways)):
                _, times = one_silent(running[name], "blocked")
                taken[name].append(percentile(times, 0.99))
            progress("dealing, a blocked worker", turn + 1, rounds)
    finally:
        for each in running.values():
            each.stop()
    rows = [Row(name, times, target=Target(1.0, "ratio") if name == "Gunicorn, mcp-launch" else None) for name, times in taken.items()]
    return Section("One of four blocked for 0.3 s again and again: fresh requests, p99", rows, "Gunicorn")


def replacement(field, rounds):
    """Workers that are replaced every few seconds for their number of requests, under load."""
    limits = {"GUNICORN_MAX_REQUESTS_JITTER": "0", "GRANIAN_MAX_REQUESTS_JITTER": "0"}
    for server in ("gunicorn", "granian"):
        name = f"{server.upper()}_MAX_REQUESTS"
        ways = {
            "without a limit": contestant(field, server, **limits, **{name: "0"}),
            "replaced every few seconds": contestant(field, server, **limits, **{name: "500"}),
        }
        running, taken, failed = {}, {way: [] for way in ways}, dict.fromkeys(ways, 0)
        try:
            for way, start in ways.items():
                running[way] = start()
            for turn in range(rounds):
                for way in random.sample(list(ways), len(ways)):
                    lost, times = asyncio.run(while_silent(running[way].port, 15))
                    failed[way] += lost
                    taken[way].append(percentile(times, 0.999))
                progress(f"dealing, replacement, {server}", turn + 1, rounds)
        finally:
            for each in running.values():
                each.stop()
        rows = [
            Row(way, times, target=Target(1.5, "ratio") if way.startswith("replaced") else None, note=f"{failed[way]} failed")
            for way, times in taken.items()
        ]
        yield Section(f"Fresh requests while workers are replaced, {server}: p99.9", rows, "without a limit")


def load(running, path, seconds, close=False, connections=CONNECTIONS):
    """Milliseconds per request as seen by the clients, and CPU microseconds per request."""
    before = cpu_seconds(running.process.pid)
    argv = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency"]
    argv += ["--header", "Connection: close"] if close else []
    text = subprocess.run([*argv, f"http://127.0.0.1:{running.port}{path}"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text:
        sys.exit(f"bench: {path} is not answered with 200:\n{text}")
    used = cpu_seconds(running.process.pid) - before
    line = next(line for line in text.splitlines() if "requests in" in line)
    requests = int(line.split()[0])
    rate = float(next(line for line in text.splitlines() if "Requests/sec" in line).split()[1])
    return 1000 / rate, used * 1e6 / requests


def cost(field, rounds, seconds):
    loads = {
        "empty app, keep-alive": ("/", False, Target(1 / 0.95, "ratio")),
        "empty app, fresh connections": ("/", True, Target(1 / 0.95, "ratio")),
        "20 ms app, keep-alive": ("/database", False, None),
    }
    for server, of in SERVERS.values():
        bare = server.capitalize()
        ways = {
            bare: contestant(field, server, of, launched=False),
            f"{bare} again": contestant(field, server, of, launched=False),
            # The CPU time of a worker that is replaced would be missing.
            "mcp-launch, balance off": contestant(field, server, of, MCP_LAUNCH_BALANCE="off", GUNICORN_MAX_REQUESTS="0"),
            "mcp-launch": contestant(field, server, of, GUNICORN_MAX_REQUESTS="0"),
        }
        running = {}
        try:
            for name, start in ways.items():
                running[name] = start()
            taken = {(what, name): [] for what in loads for name in ways}
            for turn in range(-1, rounds):
                for what, (path, close, _) in loads.items():
                    order = list(ways)
                    random.shuffle(order)
                    for name in order:
                        found = load(running[name], path, seconds, close)
                        if turn >= 0:
                            taken[what, name].append(found)
                progress(f"dealing, {of or server}", turn + 1, rounds)
        finally:
            for each in running.values():
                each.stop()
        for what, (_, _, target) in loads.items():
            for index, kind, unit in ((0, "time for a request", "ms"), (1, "CPU for a request", "us")):
                rows = [
                    Row(name, [pair[index] for pair in taken[what, name]], unit, target=target if name == "mcp-launch" else None)
                    for name in ways
                ]
                yield Section(f"{what}, {of.rpartition('.')[2] if of else server}: {kind}", rows, bare)


def add_options(parser):
    parser.add_argument("--dealing-rounds", type=int, default=9, help="turns of each contestant under load (9)")
    parser.add_argument("--dealing-part", action="append", help="evenness, exactness, silence, replacement, cost; may be repeated (all)")


def sections(options, installation):
    directory = str(installation.root)
    field = Field(options, directory)
    (Path(directory) / "dealing_app.py").write_text(APP.replace("SLOW", str(SLOW)))
    parts = options.dealing_part or ["evenness", "exactness", "silence", "replacement", "cost"]
    if "evenness" in parts:
        yield from evenness(field, 5)
    if "exactness" in parts:
        yield from exactness(field, 3)
    if "silence" in parts:
        yield from silence(field, 2)
    if "replacement" in parts:
        yield from replacement(field, 4)
    if "cost" in parts and shutil.which("wrk"):
        yield from cost(field, options.dealing_rounds, 2)
