# What a worker reports besides numbers that are counted all the time: its memory, and which requests are open. The
# launcher reads it when the worker has ended, so it is written with each heartbeat, and nothing is written per request.

# The space of each worker, after the counts of all: which half is valid (0 for none, 1 or 2), then
# resident memory, its peak, and its growth per minute, then two halves, of which one is written while the other one is
# valid, each with the length of its text.
_REPORT, _HALVES, _HALF = 4096, 40, 2028
_UNKNOWN = -(1 << 63)

# Memory is looked at once in this many nanoseconds, and its growth is that of the last five minutes.
_SEARCH_EVERY, _REMEMBER, _REMEMBERED = 1_000_000_000, 10_000_000_000, 31
# The growth is told when this many nanoseconds have passed.
_TREND = 30_000_000_000


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
