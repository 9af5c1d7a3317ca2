"""Supervisors that mcp-launch is compared with, each with the fake server as its service and with its own defaults."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from launcher import read_line


class Service:
    """A supervisor with a service that runs. The service tells on a named pipe when it began, so whatever a
    supervisor does with its output takes no time."""

    name = ""
    program = ""

    @classmethod
    def is_installed(cls):
        return shutil.which(cls.program) is not None

    def __init__(self, installation):
        self.directory = Path(tempfile.mkdtemp(prefix="service-", dir=installation.root))
        fifo = self.directory / "began"
        os.mkfifo(fifo)
        self.fifo = os.open(fifo, os.O_RDWR)
        self.run = self.directory / "run"
        self.run.write_text(f"#!/bin/sh\nexec '{installation.venv}/bin/gunicorn' >'{fifo}'\n")
        self.run.chmod(0o755)
        environment = {"FAKE_SERVER": "serve", "PATH": os.environ["PATH"], "HOME": str(self.directory)}
        self.process = subprocess.Popen(
            [shutil.which(self.program), *self.arguments()],
            env=environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = None
        self.first = self.next_start()

    def arguments(self):
        raise NotImplementedError

    def configure(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def next_start(self):
        """When the service began, and its pid."""
        began, self.pid = map(int, read_line(self.fifo, self.name).split())
        return began, self.pid

    def kill(self):
        """Kills the current service, which the supervisor may have replaced already."""
        while select.select([self.fifo], [], [], 0)[0]:
            self.next_start()
        os.kill(self.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        # It may have exited without its service, or have restarted it.
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self.fifo)

    def left(self):
        """All processes that were started from here; their HOME is our directory."""
        mark = f"HOME={self.directory}\0".encode()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in entry.read_bytes():
                    yield int(entry.parent.name)


class Runit(Service):
    name = "runit (runsv)"
    program = "runsv"

    def arguments(self):
        return [self.directory]


class S6(Service):
    name = "s6 (s6-supervise)"
    program = "s6-supervise"

    def arguments(self):
        return [self.directory]


class Supervisord(Service):
    name = "supervisord"
    program = "supervisord"

    def arguments(self):
        text = f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={self.directory}/pid\n"
        return ["-c", self.configure("supervisord.conf", f"{text}[program:service]\ncommand={self.run}\n")]


class Circus(Service):
    name = "circus"
    program = "circusd"

    def arguments(self):
        places = "".join(f"{name} = ipc://{self.directory}/{name}\n" for name in ["endpoint", "pubsub_endpoint"])
        return [self.configure("circus.ini", f"[circus]\n{places}[watcher:service]\ncmd = {self.run}\n")]


SERVICES = [Runit, S6, Supervisord, Circus]
