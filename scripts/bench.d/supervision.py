"""How long supervision takes: a respawn, a reload, a status request, a probe."""

import contextlib
import os
import random
import shutil
import signal
import socket
import time

from figures import Row, Section, Target, milliseconds
from launcher import Supervisor, now, progress
from others import SERVICES

FEW = 10  # turns with the others, which take a second each
SETTLED = 1.2  # seconds after which every supervisor considers a service to be working


def add_options(parser):
    parser.add_argument("--respawns", type=int, default=100, help="main processes to kill (100)")
    parser.add_argument("--reloads", type=int, default=20, help="reloads to wait for (20)")
    parser.add_argument("--questions", type=int, default=200, help="times to ask for the status (200)")


def sections(options, installation):
    targets = {"mcp-launch": Target(2.0)}
    times = respawn(options, installation)
    rows = [Row(name, milliseconds(values), target=targets.get(name)) for name, values in times.items() if values]
    yield Section("kill -9 to the exec of the next", rows)
    yield Section(
        "mcp-launch, when it is asked",
        [
            Row("reload, beyond the app's own boot", milliseconds(reload(options, installation))),
            Row("status of 64 workers", milliseconds(status(options, installation))),
        ],
    )
    targets = {"health --ready": Target(5.0), "health --live": Target(5.0)}
    times = probes(options, installation)
    rows = [Row(name, milliseconds(values), target=targets.get(name)) for name, values in times.items()]
    yield Section("a probe of health, from start to end", rows)


def respawn(options, installation):
    """Nanoseconds from kill -9 of the service to the start of its replacement, in turns. Each mcp-launch is new: only
    the first respawn after a healthy run is immediate. Where workers live on, they serve meanwhile, and the replacement
    waits for 50 ms in case they are about to end. The others take part in the first turns."""
    available = [service for service in SERVICES if service.is_installed()]
    ours = {"mcp-launch": "serve", "mcp-launch, workers live on": "serve-with-workers"}
    times = {name: [] for name in [*ours, *(service.name for service in available)]}
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(service(installation)) for service in available]
        for turn in range(options.respawns):
            if turn == FEW:
                stack.close()
            field = [*ours, *(others if turn < FEW else [])]
            if turn < FEW and others:
                time.sleep(SETTLED)
            for service in random.sample(field, len(field)):
                if service in ours:
                    times[service].append(respawn_ours(options, installation, ours[service]))
                else:
                    start = now()
                    service.kill()
                    times[service.name].append(service.next_start()[0] - start)
            progress("respawn", turn + 1, options.respawns)
    return times


def respawn_ours(options, installation, service):
    with Supervisor(options, installation, service=service) as supervisor:
        start = now()
        os.kill(supervisor.main, signal.SIGKILL)
        return supervisor.next_start()[0] - start


def reload(options, installation):
    """Nanoseconds that `mcp-launch reload` takes with a server that boots instantly: what the launcher adds to a
    release's own boot. The old generation has ended before the next reload is requested."""
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
    """Nanoseconds from a request on the control socket to the end of the response, with 64 workers."""
    times = []
    with Supervisor(options, installation, workers=64):
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
    """Nanoseconds that one probe takes from its start to its end, for each kind of probe, in turns."""
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
    """Nanoseconds from before the start of a command until it has succeeded."""
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = now()
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    took = now() - start
    if status != 0:
        raise SystemExit(f"bench: {name} failed with status {os.waitstatus_to_exitcode(status)}")
    return took
