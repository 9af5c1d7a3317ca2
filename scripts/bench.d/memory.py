"""What a preloaded gateway takes, with its objects excluded from garbage collection before the fork and without: rows for
scripts/bench, with the real gateway under Gunicorn. A page that several processes share counts once (PSS).
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from figures import Row, Section
from guard import Field, Server, free_port, gateway_settings, processes
from launcher import progress

CONFIGURATION = Path(__file__).parents[2] / "config/gunicorn.conf.py"
WITHOUT, WITH = "without gc.freeze", "with it"
CONNECTIONS = 32


def private(pid):
    """Memory of a process that it shares with nobody, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) * 1024 for size in re.findall(r"^Private_\w+: +(\d+) kB", text, re.M))


def launched(field, workers, name, settings):
    directory = Path(field.directory) / f"{workers} {name}"
    directory.mkdir(exist_ok=True)
    text = CONFIGURATION.read_text()
    if name == WITHOUT:
        text = text.replace("        gc.freeze()\n", "")
    (directory / "gunicorn.conf.py").write_text(text)
    port = free_port()
    own = {"WEB_CONCURRENCY": str(workers), "GUNICORN_PRELOAD_APP": "true"}
    argv = [field.options.binary, "--server", "gunicorn", "mcpgateway.main:app"]
    return Server(argv, field.environment(port, **own, **settings), directory, port)


def requests(port, number):
    """Makes at least so many requests."""
    made = 0
    while made < number:
        argv = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", "10s"]
        argv.append(f"http://127.0.0.1:{port}/health")
        output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in output:
            sys.exit(f"bench: /health is not answered with 200:\n{output}")
        made += int(re.search(r"(\d+) requests in", output).group(1))
        progress("memory", min(made, number), number)


def add_options(parser):
    parser.add_argument("--memory-requests", type=int, default=100_000, help="requests before it is measured (100000)")
    parser.add_argument("--memory-workers", type=int, action="append", help="may be given more than once (4 and 16)")


def sections(options, installation):
    if not shutil.which("wrk"):
        print("bench: memory is left out: no wrk (apt-get install wrk)", file=sys.stderr)
        return
    field = Field(options, str(installation.root))
    settings = {"DATABASE_URL": f"sqlite:///{field.directory}/mcp.db", **gateway_settings()}
    # The first start creates the database, so it runs alone.
    field.launched("gunicorn", "mcpgateway.main:app", **settings).stop()
    for workers in options.memory_workers or [4, 16]:
        rows = {what: [] for what in ("after the start", "after the requests", "private memory of a worker")}
        for name in [WITHOUT, WITH]:
            server = launched(field, workers, name, settings)
            try:
                before = server.memory()
                requests(server.port, options.memory_requests)
                after = server.memory()
                # The launcher, and Gunicorn's main process.
                own = [private(pid) for pid in list(processes(server.process.pid))[2:]]
            finally:
                server.stop()
            for what, size in zip(rows, [before, after, sum(own) / len(own)], strict=True):
                rows[what].append(Row(name, [size / 2**20], "MiB"))
        for what, found in rows.items():
            title = f"preloaded gateway, {workers} workers, {options.memory_requests:,} requests: {what}"
            yield Section(title, found, WITHOUT)
