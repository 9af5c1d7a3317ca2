# The guard around an ASGI app.

from itertools import count as _count

# The state of a GET request: it counts, it was refused when it turned out to be a stream, or it is an open stream (an
# object). None: its response has begun and is no stream, so its messages need no more inspection.
_COUNTED, _REFUSED = 0, 1

_BUSY = b"Too many requests at a time. Try again in a moment.\n"


async def _gone():
    """Behaves like sending to a client that has gone (ASGI, HTTP 2.4)."""
    raise ConnectionResetError("refused: too many open streams")


def _forgives(role, error):
    """Whether an exception of the app is only the consequence of a stream that was refused or ended."""
    return isinstance(error, Exception) if role == _REFUSED else role.forgives(error)


def _event_stream(message, send, task):
    """The event stream that starts with this message."""
    encoding = _header(message["headers"], b"content-encoding")
    return _Stream(send, _LAST_CHUNK, task, encoding not in (None, b"", b"identity"))


def _guard_asgi(inner):
    """The app with the guard around it. It holds what changes with each request, in variables because they are fast."""
    limit = sys.maxsize if LIMIT is None else LIMIT
    most_streams = sys.maxsize if MAX_STREAMS is None else MAX_STREAMS
    # Once it is known where the app is mounted, the health path and the exempt ones are also recognised below that.
    health, mounted_health, exempt, special = HEALTH_PATH, (), EXEMPT, bool(EXEMPT)
    begun, met, is_granian = False, False, SERVER == "granian"
    clock = time.perf_counter
    busy = high_water = served = rejected = streams = exempted = spared = 0
    words = longs = others = exceeded = crossed = accepting = current_task = limits = None
    # Requests that have no time limit any more or are late, see `_TimeLimits`.
    marks, is_timed = {}, bool(TIME_LIMITS)

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
    # The open requests have numbers. If they were known by a function of theirs, it would refer to itself, and all that
    # belongs to a request would stay until the next garbage collection.
    requests, next_number = worker.open_requests, _count().__next__

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
            if is_timed:
                limits = _TimeLimits(worker, marks, _AsgiLimits)
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
            if is_timed:
                limits.root = root

    lifespan = _lifespan(worker, begin)

    async def app(scope, receive, send):
        nonlocal busy, high_water, served, limit
        since = clock()
        if scope["type"] != "http":
            return await other(scope, receive, send)
        if not met:
            meet(scope)
        if is_granian:
            receive = _Receive(receive)
        path = scope["path"]
        if path == health or special and (path in mounted_health or path.startswith(exempt)):
            return await admit(scope, path, receive, send, since)
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
        method = scope["method"]
        # For a method other than GET, even an event stream is work here and counts until it ends.
        role, number, is_late = _COUNTED, next_number(), False
        task = current_task() if is_timed or method == "GET" else None

        def watch(message):
            nonlocal role
            if role is None:
                if is_timed and message["type"] == "http.response.body" and not message.get("more_body"):
                    has_no_limit(peers, number)
                return send(message)
            if role:
                return _gone() if role == _REFUSED else role.write(message)
            if message["type"] == "http.response.start":
                role = None
                if longs[_LEAVE_BY]:
                    message = _with_close(scope, message)
                if method != "GET" and not is_timed:
                    return send(message)
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
                    if method == "GET":
                        role = open_stream(_event_stream(message, send, task), scope)
                        peers.pop(number, None)
                        marks.pop(number, None)
                        return refuse(method, send) if role == _REFUSED else role.write(message)
                    has_no_limit(peers, number)
            return send(message)

        peers = requests.newest
        try:
            coroutine = inner(scope, receive, watch)
            peers[number] = method, path, since, task, coroutine
            await coroutine
            if role == _COUNTED and number in marks:
                is_late = limits.was_cancelled(number, task)
        except BaseException as error:
            # Most apps do not catch what sending to nobody raises.
            if not (role and _forgives(role, error)):
                is_late = number in marks and limits.was_cancelled(number, task, error)
                if not is_late:
                    raise
        finally:
            if role:
                close(role)
            else:
                peers.pop(number, None)
                if marks:
                    marks.pop(number, None)
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

    async def admit(scope, path, receive, send, since):
        """Handles a request that is never refused and does not count."""
        nonlocal served, exempted, spared
        exempted += 1
        words[_EXEMPT_IN_FLIGHT] = exempted
        method = scope["method"]
        stream, task, number, has_begun, is_late = None, current_task(), next_number(), False, False

        def watch(message):
            nonlocal stream, exempted, has_begun
            if stream is not None:
                return stream.write(message)
            if has_begun:
                if is_timed and message["type"] == "http.response.body" and not message.get("more_body"):
                    has_no_limit(peers, number)
            elif message["type"] == "http.response.start":
                has_begun = True
                message, is_stream = _examine(message)
                if longs[_LEAVE_BY]:
                    message = _with_close(scope, message)
                if is_stream and method == "GET":
                    exempted -= 1
                    words[_EXEMPT_IN_FLIGHT] = exempted
                    stream = _event_stream(message, send, task)
                    peers.pop(number, None)
                    marks.pop(number, None)
                    open_streams.open(stream, scope)
                    return stream.write(message)
                if is_stream:
                    has_no_limit(peers, number)
            return send(message)

        peers = requests.newest
        try:
            coroutine = inner(scope, receive, watch)
            peers[number] = method, path, since, task, coroutine
            await coroutine
            if not has_begun and number in marks:
                is_late = limits.was_cancelled(number, task)
        except BaseException as error:
            if stream is None or not stream.forgives(error):
                is_late = number in marks and limits.was_cancelled(number, task, error)
                if not is_late:
                    raise
        finally:
            served += 1
            spared += 1
            if stream is None:
                peers.pop(number, None)
                marks.pop(number, None)
                exempted -= 1
                words[_EXEMPT_IN_FLIGHT] = exempted
            else:
                open_streams.closed(stream)
        if stream is not None:
            await stream.parted()
        if is_late:
            await answer_late(scope, send, has_begun)

    def has_no_limit(peers, number):
        """Notes that a request may take as long as it wants: its response is complete, or an event stream."""
        if is_timed and number in peers:
            late = marks.setdefault(number, None)
            if late is not None:
                late.stuck_from = float("inf")

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
        nonlocal busy, high_water, served, spared, limit
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
        role = None if is_exempt else _COUNTED
        socket = _Stream(send, _CLOSE, current_task())

        def watch(message):
            nonlocal role
            if message["type"] == "websocket.accept":
                if role is None:
                    open_streams.open(socket, scope)
                elif role == _COUNTED:
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
            if role is None:
                served += 1
                spared += 1
                open_streams.closed(socket)
            else:
                close(role)
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

    def close(role):
        nonlocal busy, streams, served
        if role == _COUNTED:
            busy -= 1
            words[_IN_FLIGHT] = busy
        elif role != _REFUSED:
            streams -= 1
            open_streams.closed(role)
        if role != _REFUSED:
            served += 1

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
