"""A launcher under test, with its log, its control socket and what can be seen of it from outside."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

BOOT = 300  # seconds that a start may take on a busy machine
SETTLES = 60  # and that everything may take to be as it was after a fault


def stat(pid):
    """The state letter and the start time of a process, or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            pass
    return found


def descendants(pid):
    found = children(pid)
    return found + [each for child in found for each in descendants(child)]


class Log:
    """Reads a launcher's standard error, unless it is told not to, and checks each line."""

    # Longer lines may be mixed with those of others (PIPE_BUF).
    WHOLE = 4096

    def __init__(self, path, find):
        self.reader, self.writer = os.pipe()
        self.file, self.find = open(path, "ab", buffering=0), find
        self.reads = threading.Event()
        self.reads.set()
        self.lines = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        rest = b""
        while True:
            self.reads.wait()
            data = os.read(self.reader, 65536)
            if not data:
                return self.file.close()
            self.file.write(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.look(line)

    def look(self, line):
        text = line.decode(errors="replace")
        self.lines.append(text)
        if text.startswith("{"):
            try:
                message = json.loads(text)
            except ValueError:
                if len(line) < self.WHOLE:
                    self.find(f"a line of the log is no JSON: {text[:300]}")
            else:
                if "spins" in str(message.get("message", message)):
                    self.find(f"a worker that is said to spin: {text[:300]}")
        elif "panicked at" in text or text.startswith("mcp-launch: "):
            self.find(f"in the log: {text[:300]}")

    def fill(self):
        """Stops reading, and writes until no byte fits."""
        self.reads.clear()
        # Not the launcher's own description of the pipe, which must stay blocking.
        with open(os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0) as pipe:
            for size in (4096, 1):
                try:
                    while pipe.write(b"#" * (size - 1) + b"\n"):
                        pass
                except BlockingIOError:
                    pass

    def close(self):
        """It is read to its end, which comes when the last process has ended that writes to it."""
        self.reads.set()
        os.close(self.writer)
        self.thread.join(10)


class Group:
    """A control group for its memory, where one can be made."""

    def __init__(self, name):
        root = Path("/sys/fs/cgroup")
        v1 = root / "memory"
        self.path = (v1 if v1.is_dir() else root) / name
        self.limit = "memory.limit_in_bytes" if v1.is_dir() else "memory.max"
        self.usage = "memory.usage_in_bytes" if v1.is_dir() else "memory.current"
        self.none = "-1" if v1.is_dir() else "max"
        self.path.mkdir()
        try:
            self.set(self.none)
        except OSError:
            self.remove()
            raise

    def set(self, limit):
        (self.path / self.limit).write_text(str(limit))

    def used(self):
        return int((self.path / self.usage).read_text())

    def kills(self):
        """How many of its processes the kernel has killed for memory."""
        for name in ("memory.events", "memory.oom_control"):
            if (self.path / name).exists():
                found = re.search(r"^oom_kill (\d+)", (self.path / name).read_text(), re.M)
                return int(found[1]) if found else 0
        return 0

    def remove(self):
        """Once its last process has ended."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.1)

    @classmethod
    def made(cls, name):
        try:
            return cls(name)
        except OSError:
            return None


class Service:
    """A launcher: started, asked, observed, ended."""

    def __init__(self, argv, environment, directory, port, outcomes):
        self.argv, self.environment, self.directory, self.port = argv, environment, Path(directory), port
        self.outcomes = outcomes
        self.log_path = self.directory / "log"
        self.group = Group.made(f"mcp-launch-soak-{os.getpid()}-{port}")
        self.process = self.log = None
        self.seen = {}

    def start(self):
        self.log = Log(self.log_path, self.outcomes.find)
        join = (lambda: (self.group.path / "cgroup.procs").write_text("0")) if self.group else None
        self.process = subprocess.Popen(
            self.argv,
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.log.writer,
            stderr=self.log.writer,
            preexec_fn=join,
        )
        self.pid = self.process.pid

    async def ready(self):
        """Waits until it is."""
        deadline = time.monotonic() + BOOT
        while not (await self.ask({"request": "ready"}) or {}).get("ready"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"soak: it does not start; see {self.log_path}")
            await asyncio.sleep(0.1)

    async def ask(self, request, seconds=10):
        """What it answers over the control socket; None if it does not."""
        path = self.directory / f"mcp-launch-127.0.0.1-{self.port}.sock"
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    return next(iter(json.loads(await reader.readline()).values()), None)
                finally:
                    writer.close()
        except (OSError, ValueError, AttributeError, TimeoutError):
            return None

    async def status(self):
        return await self.ask({"request": "status"})

    async def serving(self):
        """The generation that serves alone with all of its workers, if that is how it is."""
        status = await self.status()
        generations = (status or {}).get("generations", [])
        if len(generations) != 1 or generations[0]["state"] != "serving" or not status["launcher"]["ready"]:
            return None
        workers = generations[0]["workers"]
        all_ready = all((worker.get("load") or {}).get("state") == "ready" for worker in workers)
        return generations[0] if all_ready and len(workers) == generations[0]["workers_planned"] else None

    async def settled(self, what):
        """Waits until everything is as it was before the last fault."""
        deadline = time.monotonic() + SETTLES
        while time.monotonic() < deadline and self.process.poll() is None:
            if generation := await self.serving():
                return generation
            await asyncio.sleep(0.2)
        self.outcomes.find(f"{what}: after {SETTLES} s still not as before: {await self.status()}")
        return None

    async def command(self, *arguments):
        """The exit status of another command of mcp-launch, and what it said."""
        command = await asyncio.create_subprocess_exec(
            self.argv[0],
            *arguments,
            env=self.environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await command.communicate()
        return command.returncode, output.decode(errors="replace").strip()

    def signal(self, number):
        """A process that changes its title, as Granian's do, has no environment any more."""
        self.seen = {pid: stat(pid) for pid in descendants(self.pid)}
        os.kill(self.pid, number)

    async def ended(self, seconds):
        """Its exit status, if it ends in time; and nothing of it may be left."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return self.process.returncode

    def left(self):
        """Processes that it has left behind: its descendants before the end, and those with its directory in their
        environment."""
        mark = str(self.directory).encode()
        found = {pid for pid, was in self.seen.items() if was and (now := stat(pid)) and now[1] == was[1]}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), self.pid):
                try:
                    if mark in (entry / "environ").read_bytes():
                        found.add(int(entry.name))
                except OSError:
                    pass
        return sorted(pid for pid in found if (stat(pid) or "Z")[0] not in "ZX")

    def files(self):
        """Its own files, with numbers left out."""
        names = [str(path.relative_to(self.directory)) for path in self.directory.rglob("*")]
        kept = [name for name in names if "__pycache__" not in name and not name.startswith(("log", "app/"))]
        return sorted(re.sub(r"\d+", "N", name) for name in kept)

    def is_free(self):
        """Whether its port is."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
                probe.listen()
            except OSError:
                return False
        return True

    def close(self):
        """Ends whatever is still there."""
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        if self.log:
            self.log.close()
        if self.group:
            self.group.remove()
