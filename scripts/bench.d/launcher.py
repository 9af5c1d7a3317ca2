"""A launcher with a fake server, for programs that measure or stress it."""

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 30  # seconds that anything may take before it counts as broken


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Installation:
    """A virtual environment that looks real unless Python is started, with the fake server in it."""

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
        """The environment of a container, and a directory for the launcher's own files."""
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


def cpu_time(pid):
    """The CPU time of a process and of all threads that it has had, in nanoseconds."""
    # What clock_getcpuclockid(3) returns.
    return time.clock_gettime_ns((~pid << 3) | 2)


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


class Supervisor:
    """A launcher with a fake server that is ready."""

    def __init__(self, options, installation, workers=2, service="serve-with-workers"):
        self.binary = options.binary
        self.environment = installation.environment(FAKE_SERVER=service)
        self.process = subprocess.Popen(
            [self.binary, "--workers", str(workers), "application:app"],
            env=self.environment,
            cwd=installation.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.main = self.next_start()[1]
        self.wait_log(" ready ")

    def wait_log(self, what):
        """Reads its log up to a line that contains this."""
        while what not in read_line(self.process.stderr.fileno(), "the supervisor's log"):
            pass

    def ask(self, *command):
        """Runs a command against it, as a user does."""
        subprocess.run([self.binary, *command], env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def next_start(self):
        """When a main process began, and its pid."""
        began, pid = read_line(self.process.stdout.fileno(), "the supervised server").split()
        return int(began), int(pid)

    def tasks(self):
        return [Path(f"/proc/{self.process.pid}/task") / task for task in os.listdir(f"/proc/{self.process.pid}/task")]

    def wake_ups(self):
        """How often its threads went to sleep voluntarily."""
        texts = [(task / "status").read_text() for task in self.tasks()]
        return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)

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


def progress(what, done, total):
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)
