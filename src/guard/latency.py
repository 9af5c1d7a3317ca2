# How long requests take: for the launcher's reports, and for limits that adapt, which it finds from that.

from bisect import bisect_left as _bisect_left
from itertools import repeat as _repeat

# The upper bounds of the buckets in seconds, as in src/guard/scoreboard/durations.rs: from 100 µs to 100 s. One more
# bucket has what took longer.
_BOUNDS = [float("%de%d" % (digits, power)) for power in range(-5, 1) for digits in (10, 15, 20, 30, 50, 70)] + [100.0]
# How far back the earlier counts on the board are, and the time between two that are kept until then, in nanoseconds.
_WINDOW, _STEP = 10_000_000_000, 1_000_000_000


class _Latencies:
    """How long the requests that count have taken, in seconds, since the last heartbeat. Appending to `recent` is atomic,
    so any thread may do it, and fast; the heartbeat counts them."""

    def __init__(self):
        # Without a slot nobody collects them.
        self.recent = _deque(maxlen=0)
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = self._squares = 0
        # This worker's part of the board, what was written there last, and what had been counted at earlier moments.
        self._board, self._latest, self._past = None, (), _deque()

    def begin(self, now, board):
        """Called with the worker's part of the board, as long words, when it has a slot."""
        self.recent, self._board = [], board
        self._latest = (now, 0, 0, 0, *self._counts)
        self._past.append(self._latest)
        self._write(_EARLIER, self._latest)

    def forget(self):
        """Called in a process that the worker has forked."""
        self.recent, self._board = _deque(maxlen=0), None

    def publish(self, now, served, words, longs):
        """Adds them to the counts on the board. Returns whether the limit should be looked at, if it adapts: the worker
        has refused requests, or half its limit was in use."""
        if self._board is None:
            return False
        number = len(self.recent)
        recent = self.recent[:number]
        del self.recent[:number]
        taken, counts, before = sum(recent), self._counts, self._latest
        for bucket in map(_bisect_left, _repeat(_BOUNDS), recent):
            counts[bucket] += 1
        self._sum += taken
        self._latest = (now, served, longs[_REJECTED], int(self._sum * 1e9), *counts)
        self._write(_LATEST, self._latest)
        self._look_back(now, before)
        return ADAPTS and self._is_busy(recent, taken, before, words, longs)

    def _look_back(self, now, before):
        """Keeps the latest counts for later, and writes to the board those of ten seconds ago."""
        past = self._past
        if now - before[0] > _WINDOW:
            # Nothing ran, so nothing was counted meanwhile.
            past.clear()
            past.append((now - _WINDOW, *before[1:]))
            self._write(_EARLIER, past[0])
        if now - past[-1][0] >= _STEP:
            past.append(self._latest)
        while len(past) > 1 and now - past[1][0] >= _WINDOW:
            past.popleft()
            self._write(_EARLIER, past[0])

    def _write(self, where, values):
        """Writes one word after the other, so that each is read as a whole."""
        board = self._board
        for value in values:
            board[where] = value
            where += 1

    def _is_busy(self, recent, taken, before, words, longs):
        self._squares += int(sum(latency * latency for latency in recent) * 1e12)
        # The launcher only takes differences, so they may wrap around.
        words[_TIMED], words[_LATENCY] = sum(self._counts) & 0xFFFFFFFF, int(self._sum * 1e5) & 0xFFFFFFFF
        longs[_SQUARES] = self._squares & 0xFFFFFFFFFFFFFFFF
        seconds = (self._latest[0] - before[0]) / 1e9
        most = max(words[_IN_FLIGHT], taken / seconds if seconds > 0 else 0)
        return self._latest[2] != before[2] or 2 * most >= words[_LIMIT]
