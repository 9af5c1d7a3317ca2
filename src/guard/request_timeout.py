# Requests that take too long: logged with their stacks, and cancelled if the app is an ASGI app.

_TOO_LONG = b"The request took too long.\n"

# How long a cancelled request may take to end until it counts as stuck, in nanoseconds.
_CANCELLED_WITHIN = 1_000_000_000

# So many stacks are logged at a time: when all requests wait for the same database, thousands end together.
_MOST_STACKS = 10


class _TookTooLong(Exception):
    """A request was cancelled after its response had begun, so the connection must be closed."""


class _SameLimit:
    """Open requests that have the same limit, the oldest first."""

    __slots__ = ("nanoseconds", "open")

    def __init__(self, nanoseconds):
        self.nanoseconds, self.open = nanoseconds, {}


class _TimeLimits:
    """The open requests of this worker that have a limit. There is no timer for each: the heartbeat looks at the oldest
    ones. A request has a `path`, a `method`, `began`, its `limit` (a `_SameLimit`) and `has_ended`, and three methods:
    `stack`, `expire`, which returns what happens to it, and `count_from`, the time from which it counts as stuck."""

    def __init__(self, worker):
        self._worker = worker
        general, by_path = TIME_LIMITS
        self._general = _SameLimit(general) if general else None
        self._by_path = [(prefix, _SameLimit(limit) if limit else None) for prefix, limit in by_path]
        self._all = [limit for limit in (self._general, *(limit for _, limit in self._by_path)) if limit]
        # Requests that have not ended although their time is over, and the time from which they count as stuck.
        self._expired = {}
        self._last, self._was_late = time.monotonic_ns(), False
        # A pause of the whole worker is logged with its stacks after this many nanoseconds.
        self._most_pause = (general or min(limit.nanoseconds for limit in self._all)) + int(BEAT * 1e9)
        worker.at_heartbeat.append(self.look)
        self._arm()

    def of(self, path, root=""):
        """The limit of a path, where the app is mounted below a root path; None for none."""
        below = path[len(root) :] if root and path.startswith(root) else path
        if path == HEALTH_PATH or below == HEALTH_PATH:
            return None
        for prefix, limit in self._by_path:
            if path.startswith(prefix) or below.startswith(prefix):
                return limit
        return self._general

    def ended(self, request):
        """Called when a request has ended, or has turned out to be a stream."""
        request.has_ended = True
        request.limit.open.pop(request, None)
        self._expired.pop(request, None)

    def look(self, now):
        """Called with each heartbeat."""
        # After a pause of the whole worker, requests that had only to wait for it have this heartbeat to end.
        was_late, self._was_late = self._was_late, now - self._last > 2e9 * BEAT
        pause, self._last = now - self._last, now
        if self._was_late and pause > self._most_pause:
            _say("nothing ran here for %.1f s; where it stood is logged above, after \"Timeout\"" % (pause / 1e9))
        if was_late or not self._was_late:
            self._expire_all(now)
        stuck = sum(since <= now for since in list(self._expired.values()))
        if stuck != self._worker.words[_STUCK]:
            self._worker.words[_STUCK] = stuck
            _poke()
        self._arm()

    def _expire_all(self, now):
        number = 0
        for limit in self._all:
            # Other threads change this meanwhile.
            for request in list(limit.open):
                if now - request.began < limit.nanoseconds:
                    break
                if limit.open.pop(request, False):
                    number += 1
                    self._expire(request, now, number <= _MOST_STACKS)
        if number > _MOST_STACKS:
            _say("%d more requests have taken too long and end in the same way" % (number - _MOST_STACKS))

    def _expire(self, request, now, is_logged):
        try:
            stack = request.stack() if is_logged else ""
        except Exception as error:
            stack = "  its stack is not to be had: %s\n" % _brief(error).strip()
        outcome = request.expire()
        self._expired[request] = request.count_from(now)
        if request.has_ended:
            # In its thread, in the meantime.
            self._expired.pop(request, None)
        if not is_logged:
            return
        age, limit = (now - request.began) / 1e9, request.limit.nanoseconds / 1e9
        about = (ascii(request.method)[1:-1], _without_tokens(request.path), age, limit, outcome)
        _say("%s %s has taken %.1f s, the limit is %g s: %s\n%s" % (*about, stack.rstrip("\n")))

    def _arm(self):
        """Has the stacks of all threads written if the next heartbeats do not come: by a thread that needs neither the
        event loop nor the interpreter. A request that blocks them at once has not been in flight at any heartbeat."""
        import faulthandler

        try:
            faulthandler.dump_traceback_later(self._most_pause / 1e9, file=2)
        except (AttributeError, OSError, RuntimeError, ValueError):
            pass  # standard error is closed, or there can be no other thread


def _without_tokens(path):
    """A path for the log, without segments that may be secrets: long ones of letters and digits."""
    import re

    if isinstance(path, bytes):
        path = path.decode("utf-8", "replace")
    segments = path.split("?")[0].split("/")
    token = re.compile(r"(?=.*[0-9])[^/]{16,}|[0-9a-fA-F]{16,}|[^/]{33,}")
    shown = "/".join("..." if token.fullmatch(segment) else segment for segment in segments)
    return ascii(shown[:200])[1:-1]


class _AsgiRequest:
    """A request to an ASGI app. It is also the function with which the app sends."""

    __slots__ = tuple("scope began limit has_begun has_ended coroutine _limits _task _send _is_cancelled".split())

    def __init__(self, scope, limit, limits, send, task):
        self.scope, self.limit, self._limits, self._send, self._task = scope, limit, limits, send, task
        self.began = time.monotonic_ns()
        self.has_begun = self.has_ended = self._is_cancelled = False
        self.coroutine = None

    def __call__(self, message):
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body"):
                self._limits.ended(self)
        elif kind == "http.response.start":
            self.has_begun = True
            message, is_stream = _look_for_stream(message)
            if is_stream:
                self._limits.ended(self)
        return self._send(message)

    path = property(lambda self: self.scope["path"])
    method = property(lambda self: self.scope["method"])

    def stack(self):
        return _stack_of_coroutine(self.coroutine, self._task)

    def count_from(self, now):
        return now + _CANCELLED_WITHIN

    def expire(self):
        self._is_cancelled = self._task is not None and self._task.cancel() is not False
        return "cancelled" if self._is_cancelled else "it cannot be cancelled with this task implementation"

    def was_cancelled(self):
        """Whether we cancelled it and nobody else did. Called once, when the app has ended."""
        return self._is_cancelled and not getattr(self._task, "uncancel", int)()


def _with_time_limits(inner, worker):
    """The ASGI app, whose requests are ended when they take too long."""
    import asyncio

    limits, current_task = _TimeLimits(worker), _current_task()

    async def app(scope, receive, send):
        limit = limits.of(scope["path"], scope.get("root_path")) if scope["type"] == "http" else None
        if limit is None:
            return await inner(scope, receive, send)
        request = _AsgiRequest(scope, limit, limits, send, current_task())
        limit.open[request] = True
        try:
            request.coroutine = inner(scope, receive, request)
            await request.coroutine
        except (Exception, asyncio.CancelledError):
            if not request.was_cancelled():
                raise
        else:
            if not request.was_cancelled() or request.has_begun:
                return
        finally:
            limits.ended(request)
            # It refers to this request.
            request.coroutine = None
        if request.has_begun:
            raise _TookTooLong("the response had begun when the request was cancelled: the connection is closed")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_TOO_LONG))]
        await send({"type": "http.response.start", "status": 504, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _TOO_LONG})

    return app


class _WsgiRequest:
    """A request to a WSGI app, in a thread or a greenlet. Nothing can end it from outside."""

    __slots__ = ("path", "method", "began", "limit", "has_ended", "_whose")

    def __init__(self, environ, limit, whose):
        """`whose` is the greenlet in which it runs, or the number of its thread."""
        self.path = environ.get("PATH_INFO", "").encode("latin-1", "replace")
        self.method, self.limit = environ["REQUEST_METHOD"], limit
        self.began, self.has_ended = time.monotonic_ns(), False
        self._whose = whose

    def stack(self):
        frame = sys._current_frames().get(self._whose) if isinstance(self._whose, int) else self._whose.gr_frame
        return _stack_of_frame(frame)

    def count_from(self, now):
        return now

    def expire(self):
        return "a WSGI app's request cannot be cancelled"
