"""What mcp-launch costs, beside other inits. Run by scripts/bench, which builds and installs what this needs.

Times are taken with CLOCK_MONOTONIC: the first here, just before a process is started or killed, the second by
fake_server.rs as its first act. Contestants take turns, so that what else the machine does hits all alike, and a
ratio is the median of the ratios within a turn.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import supervision
from launcher import Installation, now, progress, read_line

WARM_UP = 5  # turns that are not counted

TARGETS = {
    "mcp-launch init": ("ratio", 1.3),
    "mcp-launch, full path": ("ratio", 3.0),
    "binary": ("MiB", 4.0),
    "resident": ("MiB", 4.0),
    "anonymous": ("MiB", 1.0),
    "wake-ups": ("count", 0),
    "respawn": ("ms", 2.0),
    "health --ready": ("ms", 5.0),
    "health --live": ("ms", 5.0),
}


def time_to_start(name, argv, environment, directory):
    """Nanoseconds from before the start of `argv` to the first instruction of the program behind it."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, null, 2),
    ]
    os.chdir(directory)
    start = now()
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    os.close(writer)
    began = int(read_line(reader, name).split()[0])
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(null)
    return began - start


def contestants(options, installation):
    """Name, command and environment of everything that can stand in front of a program."""
    plain = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    target = str(installation.venv / "bin/gunicorn")
    launcher = options.binary
    result = {
        "no-op itself": ([target], plain),
        "bare exec": ([options.bare_exec, target], plain),
    }
    for name, arguments in [("tini", ["-s", "--"]), ("dumb-init", ["--"]), ("catatonit", ["--"])]:
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


def startup(options, installation):
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
    times["three Python starts (the old way)"] = old_way(options, installation)
    return times


def old_way(options, installation):
    """What the shell scripts that mcp-launch replaces do at least: ask Python three times, then exec."""
    ask = f"'{sys.executable}' -c 'import sys; print(sys.version_info[:2])' >/dev/null"
    script = f"{ask}; {ask}; {ask}; exec '{installation.venv}/bin/gunicorn'"
    argv = ["/bin/sh", "-c", script]
    return [time_to_start("sh", argv, {}, installation.root) for _ in range(min(options.iterations, 20))]


def version(program, *arguments):
    path = shutil.which(program)
    if not path:
        return None
    output = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    return (output.stdout + output.stderr).strip().split("\n")[0]


def machine(options):
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model[0].split(":", 1)[1].strip() if model else platform.machine(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "versions": {
            "mcp-launch": version(options.binary, "--version"),
            "tini": version("tini", "--version"),
            "dumb-init": version("dumb-init", "--version"),
            "catatonit": version("catatonit", "--version"),
        },
    }


def spread(times):
    """Median, and the quartiles, in milliseconds."""
    quartiles = statistics.quantiles(times, n=4)
    return {"median_ms": quartiles[1] / 1e6, "q1_ms": quartiles[0] / 1e6, "q3_ms": quartiles[2] / 1e6, "n": len(times)}


def ratio(times, reference):
    """The median of the ratios within a turn; of the medians where there are not as many turns."""
    if len(times) != len(reference):
        return statistics.median(times) / statistics.median(reference)
    return statistics.median(one / other for one, other in zip(times, reference, strict=True))


def summarize(options, times, idle_figures, taken):
    starts = {}
    reference = times.get("tini", times["bare exec"])
    for name, values in times.items():
        over_bare = statistics.median(values) - statistics.median(times["bare exec"])
        starts[name] = {**spread(values), "over_bare_ms": over_bare / 1e6, "ratio": ratio(values, reference)}
    return {
        "machine": machine(options),
        "reference": "tini" if "tini" in times else "bare exec",
        "start_to_exec": starts,
        "binary_bytes": os.path.getsize(options.binary),
        "idle": idle_figures,
        "supervision": {name: spread(values) for name, values in taken.items() if values},
    }


def table(result):
    """The figures for people, each with its target where there is one."""
    host = result["machine"]
    versions = ", ".join(text for text in host["versions"].values() if text)
    yield f"{host['cores']} cores ({host['cpu']}), Linux {host['kernel']}, load {host['load']:.1f}; {versions}"
    yield ""
    yield f"{'start to exec of a no-op':36}{'median':>9}{'quartiles':>16}{'over bare':>11}{'/ ' + result['reference']:>8}"
    for name, row in result["start_to_exec"].items():
        quartiles = f"{row['q1_ms']:.2f}-{row['q3_ms']:.2f}"
        figures = f"{row['median_ms']:9.3f}{quartiles:>16}{row['over_bare_ms']:11.3f}{row['ratio']:8.2f}"
        yield f"{name:36}{figures}  {verdict(name, row['ratio'])}"
    yield ""
    for name, value, text in scalars(result):
        yield f"{name:36}{text:>25}  {verdict(name, value)}"


def scalars(result):
    mebi = 1 << 20
    idle_figures = result["idle"]
    seconds = idle_figures["seconds"]
    sizes = [("binary", result["binary_bytes"]), ("resident", idle_figures["resident"])]
    for name, size in [*sizes, ("anonymous", idle_figures["anonymous"])]:
        yield name, size / mebi, f"{size / mebi:.2f} MiB"
    yield "wake-ups", idle_figures["wake_ups"], f"{idle_figures['wake_ups']} in {seconds} s"
    yield "CPU while idle", idle_figures["cpu_ns"] / 1e6, f"{idle_figures['cpu_ns'] / 1e6:.2f} ms in {seconds} s"
    for name, row in result["supervision"].items():
        yield name, row["median_ms"], f"{row['median_ms']:.2f} ms (n={row['n']})"


def verdict(name, value):
    if name not in TARGETS:
        return ""
    unit, most = TARGETS[name]
    met = "met" if value <= most else "MISSED"
    return f"target {most:g}{'' if unit in ('ratio', 'count') else ' ' + unit}: {met}"


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--fake-server", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--bare-exec", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--iterations", type=int, default=300, help="turns of the start-up runs (300)")
    parser.add_argument("--respawns", type=int, default=100, help="main processes to kill (100)")
    parser.add_argument("--reloads", type=int, default=20, help="reloads to wait for (20)")
    parser.add_argument("--questions", type=int, default=200, help="times to ask for the status, and for health (200)")
    parser.add_argument("--idle", type=int, default=10, metavar="SECONDS", help="time to watch it idle (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    directory = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="mcp-launch-bench-") as temporary:
        installation = Installation(temporary, options.fake_server)
        times = startup(options, installation)
        os.chdir(directory)
        figures = supervision.idle(options, installation)
        taken = {
            "respawn": supervision.respawn(options, installation),
            "respawn by runsv": supervision.respawn_runit(options, installation),
            "reload": supervision.reload(options, installation),
            "status of 64 workers": supervision.status(options, installation),
            **supervision.probes(options, installation),
        }
    result = summarize(options, times, figures, taken)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(line.rstrip() for line in table(result)))


if __name__ == "__main__":
    main()
