# The guard around a WSGI app.

_REFUSAL = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_BUSY))),
    ("Retry-After", "1"),
]


def _closing(environ, start_response, headers):
    """The headers of a response after which the connection is closed, see `_with_close`."""
    length = environ.get("CONTENT_LENGTH") or "0"
    is_long = not length.isdigit() or int(length) > 65536 or "HTTP_TRANSFER_ENCODING" in environ
    if is_long or not environ.get("SERVER_PROTOCOL", "HTTP/1.1").startswith("HTTP/1"):
        return headers
    # Gunicorn's response ignores this header, and has a method instead.
    close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if close is not None:
        close()
        return headers
    return [*(pair for pair in headers if pair[0].lower() != "connection"), ("Connection", "close")]


def _in_environ(path):
    """A path as it is in PATH_INFO: its bytes as Latin-1."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


def _guard_wsgi(inner):
    """The app with the guard around it, and the function that begins the worker. They share what changes with each
    request, in variables because they are fast.

    Servers call the app in many threads at a time, or in many greenlets of one thread, with the GIL or without it.
    Counting with an operator would be wrong. A lock would be slow when threads outnumber processors: one that has the
    lock waits for the GIL, and all others wait for it. So everything is counted by the lengths of lists, of which each
    operation is atomic.
    """
    limit = sys.maxsize if LIMIT is None else LIMIT
    most_streams = sys.maxsize if MAX_STREAMS is None else MAX_STREAMS
    health, exempt = _in_environ(HEALTH_PATH), tuple(map(_in_environ, EXEMPT))
    # Requests of each kind. With a limit, a request in a thread also takes one of so many permits: looking whether there
    # is one and taking it is one operation.
    running, streams, exempted, permits, has_permits = [], [], [], [None] * (LIMIT or 0), LIMIT is not None
    # Marks of requests that have ended (whether they were exempt) or were refused since the last heartbeat. Without a slot
    # nobody collects them.
    ended = refused = _deque(maxlen=0)
    # If the limit adapts: marks of permits that are to be withdrawn when they are given back.
    surplus, resizing, most_threads = [], _allocate_lock(), sys.maxsize
    clock = time.perf_counter
    high_water = served = spared = rejected = 0
    words = longs = others = exceeded = crossed = None
    are_greenlets = False
    open_streams = _WsgiStreams()
    # Where it is noted how long requests take, and the limits of that.
    latencies = None
    is_timed = False

    def adopt(worker):
        nonlocal words, longs, others, exceeded, crossed, latencies
        latencies = worker.latencies.recent
        words, longs, others = worker.words, worker.longs, worker.others
        open_streams.words, open_streams.longs = words, longs
        exceeded, crossed = worker.exceeded, worker.crossed

    def collect():
        """Counts the marks. Only called with the heartbeat."""
        nonlocal served, spared, rejected
        for marks, is_end in ((ended, True), (refused, False)):
            number = len(marks)
            if number:
                taken = marks[:number]
                del marks[:number]
                if is_end:
                    served += number
                    spared += sum(taken)
                else:
                    rejected += number
        longs[_REJECTED] = rejected
        return served

    worker = _Worker(collect, adopt)
    requests = worker.open_requests
    # Returns the number of the current thread, or the current greenlet.
    current = _current_thread

    def begin(greenlets=None, threads=None, is_stopping=None, notify=lambda: None):
        """Called once in each worker, after the fork and before it accepts clients: with the name of the package of its
        greenlets; the number of its threads if that is known better than from the settings; whether it was told to stop;
        and what tells the server that it is alive."""
        nonlocal are_greenlets, has_permits, limit, most_threads, current
        are_greenlets = greenlets is not None
        has_permits = LIMIT is not None and not are_greenlets
        if threads is not None and LIMIT is not None:
            most_threads = threads
            limit = min(limit, threads)
            del permits[limit:]

        def look(now):
            collect()
            # Two threads may have written this in the wrong order.
            words[_IN_FLIGHT], words[_EXEMPT_IN_FLIGHT], words[_STREAMS] = len(running), len(exempted), len(streams)
            if is_stopping is not None and is_stopping():
                worker.is_stopping()

        def watch():
            nonlocal ended, refused, is_timed
            ended, refused = [], []
            worker.at_heartbeat.extend([look, open_streams.look])
            if TIME_LIMITS:
                _TimeLimits(worker, _WsgiLimits)
                is_timed = True

        spawn = None
        if BOARD is not None:
            timers = _Timers(greenlets)
            if are_greenlets:
                spawn, current = timers.spawn, timers.current
                open_streams.have_greenlets(timers)
            worker.claim(timers, 0, watch)
            timers.start()
        if limit != sys.maxsize:
            words[_LIMIT] = min(limit, 0xFFFFFFFF)
        # A worker that is told to stop meanwhile is not ready.
        if not WARM_UP or worker.warm_up_wsgi(inner, spawn, notify):
            worker.is_ready()

    def resize():
        """Adopts a limit that has changed. One thread at a time; the others go on with what there is."""
        nonlocal limit
        if not resizing.acquire(False):
            return
        try:
            wanted = min(words[_LIMIT], most_threads)
            for _ in range(limit, wanted if has_permits else 0):
                _pop(surplus) or permits.append(None)
            for _ in range(wanted, limit if has_permits else 0):
                _pop(permits) or surplus.append(None)
            limit = wanted
        finally:
            resizing.release()

    class Request:
        """A request. It is also the body of its response, with which it ends, for servers to iterate and to close:
        iterating is as fast as without it, because the iterator is the app's."""

        __slots__ = tuple("kind environ start_response body close_body stream started peers".split())

        def answer(self, status, headers, *exc_info):
            # Not kept until the end: Granian slows down if the request's body lives as long as the response.
            environ, self.environ = self.environ, None
            if environ is not None:
                if longs[_LEAVE_BY]:
                    headers = _closing(environ, self.start_response, headers)
                is_get = environ["REQUEST_METHOD"] == "GET"
                if (is_get or is_timed) and _has_event_stream(headers):
                    if is_get:
                        if are_greenlets and self.kind is running:
                            self.become_stream()
                        self.become_peer_of(requests.streams)
                        self.stream = open_streams.open(headers)
                    else:
                        self.peers[id(self)][_UNLIMITED] = True
            return self.start_response(status, headers, *exc_info)

        def become_peer_of(self, peers):
            peers[id(self)] = self.peers.pop(id(self))
            self.peers = peers

        def become_stream(self):
            """A stream costs a greenlet nothing. It occupies a thread, so there it counts until it ends."""
            if len(streams) >= most_streams:
                raise _TooManyStreams
            self.kind = streams
            running.pop()
            streams.append(None)
            words[_IN_FLIGHT], words[_STREAMS] = len(running), len(streams)

        def refused(self):
            """Answers that there is one stream too many. The app has begun a response, but it was not passed on."""
            self.end()
            return refuse("GET", self.start_response)[0]

        def with_body(self, body, environ):
            """What the server gets: the body itself, if it is a file that it recognises by its class and sends without
            reading it."""
            self.close_body = getattr(body, "close", None)
            wrapper = environ.get("wsgi.file_wrapper")
            if wrapper is not None and isinstance(wrapper, type) and isinstance(body, wrapper):
                try:
                    body.close = self.close
                    return body
                except AttributeError:
                    pass
            self.body = body
            return self

        def __iter__(self):
            # If the response has not begun, it may still turn out to be a stream.
            return iter(self.body) if self.stream is None and self.environ is None else _Chunks(self)

        def close(self):
            try:
                if self.close_body is not None:
                    self.close_body()
            finally:
                self.end()

        def __del__(self):
            # Some servers do not close the body when the client has gone.
            if self.kind is not None:
                self.end()

        def end(self):
            kind, self.kind = self.kind, None
            if kind is None:
                return
            if self.stream is not None:
                open_streams.discard(self.stream)
            kind.pop()
            ended.append(kind is exempted)
            self.peers.pop(id(self), None)
            words[fields[id(kind)]] = now = len(kind)
            if kind is running:
                if self.stream is None:
                    latencies.append(clock() - self.started)
                if has_permits and not (surplus and _pop(surplus)):
                    permits.append(None)
                if now + 1 == limit:
                    crossed()

    fields = {id(running): _IN_FLIGHT, id(streams): _STREAMS, id(exempted): _EXEMPT_IN_FLIGHT}

    def app(environ, start_response):
        nonlocal high_water
        since = clock()
        path = environ.get("PATH_INFO", "")
        if path == health or exempt and path.startswith(exempt):
            exempted.append(None)
            words[_EXEMPT_IN_FLIGHT] = len(exempted)
            kind = exempted
        else:
            if ADAPTS and words[_LIMIT] != limit:
                resize()
            if has_permits:
                if not _pop(permits):
                    return refuse(environ["REQUEST_METHOD"], start_response)
            elif (len(running) >= limit or exceeded[0]) and not may_have_one_more():
                return refuse(environ["REQUEST_METHOD"], start_response)
            running.append(None)
            words[_IN_FLIGHT] = now = len(running)
            if now > high_water:
                high_water = words[_HIGH_WATER] = now
            if now == limit:
                crossed()
            kind = running
        request = Request()
        request.kind, request.environ, request.start_response = kind, environ, start_response
        request.stream = request.close_body = None
        request.started = since
        # Not the request itself, which may end by not being referred to any more.
        request.peers = requests.newest
        request.peers[id(request)] = [environ["REQUEST_METHOD"], path, since, current(), False, None]
        try:
            body = inner(environ, request.answer)
        except _TooManyStreams:
            return [request.refused()]
        except BaseException:
            request.end()
            raise
        if type(body) is list and SERVER == "granian":
            # Granian sends it after this thread has gone on to other requests.
            request.end()
            return body
        return request.with_body(body, environ)

    def may_have_one_more():
        """Whether another greenlet can begin although this worker is full, or another one exceeds its limit."""
        if others is None:
            return len(running) < limit
        return len(running) < 2 * limit and others.have_room(len(running), limit)

    def refuse(method, start_response):
        """Answers without reading the body."""
        refused.append(None)
        start_response("503 Service Unavailable", list(_REFUSAL))
        return [b"" if method == "HEAD" else _BUSY]

    worker.work, worker.streams = lambda: served - spared, open_streams
    return app, begin


def _pop(marks):
    """Removes a mark from a list, in one operation, and returns whether there was one."""
    try:
        marks.pop()
        return True
    except IndexError:
        return False


class _TooManyStreams(Exception):
    """A worker has as many event streams as it may have."""


def _has_event_stream(headers):
    """Whether these are the headers of an event stream."""
    for name, value in headers:
        # The length first, because comparing it is faster.
        if len(name) == 12 and name.lower() == "content-type":
            return _EVENT_STREAM[value]
    return False
