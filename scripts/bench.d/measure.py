"""What mcp-launch costs, beside other inits. Run by scripts/bench, which builds and installs what this needs.

Times are taken with CLOCK_MONOTONIC: the first here, just before a process is started or killed, the second by
fake_server.rs as its first act. Contestants take turns, so that what else the machine does hits all alike, and a
ratio is the median of the ratios within a turn.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 30  # seconds that anything may take before it counts as broken
WARM_UP = 5  # turns that are not counted

TARGETS = {
    "mcp-launch init": ("ratio", 1.3),
    "mcp-launch, full path": ("ratio", 3.0),
    "binary": ("MiB", 4.0),
    "resident": ("MiB", 4.0),
    "anonymous": ("MiB", 1.0),
    "wake-ups": ("count", 0),
    "respawn": ("ms", 2.0),
}


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Installation:
    """A virtual environment as far as it can be seen without starting Python, with the fake server in it."""

    PACKAGES = ["gunicorn-27.0.1", "granian-2.8.7", "uvicorn-0.54.0", "uvicorn_worker-0.4.0", "uvloop-0.22.1"]

    def __init__(self, directory, server):
        self.root = Path(directory)
        self.venv = self.root / "venv"
        packages = self.venv / "lib/python3.11/site-packages"
        programs = self.venv / "bin"
        packages.mkdir(parents=True)
        programs.mkdir()
        for package in self.PACKAGES:
            (packages / f"{package}.dist-info").mkdir()
        (self.venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
        for name in ["gunicorn", "granian"]:
            shutil.copy2(server, programs / name)
        self.python_started = self.root / "python-was-started"
        python = programs / "python3.11"
        python.write_text(f"#!/bin/sh\n: >'{self.python_started}'\nexit 1\n")
        python.chmod(0o755)
        (programs / "python").symlink_to("python3.11")
        (self.root / "application.py").write_text("async def app(scope, receive, send):\n    pass\n")

    def environment(self, **more):
        """What a container would have, and a directory for the launcher's own files."""
        return {
            "PATH": f"{self.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.root),
            "VIRTUAL_ENV": str(self.venv),
            "XDG_RUNTIME_DIR": str(self.root),
            "HOST": "127.0.0.1",
            "PORT": "0",
            "MCP_LAUNCH_GUARD": "off",
            **more,
        }


def read_line(descriptor, what):
    """A line from a pipe, within the limit."""
    text = b""
    deadline = time.monotonic() + LIMIT
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        piece = os.read(descriptor, 1) if ready else b""
        if not piece:
            sys.exit(f"bench: no answer from {what}")
        text += piece
    return text.decode(errors="replace")


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


class Supervisor:
    """A launcher with a fake server that is ready."""

    def __init__(self, options, installation):
        environment = installation.environment(FAKE_SERVER="serve-with-workers")
        self.process = subprocess.Popen(
            [options.binary, "--workers", "2", "application:app"],
            env=environment,
            cwd=installation.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.main = self.next_start()[1]
        while " ready " not in read_line(self.process.stderr.fileno(), "the supervisor's log"):
            pass

    def next_start(self):
        """When a main process began, and its pid."""
        began, pid = read_line(self.process.stdout.fileno(), "the supervised server").split()
        return int(began), int(pid)

    def tasks(self):
        return [Path(f"/proc/{self.process.pid}/task") / task for task in os.listdir(f"/proc/{self.process.pid}/task")]

    def wake_ups(self):
        """Times that any of its threads went to sleep of its own accord."""
        texts = [(task / "status").read_text() for task in self.tasks()]
        return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)

    def cpu_time(self):
        """Nanoseconds on a processor."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self.tasks())

    def memory(self):
        """Resident and anonymous bytes."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
        return sizes["Rss"], sizes["Anonymous"]

    def settle(self):
        """Waits until it has been asleep for a second."""
        deadline = time.monotonic() + LIMIT
        while True:
            before = self.wake_ups()
            time.sleep(1)
            if self.wake_ups() == before or time.monotonic() > deadline:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def idle(options, installation):
    with Supervisor(options, installation) as supervisor:
        supervisor.settle()
        resident, anonymous = supervisor.memory()
        progress("idle supervisor, seconds", 0, options.idle)
        before = supervisor.wake_ups(), supervisor.cpu_time()
        time.sleep(options.idle)
        wake_ups, cpu = supervisor.wake_ups() - before[0], supervisor.cpu_time() - before[1]
        threads = len(supervisor.tasks())
    return {
        "resident": resident,
        "anonymous": anonymous,
        "threads": threads,
        "wake_ups": wake_ups,
        "cpu_ns": cpu,
        "seconds": options.idle,
    }


def respawn(options, installation):
    """Nanoseconds from kill -9 of the main process to the start of its replacement. Each launcher is new: only
    the first respawn after a healthy run is immediate."""
    times = []
    for turn in range(options.respawns):
        with Supervisor(options, installation) as supervisor:
            start = now()
            os.kill(supervisor.main, signal.SIGKILL)
            times.append(supervisor.next_start()[0] - start)
        progress("respawn", turn + 1, options.respawns)
    return times


def respawn_runit(options, installation):
    """The same for runit's runsv, if it is there. It waits out the first second of a service's life."""
    runsv = shutil.which("runsv")
    if not runsv:
        return []
    directory = installation.root / "service"
    directory.mkdir()
    run = directory / "run"
    run.write_text(f"#!/bin/sh\nexec '{installation.venv}/bin/gunicorn'\n")
    run.chmod(0o755)
    times = []
    process = subprocess.Popen([runsv, directory], env={"FAKE_SERVER": "serve"}, stdout=subprocess.PIPE, bufsize=0)
    try:
        for _ in range(min(options.respawns, 10)):
            main = int(read_line(process.stdout.fileno(), "runsv").split()[1])
            time.sleep(1.1)
            start = now()
            os.kill(main, signal.SIGKILL)
            began, main = map(int, read_line(process.stdout.fileno(), "runsv").split())
            times.append(began - start)
            time.sleep(1.1)
            os.kill(main, signal.SIGKILL)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
    return times


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


def progress(what, done, total):
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)


def spread(times):
    """Median, and the quartiles, in milliseconds."""
    quartiles = statistics.quantiles(times, n=4)
    return {"median_ms": quartiles[1] / 1e6, "q1_ms": quartiles[0] / 1e6, "q3_ms": quartiles[2] / 1e6, "n": len(times)}


def ratio(times, reference):
    """The median of the ratios within a turn; of the medians where there are not as many turns."""
    if len(times) != len(reference):
        return statistics.median(times) / statistics.median(reference)
    return statistics.median(one / other for one, other in zip(times, reference, strict=True))


def summarize(options, times, idle_figures, respawns, runit):
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
        "respawn": spread(respawns),
        "respawn_runit": spread(runit) if runit else None,
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
    idle_figures, replaced = result["idle"], result["respawn"]
    seconds = idle_figures["seconds"]
    sizes = [("binary", result["binary_bytes"]), ("resident", idle_figures["resident"])]
    for name, size in [*sizes, ("anonymous", idle_figures["anonymous"])]:
        yield name, size / mebi, f"{size / mebi:.2f} MiB"
    yield "wake-ups", idle_figures["wake_ups"], f"{idle_figures['wake_ups']} in {seconds} s"
    yield "CPU while idle", idle_figures["cpu_ns"] / 1e6, f"{idle_figures['cpu_ns'] / 1e6:.2f} ms in {seconds} s"
    yield "respawn", replaced["median_ms"], f"{replaced['median_ms']:.2f} ms (n={replaced['n']})"
    if result["respawn_runit"]:
        row = result["respawn_runit"]
        yield "respawn by runsv", row["median_ms"], f"{row['median_ms']:.2f} ms (n={row['n']})"


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
    parser.add_argument("--idle", type=int, default=10, metavar="SECONDS", help="time to watch it idle (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    directory = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="mcp-launch-bench-") as temporary:
        installation = Installation(temporary, options.fake_server)
        times = startup(options, installation)
        os.chdir(directory)
        figures = idle(options, installation)
        respawns = respawn(options, installation)
        runit = respawn_runit(options, installation)
    result = summarize(options, times, figures, respawns, runit)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(line.rstrip() for line in table(result)))


if __name__ == "__main__":
    main()
