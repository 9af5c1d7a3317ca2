"""Size on disk and in memory, and activity while idle."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from figures import Row, Section, Target
from launcher import Supervisor, cpu_time, progress, read_line
from others import SERVICES
from startup import INITS

MEBI = 1 << 20


def add_options(parser):
    parser.add_argument("--idle", type=int, default=60, metavar="SECONDS", help="time to watch it idle (60)")


def sections(options, installation):
    figures = idle(options, installation)
    resident, anonymous = Target(5.0), Target(1.0)
    yield Section(
        "mcp-launch",
        [
            Row("binary", [os.path.getsize(options.binary) / MEBI], "MiB", Target(4.5)),
            Row("resident, an idle supervisor", [figures["resident"] / MEBI], "MiB", resident),
            Row("anonymous, of that", [figures["anonymous"] / MEBI], "MiB", anonymous),
            Row("threads", [figures["threads"]], ""),
            Row("wake-ups while idle", [figures["wake_ups"]], "", Target(0), f"in {options.idle} s"),
            Row("CPU while idle", [figures["cpu_ns"] / 1e6], "ms", None, f"in {options.idle} s"),
        ],
    )
    rows = [Row("mcp-launch, supervising", [figures["resident"] / MEBI], "MiB")]
    rows += [Row(name, [size / MEBI], "MiB") for name, size in others(options, installation)]
    yield Section("resident memory", rows)


def idle(options, installation):
    with Supervisor(options, installation) as supervisor:
        supervisor.settle()
        resident, anonymous = supervisor.memory()
        progress("idle supervisor, seconds", 0, options.idle)
        before = supervisor.wake_ups(), cpu_time(supervisor.process.pid)
        time.sleep(options.idle)
        wake_ups, cpu = supervisor.wake_ups() - before[0], cpu_time(supervisor.process.pid) - before[1]
        threads = len(supervisor.tasks())
    return {"resident": resident, "anonymous": anonymous, "threads": threads, "wake_ups": wake_ups, "cpu_ns": cpu}


def others(options, installation):
    """Inits that run the fake server, and supervisors with it as a service."""
    target = str(installation.venv / "bin/gunicorn")
    inits = [(name, [shutil.which(name), *arguments, target]) for name, arguments in INITS if shutil.which(name)]
    for name, argv in [("mcp-launch init", [options.binary, "init", "--", target]), *inits]:
        environment = {"FAKE_SERVER": "serve", "PATH": os.environ["PATH"]}
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, bufsize=0)
        pid = int(read_line(process.stdout.fileno(), name).split()[1])
        yield name, resident(process.pid)
        os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    for service in SERVICES:
        if service.is_installed():
            with service(installation) as running:
                time.sleep(1)
                yield service.name, resident(running.process.pid)


def resident(pid):
    """Bytes, shared pages included."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
