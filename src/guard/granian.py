# Granian: the worker's own listening socket, and watching the other workers on behalf of the launcher.

# The number of this worker's socket in LISTENERS, counted from 1; 0 until it accepts clients.
_own_listener = 0
# Instead of that number: Granian opened a socket itself.
_OPENED_BY_SERVER = 0xFFFFFFFF

# A worker whose event loop has not run for this long gets no new clients, in nanoseconds.
_SILENT = 1_000_000_000


def _use_own_listeners():
    """Makes Granian's workers accept clients on the sockets that the launcher made, one for each worker.

    A socket that a worker opens itself is unknown to the launcher, which can neither steer clients to it nor keep the
    waiting clients when the worker ends. Granian creates its worker object by this name, with the worker's number and
    the socket to listen on. If that looks different, nothing is changed.
    """
    global _own_listener
    server = sys.modules.get("granian.server.mp")
    holder = getattr(sys.modules.get("granian._granian"), "SocketHolder", None)
    name = "WSGIWorker" if WSGI else "ASGIWorker"
    make = getattr(server, name, None)
    if holder is None or make is None:
        _own_listener = _OPENED_BY_SERVER
    else:
        setattr(server, name, _with_own_listener(make, holder))


def _with_own_listener(make, holder):
    def make_worker(number, listen, *args, **kwargs):
        own = _holder_of(number, listen, holder)
        worker = make(number, listen if own is None else (None, own), *args, **kwargs)
        _began_to_listen(_OPENED_BY_SERVER if own is None else number)
        return worker

    return make_worker


def _holder_of(number, listen, holder):
    """This worker's socket in Granian's form; None if that is impossible."""
    import stat

    try:
        # An address to bind, and a socket that is bound already.
        specification, bound = listen
        if _is_spawned or specification is None or bound is not None or specification.is_uds():
            return None
        descriptor = LISTENERS[number - 1]
        if number < 1 or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        return holder(descriptor, False, BACKLOG)
    except (AttributeError, IndexError, OSError, TypeError, ValueError) as error:
        _say("Granian opens its listening socket itself: " + _brief(error).strip())
        return None


def _began_to_listen(number):
    global _own_listener
    _own_listener = number
    if _slot is not None:
        _slot[_LISTENER] = number
    for other, descriptor in enumerate(() if number == _OPENED_BY_SERVER else LISTENERS, 1):
        # Processes that the worker starts must not inherit any of them.
        try:
            if other == number:
                os.set_inheritable(descriptor, False)
            else:
                os.close(descriptor)
        except OSError:
            pass
    _poke()


def _watcher(siblings):
    """A function that wakes the launcher when another worker has fallen silent, or is no longer."""
    before = set()

    def watch(now):
        nonlocal before
        silent = {sibling.start for sibling in siblings.ready() if now - sibling.heartbeat() > _SILENT}
        if silent != before:
            before = silent
            _poke()

    return watch


def _crossing(loop):
    """A function that wakes the launcher because this worker has become full or has room again, but not too often."""
    waiting = False

    def later():
        nonlocal waiting
        waiting = False
        _poke()

    def crossed():
        nonlocal waiting
        left = _poked + _POKE_PAUSE - time.monotonic()
        if left <= 0:
            _poke()
        elif not waiting:
            waiting = True
            loop.call_later(left, later)

    return crossed


def _begin_with_server():
    """Has a WSGI worker take its slot when Granian creates its worker object, shortly before it accepts clients: nothing
    else tells a WSGI app that it was started. There is one server for workers that are processes, and one for threads."""
    for name in ("granian.server.mp", "granian.server.mt"):
        make = getattr(sys.modules.get(name), "WSGIWorker", None)
        if make is not None:
            sys.modules[name].WSGIWorker = _then_begin(make)


def _then_begin(make):
    def make_worker(*args, **kwargs):
        worker = make(*args, **kwargs)
        if _begin_wsgi is not None:
            _begin_wsgi()
        return worker

    return make_worker


if LISTENERS and SERVER == "granian":
    _use_own_listeners()
if WSGI and SERVER == "granian":
    _begin_with_server()


class _Receive:
    """Granian's `receive` of a request, for apps that call it several times at once, or cancel a call.

    By itself Granian 2.8 answers a second call with `http.disconnect` although the client is there, and loses a message
    when the call that waits for it is cancelled. An app that asks whether its client is still there does both
    (Starlette's `is_disconnected`, and Server-Sent Events below a middleware).
    """

    __slots__ = ("_receive", "_lock", "_is_waiting", "_message", "_waiter")

    def __init__(self, receive):
        self._receive = receive
        self._lock = self._message = self._waiter = None
        self._is_waiting = False

    def __call__(self):
        if self._lock is None:
            import asyncio

            self._lock = asyncio.Lock()
        return self._next()

    async def _next(self):
        async with self._lock:
            if self._message is None and not self._is_waiting:
                coming = self._receive()
                if not hasattr(coming, "add_done_callback"):
                    return await coming
                self._is_waiting = True
                coming.add_done_callback(self._came, context=None)
            if self._message is None:
                import asyncio

                # Cancelling this call leaves the message to the next one.
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            message, self._message = self._message, None
            return message.result()

    def _came(self, message):
        self._is_waiting, self._message = False, message
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
