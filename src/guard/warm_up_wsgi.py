# Requests to a WSGI app before its worker is ready.


class _ToldToStop(BaseException):
    """Interrupts the app in the main thread. Apps do not catch it."""


class _WsgiWarmUp:
    """The requests that a WSGI app must have answered before its worker is ready.

    The app is called in the main thread, as by a server without threads, where a signal can interrupt it; or in a greenlet,
    which nobody needs to wait for.
    """

    def __init__(self, app, spawn, is_leaving, notify):
        """`spawn` starts a greenlet, or is None. `notify` tells the server that this worker is alive."""
        self._app, self._spawn, self._is_leaving, self._notify = app, spawn, is_leaving, notify
        self._attempts, self._since = None, None

    def beat(self, now):
        """Called with each heartbeat."""
        attempts, since = self._attempts, self._since
        if attempts is None:
            return
        self._notify()
        if since is not None and now - since > _SLOW * 1e9:
            self._since = None
            attempts.is_slow()

    def run(self):
        """Requests each path of WARM_UP until the app answers it with a status below 500, and returns whether it has: the
        worker may have to leave before."""
        try:
            # Granian's main thread waits in a system call that the signal must interrupt.
            with _Terminations(restarts=False, restarted=SERVER == "gunicorn") as terminations:
                terminations.error = _ToldToStop if self._spawn is None else None
                try:
                    return all(self._is_answered(path, terminations) for path in WARM_UP)
                finally:
                    terminations.error = self._attempts = None
        except _ToldToStop:
            return False

    def _is_answered(self, path, terminations):
        is_leaving = lambda: terminations.came or self._is_leaving()
        self._attempts = attempts = _Attempts(path)
        while not is_leaving():
            self._since = time.monotonic_ns()
            failure = self._outcome(path) if self._spawn is None else self._outcome_in_greenlet(path, is_leaving)
            self._since = None
            if failure is None:
                attempts.succeeded()
                return True
            time.sleep(attempts.failed(failure))
        return False

    def _outcome(self, path):
        try:
            return _wsgi_outcome(self._app, path)
        except (_ToldToStop, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            return "raised " + _brief(error).strip()

    def _outcome_in_greenlet(self, path, is_leaving):
        outcome = []
        self._spawn(lambda: outcome.append(self._outcome(path)))
        while not outcome and not is_leaving():
            time.sleep(_GLANCE / 10)
        return outcome[0] if outcome else "was not answered"


def _wsgi_outcome(app, path):
    """Makes one request, which the guard neither counts nor refuses. Returns what is wrong with the answer, or None."""
    status, is_stream = None, False

    def start_response(line, headers, exc_info=None):
        nonlocal status, is_stream
        status, is_stream = int(line.split()[0]), _has_event_stream(headers)
        return lambda data: None

    body = app(_warm_up_environ(path), start_response)
    try:
        if not is_stream:
            for _ in body:
                if is_stream:
                    break
    finally:
        if hasattr(body, "close"):
            body.close()
    if status is None:
        return "was not answered"
    return None if status < 500 else "answered %d" % status


def _warm_up_environ(path):
    """As servers make it (PEP 3333)."""
    import io
    from urllib.parse import unquote_to_bytes

    path, _, query = path.partition("?")
    name, port = ADDRESS if ADDRESS[1] is not None else ("localhost", 443 if SCHEME == "https" else 80)
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": name,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": HOST,
        "HTTP_USER_AGENT": "mcp-launch",
        "HTTP_ACCEPT": "*/*",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": SCHEME,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
