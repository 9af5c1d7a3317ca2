# Timers for workers without an event loop: WSGI apps are called in threads or greenlets.

import _thread
import heapq
import select
from collections import deque as _deque

# Taken before the app is imported, because that may replace them (gevent, eventlet).
_start_thread, _current_thread = _thread.start_new_thread, _thread.get_ident
_allocate_lock, _native_poll = _thread.allocate_lock, select.poll


class _Timers:
    """Calls functions later, or when there is something to read, in a thread or greenlet of its own. It has the methods
    of an event loop that the guard needs. If the thread is late, the interpreter stands still; if the greenlet is late,
    another greenlet blocks all of them."""

    def __init__(self, greenlets=None):
        """`greenlets` is the name of the package that has them, or None for a thread."""
        self.have_thread = greenlets is None
        self._readers, self._due, self._order = {}, [], 0
        # Filled from any thread: appending is atomic.
        self._new = _deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Starting a thread or greenlet, and waiting for descriptors; the current greenlet, or the number of the current
        # thread; for greenlets, calling a function while none runs, in which it may throw into one.
        self.spawn, self._wait, self.current, self.in_hub = _FUNCTIONS[greenlets]()

    def start(self):
        self.spawn(self._run)

    def call_later(self, seconds, function):
        self._new.append((time.monotonic() + seconds, function))
        try:
            os.eventfd_write(self._wake, 1)
        except OSError:
            pass  # it has been woken very often, and is about to look

    def add_reader(self, file, function):
        self._readers[file if isinstance(file, int) else file.fileno()] = function
        self.call_later(0, lambda: None)

    def remove_reader(self, file):
        self._readers.pop(file if isinstance(file, int) else file.fileno(), None)

    def _run(self):
        own = os.getpid()
        while os.getpid() == own:
            try:
                self._turn()
            except Exception as error:
                _say("a timer failed: " + _brief(error).strip())

    def _turn(self):
        while self._new:
            due, function = self._new.popleft()
            self._order += 1
            heapq.heappush(self._due, (due, self._order, function))
        rest = max(self._due[0][0] - time.monotonic(), 0) if self._due else 60
        ready = self._wait([self._wake, *self._readers], rest)
        if self._wake in ready:
            try:
                os.eventfd_read(self._wake)
            except BlockingIOError:
                pass
        for descriptor in ready:
            if descriptor in self._readers:
                self._readers[descriptor]()
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()


def _wait_in_thread(descriptors, seconds):
    poll = _native_poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    # Rounded up, so that it does not wake too early.
    return [descriptor for descriptor, _ in poll.poll(int(seconds * 1000) + 1)]


def _with_gevent():
    import gevent
    from gevent.select import select as wait

    in_hub = lambda function: gevent.get_hub().loop.run_callback(function)
    return gevent.spawn, lambda descriptors, seconds: wait(descriptors, (), (), seconds)[0], gevent.getcurrent, in_hub


def _with_eventlet():
    import eventlet
    from eventlet.green.select import select as wait

    in_hub = lambda function: eventlet.hubs.get_hub().schedule_call_global(0, function)
    return eventlet.spawn, lambda descriptors, seconds: wait(descriptors, (), (), seconds)[0], eventlet.getcurrent, in_hub


# For each package of greenlets, and for threads: a function that returns the functions that `_Timers` needs.
_FUNCTIONS = {
    None: lambda: (lambda function: _start_thread(function, ()), _wait_in_thread, _current_thread, None),
    "gevent": _with_gevent,
    "eventlet": _with_eventlet,
}
