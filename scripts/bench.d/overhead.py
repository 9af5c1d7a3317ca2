"""What the guard adds to a request, in one process: rows for scripts/bench.

Two processes of the same program differ by up to a tenth, which is more than the guard costs. So one process has the empty
app several times, with the guard and without it, by path, and the paths take turns. The guard's text is that which
mcp-launch makes for these settings; it has no launcher here, so its heartbeat is missing.
"""

import random
import re
import shutil
import sys
from pathlib import Path

from dealing import load
from figures import Row, Section, Target
from guard import EVERYTHING, GUARDS, WITH, Field
from launcher import progress

# Imported by the guard, whose text it writes.
WRITING = '''
import os
import sys

from bench_app import app

if "GUARD_TEXT" in os.environ:
    text = sys.modules["mcp_launch_guard"].__loader__.get_source("mcp_launch_guard")
    with open(os.environ["GUARD_TEXT"], "w") as file:
        file.write(text)
'''
TOGETHER = '''
import types
from pathlib import Path

from bench_app import app as alone
from lifespan import serve_lifespan


def guarded(path):
    module = types.ModuleType(path.stem)
    exec(compile(path.read_text(), path, "exec"), vars(module))
    return module.app


WAYS = {"/health": alone, "/alone": alone, "/again": alone}
WAYS |= {"/" + path.stem: guarded(path) for path in Path(__file__).parent.glob("guard-SERVER-*.py")}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    await WAYS[scope["path"]](scope, receive, send)
'''
# What the guard would find in the launcher's processes only.
MISSING = re.compile(r"^(BOARD|LINE|POKE|STACKS|SPIN) = .*$", re.M)
OTHER_MODULES = "import mcp_launch_modules\n"


def write_guard(field, server, name, settings):
    """The guard's text with these settings, as it can be used without a launcher."""
    path = Path(field.directory) / f"guard-{server}-{name}.py"
    own = {key.format(server.upper()): value for key, value in settings.items()}
    # Distributing clients is not part of a request.
    field.launched(server, "bench_writing:app", GUARD_TEXT=str(path), MCP_LAUNCH_BALANCE="off", **own).stop()
    path.write_text(MISSING.sub(r"\1 = None", path.read_text().removeprefix(OTHER_MODULES)))


def add_options(parser):
    parser.add_argument("--overhead-rounds", type=int, default=5, help="processes in which the guard is measured (5)")
    parser.add_argument("--overhead-turns", type=int, default=5, help="turns in each of them (5)")


def sections(options, installation):
    if not shutil.which("wrk"):
        print("bench: the guard's overhead is left out: no wrk (apt-get install wrk)", file=sys.stderr)
        return
    field = Field(options, str(installation.root))
    (Path(field.directory) / "bench_writing.py").write_text(WRITING)
    for server in ("gunicorn", "granian"):
        (Path(field.directory) / f"bench_{server}.py").write_text(TOGETHER.replace("SERVER", server))
        write_guard(field, server, "limit", GUARDS[WITH])
        write_guard(field, server, "everything", GUARDS[EVERYTHING])
        ways = {
            "without the guard": "/alone",
            "without it, again": "/again",
            WITH: f"/guard-{server}-limit",
            EVERYTHING: f"/guard-{server}-everything",
        }
        taken = {name: [] for name in ways}
        for number in range(options.overhead_rounds):
            running = field.alone(server, f"bench_{server}:app")
            try:
                for turn in range(-1, options.overhead_turns):
                    for name in random.sample(list(ways), len(ways)):
                        _, used = load(running, ways[name], 1, connections=32)
                        if turn >= 0:
                            taken[name].append(used)
            finally:
                running.stop()
            progress(f"overhead, {server}", number + 1, options.overhead_rounds)
        target = Target(1.05, "ratio")
        rows = [Row(name, samples, "us", target=target if "guard" in ways[name] else None) for name, samples in taken.items()]
        yield Section(f"empty app in one process, {server}: CPU for a request", rows, "without the guard")
