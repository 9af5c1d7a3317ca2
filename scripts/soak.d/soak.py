"""A soak of mcp-launch: real servers, clients of all kinds, and a fault every few seconds. Run by scripts/soak, which
builds and installs what this needs.

The faults, their order and their times follow from the seed. What is checked: no request is lost that the contract does
not allow to be lost after this fault (faults.py); ready is said only if it is true; the launcher's memory, descriptors,
threads, processes and files come back to what they were; no zombies; each line of the log is well-formed; no worker is said
to spin.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checks import Leaks, Readiness
from clients import Clients
from faults import FAULTS
from http_client import Broken, Connection
from outcomes import Outcomes
from service import Service

HERE = Path(__file__).parent
SECRET = "p8Zk3vQ0xW-7yTn5bR2mJc9sLhF4uGdE"
AFTER_A_DEATH = 6.0  # seconds: Granian gives up if a worker fails twice within 5.5 s of a start


def free_port(chance):
    """Below the ports that the kernel gives to clients."""
    import socket

    while True:
        port = chance.randrange(10_000, 30_000)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


class Small:
    """An app that can be told to misbehave. Its module may be broken, and its certificate renewed."""

    name, blocks = "a small app", True
    crowd = {"fresh": 4, "kept": 4, "slow": 3, "dribble": 2, "upload": 2, "stream": 3, "websocket": 3, "abort": 2}

    def __init__(self, directory, uses_tls, options):
        self.directory = directory / "app"
        self.directory.mkdir()
        self.module = self.directory / "soak_app.py"
        shutil.copy(HERE / "soak_app.py", self.module)
        self.environment = {"APP_MODULE": "soak_app:app", "PYTHONPATH": str(self.directory)}
        self.tls, self.headers = None, []
        if uses_tls:
            self.certificates = 0
            self.renew()
            self.environment |= {
                "SSL": "true",
                "CERT_FILE": str(self.directory / "current/cert.pem"),
                "KEY_FILE": str(self.directory / "current/key.pem"),
                "MCP_LAUNCH_WATCH_CERTS": "true",
            }
            self.tls = ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def renew(self):
        """Another certificate and key, put in place at once; returns the certificate."""
        self.certificates += 1
        place = self.directory / f"certificates-{self.certificates % 2}"
        place.mkdir(exist_ok=True)
        new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        files = ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
        subprocess.run(
            ["openssl", *new, "-subj", "/CN=localhost", *files], check=True, stderr=subprocess.DEVNULL, timeout=60
        )
        link = self.directory / "new"
        link.symlink_to(place.name)
        os.replace(link, self.directory / "current")
        return ssl.PEM_cert_to_DER_cert((place / "cert.pem").read_text())

    def question(self, chance):
        """A path, and a function that checks the answer."""
        number = str(chance.getrandbits(60))

        def check(body):
            if json.loads(body)["id"] != number:
                raise Broken(f"the answer to {number} is {body[:100]!r}")

        return f"/echo?{number}", check


class Gateway:
    """The gateway, with a database of its own."""

    name, blocks, module, tls = "the gateway", False, None, None
    crowd = {"fresh": 2, "kept": 2, "slow": 2, "dribble": 1, "post": 2, "abort": 1}

    def __init__(self, directory, uses_tls, options):
        self.environment = {
            "DATABASE_URL": f"sqlite:///{directory}/app/mcp.db",
            "JWT_SECRET_KEY": SECRET,
            "AUTH_ENCRYPTION_SECRET": SECRET,
            "PLATFORM_ADMIN_EMAIL": "admin@example.com",
            "PLATFORM_ADMIN_PASSWORD": "Correct-Horse-9-Battery",
            # What is tested is not how fast it rejects a single client.
            "RATE_LIMITING_ENABLED": "false",
            "MCP_LAUNCH_STARTUP_TIMEOUT": "280s",
        }
        (directory / "app").mkdir()
        self.headers = [f"Authorization: Bearer {self.token(options)}"]

    @staticmethod
    def token(options):
        """From the gateway's own tool."""
        command = [f"{options.venv}/bin/python", "-m", "mcpgateway.utils.create_jwt_token", "--exp", "1440"]
        environment = {"JWT_SECRET_KEY": SECRET, "DATABASE_URL": "sqlite:///:memory:", "PATH": os.environ["PATH"]}
        output = subprocess.run(
            [*command, "--username", "admin@example.com", "--secret", SECRET],
            env=environment,
            cwd=tempfile.gettempdir(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        return next(word for word in output.stdout.split() if word.startswith("eyJ"))

    def question(self, chance):
        if chance.random() < 0.5:
            return "/health", lambda body: None

        def check(body):
            if json.loads(body) != []:
                raise Broken(f"tools: {body[:100]!r}")

        return "/tools", check

    def form(self, chance):
        """A JSON-RPC call with some weight."""
        number = chance.getrandbits(50)
        params = {"padding": "x" * chance.choice([0, 1000, 100_000])}

        def check(body):
            if json.loads(body).get("id") != number:
                raise Broken(f"the answer to {number} is {body[:100]!r}")

        call = {"jsonrpc": "2.0", "id": number, "method": "ping", "params": params}
        return "/rpc", json.dumps(call).encode(), check


class Target:
    """Where clients go, and what they do there."""

    def __init__(self, app, port):
        self.address, self.tls, self.headers, self.crowd = ("127.0.0.1", port), app.tls, app.headers, app.crowd
        self.question, self.form = app.question, getattr(app, "form", None)


class Leg:
    """A part of the soak: one application, one first server."""

    def __init__(self, options, chance, kind, server, uses_tls, say):
        self.options, self.chance, self.say = options, chance, say
        self.directory = Path(tempfile.mkdtemp(prefix="mcp-launch-soak-"))
        self.app = kind(self.directory, uses_tls, options)
        port = free_port(chance)
        self.target = Target(self.app, port)
        self.outcomes = Outcomes(say)
        self.name = f"{self.app.name}{' with TLS' if uses_tls else ''}, first on {server}"
        environment = {
            "PATH": f"{options.venv}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory),
            "VIRTUAL_ENV": options.venv,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "HTTP_SERVER": server,
            "GUNICORN_WORKERS": "2",
            "GRANIAN_WORKERS": "2",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MCP_LAUNCH_LOG_FORMAT": "json",
            "MCP_LAUNCH_WORKER_TIMEOUT": "4s" if self.app.blocks else "15s",
            # Sooner than by default: what its app does for itself must not be taken for a spin.
            "MCP_LAUNCH_SPIN_AFTER": "15s",
            # Its failures are on purpose.
            "MCP_LAUNCH_RESTART_LIMIT": "1000",
            "MCP_LAUNCH_STOP_TIMEOUT": "20s",
            **self.app.environment,
        }
        self.service = Service([options.binary], environment, self.directory, port, self.outcomes)
        self.done = {}

    @contextlib.contextmanager
    def excused(self, why, seconds):
        """Failures of clients who come until so much later, until the service is as before."""
        excuse = self.outcomes.excuse(why)
        excuse.opened_before += seconds
        yield excuse

    async def certificate(self):
        """The one that is served."""
        try:
            connection = await Connection.open(self.target.address, self.target.tls)
            found = connection.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            connection.close()
            return found
        except Broken:
            return None

    async def nothing_is_left(self, what, within=0):
        deadline = time.monotonic() + within
        while True:
            left, is_free = self.service.left(), self.service.is_free()
            if not left and is_free or time.monotonic() >= deadline:
                break
            await asyncio.sleep(0.1)
        if left:
            self.outcomes.find(f"{what}: processes are left: {left}")
        if not is_free:
            self.outcomes.find(f"{what}: the port is not free")

    async def start_again(self):
        self.service.log.close()
        self.service.start()
        await self.service.ready()
        self.leaks = Leaks(self.service, self.outcomes)

    async def run(self, until):
        self.service.start()
        await self.service.ready()
        self.leaks = Leaks(self.service, self.outcomes)
        await self.leaks.look(await self.service.settled("the start"), "the start")
        self.clients = Clients(self.target, self.outcomes, self.chance_of_clients())
        self.clients.start()
        self.readiness = Readiness(self.service, self.target, self.outcomes)
        watch = asyncio.ensure_future(self.readiness.watch())
        try:
            await self.suffer_until(until)
            self.outcomes.settle("in the end")
        finally:
            watch.cancel()
            await self.clients.stop()
        self.leaks.judge()
        await self.end()

    async def suffer_until(self, until):
        """One fault after the other; all of them, in a new order, before one comes again."""
        bag = []
        while True:
            gap = self.chance.uniform(*self.options.gap)
            if time.monotonic() + gap > until:
                break
            await asyncio.sleep(gap)
            bag = bag or self.shuffled()
            await self.suffer(bag.pop())
        await asyncio.sleep(max(until - time.monotonic(), 0))

    def chance_of_clients(self):
        """Not the one of the faults, which would depend on how fast answers are."""
        return random.Random(self.options.seed)

    def shuffled(self):
        possible = [fault for fault in FAULTS if not fault.needs(self)]
        if self.options.only:
            possible = [fault for fault in possible if fault.__name__ in self.options.only]
        return self.chance.sample(possible, len(possible))

    async def suffer(self, fault):
        self.outcomes.settle("without a fault")
        before = time.monotonic()
        self.say(f"  {fault.__doc__}")
        self.readiness.disturbed = True
        excuses = len(self.outcomes.excuses)
        await fault(self)
        generation = await self.service.settled(fault.__doc__)
        if generation is None:
            raise SystemExit(f"soak: it does not recover from {fault.__doc__}; see {self.directory}")
        took = time.monotonic() - before
        # Whoever waits for an answer that does not come has not noticed yet; then Granian may lose a worker again.
        await asyncio.sleep(AFTER_A_DEATH)
        generation = await self.service.settled(fault.__doc__)
        for excuse in self.outcomes.excuses[excuses:]:
            excuse.until = asyncio.get_running_loop().time()
        self.outcomes.settle(fault.__doc__)
        self.readiness.disturbed = False
        if generation:
            await self.leaks.look(generation, fault.__doc__)
        count, longest = self.done.get(fault.__doc__, (0, 0))
        self.done[fault.__doc__] = count + 1, max(longest, took)

    async def end(self):
        self.service.signal(signal.SIGTERM)
        status = await self.service.ended(30)
        if status != 0:
            self.outcomes.find(f"the last stop: status {status}")
        await self.nothing_is_left("the last stop")
        left = [name for name in self.service.files() if name.startswith("mcp-launch-")]
        if left:
            self.outcomes.find(f"the last stop: files are left: {left}")

    def report(self):
        outcomes = self.outcomes
        answered = sum(outcomes.answered.values())
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(outcomes.answered.items()))
        self.say(f"  {answered} went well ({kinds}); {self.readiness.checks} times ready and so it was")
        for why, count in outcomes.excused.items():
            self.say(f"  {count} failed because {why}")
        for name, (count, longest) in sorted(self.done.items()):
            self.say(f"  {count} × {name}, over after {longest:.1f} s at most")
        for fault in FAULTS:
            if why := fault.needs(self):
                self.say(f"  SKIPPED {fault.__doc__}: {why}")
        self.say(f"  the launcher: {self.leaks.growth() >> 10:+} KiB in {len(self.leaks.samples)} looks")


def parse():
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Real servers, all kinds of clients, and faults.")
    parser.add_argument("minutes", nargs="?", type=float, default=10, help="how long (10)")
    parser.add_argument("--seed", type=int, help="repeats the faults of another run")
    parser.add_argument("--gap", type=float, nargs=2, metavar="SECONDS", help="from one fault to the next (10 60)")
    parser.add_argument("--only", action="append", choices=[fault.__name__ for fault in FAULTS], help="only this fault")
    parser.add_argument("--app", choices=["small", "gateway"], help="only this application")
    parser.add_argument("--step-clock", action="store_true", help="also set the clock of the machine, for seconds")
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--venv", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.gap is None:
        options.gap = (10, 60) if options.minutes >= 20 else (1, 4)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


def plan(options, chance):
    """What is soaked, and for which share of the time."""
    has_gateway = any(Path(options.venv).glob("lib/python*/site-packages/mcpgateway"))
    servers = chance.sample(["gunicorn", "granian"], 2)
    legs = [(Small, servers[0], False, 2), (Small, servers[1], True, 2)]
    if has_gateway:
        legs.append((Gateway, servers[0], False, 2))
    if options.app:
        legs = [leg for leg in legs if leg[0] is (Small if options.app == "small" else Gateway)]
    whole = sum(share for *_, share in legs)
    return [(*leg[:3], leg[3] / whole) for leg in legs], has_gateway


async def main():
    options = parse()
    begin = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - begin:7.1f} {text}", flush=True)

    chance = random.Random(options.seed)
    say(f"seed {options.seed}, {options.minutes:g} minutes")
    legs, has_gateway = plan(options, chance)
    if not has_gateway:
        say("SKIPPED the gateway: it is not installed")
    found = 0
    for kind, server, uses_tls, share in legs:
        leg = Leg(options, random.Random(chance.random()), kind, server, uses_tls, say)
        say(f"{leg.name}: {leg.directory}")
        try:
            await leg.run(time.monotonic() + 60 * options.minutes * share)
        finally:
            leg.service.close()
        leg.report()
        if leg.outcomes.findings:
            found += len(leg.outcomes.findings)
        else:
            shutil.rmtree(leg.directory)
    say(f"{found} findings" if found else "nothing found")
    sys.exit(bool(found))


if __name__ == "__main__":
    asyncio.run(main())
