# What a worker reports besides numbers that are counted all the time: its memory, and which requests are open. The
# launcher reads it when the worker has ended, so it is written with each heartbeat, and nothing is written per request.

from itertools import islice as _islice

# The space of each worker, after the counts of all: which half is valid (0 for none, 1 or 2), then
# resident memory, its peak, and its growth per minute, then two halves, of which one is written while the other one is
# valid, each with the length of its text.
_REPORT, _HALVES, _HALF = 4096, 40, 2028
_UNKNOWN = -(1 << 63)

# Memory is looked at once in this many nanoseconds, and its growth is that of the last five minutes.
_SEARCH_EVERY, _REMEMBER, _REMEMBERED = 1_000_000_000, 10_000_000_000, 31
# The growth is told when this many nanoseconds have passed.
_TREND = 30_000_000_000


class _OpenRequests:
    """The open requests. Each is in the dictionary that was the `newest` when it began; its key is anything, its value
    method, path and the time when it began (`perf_counter`), and then its task and what its task awaits (ASGI) or its
    greenlet or the number of its thread (WSGI). With each heartbeat there is a new one, and `latest` is the one before.
    WSGI's event streams are in `streams` instead."""

    def __init__(self):
        self.newest, self.latest, self.streams = {}, {}, {}
        # Those before it, the oldest first, each with the time by which its requests had begun.
        self._older = []

    def beat(self, now):
        older = [pair for pair in self._older if pair[1]]
        self.latest, self.newest = self.newest, {}
        if self.latest:
            older.append((now, self.latest))
        self._older = older

    def all(self):
        """What is known of each."""
        requests = [*(requests for _, requests in self._older), self.newest, self.streams]
        return [request for these in requests for request in list(these.values())]

    def lines(self, room):
        """The oldest ones, a line for each: when it began, its method and its path."""
        text = b""
        for began, requests in self._older:
            for request in list(_islice(requests.values(), room // 8)):
                method, path = ascii(request[0])[1:-1][:20], _without_tokens(_path(request))
                line = b"%d %s %s\n" % (began, method.encode(), path.encode())
                if len(text) + len(line) > room:
                    return text
                text += line
        return text


def _path(request):
    """The path of an open request. WSGI has its bytes as Latin-1."""
    return request[1].encode("latin-1", "replace") if len(request) == 4 else request[1]


class _Report:
    """The space on the board of this worker, and what is in it."""

    def __init__(self, space, requests):
        self._space, self._requests = space, requests
        self._words, self._half, self._text = space.cast("I"), 0, b""
        self._looked, self._trend = 0, []
        # What the previous owner wrote.
        self._words[0] = 0
        space[8:_HALVES] = struct.pack("=QQq", 0, 0, _UNKNOWN) + bytes(_HALVES - 32)

    def beat(self, now):
        if now - self._looked >= _SEARCH_EVERY:
            self._looked = now
            self._look_at_memory(now)
        self._requests.beat(now)
        try:
            text = self._requests.lines(_HALF - 4)
        except Exception:
            return  # other threads have changed it meanwhile, or the app has changed what it got
        if text != self._text:
            self._write(text)

    def _write(self, text):
        half = self._half ^ 1
        start = _HALVES + half * _HALF
        self._space[start : start + 4 + len(text)] = struct.pack("=I", len(text)) + text
        self._words[0] = half + 1
        self._half, self._text = half, text

    def _look_at_memory(self, now):
        found = _memory()
        if found is None:
            return
        resident, peak = found
        if not self._trend or now - self._trend[-1][0] >= _REMEMBER:
            self._trend = [*self._trend, (now, resident)][-_REMEMBERED:]
        since, before = self._trend[0]
        growth = _UNKNOWN if now - since < _TREND else (resident - before) * 60_000_000_000 // (now - since)
        self._space[8:32] = struct.pack("=QQq", resident, peak, growth)


def _memory():
    """Resident memory and its peak in bytes; None if it cannot be told."""
    try:
        file = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(file, 8192)
        finally:
            os.close(file)
        return [1024 * int(text.split(name, 1)[1].split(None, 1)[0]) for name in (b"VmRSS:", b"VmHWM:")]
    except (OSError, IndexError, ValueError):
        return None


def _space_of(start, slots):
    """The space of the worker whose slot starts there."""
    at = _SLOT * (slots + 1) + _COUNTS * slots + _REPORT * (start // _SLOT - 1)
    return memoryview(_map)[at : at + _REPORT]
