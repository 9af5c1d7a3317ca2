# What stands above is put there by the launcher.

import os
import struct
import sys
import time

# The layout of the board, of which src/guard/scoreboard.rs is the other end. A slot is a cache line of 16 words, or
# 8 long ones, in the machine's own byte order.
_MAGIC, _VERSION, _LINE = b"MCPLGRD1", 1, 64
_PID, _STATE, _IN_FLIGHT, _HIGH_WATER, _LAG, _MOST_LAG, _STREAMS, _FLAGS = 0, 1, 6, 7, 12, 13, 14, 15
_CLAIMED, _HEARTBEAT, _SERVED, _REJECTED = 1, 2, 4, 5
_STARTING, _READY, _STOPPING = 1, 2, 3
_TRACEBACK_ON_ABORT, _NO_LIFESPAN = 1, 2
# At the board's end, a word with its length in front: why the app could not be loaded or started.
_TEXT = 1024

# What a request is to the guard: one that counts, an open stream, one that was refused after all.
# Once a response has begun that is no stream, there is nothing more to see: none of them.
_COUNTED, _STREAM, _REFUSED = 0, 1, 2

_BUSY = b"Too many requests at a time. Try again in a moment.\n"


def _load():
    """Imports the app as the server itself would, so that it takes the same forms and fails in the same way."""
    if SERVER == "gunicorn":
        from gunicorn.util import import_app

        return import_app(APP)
    from granian._internal import load_target

    # It was told to look for this module in the root directory: where it looks otherwise depends on what is there.
    if sys.path[:1] == ["/"]:
        del sys.path[0]
    return load_target(APP, factory=FACTORY)


def _accepts(function, count):
    """Whether it can be called with so many arguments; not if that cannot be told."""
    import inspect

    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def _is_async(function):
    import inspect

    call = None if inspect.isclass(function) else getattr(function, "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _asgi3(inner):
    """The app in the form that takes three arguments. Uvicorn would settle that by looking at it, and sees us."""
    import inspect

    if CALLS_FACTORIES and not _is_async(inner) and _accepts(inner, 0):
        inner = inner()
    if inspect.isclass(inner):
        double = not hasattr(inner, "__await__")
    else:
        double = not _is_async(inner) and _accepts(inner, 1) and not _accepts(inner, 3)
    if not double:
        return inner

    async def single(scope, receive, send):
        await inner(scope)(receive, send)

    return single


def _say(text):
    """Standard error may be closed, or a pipe that is full: a word lost is better than a worker."""
    try:
        sys.stderr.write("mcp-launch guard: worker %d: %s\n" % (os.getpid(), text))
    except (AttributeError, OSError, ValueError):
        pass


def _write_failure(text):
    """Leaves on the board why the app cannot be served. That must not fail in its turn."""
    found = None if BOARD is None else _find_board()
    if found is not None:
        try:
            text = " ".join(text.split()).encode("utf-8", "replace")[: _TEXT - 4]
            os.pwrite(found[0], struct.pack("=I", len(text)) + text, os.fstat(found[0]).st_size - _TEXT)
        except OSError:
            pass


def _brief(error):
    import traceback

    return traceback.format_exception_only(type(error), error)[-1]


def _find_board():
    """The board's descriptor, its number of slots and the launcher's process.

    Forked workers inherited it. Spawned ones get it from their parent; and the number may mean something else here.
    """
    for from_parent in (False, True):
        fd = BOARD
        try:
            if from_parent:
                fd = os.open("/proc/%d/fd/%d" % (os.getppid(), BOARD), os.O_RDWR | os.O_CLOEXEC)
            magic, version, slots, _, launcher = struct.unpack("=8sIIII", os.pread(fd, 24, 0))
        except (OSError, struct.error):
            continue
        if (magic, version) == (_MAGIC, _VERSION):
            os.set_inheritable(fd, False)
            return fd, slots, launcher
        if from_parent:
            os.close(fd)
    return None


# The map must stay: closing a descriptor of a file, and it has one, gives up the process's locks on it.
_map = None


def _claim_slot():
    """This process's slot, as words and as long words, and the launcher's process; none if there is no slot.

    It is ours by a record lock, which the kernel takes back when the process ends, however it ends.
    """
    global _map
    import fcntl
    import mmap

    if BOARD is None or _map is not None:
        return None
    found = _find_board()
    if found is None:
        _say("no scoreboard to be had: it is not seen how this worker is")
        return None
    fd, slots, launcher = found
    for start in range(_LINE, _LINE * (slots + 1), _LINE):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _LINE, start)
        except OSError:
            continue
        _map = mmap.mmap(fd, 0)
        slot = memoryview(_map)[start : start + _LINE]
        # Not to be taken for the last owner meanwhile.
        slot.cast("I")[_STATE] = 0
        slot[:] = bytes(_LINE)
        return slot.cast("I"), slot.cast("Q"), launcher
    _say("the scoreboard is full: it is not seen how this worker is")
    return None


def _descriptor_of(inodes):
    """The number here of a socket with one of these inodes; none if there is no such socket, or not yet.

    Nothing is opened or closed for that: closing any descriptor of a file ends the process's locks on it.
    """
    import stat

    for name in os.listdir("/proc/self/fd"):
        try:
            found = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode) and found.st_ino in inodes:
            return int(name)
    return None


def _lend_listener(loop, launcher):
    """Answers the launcher, which asks for a copy of a worker's listening socket to steer clients by. It names all that
    listen on the port, by their inodes.

    All workers of the generation hear it, and the first one answers. Spawned workers have not inherited the line, and
    the number may mean something else there.
    """
    import socket
    import struct

    try:
        line = socket.socket(fileno=os.dup(LINE))
    except OSError:
        return
    # Whatever the app has made of socket.setdefaulttimeout.
    line.setblocking(False)
    try:
        maker = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if line.family != socket.AF_UNIX or maker != launcher:
            raise OSError
        os.set_inheritable(LINE, False)
    except OSError:
        line.close()
        return

    def answer():
        try:
            inodes = {int(number) for number in line.recv(65536).split()}
            listener = _descriptor_of(inodes)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            loop.remove_reader(line)
            return
        try:
            if listener is None:
                line.send(b"-")
            else:
                socket.send_fds(line, [b"+"], [listener])
        except OSError:
            pass

    loop.add_reader(line, answer)


def _trace_on_abort():
    """Has SIGABRT write where the worker is. Whether it does."""
    import faulthandler

    if not faulthandler.is_enabled():
        try:
            faulthandler.enable()
        except (AttributeError, OSError, RuntimeError, ValueError):
            return False
    return True


async def _gone():
    """What sending is like when the client has gone (ASGI, HTTP 2.4)."""
    raise ConnectionResetError("refused: too many open streams")


def _guard(inner):
    """The app with the guard around it. All that a worker knows is in here; it begins with the first call, which is
    after the fork."""
    limit = sys.maxsize if LIMIT is None else LIMIT
    most_streams = sys.maxsize if MAX_STREAMS is None else MAX_STREAMS
    health, exempt = HEALTH_PATH, EXEMPT
    begun = False
    busy = high_water = served = rejected = streams = 0
    # Nobody's memory, until there is a slot: what counts need not ask.
    words, longs = memoryview(bytearray(_LINE)).cast("I"), memoryview(bytearray(_LINE)).cast("Q")

    def begin(lifespan):
        nonlocal begun, inner, words, longs
        begun = True
        slot = _claim_slot()
        if slot is not None:
            words, longs, launcher = slot
            longs[_CLAIMED] = longs[_HEARTBEAT] = time.monotonic_ns()
            words[_FLAGS] = (_TRACEBACK_ON_ABORT if _trace_on_abort() else 0) | (0 if lifespan else _NO_LIFESPAN)
            words[_PID] = os.getpid()
            words[_STATE] = _STARTING if lifespan else _READY
            keep_beating(launcher)
        inner = _asgi3(inner)

    def keep_beating(launcher):
        """Tells again and again that the event loop turns, and how late."""
        import asyncio
        import signal

        loop = asyncio.get_running_loop()
        own, parent = os.getpid(), os.getppid()
        most_lag, due, told_to_end = 0, time.monotonic_ns() + int(BEAT * 1e9), None

        def beat():
            nonlocal most_lag, due, told_to_end
            if words[_PID] != own:
                return
            now = time.monotonic_ns()
            lag = min(max(now - due, 0) // 1000, 0xFFFFFFFF)
            if lag > most_lag:
                most_lag = words[_MOST_LAG] = lag
            words[_LAG] = lag
            longs[_HEARTBEAT], longs[_SERVED] = now, served
            # A dead parent's children go to the launcher. With the launcher dead as well nobody is left to end us.
            if os.getppid() not in (parent, launcher):
                if told_to_end is None:
                    _say("the launcher and the server's main process are gone: ending")
                    told_to_end = now
                    os.kill(own, signal.SIGTERM)
                elif now - told_to_end > GRACE * 1e9:
                    os.kill(own, signal.SIGKILL)
            due = now + int(BEAT * 1e9)
            loop.call_later(BEAT, beat)

        def forget():
            nonlocal words, longs
            words, longs = memoryview(bytearray(_LINE)).cast("I"), memoryview(bytearray(_LINE)).cast("Q")

        loop.call_later(BEAT, beat)
        if LINE is not None:
            _lend_listener(loop, launcher)
        # The slot is not that of a process which this one forks.
        os.register_at_fork(after_in_child=forget)

    async def app(scope, receive, send):
        nonlocal busy, high_water, served
        if scope["type"] != "http":
            return await other(scope, receive, send)
        if not begun:
            begin(False)
        path = scope["path"]
        if path == health or exempt and path.startswith(exempt):
            try:
                return await inner(scope, receive, send)
            finally:
                served += 1
        if busy >= limit:
            return await refuse(scope, send)
        busy += 1
        words[_IN_FLIGHT] = busy
        if busy > high_water:
            high_water = words[_HIGH_WATER] = busy
        role = _COUNTED

        def watch(message):
            nonlocal role
            if role is None:
                return send(message)
            if role:
                if role == _REFUSED:
                    return _gone()
            elif message["type"] == "http.response.start":
                role = None
                for name, value in message.get("headers", ()):
                    # The length first: it is the quicker of the two to find different.
                    if len(name) == 12 and (name == b"content-type" or name == b"Content-Type"):
                        if value[:17] == b"text/event-stream":
                            role = open_stream()
                            if role == _REFUSED:
                                return refuse(scope, send)
                        break
            return send(message)

        try:
            await inner(scope, receive, watch)
        except Exception:
            # Most apps let pass what sending to nobody raises.
            if role != _REFUSED:
                raise
        finally:
            if role:
                close(role)
            else:
                busy -= 1
                words[_IN_FLIGHT] = busy
                served += 1

    async def other(scope, receive, send):
        if not begun and scope["type"] == "websocket":
            begin(False)
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await inner(scope, receive, send)

    async def websocket(scope, receive, send):
        nonlocal busy, high_water, served
        path = scope["path"]
        if path == health or exempt and path.startswith(exempt):
            try:
                return await inner(scope, receive, send)
            finally:
                served += 1
        if busy >= limit or streams >= most_streams:
            await receive()
            return await refuse_websocket(scope, send)
        busy += 1
        words[_IN_FLIGHT] = busy
        if busy > high_water:
            high_water = words[_HIGH_WATER] = busy
        role = _COUNTED

        def watch(message):
            nonlocal role
            if message["type"] == "websocket.accept" and role == _COUNTED:
                role = open_stream()
                if role == _REFUSED:
                    return refuse_websocket(scope, send)
            if role == _REFUSED:
                return _gone()
            return send(message)

        try:
            await inner(scope, receive, watch)
        except Exception:
            if role != _REFUSED:
                raise
        finally:
            close(role)

    def open_stream():
        """A request becomes a stream and leaves the count, or is refused."""
        nonlocal busy, streams
        busy -= 1
        words[_IN_FLIGHT] = busy
        if streams >= most_streams:
            return _REFUSED
        streams += 1
        words[_STREAMS] = streams
        return _STREAM

    def close(role):
        nonlocal busy, streams, served
        if role == _COUNTED:
            busy -= 1
            words[_IN_FLIGHT] = busy
        elif role == _STREAM:
            streams -= 1
            words[_STREAMS] = streams
        if role != _REFUSED:
            served += 1

    def count_rejected():
        nonlocal rejected
        rejected += 1
        longs[_REJECTED] = rejected

    def response():
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_BUSY)),
            (b"retry-after", b"1"),
        ]
        return {"status": 503, "headers": headers}

    async def refuse(scope, send):
        count_rejected()
        await send({"type": "http.response.start", **response()})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else _BUSY})

    async def refuse_websocket(scope, send):
        count_rejected()
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await send({"type": "websocket.http.response.start", **response()})
            await send({"type": "websocket.http.response.body", "body": _BUSY})
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "try again later"})

    async def lifespan(scope, receive, send):
        failed = False

        def started():
            # Without lifespan support a server goes on all the same, and so do we.
            if words[_STATE] == _STARTING and not failed:
                words[_STATE] = _READY

        def say(message):
            nonlocal failed
            if message["type"] == "lifespan.startup.complete":
                started()
            elif message["type"] == "lifespan.startup.failed":
                failed = True
                _write_failure("the startup failed: %s" % (message.get("message") or "the app does not say why"))
            return send(message)

        async def hear():
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                words[_STATE], longs[_SERVED] = _STOPPING, served
            return message

        if not begun:
            try:
                begin(True)
            except Exception as error:
                import traceback

                _write_failure(_brief(error))
                await receive()
                return await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
        try:
            await inner(scope, hear, say)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            started()
            raise
        started()

    return app


def _serves_wsgi():
    """Whether Gunicorn's worker class is for WSGI apps. The launcher knows the usual ones by their names; here one of
    the user's own can be looked at, and one that only the configuration file names."""
    config = sys.modules.get("mcp_launch_gunicorn_config")
    worker_class = WORKER_CLASS or getattr(config, "worker_class", None)
    if SERVER != "gunicorn" or worker_class is None:
        return False
    from gunicorn.util import load_class

    if worker_class == "sync" and getattr(config, "threads", 1) > 1:
        return True
    bases = {kind.__module__ for kind in load_class(worker_class).__mro__}
    wsgi = ("sync", "gthread", "base_async", "ggevent", "geventlet", "gtornado")
    return any("gunicorn.workers." + name in bases for name in wsgi)


def _refuse_wsgi(inner):
    """A WSGI app would fail at each request, and say everything but why."""
    import inspect

    if inspect.isclass(inner) or _is_async(inner) or _accepts(inner, 3) or not _accepts(inner, 2):
        return
    instead = "worker class gthread (--worker-class)" if SERVER == "gunicorn" else "GRANIAN_INTERFACE=wsgi"
    error = TypeError("%s is a WSGI app (it takes two arguments), and is served as an ASGI app; use %s" % (APP, instead))
    _write_failure(str(error))
    raise error


try:
    _inner = _load()
except Exception as _error:
    _write_failure(_brief(_error))
    raise


def __getattr__(name):
    """A guard of its own for each that asks: servers on threads ask once for every worker."""
    if name == "app":
        if _serves_wsgi():
            return _inner
        _refuse_wsgi(_inner)
        return _guard(_inner)
    if name == "make_app":
        return lambda: _guard(_inner)
    raise AttributeError(name)
