"""Writes the tables of scripts/RESULTS.md from the output of mcp-launch compare --json. Run by scripts/compare-tables."""

import argparse
import json
import re
from datetime import date
from pathlib import Path

BEGIN, END = "<!-- compare -->\n", "<!-- /compare -->"

APPS = {
    "empty_json": ("An empty JSON object", "tests/apps/empty_json.py"),
    "database": ("A page of database queries", "tests/apps/database.py: SQLite, blocking calls in threads"),
    "streaming": ("A short event stream", "tests/apps/streaming.py: ten events in 100 ms"),
    "wsgi_flask": ("A WSGI app", "tests/apps/wsgi_flask.py: Flask, threads"),
    "gateway": ("The MCP Gateway, `/health`", "a database query; `RATE_LIMITING_ENABLED=false`"),
}

# The most important rows; `mcp-launch compare` prints all of them.
ROWS = ["requests_per_second", "p99", "cpu_64", "start", "memory_loaded", "overload", "reload_failed"]


class Result:
    """The measurements of one app."""

    def __init__(self, path):
        self.data = json.loads(path.read_text())
        self.lines = {line["key"]: line for line in self.data["table"]}

    def row(self, key):
        """The cells of a row as they are shown."""
        line = self.lines.get(key)
        return line["shown"] if line else ["–", "–", ""]

    def advice(self, begin):
        return next(it for it in self.data["recommendations"] if it["scenario"].startswith(begin))

    def titles(self):
        return [f"{server['server'].capitalize()} {server['version'] or ''}".strip() for server in self.data["servers"]]


def table(headings, lines):
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""


def app_table(name, result):
    title, what = APPS[name]
    # GitHub does not render Markdown inside <summary>.
    yield re.sub("`([^`]+)`", r"<code>\1</code>", f"<details><summary>{title} ({what})</summary>")
    yield ""
    lines = [line for key, line in result.lines.items() if any(key.startswith(row) for row in ROWS)]
    yield from table(["", *result.titles(), "difference"], ([line["label"], *line["shown"]] for line in lines))
    yield "</details>"
    yield ""


def better(result, key):
    """The server that a row finds better; none where there is no difference."""
    verdict = result.lines[key]["verdict"]
    return result.data["servers"][verdict["better"]["which"]]["server"] if isinstance(verdict, dict) else None


def by(result, key):
    verdict = result.lines[key]["verdict"]
    return verdict["better"]["by"] if isinstance(verdict, dict) else 0


def against_the_record(results):
    """What the decision record says, what was measured here, and whether that is the same."""
    plain, database, gateway = results["empty_json"], results["database"], results["gateway"]

    def cells(result, key):
        gunicorn, granian, difference = result.row(key)
        return f"{gunicorn} and {granian}: {difference or 'not compared'}"

    def rejects(result, which):
        return sum(overload["rejected"] or 0 for overload in result.data["servers"][which]["overloads"])

    rate, memory, worker = "requests_per_second_64", "memory_loaded", "memory_loaded_worker"
    yield (
        "simple JSON: Granian 20–50 % faster",
        cells(plain, rate),
        better(plain, rate) == "granian" and 0.15 <= by(plain, rate) <= 0.55,
    )
    yield "memory of a worker: 80 MB and 40 MB", cells(gateway, worker), better(gateway, worker) == "granian"
    yield "startup: Granian faster", cells(gateway, "start"), better(gateway, "start") == "granian"
    yield "database-bound: the same throughput", cells(database, rate), better(database, rate) is None
    yield (
        "memory under load: Gunicorn 32 % less",
        cells(gateway, memory),
        better(gateway, memory) == "gunicorn" and by(gateway, memory) > 0.2,
    )
    yield (
        "processor: Granian 8 % less",
        cells(gateway, "cpu_64"),
        better(gateway, "cpu_64") == "granian" and by(gateway, "cpu_64") < 0.2,
    )
    yield (
        "overload: Gunicorn none refused, Granian 503",
        f"refused by Gunicorn {rejects(gateway, 0):,}, by Granian {rejects(gateway, 1):,} (with the guard, and a limit on both)",
        rejects(gateway, 0) == 0 and rejects(gateway, 1) > 0,
    )
    for scenario, said in [("Memory", "Gunicorn"), ("Load spikes", "Granian"), ("Predictable", "either")]:
        found = gateway.advice(scenario)
        yield f"{found['scenario']}: {said}", found["choose"], found["choose"] == said.lower()


def block(results):
    data = results["gateway"].data
    machine = data["machine"]
    yield (
        f"Measured on {date.today().isoformat()} on {machine['cores']} cores ({machine['cpu']}), {machine['system']}, "
        f"kernel {machine['kernel']}, with {data['load_generator']}: {data['rounds']} rounds of "
        f"{results['empty_json'].data['duration_seconds']:g} s ({data['duration_seconds']:g} s for the gateway) for each "
        f"number of connections, alternating between the servers. Figures are the median (minimum–maximum)."
    )
    yield ""
    if any(result.data["machine"]["busy_percent"] > 10 for result in results.values()):
        yield "**Provisional**: other programs were busy on the machine."
        yield ""
    for name, result in results.items():
        yield from app_table(name, result)
    yield "The gateway's decision record on its servers (ADR 0025), compared with what was measured here:"
    yield ""
    lines = ((said, measured, "yes" if agrees else "no") for said, measured, agrees in against_the_record(results))
    yield from table(["the record", "measured here", "agrees"], lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("document", type=Path)
    options = parser.parse_args()
    results = {name: Result(options.results / f"{name}.json") for name in APPS}
    before, rest = options.document.read_text().split(BEGIN)
    _, after = rest.split(END)
    options.document.write_text(f"{before}{BEGIN}\n" + "\n".join(block(results)) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
