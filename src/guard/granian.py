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
    the socket to listen on. If that looks different, nothing is changed. The guard is only in ASGI workers.
    """
    global _own_listener
    server = sys.modules.get("granian.server.mp")
    holder = getattr(sys.modules.get("granian._granian"), "SocketHolder", None)
    make = getattr(server, "ASGIWorker", None)
    if holder is None or make is None:
        _own_listener = _OPENED_BY_SERVER
    else:
        server.ASGIWorker = _with_own_listener(make, holder)


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


if LISTENERS and SERVER == "granian":
    _use_own_listeners()
