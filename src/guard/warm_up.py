# Requests to the app before its worker is ready: the server does not accept clients meanwhile.

# The pause before a request is repeated, in seconds: the first one, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
# A request that takes longer than this is reported, in seconds.
_SLOW = 5.0
# While a request takes long, the worker checks this often whether it must leave, in seconds.
_GLANCE = 0.1


async def _warm_up(app, state, is_leaving):
    """Requests each path of WARM_UP until the app answers it with a status below 500, and returns whether it has: the
    worker may have to leave before.

    It does not give up: the launcher ends a worker that is not ready in time.
    """
    for path in WARM_UP:
        attempts = _Attempts(path)
        while not is_leaving():
            failure = await _WarmUpRequest(app, path, state, attempts).outcome(is_leaving)
            if failure is None:
                attempts.succeeded()
                break
            await _sleep(attempts.failed(failure))
        else:
            return False
    return True


class _Attempts:
    """The attempts to get an answer for one path: what is reported about them, and the pauses between them."""

    def __init__(self, path):
        self._path, self._pause, self._has_failed = path, _FIRST_PAUSE, False

    def failed(self, failure):
        """Returns the time until the next attempt, in seconds."""
        if not self._has_failed:
            self._has_failed = True
            repeated = "it is repeated until the app answers below 500"
            _say("not ready: warm-up: GET %s %s; %s" % (self._path, failure, repeated))
        _write_failure("warm-up: GET %s %s" % (self._path, failure))
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return pause

    def is_slow(self):
        _say("not ready: warm-up: GET %s has not been answered for %g s" % (self._path, _SLOW))

    def succeeded(self):
        if self._has_failed:
            _write_failure("")
            _say("warm-up: GET %s has been answered" % self._path)


class _Terminations:
    """Notices SIGTERM, which servers hear but do not act upon while the app starts."""

    def __init__(self, restarts=True, restarted=True):
        """Whether system calls are continued after the signal: in the meantime, and otherwise, as event loops have it."""
        self._restarts, self._restarted = restarts, restarted
        # What to raise when it comes, if anything.
        self.error = None

    def __enter__(self):
        import signal

        self.came, self._before = False, signal.getsignal(signal.SIGTERM)
        if callable(self._before):
            self._replace(self._hear, self._restarts)
        return self

    def __exit__(self, *_):
        import signal

        if callable(self._before) and signal.getsignal(signal.SIGTERM) == self._hear:
            self._replace(self._before, self._restarted)

    def _replace(self, handler, restarts):
        import signal

        try:
            signal.signal(signal.SIGTERM, handler)
            signal.siginterrupt(signal.SIGTERM, not restarts)
        except ValueError:
            pass  # not the main thread

    def _hear(self, *arguments):
        self.came = True
        self._before(*arguments)
        if self.error is not None:
            raise self.error


async def _sleep(seconds):
    import asyncio

    await asyncio.sleep(seconds)


class _WarmUpRequest:
    """One request, which no client has made: the app is called directly, and the guard neither counts nor refuses it."""

    def __init__(self, app, path, state, attempts):
        import asyncio

        self._app, self._path, self._state, self._attempts = app, path, state, attempts
        self._status, self._is_asked = None, False
        # Set when nobody listens any longer, because the answer is complete, or is a stream that has begun.
        self._over = asyncio.Event()

    async def outcome(self, is_leaving):
        """Waits for the answer. Returns what is wrong with it, or None."""
        import asyncio

        loop = asyncio.get_running_loop()
        task = loop.create_task(self._call())
        over = loop.create_task(self._over.wait())
        slow = loop.time() + _SLOW
        while not (task.done() or over.done() or is_leaving()):
            await asyncio.wait({task, over}, timeout=_GLANCE, return_when=asyncio.FIRST_COMPLETED)
            if loop.time() > slow:
                slow = float("inf")
                self._attempts.is_slow()
        over.cancel()
        if self._over.is_set():
            # What the app does after its answer goes on in the background.
            return None if self._status < 500 else "answered %d" % self._status
        if not task.done():
            task.cancel()
            return "was not answered"
        if task.cancelled():
            return "was cancelled by the app"
        if task.exception() is not None:
            return "raised " + _brief(task.exception()).strip()
        return "was not answered completely" if self._status else "was not answered"

    async def _call(self):
        await self._app(self._scope(), self._receive, self._send)

    def _scope(self):
        from urllib.parse import unquote

        raw_path, _, query = self._path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": SCHEME,
            "path": unquote(raw_path),
            "raw_path": raw_path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": [(b"host", HOST.encode("ascii")), (b"user-agent", b"mcp-launch"), (b"accept", b"*/*")],
            "client": None,
            "server": ADDRESS,
            "extensions": {},
        }
        if self._state is not None:
            scope["state"] = self._state.copy()
        return scope

    async def _receive(self):
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if _examine(message)[1]:
                self._over.set()
        elif message["type"] == "http.response.body" and not message.get("more_body") and self._status:
            self._over.set()
