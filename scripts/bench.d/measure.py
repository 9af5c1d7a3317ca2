"""What mcp-launch costs, compared with other inits and supervisors. Run by scripts/bench, which builds and installs what this
needs.

Times are taken with CLOCK_MONOTONIC: the first here, just before a process is started or killed, the second by
fake_server.rs as its first act. Contestants take turns, so that other activity of the machine affects all of them, and a
ratio is the median of the ratios within a turn.

Each module of MODULES has `add_options(parser)`, which adds its options, and `sections(options, installation)`, which
measures and yields `figures.Section`s. To add rows, add a module there.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from figures import table
from html_page import page
from launcher import Installation

MODULES = "startup footprint supervision builds guard overhead dealing rivals wsgi backpressure hangs memory".split()


def version(program, *arguments):
    """The first line of a program's version output."""
    path = shutil.which(program)
    if not path:
        return None
    output = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    return (output.stdout + output.stderr).strip().split("\n")[0]


def package_version(package, program):
    """The version of a Debian package, for programs that do not print their own."""
    if not shutil.which(program):
        return None
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    output = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("dpkg-query") else None
    return f"{package} {output.stdout or 'of unknown version'}" if output else package


def machine(options):
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    supervisord, circus = version("supervisord", "--version"), version("circusd", "--version")
    versions = [
        version(options.binary, "--version"),
        version("tini", "--version"),
        version("dumb-init", "--version"),
        version("catatonit", "--version"),
        package_version("s6", "s6-supervise"),
        package_version("runit", "runsv"),
        supervisord and f"supervisord {supervisord}",
        circus and f"circus {circus}",
    ]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model[0].split(":", 1)[1].strip() if model else platform.machine(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "versions": [text for text in versions if text],
    }


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--fake-server", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--bare-exec", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--venv", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=MODULES, action="append", help="only these; may be given more than once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots there, too")
    modules = {name: importlib.import_module(name) for name in MODULES}
    for module in modules.values():
        module.add_options(parser)
    options = parser.parse_args()
    host = machine(options)
    print(f"{host['cores']} cores ({host['cpu']}), Linux {host['kernel']}, load {host['load']:.1f}")
    print(f"{', '.join(host['versions'])}\n", flush=True)
    measured = []
    for name, module in modules.items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory(prefix="mcp-launch-bench-") as temporary:
            for section in module.sections(options, Installation(temporary, options.fake_server)):
                measured.append(section)
                print("\n".join(line.rstrip() for line in table([section])), flush=True)
    if options.json:
        figures = {"machine": host, "sections": [section.figures() for section in measured]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.html:
        options.html.write_text(page(host, measured))


if __name__ == "__main__":
    main()
