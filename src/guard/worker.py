# The worker, whatever its interface: its slot on the board, its heartbeat, and its end when nobody is left to end it.


def _dummy_slot():
    """Memory for a worker without a slot, so that counting needs no check: its words and long words."""
    memory = memoryview(bytearray(_SLOT))
    words = memory.cast("I")
    words[_LIMIT] = _first_limit()
    return words, memory.cast("Q")


def _first_limit():
    """The limit at first, as a word: 0 for none."""
    return min(LIMIT or 0, 0xFFFFFFFF)


class _Worker:
    """This worker. What changes with each request is kept by the guard of the interface, in variables of its own because
    they are faster. It gives two functions: `served` returns the number of requests that have ended, and `adopt` is
    called whenever the attributes below have changed."""

    def __init__(self, served, adopt):
        self._served, self._adopt = served, adopt
        self._claimed = False
        self.latencies, self.open_requests = _Latencies(), _OpenRequests()
        self.words, self.longs = _dummy_slot()
        # The other workers, if there is a board, and whether one of them exceeds its limit.
        self.others, self.exceeded = None, bytes(1)
        # Called when the worker becomes full or has room again.
        self.crossed = lambda: None
        # Functions that are called with each heartbeat, with the time in nanoseconds.
        self.at_heartbeat = []
        # For ASGI, the code of the function that is called for each request.
        self.code_of_app = None
        # The number of requests that have ended and count, and the open streams.
        self.work, self.streams = None, ()
        adopt(self)

    def claim(self, timers, flags, then=None):
        """Takes a slot, once, and calls a function if there was one. The timers are an event loop, or have the same
        `call_later`, `add_reader` and `remove_reader`."""
        if self._claimed:
            return
        self._claimed = True
        try:
            slot = _claim_slot()
            if slot is not None:
                self._begin(slot, timers, flags)
                if then is not None:
                    then()
        except Exception as error:
            # Whatever went wrong, the app can be served.
            _say("it is not seen how this worker is: " + _brief(error).strip())

    def _begin(self, slot, timers, flags):
        words, longs, counts, launcher, self.others, space = slot
        self.words, self.longs = words, longs
        longs[_CLAIMED] = longs[_HEARTBEAT] = now = time.monotonic_ns()
        self.latencies.begin(now, counts)
        words[_FLAGS] = (_TRACEBACK_ON_ABORT if _trace_on_abort() else 0) | flags
        words[_LISTENER], words[_LIMIT] = _own_listener, _first_limit()
        longs[_MOST_REQUESTS] = _draw_most_requests()
        if LIMIT is not None:
            self.exceeded = self.others.exceeded
        self._adopt(self)
        words[_PID] = os.getpid()
        words[_STATE] = _STARTING
        self.at_heartbeat.append(_Report(space, self.open_requests).beat)
        _open_wakeup()
        if _wakeup is not None and len(LISTENERS) > 1:
            self.at_heartbeat.append(_watcher(self.others))
            self.crossed = _crossing(timers)
            self._adopt(self)
        self._answer_inquiries(timers)
        if SPIN is not None:
            self.at_heartbeat.append(_SpinWatch(self, self.work, self.streams).look)
        self._keep_beating(timers, launcher)
        if LINE is not None:
            _lend_listener(timers, launcher)
        # A process that the worker forks does not own the slot.
        os.register_at_fork(after_in_child=self._forget)

    def _answer_inquiries(self, timers):
        if STACKS is None:
            return
        try:
            self.at_heartbeat.append(_Inquiries(self, getattr(timers, "have_thread", False)).look)
        except Exception as error:
            _say("`mcp-launch stacks` does not see this worker: " + _brief(error).strip())

    async def warm_up(self, app, state):
        """Makes the requests that the app must have answered before the worker is ready, and returns whether it has."""
        self.words[_FLAGS] |= _WARMING_UP
        try:
            with _Terminations() as terminations:
                return await _warm_up(app, state, lambda: terminations.came or self.longs[_LEAVE_BY] != 0)
        finally:
            self.words[_FLAGS] &= ~_WARMING_UP

    def warm_up_wsgi(self, app, spawn, notify):
        """The same for a WSGI app, see `_WsgiWarmUp`."""
        warm_up = _WsgiWarmUp(app, spawn, lambda: self.longs[_LEAVE_BY] != 0, notify)
        self.at_heartbeat.append(warm_up.beat)
        self.words[_FLAGS] |= _WARMING_UP
        try:
            return warm_up.run()
        finally:
            self.words[_FLAGS] &= ~_WARMING_UP
            self.at_heartbeat.remove(warm_up.beat)

    def is_ready(self):
        """Called when the app has started, perhaps repeatedly."""
        if self.words[_STATE] == _STARTING:
            self.words[_STATE] = _READY
            _poke()

    def is_stopping(self):
        self.words[_STATE], self.longs[_SERVED] = _STOPPING, self._served()
        self.latencies.publish(time.monotonic_ns(), self.longs[_SERVED], self.words, self.longs)

    def _keep_beating(self, timers, launcher):
        """Reports regularly that the worker's event loop, or its interpreter, is running, and its lag."""
        own = os.getpid()
        end_with_parents = _orphans_end(own, launcher, self.longs)
        most_requests = self.longs[_MOST_REQUESTS] or sys.maxsize
        most_lag, due = 0, time.monotonic_ns() + int(BEAT * 1e9)

        def beat():
            nonlocal most_lag, due, most_requests
            words, longs = self.words, self.longs
            if words[_PID] != own:
                return
            now = time.monotonic_ns()
            lag = min(max(now - due, 0) // 1000, 0xFFFFFFFF)
            if lag > most_lag:
                most_lag = words[_MOST_LAG] = lag
            words[_LAG] = lag
            served = self._served()
            is_busy = self.latencies.publish(now, served, words, longs)
            longs[_SERVED], longs[_HEARTBEAT] = served, now
            for function in self.at_heartbeat:
                function(now)
            end_with_parents(now)
            if served >= most_requests:
                most_requests = sys.maxsize
                _poke()
            if is_busy:
                _poke()
            due = now + int(BEAT * 1e9)
            timers.call_later(BEAT, beat)

        timers.call_later(BEAT, beat)

    def _forget(self):
        global _slot
        _slot = None
        self.words, self.longs = _dummy_slot()
        self.latencies.forget()
        self._adopt(self)


def _orphans_end(own, launcher, longs):
    """A function that ends this process when the launcher and the main process are both gone. If only the launcher is,
    the kernel has told the main process to stop, which waits for its workers' connections; so streams must end."""
    import signal

    parent, told_to_end = os.getppid(), None
    if parent == 1 and launcher != 1:
        # They died while this worker started.
        parent = launcher

    def look(now):
        nonlocal told_to_end
        if not longs[_LEAVE_BY] and not _is_alive(launcher):
            longs[_LEAVE_BY] = now + int(GRACE * 1e9)
        # When the main process dies, the launcher becomes our parent. If that is dead too, nobody would end us.
        if os.getppid() in (parent, launcher):
            return
        if told_to_end is None:
            _say("the launcher and the server's main process are gone: ending")
            told_to_end = now
            os.kill(own, signal.SIGTERM)
        elif now - told_to_end > GRACE * 1e9:
            os.kill(own, signal.SIGKILL)

    return look


def _below(root):
    """The health path and the beginnings of exempt paths where the app is mounted below this root path."""
    roots = {root, root.rstrip("/")}
    health = tuple(root + HEALTH_PATH for root in roots)
    return health, EXEMPT + tuple(root + prefix for root in roots for prefix in EXEMPT)
