"""A fake Gunicorn or Granian, for behaviour that the real ones cannot be made to show.

It takes the arguments that the launcher gives (inherited listeners as fd://N or by LISTEN_FDS, or an address of its
own), starts workers that answer every request with their process id, and fails as configured.

Environment:
  FAKE_STATE=DIRECTORY  where it keeps its notes: the file `starts` has the pid of each main process, `terms` one of
                        each process that was asked to end, `stray` the pid of the stray process,
                        `versions` the pids of those that were asked for the version, which takes as many seconds as
                        the file `version-takes` says
  FAKE_FATES=A;B;C      what happens to the first start, the second and so on; the last goes for all that follow

A behaviour consists of some of these words:
  serve                 nothing happens
  exit=STATUS           exits before it listens
  hang                  never answers
  boot=SECONDS          takes this long to answer
  on-term=STATUS        exits with this when it is asked to end
  deaf-main             the main process ignores every signal that can be ignored
  deaf-worker           the workers do
  stray                 a process leaves parent, group and session, and is deaf

Paths:
  /exit/STATUS          the server ends with this status at once
  anything else         the worker's pid
"""

import os
import re
import select
import signal
import socket
import sys
import time

POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def note(name, text):
    """Adds a line to a file of notes; returns how many it has now."""
    path = os.path.join(os.environ["FAKE_STATE"], name)
    with open(path, "a+", encoding="ascii") as notes:
        notes.write(f"{text}\n")
        notes.flush()
        notes.seek(0)
        return len(notes.readlines())


def fate():
    """The words for this start."""
    fates = os.environ.get("FAKE_FATES", "serve").split(";")
    start = note("starts", os.getpid())
    words = fates[min(start, len(fates)) - 1].split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def tell_version():
    """Answers --version."""
    note("versions", os.getpid())
    try:
        with open(os.path.join(os.environ["FAKE_STATE"], "version-takes"), encoding="ascii") as seconds:
            time.sleep(float(seconds.read()))
    except FileNotFoundError:
        pass
    print(f"{os.path.basename(sys.argv[0])} (version 27.0.1)")


def option(name, otherwise=None):
    """The value of an argument, in either spelling."""
    for index, argument in enumerate(sys.argv):
        if argument == name:
            return sys.argv[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return otherwise


def inherited():
    """The inherited listening sockets."""
    numbers = {int(number) for argument in sys.argv for number in re.findall(r"fd://(\d+)", argument)}
    if not numbers and os.environ.get("LISTEN_PID", "").strip().lstrip("0") == str(os.getpid()):
        numbers = range(3, 3 + int(os.environ["LISTEN_FDS"]))
    return [socket.socket(fileno=number) for number in numbers]


def own_listener():
    """A listening socket of our own, shared with others as Granian's are."""
    if path := option("--uds"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
    else:
        host, port = option("--host"), option("--port")
        if host is None:
            host, _, port = option("--bind").rpartition(":")
        host = host.strip("[]")
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        for shared in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, shared, 1)
        listener.bind((host, int(port)))
    listener.listen(64)
    return listener


def work(listeners, orders, words):
    """A worker."""
    for number in POLITE:
        signal.signal(number, signal.SIG_IGN if "deaf-worker" in words else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
    if "hang" in words:
        while True:
            signal.pause()
    time.sleep(float(words.get("boot", 0)))
    listeners = listeners or [own_listener()]
    for listener in listeners:
        listener.setblocking(False)
    while True:
        for listener in select.select(listeners, [], [])[0]:
            try:
                client, _ = listener.accept()
            except OSError:
                continue
            client.settimeout(5)
            try:
                answer(client, orders)
            except OSError:
                pass


def answer(client, orders):
    """One request, one answer."""
    with client:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(4096) or b"\r\n\r\n"
        if found := re.match(rb"GET /exit/(\d+) ", request):
            os.write(orders, bytes([int(found[1])]))
        body = b"%d" % os.getpid()
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.sendall(head + body)


def let_loose():
    """Starts a process that only SIGKILL ends."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in POLITE:
                signal.signal(number, signal.SIG_IGN)
            note("stray", os.getpid())
            while True:
                signal.pause()
        os._exit(0)


def main():
    """The main process."""
    words = fate()
    if "exit" in words:
        os._exit(int(words["exit"]))
    signals, arriving = os.pipe()
    os.set_blocking(arriving, False)
    signal.set_wakeup_fd(arriving)
    for number in POLITE:
        signal.signal(number, signal.SIG_IGN if "deaf-main" in words else lambda *_: None)
    listeners = inherited()
    ordered, orders = os.pipe()
    workers = []
    # Otherwise the main process's handlers would swallow signals for a worker that has just been forked.
    signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
    for _ in range(int(option("--workers", option("-w", "1")))):
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            work(listeners, orders, words)
        workers.append(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
    if "stray" in words:
        let_loose()
    ready, _, _ = select.select([signals, ordered], [], [])
    if ordered in ready:
        end_workers(workers, signal.SIGKILL)
        os._exit(os.read(ordered, 1)[0])
    note("terms", os.getpid())
    end_workers(workers, signal.SIGTERM)
    os._exit(int(words.get("on-term", 0)))


def end_workers(workers, number):
    """Asks the workers to end and waits for them."""
    for pid in workers:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    for pid in workers:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass


if sys.argv[1:] == ["--version"]:
    tell_version()
else:
    main()
