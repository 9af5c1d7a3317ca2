"""The faults of a soak. Each is an async function of the leg: it does its harm, and waits until the harm is done. Its
docstring is its name in the report. What the contract allows clients to lose is an excuse; without one they lose nothing.
"""

import asyncio
import os
import resource
import signal
import socket
import time

from http_client import Broken, Connection, must_be_healthy
from service import children

FAULTS = []
# Seconds after which clients that come no longer meet a silent worker.
NOTICED = 2.0


def fault(needs=None):
    """Adds a function to the list. `needs` tells why it cannot be done here, or nothing."""

    def add(function):
        function.needs = needs or (lambda leg: None)
        FAULTS.append(function)
        return function

    return add


def own_group(leg):
    return None if leg.service.group else "no control group can be made here"


def tls(leg):
    return None if leg.target.tls else "it is served without TLS"


def blocking(leg):
    return None if leg.app.blocks else "this application cannot be told to block"


def own_module(leg):
    return None if leg.app.module else "this application is not ours to break"


def clock(leg):
    if not leg.options.step_clock:
        return "it is for the whole machine: only with --step-clock"
    return None if os.geteuid() == 0 else "only root may set the clock"


async def a_worker(leg):
    generation = await leg.service.serving()
    return leg.chance.choice(generation["workers"])["pid"] if generation else None


async def main_process(leg):
    generation = await leg.service.serving()
    return generation and generation["main_pid"]


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


async def gone(pid, seconds=60):
    """Waits until a process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.05)
    return False


async def must_reload(leg, *arguments):
    code, said = await leg.service.command("reload", "--timeout", "120s", *arguments)
    if code != 0:
        leg.outcomes.find(f"reload {' '.join(arguments)}: status {code}: {said[:300]}")


@fault()
async def kill_worker(leg):
    """kill -9 of a worker"""
    if pid := await a_worker(leg):
        with leg.excused("a worker was killed", 0.05):
            kill(pid, signal.SIGKILL)
            await gone(pid)


@fault()
async def kill_main(leg):
    """kill -9 of the main process"""
    if pid := await main_process(leg):
        kill(pid, signal.SIGKILL)
        await gone(pid)


@fault()
async def stop_worker(leg):
    """SIGSTOP of a worker, for good"""
    if pid := await a_worker(leg):
        with leg.excused("a worker was stopped", NOTICED):
            kill(pid, signal.SIGSTOP)
            if not await gone(pid):
                leg.outcomes.find(f"a stopped worker was not replaced: {pid}")
                kill(pid, signal.SIGCONT)


@fault(blocking)
async def block_worker(leg):
    """a blocked event loop"""
    with leg.excused("an event loop was blocked", NOTICED):
        connection = await Connection.open(leg.target.address, leg.target.tls)
        await connection.request("GET", "/block?3600")
        try:
            await connection.head()
            leg.outcomes.find("a request that blocks for an hour was answered")
        except Broken:
            pass
        connection.close()


@fault()
async def stop_main(leg):
    """SIGSTOP of the main process, for some seconds"""
    if pid := await main_process(leg):
        kill(pid, signal.SIGSTOP)
        await asyncio.sleep(leg.chance.uniform(1, 6))
        kill(pid, signal.SIGCONT)


@fault()
async def stop_launcher(leg):
    """SIGSTOP of the launcher, for some seconds"""
    leg.service.signal(signal.SIGSTOP)
    await asyncio.sleep(leg.chance.uniform(1, 4))
    leg.service.signal(signal.SIGCONT)


@fault()
async def pause_all(leg):
    """SIGSTOP of everything, for some seconds"""
    pids = [leg.service.pid]
    for pid in pids:
        kill(pid, signal.SIGSTOP)
        pids += children(pid)
    await asyncio.sleep(leg.chance.uniform(1, 6))
    # The server finds that kept connections were idle for too long, although there is a request on them by now.
    with leg.excused("everything was paused", 0):
        for pid in reversed(pids):
            kill(pid, signal.SIGCONT)


@fault()
async def reload(leg):
    """a reload"""
    await must_reload(leg)


@fault()
async def reload_storm(leg):
    """SIGHUP several times in a row"""
    for _ in range(leg.chance.randrange(2, 5)):
        leg.service.signal(signal.SIGHUP)
        await asyncio.sleep(leg.chance.uniform(0, 1))
    await asyncio.sleep(2)


@fault(own_module)
async def broken_reload(leg):
    """a reload to a broken release"""
    before = await leg.service.serving()
    good = leg.app.module.read_text()
    new = leg.app.module.with_suffix(".new")
    new.write_text(leg.chance.choice(["raise RuntimeError('broken')\n", "def app(:\n", "import os\nos._exit(1)\n"]))
    os.replace(new, leg.app.module)
    code, said = await leg.service.command("reload", "--timeout", "120s")
    new.write_text(good)
    os.replace(new, leg.app.module)
    after = await leg.service.settled("a reload to a broken release")
    if code != 1:
        leg.outcomes.find(f"a reload to a broken release: status {code}: {said[:300]}")
    elif before and after and before["id"] != after["id"]:
        leg.outcomes.find(f"a broken release replaced generation {before['id']} by {after['id']}")


@fault()
async def change_server(leg):
    """a change of the server"""
    generation = await leg.service.serving()
    if generation:
        await must_reload(leg, "--server", "granian" if generation["server"] == "gunicorn" else "gunicorn")


@fault(own_group)
async def memory_squeeze(leg):
    """a reload without memory for two generations"""
    group = leg.service.group
    before = group.kills()
    with leg.excused("the kernel killed for memory", 3600) as excuse:
        # Page cache counts as used, and can be had back.
        group.set(int(group.used() * leg.chance.uniform(1.05, 1.8)))
        code, said = await leg.service.command("reload", "--timeout", "120s")
        group.set(group.none)
        killed = group.kills() - before
    leg.say(f"     reload: {code}, {killed} killed for memory")
    if not killed:
        excuse.opened_before = excuse.since
        if code != 0 and "not enough memory" not in said:
            leg.outcomes.find(f"a reload without memory for two: status {code}: {said[:300]}")


@fault()
async def full_stderr(leg):
    """a standard error that nobody reads, and a reload"""
    leg.service.log.fill()
    reload = asyncio.ensure_future(must_reload(leg))
    await asyncio.sleep(leg.chance.uniform(2, 8))
    leg.service.log.reads.set()
    await reload


@fault(tls)
async def renew_certificate(leg):
    """a renewed certificate"""
    wanted = leg.app.renew()
    deadline = time.monotonic() + 60
    while await leg.certificate() != wanted:
        if time.monotonic() > deadline:
            leg.outcomes.find("a renewed certificate is not served after 60 s")
            return
        await asyncio.sleep(0.5)


@fault(clock)
async def step_clock(leg):
    """a step of the clock"""
    step = leg.chance.choice([-1, 1]) * leg.chance.uniform(60, 86400)
    begin = time.monotonic()
    was = time.clock_gettime(time.CLOCK_REALTIME)
    time.clock_settime(time.CLOCK_REALTIME, was + step)
    try:
        await asyncio.sleep(leg.chance.uniform(3, 10))
    finally:
        time.clock_settime(time.CLOCK_REALTIME, was + time.monotonic() - begin)


async def without_descriptors(leg, pid, meanwhile):
    """A process may open no more files for some seconds."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, limits[1]))
    try:
        await meanwhile
    finally:
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        except ProcessLookupError:
            pass


@fault()
async def no_descriptors_for_the_launcher(leg):
    """no descriptor for the launcher, and a reload"""

    async def reload():
        # It cannot be asked, because that takes a descriptor, too.
        leg.service.signal(signal.SIGHUP)
        await asyncio.sleep(leg.chance.uniform(2, 5))

    await without_descriptors(leg, leg.service.pid, reload())
    await asyncio.sleep(2)


@fault()
async def no_descriptors_for_a_worker(leg):
    """no descriptor for a worker"""
    if pid := await a_worker(leg):
        # uvloop accepts a client for whom there is no descriptor, and closes the connection at once.
        with leg.excused("a worker had no descriptor", 3600) as excuse:
            await without_descriptors(leg, pid, asyncio.sleep(leg.chance.uniform(1, 3)))
        excuse.opened_before = asyncio.get_running_loop().time()


@fault()
async def stranger(leg):
    """others listen on the port at other addresses, and a reload"""
    sockets = []
    for host in ("127.0.0.2", "127.0.0.2", "127.0.0.3"):
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((host, leg.service.port))
        other.listen(8)
        sockets.append(other)
    await must_reload(leg)
    for other in sockets:
        other.close()


@fault()
async def crowd(leg):
    """two hundred clients at once"""

    async def client():
        opened = asyncio.get_running_loop().time()
        try:
            await must_be_healthy(leg.target)
        except Broken as error:
            leg.outcomes.bad("crowd", opened, str(error))

    await asyncio.gather(*(client() for _ in range(200)))


@fault()
async def nobody(leg):
    """a time without clients, with the app's own work only"""
    leg.clients.may_come.clear()
    await asyncio.sleep(leg.options.gap[1])
    leg.clients.may_come.set()


@fault()
async def stop_and_start(leg):
    """a stop, and another start"""
    # What was asked for before is answered; whoever comes later is refused, until it serves again.
    with leg.excused("it was stopped", 3600) as excuse:
        leg.service.signal(signal.SIGTERM)
        status = await leg.service.ended(30)
        if status != 0:
            leg.outcomes.find(f"a stop: status {status}")
        await leg.nothing_is_left("a stop")
        await leg.start_again()
    excuse.opened_before = asyncio.get_running_loop().time()


@fault()
async def kill_launcher(leg):
    """kill -9 of the launcher, and another start"""
    with leg.excused("the launcher was killed", 3600) as excuse:
        leg.service.signal(signal.SIGKILL)
        await leg.service.ended(10)
        await leg.nothing_is_left("kill -9 of the launcher", within=20)
        await leg.start_again()
    excuse.opened_before = asyncio.get_running_loop().time()


