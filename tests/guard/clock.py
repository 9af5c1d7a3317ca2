"""A clock for an event loop that moves only when there is nothing left to do.

A busy machine may stop a test at any moment, and for long. In real time everything that was to follow, one thing after
another, is then due at once. With this clock each timer is due when everything before it has been done, and nobody waits.
"""

import asyncio
import time


class Clock:
    """The time of one event loop; it also takes the place of `time` in a guard's module."""

    def __init__(self, loop):
        self._now = time.monotonic()
        self._selector = loop._selector
        loop.time, loop._selector = self.monotonic, self

    def monotonic(self):
        return self._now

    perf_counter = monotonic

    def monotonic_ns(self):
        return int(self._now * 1e9)

    def sleep(self, seconds):
        """The event loop stands still for so long."""
        self._now += seconds

    def select(self, timeout=None):
        """What the event loop calls to wait."""
        ready = self._selector.select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self._now += timeout
        return ready

    def __getattr__(self, name):
        return getattr(self._selector, name)


def running():
    """The clock of the running event loop, or `time` if there is none."""
    try:
        clock = getattr(asyncio.get_running_loop().time, "__self__", None)
    except RuntimeError:
        return time
    return clock if isinstance(clock, Clock) else time
