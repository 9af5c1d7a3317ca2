"""How 64 keep-alive connections are distributed among four workers: the most that one has, as a multiple of the mean."""

import os
import subprocess
import sys
import time
from pathlib import Path

from crowd import CONNECTIONS, SERVERS, WORKERS, contestant
from figures import Row, Section, Target
from guard import LIMIT, free_port

CLIENTS = Path(__file__).parents[2] / "tests/servers/dealing/clients.py"
MOST = {"one-by-one": 1.5, "at-once": 1.75}
TITLES = {"one-by-one": "one by one", "at-once": "at once"}


def unevenness(field, address, kind, order, trials):
    """The figure of each trial."""
    argv = [f"{field.options.venv}/bin/python", CLIENTS, address, kind, order, CONNECTIONS, WORKERS, trials]
    text = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout
    return [float(line) for line in text.splitlines()]


def row(name, taken, most):
    return Row(name, taken, "", target=Target(most) if most else None, note=f"worst {max(taken):.2f}")


def evenness(field, rounds):
    """The servers alone and behind mcp-launch; then everything that a server can be behind mcp-launch."""
    rows = {order: [] for order in MOST}
    for name, (server, worker_class) in SERVERS.items():
        for launched in (False, True):
            running = contestant(field, server, worker_class, launched)()
            try:
                for order, most in MOST.items():
                    taken = unevenness(field, f"127.0.0.1:{running.port}", "plain", order, rounds)
                    rows[order].append(row("the same, mcp-launch" if launched else name, taken, launched and most))
            finally:
                running.stop()
    for order in MOST:
        yield Section(f"64 keep-alive connections {TITLES[order]}: most / mean", rows[order])
    yield from every_kind(field, rounds)


def every_kind(field, rounds):
    classes = {
        "uvicorn workers, uvloop": ("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker"),
        "uvicorn workers, asyncio": ("gunicorn", "--worker-class", "uvicorn_worker.UvicornH11Worker"),
        "asgi, uvloop": ("gunicorn", "--worker-class", "asgi", "--", "--asgi-loop", "uvloop"),
        "asgi, asyncio": ("gunicorn", "--worker-class", "asgi", "--", "--asgi-loop", "asyncio"),
        "Granian, uvloop": ("granian", "--loop", "uvloop"),
        "Granian, asyncio": ("granian", "--loop", "asyncio"),
    }
    rows = {order: [] for order in MOST}
    for name, (server, *arguments) in classes.items():
        kinds = {"": ["plain"], "TLS": ["tls", "h2"] if server == "granian" else ["tls"]}
        if server == "gunicorn":
            kinds["a Unix socket"] = ["plain"]
        for place, transports in kinds.items():
            with Launched(field, server, arguments, place) as launched:
                for kind in transports:
                    shown = ", ".join(part for part in (name, place, "HTTP/2" if kind == "h2" else "") if part)
                    for order, most in MOST.items():
                        taken = unevenness(field, launched.address, kind, order, rounds)
                        rows[order].append(row(shown, taken, most))
    for order in MOST:
        yield Section(f"mcp-launch, every kind, {TITLES[order]}: most / mean", rows[order])


class Launched:
    """A server behind mcp-launch, on an address of any kind."""

    def __init__(self, field, server, arguments, place):
        port, directory = free_port(), Path(field.directory)
        self.address = str(directory / f"{port}.sock") if place == "a Unix socket" else f"127.0.0.1:{port}"
        ours, _, theirs = " ".join(arguments).partition("-- ")
        where = ["--uds", self.address] if place == "a Unix socket" else []
        tls = ["--ssl", "--cert-file", "bench.crt", "--key-file", "bench.key"] if place == "TLS" else []
        argv = [field.options.binary, "--server", server, "--workers", str(WORKERS), *ours.split(), *where, *tls]
        self.argv = [*argv, "dealing_app:app", *(["--", *theirs.split()] if theirs else [])]
        self.environment = {
            **field.environment(port),
            "PYTHONPATH": field.directory,
            "GUNICORN_KEEP_ALIVE": "30",
            "MCP_LAUNCH_SOCKET": str(directory / f"{port}.control"),
        }
        self.binary, self.directory = field.options.binary, directory
        if tls and not (directory / "bench.crt").exists():
            subject = ["-subj", "/CN=bench", "-days", "2", "-keyout", "bench.key", "-out", "bench.crt"]
            key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            subprocess.run(["openssl", "req", "-x509", *key, *subject], cwd=directory, capture_output=True, check=True)

    def __enter__(self):
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(self.argv, env=self.environment, cwd=self.directory, **silent)
        until = time.monotonic() + LIMIT
        while subprocess.run([self.binary, "health"], env=self.environment, check=False, **silent).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"bench: it does not start: {' '.join(self.argv)}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(LIMIT)
        if self.address.startswith("/") and os.path.exists(self.address):
            os.unlink(self.address)
