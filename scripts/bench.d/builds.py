"""Two builds of mcp-launch in turns, for example of a release and of what follows it: rows for scripts/bench. A ratio above 1
is what got worse."""

import argparse
import os
import random
import shutil
import statistics
import sys
from pathlib import Path

import supervision
from crowd import APP, SERVERS, SLOW, contestant
from dealing import load
from figures import Row, Section
from guard import Field
from launcher import Supervisor, progress
from startup import contestants, time_to_start

BEFORE, AFTER = "before", "after"


def add_options(parser):
    parser.add_argument("--before", metavar="FILE", help="another build of mcp-launch, to compare with (needed for builds)")
    parser.add_argument("--builds-rounds", type=int, default=9, help="turns of both builds (9)")


def start_to_exec(build, installation):
    for what in ("mcp-launch init", "mcp-launch, full path"):
        took = time_to_start(what, *contestants(build, installation)[what], installation.root)
        yield f"start to exec: {what}", "ms", took / 1e6


def idle(build, installation):
    yield "binary", "MiB", os.path.getsize(build.binary) / 2**20
    with Supervisor(build, installation) as supervisor:
        supervisor.settle()
        resident, anonymous = supervisor.memory()
    yield "an idle supervisor, resident", "MiB", resident / 2**20
    yield "of that, anonymous", "MiB", anonymous / 2**20


def supervising(build, installation):
    yield "kill -9 to the exec of the next", "ms", supervision.respawn_ours(build, installation, "serve") / 1e6
    few = argparse.Namespace(**{**vars(build), "reloads": 3, "questions": 20})
    yield "reload, beyond the app's own boot", "ms", statistics.median(supervision.reload(few, installation)) / 1e6
    yield "status of 64 workers", "ms", statistics.median(supervision.status(few, installation)) / 1e6
    yield "a probe of health", "ms", statistics.median(supervision.probes(few, installation)["health --ready"]) / 1e6


def in_turns(builds, rounds, measure):
    """Sections of what `measure` yields for a build: title, unit, figure."""
    found = {}
    for _ in range(rounds):
        for name in random.sample(list(builds), len(builds)):
            for title, unit, value in measure(builds[name]):
                found.setdefault((title, unit), {of: [] for of in builds})[name].append(value)
    for (title, unit), samples in found.items():
        yield Section(title, [Row(name, samples[name], unit) for name in builds], BEFORE)


def serving(build, installation, title):
    """Four workers of a real server, new ones each time, with an app that does nothing."""
    server, worker_class = SERVERS[title]
    running = contestant(Field(build, str(installation.root)), server, worker_class)()
    try:
        yield f"{title}: memory of all, PSS", "MiB", running.memory() / 2**20
        for what, close in (("keep-alive", False), ("fresh connections", True)):
            load(running, "/", 1, close)
            took, cpu = load(running, "/", 2, close)
            yield f"{title}: time for a request, {what}", "ms", took
            yield f"{title}: CPU for a request, {what}", "us", cpu
    finally:
        running.stop()


def sections(options, installation):
    if not options.before:
        if options.only:
            sys.exit("bench: builds compares with another build: --before FILE")
        return
    before = argparse.Namespace(**{**vars(options), "binary": os.path.abspath(options.before)})
    builds, rounds = {BEFORE: before, AFTER: options}, options.builds_rounds
    yield from in_turns(builds, 10 * rounds, lambda build: start_to_exec(build, installation))
    yield from in_turns(builds, max(rounds // 3, 1), lambda build: idle(build, installation))
    yield from in_turns(builds, rounds, lambda build: supervising(build, installation))
    progress("builds", 1, 1 + len(SERVERS))
    if not shutil.which("wrk"):
        return
    (Path(installation.root) / "dealing_app.py").write_text(APP.replace("SLOW", str(SLOW)))
    for number, title in enumerate(SERVERS, 2):
        yield from in_turns(builds, rounds, lambda build, title=title: serving(build, installation, title))
        progress("builds", number, 1 + len(SERVERS))
