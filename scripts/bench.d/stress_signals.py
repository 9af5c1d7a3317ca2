"""Sends signals to mcp-launch at every point of its first 20 ms and of a reload, and counts those that were lost.
Run by scripts/stress-signals, which builds what this needs.

A signal counts as lost if it did not have its effect in time: TERM and INT end the launcher, with status 0 (`init`:
with the status that the command's death by it gives); HUP makes a supervisor start a new generation, unless it came
before the first, and ends the command of `init`.

Before the first instruction of the program a signal cannot be kept: it ends the process, or, if that is PID 1, the
kernel drops it. These are recognised by the process's signal mask just before, and counted as early.
"""

import argparse
import concurrent.futures
import contextlib
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from launcher import Installation, now

WITHIN = 20_000_000  # nanoseconds after the start, or after the signal that began the reload
LIMIT = 30  # seconds after which a signal has had no effect; the launcher's own budget is shorter
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class Lost(Exception):
    """A signal that had no effect."""


class Launcher:
    """A running launcher, as PID 1 of a namespace of its own or not."""

    def __init__(self, argv, environment, directory, as_pid_1):
        self.log = Path(directory) / "log"
        self.output, writer = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        prefix = [shutil.which("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"] if as_pid_1 else []
        command = [*prefix, *argv]
        # Returns once the program has been executed; time counts from then on.
        self.process = os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate([null, writer, log])],
            setsigmask=[],
            setsigdef=SIGNALS,
        )
        self.status = None
        self.began = []
        self.rest = b""
        for descriptor in [null, writer, log]:
            os.close(descriptor)
        self.pid = self.find_pid_1(argv[0]) if as_pid_1 else self.process
        self.start = now()

    def find_pid_1(self, program):
        """The only child of `unshare`, once it has executed the program."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children")
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                pid = int(children.read_text())
                if os.readlink(f"/proc/{pid}/exe") == program:
                    return pid
        raise RuntimeError("unshare starts nothing")

    def send(self, number, at=0):
        """Sends a signal at that time. Returns when, and whether that was before the launcher's first instruction."""
        while now() < at:
            pass
        early = not self.holds(number)
        sent = now()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return sent, early

    def holds(self, number):
        """Whether it has the signal blocked, as it has from its first instruction on."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return True
        return int(status.split("\nSigBlk:")[1].split()[0], 16) >> (number - 1) & 1 == 1

    def read(self):
        """Reads what servers wrote when they started. False at the end: no process is left that could write."""
        data = os.read(self.output, 65536)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.began += [(int(began), int(pid)) for began, pid in map(bytes.split, lines)]
        return bool(data)

    def wait_for_start(self, after):
        """Waits until a server began after that time."""
        deadline = time.monotonic() + LIMIT
        while not any(began > after for began, _ in self.began):
            if not self.wait_readable(deadline) or not self.read():
                raise Lost("no server was started")

    def wait_readable(self, deadline):
        return bool(select.select([self.output], [], [], max(0, deadline - time.monotonic()))[0])

    def wait_ready(self):
        deadline = time.monotonic() + LIMIT
        while b" ready generation=1 " not in self.log.read_bytes():
            if time.monotonic() > deadline:
                raise RuntimeError("the launcher does not get ready")
            time.sleep(0.0005)

    def wait_end(self):
        """Its status as in a shell, negative if a signal ended the launcher itself."""
        deadline = time.monotonic() + LIMIT
        handle = os.pidfd_open(self.process)
        ended = select.select([handle], [], [], LIMIT)[0]
        os.close(handle)
        if not ended:
            raise Lost("it continues")
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        while self.wait_readable(deadline):
            if not self.read():
                return self.status
        raise Lost("it left processes behind")

    def clear_away(self, server):
        """Ends all its remaining processes."""
        if self.status is None:
            for pid in {self.pid, self.process}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(self.process, 0)
        for _, pid in self.began:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe") == server:
                    os.kill(pid, signal.SIGKILL)
        os.close(self.output)


class Scenario:
    """One signal, in one situation, many times."""

    def __init__(self, options, what, number, as_pid_1):
        self.options = options
        self.what = what
        self.number = number
        self.as_pid_1 = as_pid_1
        self.early = 0
        self.lost = []

    def __str__(self):
        who = "as PID 1" if self.as_pid_1 else "not PID 1"
        return f"{self.what}, {who}, {signal.Signals(self.number).name}"

    def run(self):
        with tempfile.TemporaryDirectory(prefix="mcp-launch-stress-") as directory:
            installation = Installation(directory, self.options.fake_server)
            environment = installation.environment(FAKE_SERVER="serve", MCP_LAUNCH_STOP_TIMEOUT="10s")
            server = str(installation.venv / "bin/gunicorn")
            os.chdir(directory)
            argv = [self.options.binary, "init", "--", server]
            if self.what != "init":
                argv = [self.options.binary, "application:app"]
            for _ in range(self.options.count):
                launcher = Launcher(argv, environment, directory, self.as_pid_1)
                offset = random.randrange(WITHIN)
                try:
                    self.try_once(launcher, offset)
                except Lost as lost:
                    self.lost.append(f"at {offset / 1000:.0f} us: {lost}\n{launcher.log.read_text()}")
                finally:
                    launcher.clear_away(server)
            os.chdir("/")
        return self

    def try_once(self, launcher, offset):
        start = launcher.start
        if self.what == "reload":
            launcher.wait_ready()
            start, _ = launcher.send(signal.SIGHUP)
        sent, early = launcher.send(self.number, start + offset)
        try:
            if self.number == signal.SIGHUP and self.what != "init":
                self.check_reload(launcher, sent)
            else:
                self.check_end(launcher)
        except Lost:
            if not early:
                raise
            self.early += 1

    def check_end(self, launcher):
        expected = 128 + self.number if self.what == "init" else 0
        status = launcher.wait_end()
        if status != expected:
            raise Lost(f"the exit status is {status}, not {expected}")

    def check_reload(self, launcher, sent):
        launcher.wait_for_start(0)
        if launcher.began[0][0] < sent:
            launcher.wait_for_start(sent)
        # Occasionally in the middle of the reload.
        launcher.send(signal.SIGTERM)
        status = launcher.wait_end()
        if status != 0:
            raise Lost(f"the exit status after a TERM is {status}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/stress-signals")
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--fake-server", required=True, help=argparse.SUPPRESS)
    parser.add_argument("count", type=int, nargs="?", default=1000, help="signals of each kind (1000)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help="situations at a time (as many as there are cores)")
    options = parser.parse_args()
    options.binary = os.path.realpath(options.binary)
    places = [False, True] if os.geteuid() == 0 else [False]
    if os.geteuid() != 0:
        print("SKIPPED: as PID 1 (only root may make a PID namespace)")
    scenarios = [
        Scenario(options, what, number, as_pid_1)
        for as_pid_1 in places
        for what in ["start", "reload", "init"]
        for number in SIGNALS
    ]
    lost = 0
    with concurrent.futures.ProcessPoolExecutor(max_workers=options.jobs) as pool:
        for scenario in pool.map(Scenario.run, scenarios):
            lost += len(scenario.lost)
            early = f", before its first instruction {scenario.early}" if scenario.early else ""
            print(f"{scenario}: sent {options.count}, lost {len(scenario.lost)}{early}", flush=True)
            for text in scenario.lost[:3]:
                print(f"  {text}")
    print(f"lost: {lost}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
