# The guard around an ASGI app.

from functools import partial as _partial

# The state of a request: its response has not begun, it was refused when it turned out to be a stream, or it is an open
# stream (an object). None: its response has begun and is no stream.
_WAITING, _REFUSED = 0, 1
# The messages that complete a response unless they say that more follows (ASGI, HTTP and its extensions).
_ENDS = frozenset(("http.response.body", "http.response.pathsend", "http.response.zerocopysend"))

_BUSY = b"Too many requests at a time. Try again in a moment.\n"


async def _gone():
    """Behaves like sending to a client that has gone (ASGI, HTTP 2.4)."""
    raise ConnectionResetError("refused: too many open streams")


def _forgives(role, error):
    """Whether an exception of the app is only the consequence of a stream that was refused or ended."""
    return isinstance(error, Exception) if role == _REFUSED else role.forgives(error)


def _event_stream(message, request):
    """The event stream that starts with this message."""
    encoding = _header(message["headers"], b"content-encoding")
    return _Stream(request[_SEND], _LAST_CHUNK, request[_WHOSE], encoding not in (None, b"", b"identity"))


def _guard_asgi(inner):
    """The app with the guard around it. It holds what changes with each request, in variables because they are fast.

    A request is a list (see open_requests.py): with `functools.partial` that is faster than a function which refers to
    variables, or a class."""
    limit = sys.maxsize if LIMIT is None else LIMIT
    most_streams = sys.maxsize if MAX_STREAMS is None else MAX_STREAMS
    # Once it is known where the app is mounted, the health path and the exempt ones are also recognised below that.
    health, mounted_health, exempt, special = HEALTH_PATH, (), EXEMPT, bool(EXEMPT)
    begun, met, is_granian = False, False, SERVER == "granian"
    clock = time.perf_counter
    busy = high_water = served = rejected = streams = exempted = spared = 0
    words = longs = others = exceeded = crossed = accepting = current_task = limits = None
    # Where it is noted how long requests take.
    latencies = None

    def adopt(worker):
        nonlocal words, longs, others, exceeded, crossed, latencies
        words, longs, others = worker.words, worker.longs, worker.others
        latencies = worker.latencies.recent
        exceeded, crossed = worker.exceeded, worker.crossed
        open_streams.words, open_streams.longs = words, longs

    open_streams = _Streams(None, None)
    worker = _Worker(lambda: served, adopt)
    # The keys of the open requests are numbers: a key is known for longer than its request is open.
    requests, last_number = worker.open_requests, 0

    def deal():
        nonlocal accepting
        accepting = _deal(words, others, LIMIT)
        worker.at_heartbeat.append(lambda now: accepting.beat())

    def begin(has_started=False):
        """Takes a slot and determines the app's final form, which it returns. If a factory raises, the next call tries
        again. If the server has started already, this is the first request."""
        nonlocal begun, inner, limits, current_task
        if begun:
            return inner
        import asyncio

        current_task = _current_task()
        flags = _NO_LIFESPAN if has_started else 0
        worker.claim(asyncio.get_running_loop(), flags, deal if DEALS and not has_started else None)
        try:
            inner = _asgi3(inner)
            if TIME_LIMITS:
                limits = _TimeLimits(worker, _AsgiLimits)
        except BaseException as error:
            _write_failure(_brief(error))
            raise
        begun = True
        if has_started:
            worker.is_ready()
        return inner

    async def begin_to_listen():
        """Called before the server listens: if it has not told that it starts (lifespan), it starts now."""
        if not begun:
            app = begin()
            if not WARM_UP or await worker.warm_up(app, None):
                worker.is_ready()

    def meet(scope):
        """Learns from the first request where the app is mounted, which is the same for all requests. Uvicorn puts
        that before the requested path; with Granian and Gunicorn's own class a proxy may have left it there."""
        nonlocal met, mounted_health, exempt, special
        begin(True)
        met = True
        if DEALS:
            _say_unless_dealt(accepting)
        root = scope.get("root_path")
        if root:
            special = True
            mounted_health, exempt = _below(root)
            if limits is not None:
                limits.root = root

    lifespan = _lifespan(worker, begin)

    async def app(scope, receive, send):
        nonlocal busy, high_water, served, limit, last_number, exempted, spared
        since = clock()
        if scope["type"] != "http":
            return await other(scope, receive, send)
        if not met:
            meet(scope)
        if is_granian:
            receive = _Receive(receive)
        path = scope["path"]
        is_exempt = path == health or special and (path in mounted_health or path.startswith(exempt))
        if is_exempt:
            exempted += 1
            words[_EXEMPT_IN_FLIGHT] = exempted
        else:
            if ADAPTS:
                limit = words[_LIMIT]
            if (busy >= limit or exceeded[0]) and not may_have_one_more():
                return await refuse(scope["method"], send)
            busy += 1
            words[_IN_FLIGHT] = busy
            if busy > high_water:
                high_water = words[_HIGH_WATER] = busy
            if busy == limit:
                crossed()
        method, peers = scope["method"], requests.newest
        last_number = number = last_number + 1
        task = current_task() if method == "GET" or limits is not None else None
        # In the order of the fields.
        request = [method, path, since, task, False, None, None, _WAITING, is_exempt, scope, send, peers, number]
        peers[number] = request
        is_late = False
        try:
            request[_AWAITED] = coroutine = inner(scope, receive, _partial(watch, request))
            await coroutine
            if request[_LATE] is not None and request[_ROLE] == _WAITING:
                is_late = _was_cancelled(request)
        except BaseException as error:
            # Most apps do not catch what sending to nobody raises.
            role = request[_ROLE]
            if not (role and _forgives(role, error)):
                is_late = _was_cancelled(request, error)
                if not is_late:
                    raise
        finally:
            role = request[_ROLE]
            if role:
                close(role, is_exempt)
            elif is_exempt:
                peers.pop(number, None)
                exempted -= 1
                words[_EXEMPT_IN_FLIGHT] = exempted
                served += 1
                spared += 1
            else:
                peers.pop(number, None)
                busy -= 1
                words[_IN_FLIGHT] = busy
                served += 1
                latencies.append(clock() - since)
                if busy + 1 == limit:
                    crossed()
        if role and role != _REFUSED:
            await role.parted()
        if is_late:
            await answer_late(scope, send, role is None)

    def watch(request, message):
        """What an app calls to send a message of its response."""
        role = request[_ROLE]
        if role is None:
            if not message.get("more_body") and message["type"] in _ENDS:
                request[_UNLIMITED] = True
            return request[_SEND](message)
        if role:
            return _gone() if role == _REFUSED else role.write(message)
        if message["type"] == "http.response.start":
            request[_ROLE] = None
            if longs[_LEAVE_BY]:
                message = _with_close(request[_SCOPE], message)
            is_stream = False
            try:
                headers = message["headers"]
                if type(headers) is not list and type(headers) is not tuple:
                    raise TypeError
                for pair in headers:
                    # The length first, because comparing it is faster.
                    name = pair[0]
                    if len(name) == 12 and (name == b"content-type" or _CONTENT_TYPE[name]):
                        is_stream = _EVENT_STREAM[pair[1]]
                        break
            except (LookupError, TypeError):
                message, is_stream = _examine(message)
            if is_stream:
                return begin_stream(request, message)
        return request[_SEND](message)

    def begin_stream(request, message):
        """Sends the start of an event stream. For a method other than GET, even that is work here and counts until it
        ends, but it may take as long as it wants."""
        nonlocal exempted
        if request[_METHOD] != "GET":
            request[_UNLIMITED] = True
            return request[_SEND](message)
        request[_PEERS].pop(request[_NUMBER], None)
        request[_LATE] = None
        stream = _event_stream(message, request)
        if request[_IS_EXEMPT]:
            exempted -= 1
            words[_EXEMPT_IN_FLIGHT] = exempted
            open_streams.open(stream, request[_SCOPE])
        else:
            stream = open_stream(stream, request[_SCOPE])
        request[_ROLE] = stream
        return refuse("GET", request[_SEND]) if stream == _REFUSED else stream.write(message)

    async def answer_late(scope, send, has_begun):
        """Answers a request that we cancelled because it took too long."""
        if has_begun:
            raise _TookTooLong("the response had begun when the request was cancelled: the connection is closed")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_TOO_LONG))]
        message = {"type": "http.response.start", "status": 504, "headers": headers}
        await send(_with_close(scope, message) if longs[_LEAVE_BY] else message)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _TOO_LONG})

    async def other(scope, receive, send):
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await inner(scope, receive, send)

    async def websocket(scope, receive, send):
        nonlocal busy, high_water, served, limit
        if not met:
            meet(scope)
        path = scope["path"]
        if ADAPTS:
            limit = words[_LIMIT]
        is_exempt = path == health or special and (path in mounted_health or path.startswith(exempt))
        if not is_exempt:
            if (busy >= limit or exceeded[0]) and not may_have_one_more() or streams >= most_streams:
                await receive()
                return await refuse_websocket(scope, send)
            busy += 1
            words[_IN_FLIGHT] = busy
            if busy > high_water:
                high_water = words[_HIGH_WATER] = busy
        role = None if is_exempt else _WAITING
        socket = _Stream(send, _CLOSE, current_task())

        def watch(message):
            nonlocal role
            if message["type"] == "websocket.accept":
                if role is None:
                    open_streams.open(socket, scope)
                elif role == _WAITING:
                    role = open_stream(socket, scope)
                    if role == _REFUSED:
                        return refuse_websocket(scope, send)
            return _gone() if role == _REFUSED else socket.write(message)

        try:
            await inner(scope, lambda: socket.hear(receive), watch)
        except BaseException as error:
            if not _forgives(_REFUSED if role == _REFUSED else socket, error):
                raise
        finally:
            if role == _WAITING:
                busy -= 1
                words[_IN_FLIGHT] = busy
                served += 1
            else:
                close(role or socket, is_exempt)
        await socket.parted()

    def may_have_one_more():
        """Whether another request can be admitted, because this worker or all workers together have room."""
        if others is None:
            return busy < limit
        return busy < 2 * limit and others.have_room(busy, limit)

    def open_stream(stream, scope):
        """Turns a request into a stream, which no longer counts, or refuses it."""
        nonlocal busy, streams
        busy -= 1
        words[_IN_FLIGHT] = busy
        if streams >= most_streams:
            return _REFUSED
        streams += 1
        open_streams.open(stream, scope)
        return stream

    def close(stream, is_exempt):
        """Counts a stream that has ended, unless it was refused."""
        nonlocal streams, served, spared
        if stream == _REFUSED:
            return
        open_streams.closed(stream)
        served += 1
        if is_exempt:
            spared += 1
        else:
            streams -= 1

    def count_rejected():
        nonlocal rejected
        rejected += 1
        longs[_REJECTED] = rejected

    def response():
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_BUSY)),
            (b"retry-after", b"1"),
        ]
        return {"status": 503, "headers": headers}

    async def refuse(method, send):
        count_rejected()
        await send({"type": "http.response.start", **response()})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else _BUSY})

    async def refuse_websocket(scope, send):
        count_rejected()
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await send({"type": "websocket.http.response.start", **response()})
            await send({"type": "websocket.http.response.body", "body": _BUSY})
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "try again later"})

    worker.code_of_app, worker.work, worker.streams = app.__code__, lambda: served - spared, open_streams
    return app, begin_to_listen
