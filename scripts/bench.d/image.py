"""The gateway's image and one with the same Python and a shell entrypoint: size, and time to start. Run by
scripts/bench --image.

The shell entrypoint does the minimum of what the replaced scripts do: it runs Python three times, then
execs the server. The two images take turns; a difference is the median of the differences within a turn.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from launcher import LIMIT, now, progress, read_line

ENTRYPOINT = """#!/bin/sh
set -e
ask() { python -c 'import sys; print(sys.version_info[:2])' >/dev/null; }
ask; ask; ask
exec granian --interface asgi --host 0.0.0.0 --port 4444 --workers 2 "$@"
"""

CONTAINERFILE = """FROM {image} AS gateway
FROM {base}
COPY --from=gateway /app /app
COPY entrypoint.sh /entrypoint.sh
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin VIRTUAL_ENV=/app/.venv
WORKDIR /app
USER 1001:0
ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]
"""

PORT = 45444
NAME = "mcp-launch-bench-image"


def engine(options, *arguments, **more):
    return subprocess.run([options.engine, *arguments], check=True, capture_output=True, text=True, **more).stdout


def build_with_shell(options):
    """The image for comparison; all its layers but one exist already."""
    with tempfile.TemporaryDirectory(prefix="mcp-launch-bench-") as directory:
        Path(directory, "entrypoint.sh").write_text(ENTRYPOINT)
        Path(directory, "Containerfile").write_text(CONTAINERFILE.format(image=options.image, base=options.base))
        name = f"{NAME}-shell"
        engine(options, "build", "--tag", name, "--file", f"{directory}/Containerfile", directory)
        return name


def size(options, image):
    return int(engine(options, "image", "inspect", "--format", "{{.Size}}", image))


def until_the_server_begins(options, image, arguments):
    """Nanoseconds from `docker run` to the first instruction of a server that does nothing."""
    argv = [options.engine, "run", "--rm", "--name", NAME, "--network=none"]
    argv += [f"--volume={options.fake_server}:/app/.venv/bin/granian:ro", image, *arguments]
    start = now()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        return int(read_line(process.stdout.fileno(), image).split()[0]) - start


def until_it_answers(options, image, arguments):
    """Nanoseconds from `docker run` to the first answer of a small app under the real server."""
    argv = ["run", "--rm", "--detach", "--name", NAME, f"--publish=127.0.0.1:{PORT}:4444", "--env=PYTHONPATH=/apps"]
    argv += [f"--volume={options.apps}:/apps:ro", image, *arguments]
    start = now()
    engine(options, *argv)
    try:
        while now() - start < LIMIT * 1_000_000_000:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5).close()
                return now() - start
            time.sleep(0.002)
        raise SystemExit(f"bench: no answer from {image}")
    finally:
        engine(options, "rm", "--force", NAME)


def paired(options, what, measure, contestants):
    """The median of each contestant, and of the additional time of the second, in milliseconds."""
    times = {name: [] for name, _, _ in contestants}
    for turn in range(options.turns):
        for name, image, arguments in contestants if turn % 2 == 0 else reversed(contestants):
            times[name].append(measure(options, image, arguments) / 1e6)
        progress(what, turn + 1, options.turns)
    first, second = times.values()
    saved = statistics.median(other - one for one, other in zip(first, second, strict=True))
    return {**{name: statistics.median(values) for name, values in times.items()}, "difference": saved}


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench --image")
    for name in ["engine", "image", "base", "fake-server", "apps"]:
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=15, help="containers to start of each kind (15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    shell = build_with_shell(options)
    contestants = [
        ("mcp-launch", options.image, ["--server", "granian", "hello:app"]),
        ("shell entrypoint", shell, ["hello:app"]),
    ]
    try:
        result = {
            "bytes": {name: size(options, image) for name, image, _ in contestants},
            "to the server's start, ms": paired(options, "start", until_the_server_begins, contestants),
            "to the first answer, ms": paired(options, "answer", until_it_answers, contestants),
        }
    finally:
        engine(options, "rmi", "--force", shell)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    for name, image_bytes in result.pop("bytes").items():
        print(f"{'image, ' + name:40}{image_bytes / 1e6:10.1f} MB")
    for what, figures in result.items():
        for name, figure in figures.items():
            print(f"{what + ', ' + name:56}{figure:10.1f}")


if __name__ == "__main__":
    main()
