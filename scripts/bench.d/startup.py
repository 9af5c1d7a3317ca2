"""The time that an init or launcher adds: from its start to the first instruction of the program behind it."""

import os
import random
import shutil
import sys

from figures import Row, Section, Target, milliseconds
from launcher import now, progress, read_line
from others import SERVICES

WARM_UP = 5  # turns that are not counted
FEW = 10  # turns with programs that take long

INITS = [("tini", ["-s", "--"]), ("dumb-init", ["--"]), ("catatonit", ["--"])]


def add_options(parser):
    parser.add_argument("--iterations", type=int, default=300, help="turns of the start-up runs (300)")


def sections(options, installation):
    times = in_turns(options, installation)
    times["sh, three Python starts (the old way)"] = old_way(options, installation)
    reference = "tini" if "tini" in times else "bare exec"
    targets = {"mcp-launch init": Target(1.3, "ratio"), "mcp-launch, full path": Target(3.0, "ratio")}
    rows = [Row(name, milliseconds(values), target=targets.get(name)) for name, values in times.items()]
    yield Section("start to exec of a no-op", rows, reference)
    rows = [Row(name, milliseconds(values)) for name, values in services(options, installation).items()]
    if rows:
        yield Section("start to exec of a service", rows)


def contestants(options, installation):
    """Name, command and environment of everything that can start a program."""
    plain = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    target = str(installation.venv / "bin/gunicorn")
    launcher = options.binary
    result = {"no-op itself": ([target], plain), "bare exec": ([options.bare_exec, target], plain)}
    for name, arguments in INITS:
        program = shutil.which(name)
        if program:
            result[name] = ([program, *arguments, target], plain)
        else:
            print(f"bench: {name} is not installed; left out", file=sys.stderr)
    full = installation.environment(MCP_LAUNCH_MODE="exec", PORT="5999")
    result["mcp-launch init"] = ([launcher, "init", "--", target], plain)
    result["mcp-launch, full path"] = ([launcher, "application:app"], full)
    result["mcp-launch, full path, Granian"] = ([launcher, "--server", "granian", "application:app"], full)
    return result


def time_to_start(name, argv, environment, directory):
    """Nanoseconds from before the start of `argv` to the first instruction of the program behind it."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, null, 2),
    ]
    before = os.getcwd()
    os.chdir(directory)
    start = now()
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    os.chdir(before)
    os.close(writer)
    began = int(read_line(reader, name).split()[0])
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(null)
    return began - start


def in_turns(options, installation):
    """Every contestant's times, turn by turn."""
    field = contestants(options, installation)
    times = {name: [] for name in field}
    for turn in range(WARM_UP + options.iterations):
        order = list(field)
        random.shuffle(order)
        for name in order:
            took = time_to_start(name, *field[name], installation.root)
            if turn >= WARM_UP:
                times[name].append(took)
        progress("start to exec", turn + 1 - WARM_UP, options.iterations)
    if installation.python_started.exists():
        sys.exit("bench: a Python was started to make the plan")
    return times


def old_way(options, installation):
    """The minimum that the shell scripts did which mcp-launch replaces: run Python three times, then exec."""
    ask = f"'{sys.executable}' -c 'import sys; print(sys.version_info[:2])' >/dev/null"
    script = f"{ask}; {ask}; {ask}; exec '{installation.venv}/bin/gunicorn'"
    argv = ["/bin/sh", "-c", script]
    return [time_to_start("sh", argv, {}, installation.root) for _ in range(min(options.iterations, 20))]


def services(options, installation):
    """The same for supervisors, which are started with one service, in turns."""
    available = [service for service in SERVICES if service.is_installed()]
    times = {service.name: [] for service in available}
    turns = min(options.iterations, FEW)
    for turn in range(turns):
        for service in random.sample(available, len(available)):
            start = now()
            with service(installation) as running:
                times[service.name].append(running.first[0] - start)
        progress("start to exec of a service", turn + 1, turns)
    return times
