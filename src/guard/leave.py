# How this worker closes its clients' connections and streams before it leaves.

# While a stream is open, the worker checks this often whether it must leave, in seconds.
_LOOK = 0.25
# How long the app may go on after its stream was ended, in seconds.
_TO_END = 1.0
# Time reserved for the app's own shutdown, in seconds.
_KEPT_BACK = 2.0

_LAST_CHUNK = {"type": "http.response.body", "body": b"", "more_body": False}
_CLOSE = {"type": "websocket.close", "code": 1012, "reason": "service restart"}
_CLOSED = {"type": "websocket.disconnect", "code": 1012, "reason": "service restart"}


def _is_between_events(tail):
    """Whether an event stream may end after these bytes: before the first one, or after an empty line. Lines end with
    CR, LF or both."""
    return not tail or tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")


def _header(headers, name):
    """The first value of a header, in lower case."""
    return next((_folded(pair[1]) for pair in headers if len(pair) == 2 and _folded(pair[0]) == name), None)


def _with_close(scope, message):
    """The start of a response after which the connection is closed, so that the client turns to a successor.

    HTTP/2 has no such header. Clients that may still be sending a long body are left alone: unread data would reset the
    connection.
    """
    headers = scope.get("headers") or ()
    length = _header(headers, b"content-length") or b"0"
    is_long = not length.isdigit() or int(length) > 65536 or _header(headers, b"transfer-encoding") is not None
    if not scope.get("http_version", "1.1").startswith("1") or is_long:
        return message
    given = [tuple(pair) for pair in message.get("headers") or ()]
    kept = [pair for pair in given if len(pair) != 2 or _folded(pair[0]) != b"connection"]
    return {**message, "headers": [*kept, (b"connection", b"close")]}


def _current_task():
    """A fast function that returns the running task: asyncio's own is slow before Python 3.12."""
    import asyncio
    import functools

    if sys.version_info >= (3, 12):
        return asyncio.current_task
    return functools.partial(asyncio.tasks._current_tasks.get, asyncio.get_running_loop())


class _Stream:
    """An open event stream or WebSocket."""

    __slots__ = tuple(
        "over passed_on _finished _send _last _task _opaque _tail _sending _due _timers _farewell _pending"
        " _cancelled".split()
    )

    def __init__(self, send, last, task, opaque=False):
        # Whether we have ended it, and whether the app has.
        self.over = self._finished = False
        self._send, self._last, self._task = send, last, task
        # In a compressed stream the end of an event cannot be seen, so each chunk counts as complete.
        self._opaque, self._tail = opaque, b""
        self._sending, self._due, self._timers = 0, False, ()
        # How many messages have gone through it.
        self.passed_on = 0
        self._farewell = self._pending = None
        self._cancelled = False

    async def write(self, message):
        """Sends a message of the app, and ends the stream afterwards if it is due and an event is complete."""
        if self.over:
            raise ConnectionResetError("this worker is leaving: the stream has ended")
        body = message.get("body")
        if body and not self._opaque:
            self._tail = (self._tail + bytes(body[-4:]))[-4:]
        self._sending += 1
        self.passed_on += 1
        try:
            await self._send(message)
        finally:
            self._sending -= 1
        kind = message["type"]
        if kind == "websocket.close" or kind == "http.response.body" and not message.get("more_body"):
            self._finished = True
        elif self._due:
            self._come_due()

    async def hear(self, receive):
        """Receives a message for a WebSocket's app."""
        if self.over:
            return _CLOSED
        import asyncio

        pending = receive()
        self.passed_on += 1
        if hasattr(pending, "cancel"):
            # Granian cannot close a WebSocket while a receive is pending.
            self._pending = pending
        try:
            return await pending
        except asyncio.CancelledError:
            if self.over and not self._cancelled:
                return _CLOSED
            raise
        finally:
            self._pending = None

    def leave(self, delay, at_the_latest):
        """Schedules the end in this many seconds, between two events unless that takes too long."""
        import asyncio

        self.stay()
        if not self.over and not self._finished:
            loop = asyncio.get_running_loop()
            last = loop.call_later(max(delay, at_the_latest), self._end)
            self._timers = (loop.call_later(delay, self._come_due), last)

    def stay(self):
        """Cancels the scheduled end, unless the stream has ended already."""
        for timer in () if self.over else self._timers:
            timer.cancel()
        self._due = False

    def _come_due(self):
        self._due = True
        if not self._sending and (self._opaque or _is_between_events(self._tail)):
            self._end()

    def _end(self):
        if self.over or self._finished:
            return
        import asyncio

        self.stay()
        self.over = True
        if self._pending is not None:
            self._pending.cancel()
        loop = asyncio.get_running_loop()
        self._farewell = loop.create_task(self._say_last())
        self._timers = (loop.call_later(_TO_END, self._cancel),)

    async def _say_last(self):
        try:
            await self._send(self._last)
        except Exception:
            # The client has gone.
            pass

    def _cancel(self):
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def forgives(self, error):
        """Whether the exception is only the app's reaction to the end of its stream."""
        if not self.over:
            return False
        import asyncio

        if self._cancelled and isinstance(error, asyncio.CancelledError):
            getattr(self._task, "uncancel", int)()
            return True
        return isinstance(error, Exception)

    def close(self):
        """The app has ended."""
        for timer in self._timers:
            timer.cancel()

    async def parted(self):
        """Waits until the last message has been sent."""
        if self._farewell is not None:
            await self._farewell


class _Streams(set):
    """The open streams of this worker, and whether they must end."""

    def __init__(self, words, longs):
        super().__init__()
        # The worker's slot.
        self.words, self.longs = words, longs
        self._leave_by, self._until, self._looks = 0, 0.0, False

    def open(self, stream, scope):
        """Adds a stream. If the worker is leaving, it ends at once, after a response header that closes the connection.
        HTTP/2 and WebSockets have no such header, and the client would come back here, so they end later."""
        import random

        self._notice()
        self.add(stream)
        self.words[_STREAMS] = len(self)
        if not self._looks:
            self._look()
        if self._leave_by:
            import asyncio

            rest = max(self._until - asyncio.get_running_loop().time(), 0)
            ends_connection = scope["type"] == "http" and scope.get("http_version", "1.1").startswith("1")
            stream.leave(0 if ends_connection else rest * random.random(), self._left())

    def closed(self, stream):
        """The app has ended one."""
        self.discard(stream)
        self.words[_STREAMS] = len(self)
        stream.close()

    def _left(self):
        """Seconds until every stream must have ended."""
        return max((self._leave_by - time.monotonic_ns()) / 1e9 - _KEPT_BACK, 0.1)

    def _look(self):
        """Checks whether the worker must leave, again and again while a stream is open."""
        import asyncio

        self._notice()
        self._looks = bool(self)
        if self._looks:
            asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _notice(self):
        if self.longs[_LEAVE_BY] != self._leave_by:
            self._leave_by = self.longs[_LEAVE_BY]
            self._part()

    def _part(self):
        import asyncio
        import random

        if not self._leave_by:
            for stream in self:
                stream.stay()
            return
        spread = self.words[_SPREAD] / 1000
        self._until = asyncio.get_running_loop().time() + spread
        streams = random.sample(list(self), len(self))
        for index, stream in enumerate(streams):
            stream.leave((index + random.random()) / len(streams) * spread, self._left())


def _requests_elsewhere(own):
    """Whether another worker of this generation has requests in flight. One that is shutting down has none."""
    slots = struct.unpack_from("=I", _map, 12)[0]
    for start in range(_SLOT, _SLOT * (slots + 1), _SLOT):
        pid, state = struct.unpack_from("=II", _map, start)
        in_flight = struct.unpack_from("=I", _map, start + 4 * _IN_FLIGHT)[0]
        exempt = struct.unpack_from("=I", _map, start + 4 * _EXEMPT_IN_FLIGHT)[0]
        if pid not in (0, own) and state in (_STARTING, _READY) and (in_flight or exempt) and _is_alive(pid):
            return True
    return False


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


async def _wait_for_others():
    """Waits until no other worker has requests in flight, if the whole generation is leaving.

    With session affinity, a worker may handle a request for another worker, without a connection of its own.
    """
    if _map is None:
        return
    import asyncio

    leave_by = struct.unpack_from("=Q", _map, 8 * _ALL_LEAVE_BY)[0]
    left = max(leave_by - time.monotonic_ns(), 0)
    until = leave_by - min(int(_KEPT_BACK * 1e9), left // 3)
    while time.monotonic_ns() < until and _requests_elsewhere(os.getpid()):
        await asyncio.sleep(0.05)
