# Requests that take too long: logged with their stacks, and cancelled if the app is an ASGI app.

_TOO_LONG = b"The request took too long.\n"

# How long a cancelled request may take to end until it counts as stuck, in nanoseconds.
_CANCELLED_WITHIN = 1_000_000_000

# So many stacks are logged at a time: when all requests wait for the same database, thousands end together.
_MOST_STACKS = 10


class _TookTooLong(Exception):
    """A request was cancelled after its response had begun, so the connection must be closed."""


class _Late:
    """A request that has taken too long: the time from which it counts as stuck, and whether we cancelled it."""

    __slots__ = ("stuck_from", "is_cancelled")

    def __init__(self, stuck_from, is_cancelled):
        self.stuck_from, self.is_cancelled = stuck_from, is_cancelled


class _TimeLimits:
    """The open requests of this worker that have a limit. Nothing is done for a request that is shorter than a heartbeat:
    each heartbeat takes over those that have begun since the one before and are still open.

    `interface` has functions that take an open request: `stack`; `end`, which returns what happens to it and whether it
    is cancelled; and a number, the `patience`: how much later it counts as stuck, in nanoseconds."""

    def __init__(self, worker, interface):
        self._worker, self._interface = worker, interface
        # Where the app is mounted.
        self.root = ""
        self._general, self._by_path = TIME_LIMITS
        limits = [self._general, *(limit for _, limit in self._by_path)]
        # The requests of each heartbeat, the oldest first, and for each limit the keys of those that have it, likewise.
        self._open = []
        # Those of the last heartbeat, and the keys of which it is known whether they have a limit.
        self._latest = {}, set()
        # The late ones: the dictionary of each, its key, and itself.
        self._late = []
        self._last, self._was_late = time.monotonic_ns(), False
        # A pause of the whole worker that is longer is logged, in nanoseconds. The launcher logs where it stands.
        self._most_pause = (self._general or min(filter(None, limits))) + int(BEAT * 1e9)
        worker.at_heartbeat.append(self.look)

    def of(self, path):
        """The limit of a path in nanoseconds; 0 for none."""
        below = path[len(self.root) :] if self.root and path.startswith(self.root) else path
        if path == HEALTH_PATH or below == HEALTH_PATH:
            return 0
        for prefix, limit in self._by_path:
            if path.startswith(prefix) or below.startswith(prefix):
                return limit
        return self._general

    def look(self, now):
        """Called with each heartbeat."""
        # After a pause of the whole worker, requests that had only to wait for it have this heartbeat to end.
        was_late, self._was_late = self._was_late, now - self._last > 2e9 * BEAT
        pause, self._last = now - self._last, now
        if self._was_late and pause > self._most_pause:
            _say("nothing ran here for %.1f s" % (pause / 1e9))
        self._take_over(self._worker.open_requests.latest)
        if was_late or not self._was_late:
            self._end_all(now)
        self._late = [entry for entry in self._late if entry[1] in entry[0]]
        stuck = sum(not request[_UNLIMITED] and request[_LATE].stuck_from <= now for *_, request in self._late)
        if stuck != self._worker.words[_STUCK]:
            self._worker.words[_STUCK] = stuck
            _poke()

    def _take_over(self, latest):
        """Twice, because other threads may be adding to the latest ones when the heartbeat comes."""
        self._open = [pair for pair in self._open if pair[0]]
        before, self._latest = self._latest, (latest, set())
        for requests, known in (before, self._latest):
            by_limit = {}
            for key, request in list(requests.items()):
                limit = 0 if key in known else self.of(request[_PATH])
                known.add(key)
                if limit:
                    by_limit.setdefault(limit, _deque()).append(key)
            if by_limit:
                self._open.append((requests, by_limit))

    def _end_all(self, now):
        number = 0
        for requests, by_limit in self._open:
            for limit, keys in by_limit.items():
                while keys:
                    request = requests.get(keys[0])
                    is_timed = request is not None and not request[_UNLIMITED] and request[_LATE] is None
                    if is_timed and now - int(request[_SINCE] * 1e9) < limit:
                        break
                    key = keys.popleft()
                    if is_timed:
                        number += 1
                        self._end(requests, key, request, limit, now, number <= _MOST_STACKS)
        if number > _MOST_STACKS:
            _say("%d more requests have taken too long and end in the same way" % (number - _MOST_STACKS))

    def _end(self, requests, key, request, limit, now, is_logged):
        try:
            stack = self._interface.stack(request) if is_logged else ""
        except Exception as error:
            stack = "  its stack is not to be had: %s\n" % _brief(error).strip()
        outcome, is_cancelled = self._interface.end(request)
        request[_LATE] = _Late(now + self._interface.patience, is_cancelled)
        self._late.append((requests, key, request))
        if not is_logged:
            return
        method, age = ascii(request[_METHOD])[1:-1], now / 1e9 - request[_SINCE]
        about = (method, _without_tokens(_path(request)), age, limit / 1e9, outcome)
        _say("%s %s has taken %.1f s, the limit is %g s: %s\n%s" % (*about, stack.rstrip("\n")))


def _was_cancelled(request, error=None):
    """Whether we cancelled a request that has ended, perhaps with an exception, and nobody else did. Called once."""
    import asyncio

    late = request[_LATE]
    if late is None or not late.is_cancelled:
        return False
    return (error is None or isinstance(error, (Exception, asyncio.CancelledError))) and not _uncancel(request[_WHOSE])


def _without_tokens(path):
    """A path for the log, without segments that may be secrets: long ones of letters and digits."""
    import re

    if isinstance(path, bytes):
        path = path.decode("utf-8", "replace")
    segments = path.split("?")[0].split("/")
    token = re.compile(r"(?=.*[0-9])[^/]{16,}|[0-9a-fA-F]{16,}|[^/]{33,}")
    shown = "/".join("..." if token.fullmatch(segment) else segment for segment in segments)
    return ascii(shown[:200])[1:-1]


def _uncancel(task):
    """Takes back our cancellation, and returns how many others there were. Before Python 3.11 nobody counts them."""
    return getattr(task, "uncancel", int)()


class _AsgiLimits:
    """What becomes of requests to an ASGI app that take too long."""

    patience = _CANCELLED_WITHIN

    @staticmethod
    def stack(request):
        return _stack_of_coroutine(request[_AWAITED], request[_WHOSE])

    @staticmethod
    def end(request):
        if request[_WHOSE] is not None and request[_WHOSE].cancel() is not False:
            return "cancelled", True
        return "it cannot be cancelled with this task implementation", False


class _WsgiLimits:
    """The same for a WSGI app, whose requests run in threads or greenlets. Nothing can end them from outside."""

    patience = 0

    @staticmethod
    def stack(request):
        whose = request[_WHOSE]
        return _stack_of_frame(sys._current_frames().get(whose) if isinstance(whose, int) else whose.gr_frame)

    @staticmethod
    def end(request):
        return "a WSGI app's request cannot be cancelled", False
