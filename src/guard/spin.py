# A worker that uses a processor although it has nothing to do: it tells the launcher, which looks closer.

# The flag is set, and the launcher woken, if the worker has used more than this share of the time. The launcher also counts
# how long it waited for a processor, which may be much more.
_SUSPICIOUS = 0.1


class _SpinWatch:
    """Looks from time to time, with the heartbeat, whether this worker has worked, and whether it used a processor.
    `work` returns a number that changes whenever a request has ended that counts, and `streams` has the open streams."""

    def __init__(self, worker, work, streams):
        self._worker, self._work, self._streams = worker, work, streams
        self._before, self._last, self._used = None, time.monotonic_ns(), time.process_time_ns()

    def look(self, now):
        if now - self._last < SPIN * 1e9:
            return
        words, used = self._worker.words, time.process_time_ns()
        share = (used - self._used) / (now - self._last)
        done = self._work(), sum(stream.passed_on for stream in list(self._streams))
        is_idle = done == self._before and not words[_IN_FLIGHT] and words[_STATE] == _READY
        self._before, self._last, self._used = done, now, used
        if is_idle and share > _SUSPICIOUS:
            words[_FLAGS] |= _MAY_SPIN
            _poke()
        else:
            words[_FLAGS] &= ~_MAY_SPIN
