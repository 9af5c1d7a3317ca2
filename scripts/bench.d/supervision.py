"""What supervision costs: idle, at a respawn, at a reload, when it is asked."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time

from launcher import Supervisor, now, progress, read_line


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


def reload(options, installation):
    """Nanoseconds that `mcp-launch reload` takes with a server that boots in no time: what the launcher adds to a
    release's own boot. The old generation is gone before the next one is asked for."""
    times = []
    with Supervisor(options, installation) as supervisor:
        for turn in range(options.reloads):
            start = now()
            supervisor.ask("reload")
            times.append(now() - start)
            supervisor.wait_log(" gone ")
            progress("reload", turn + 1, options.reloads)
    return times


def status(options, installation):
    """Nanoseconds from a question on the control socket to its whole answer, with 64 workers."""
    times = []
    with Supervisor(options, installation, workers=64) as supervisor:
        [path] = installation.root.glob("mcp-launch-*.sock")
        for turn in range(options.questions):
            with socket.socket(socket.AF_UNIX) as client:
                start = now()
                client.connect(str(path))
                client.sendall(b'{"request":"status"}\n')
                answer = b"".join(iter(lambda: client.recv(65536), b""))
                times.append(now() - start)
            if answer.count(b'"pid"') < 64:
                raise SystemExit(f"bench: status does not show all workers: {answer[:200]}")
            progress("status", turn + 1, options.questions)
    return times


def probes(options, installation):
    """Nanoseconds that one probe takes from its start to its end, by what is asked with. They take turns."""
    curl = shutil.which("curl")
    with Supervisor(options, installation) as supervisor:
        [path] = installation.root.glob("mcp-launch-*.sock")
        port = path.stem.rsplit("-", 1)[1]
        environment = {**supervisor.environment, "PORT": port}
        field = {
            "health --ready": [options.binary, "health", "--ready"],
            "health --live": [options.binary, "health", "--live"],
        }
        if curl:
            field["a probe by curl"] = [curl, "-fsS", "-o", "/dev/null", f"http://127.0.0.1:{port}/health"]
        times = {name: [] for name in field}
        for turn in range(options.questions):
            for name in random.sample(list(field), len(field)):
                times[name].append(time_to_end(name, field[name], environment))
            progress("probes", turn + 1, options.questions)
    return times


def time_to_end(name, argv, environment):
    """Nanoseconds from before the start of a command until it has ended well."""
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = now()
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    took = now() - start
    if status != 0:
        raise SystemExit(f"bench: {name} failed with status {os.waitstatus_to_exitcode(status)}")
    return took
