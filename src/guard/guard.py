# The guard.

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


def _guard(inner):
    """The app with the guard around it. It holds all state of the worker, from the first call on, which comes after the
    fork."""
    limit = sys.maxsize if LIMIT is None else LIMIT
    most_streams = sys.maxsize if MAX_STREAMS is None else MAX_STREAMS
    # Once it is known where the app is mounted, the health path and the exempt ones are also recognised below that.
    health, mounted_health, exempt, special = HEALTH_PATH, (), EXEMPT, bool(EXEMPT)
    claimed = begun = met = False
    busy = high_water = served = rejected = streams = exempted = 0

    def crossed():
        """Called when the worker becomes full or has room again."""

    # Dummy memory until there is a slot, so that counting needs no check.
    words, longs = memoryview(bytearray(_SLOT)).cast("I"), memoryview(bytearray(_SLOT)).cast("Q")
    open_streams, current_task = _Streams(words, longs), None
    others = accepting = None
    exceeded = bytes(1)

    def begin(lifespan):
        """Takes a slot and determines the app's final form. If a factory raises, the next call tries again."""
        nonlocal begun, claimed, inner, current_task
        current_task = _current_task()
        if not claimed:
            claimed = True
            try:
                claim(lifespan)
            except Exception as error:
                # Whatever went wrong, the app can be served.
                _say("it is not seen how this worker is: " + _brief(error).strip())
        try:
            inner = _asgi3(inner)
        except BaseException as error:
            _write_failure(_brief(error))
            raise
        begun = True
        if not lifespan:
            words[_STATE] = _READY

    def claim(lifespan):
        nonlocal words, longs, others, accepting, exceeded
        slot = _claim_slot()
        if slot is not None:
            words, longs, launcher, others = slot
            open_streams.words, open_streams.longs = words, longs
            longs[_CLAIMED] = longs[_HEARTBEAT] = time.monotonic_ns()
            words[_FLAGS] = (_TRACEBACK_ON_ABORT if _trace_on_abort() else 0) | (0 if lifespan else _NO_LIFESPAN)
            words[_LISTENER], words[_LIMIT] = _own_listener, min(LIMIT or 0, 0xFFFFFFFF)
            longs[_MOST_REQUESTS] = _draw_most_requests()
            if LIMIT is not None:
                exceeded = others.exceeded
            words[_PID] = os.getpid()
            words[_STATE] = _STARTING
            keep_beating(launcher)
            if DEALS and lifespan:
                accepting = _deal(words, others, LIMIT)

    def meet(scope):
        """Learns from the first request where the app is mounted, which is the same for all requests. Uvicorn puts
        that before the requested path; with Granian and Gunicorn's own class a proxy may have left it there."""
        nonlocal met, mounted_health, exempt, special
        if not begun:
            begin(False)
        met = True
        if DEALS:
            _say_unless_dealt(accepting)
        root = scope.get("root_path")
        if root:
            special = True
            roots = {root, root.rstrip("/")}
            mounted_health = tuple(root + health for root in roots)
            exempt += tuple(root + prefix for root in roots for prefix in EXEMPT)

    def keep_beating(launcher):
        """Reports regularly that the event loop is running, and its lag."""
        import asyncio
        import signal

        nonlocal crossed
        loop = asyncio.get_running_loop()
        own, parent = os.getpid(), os.getppid()
        watch_others = None
        if POKE is not None and not _is_spawned:
            os.set_inheritable(POKE, False)
            if len(LISTENERS) > 1:
                watch_others, crossed = _watcher(others), _crossing(loop)
        most_requests = longs[_MOST_REQUESTS] or sys.maxsize
        most_lag, due, told_to_end = 0, time.monotonic_ns() + int(BEAT * 1e9), None

        def beat():
            nonlocal most_lag, due, told_to_end, most_requests
            if words[_PID] != own:
                return
            now = time.monotonic_ns()
            lag = min(max(now - due, 0) // 1000, 0xFFFFFFFF)
            if lag > most_lag:
                most_lag = words[_MOST_LAG] = lag
            words[_LAG] = lag
            longs[_HEARTBEAT], longs[_SERVED] = now, served
            if accepting is not None:
                accepting.beat()
            # When the main process dies, the launcher becomes our parent. If that is dead too, nobody would end us.
            if os.getppid() not in (parent, launcher):
                if told_to_end is None:
                    _say("the launcher and the server's main process are gone: ending")
                    told_to_end = now
                    os.kill(own, signal.SIGTERM)
                elif now - told_to_end > GRACE * 1e9:
                    os.kill(own, signal.SIGKILL)
            if watch_others is not None:
                watch_others(now)
            if served >= most_requests:
                most_requests = sys.maxsize
                _poke()
            due = now + int(BEAT * 1e9)
            loop.call_later(BEAT, beat)

        def forget():
            global _slot
            nonlocal words, longs
            _slot = None
            words, longs = memoryview(bytearray(_SLOT)).cast("I"), memoryview(bytearray(_SLOT)).cast("Q")
            open_streams.words, open_streams.longs = words, longs

        loop.call_later(BEAT, beat)
        if LINE is not None:
            _lend_listener(loop, launcher)
        # A process that the worker forks does not own the slot.
        os.register_at_fork(after_in_child=forget)

    async def app(scope, receive, send):
        nonlocal busy, high_water, served
        if scope["type"] != "http":
            return await other(scope, receive, send)
        if not met:
            meet(scope)
        path = scope["path"]
        if path == health or special and (path in mounted_health or path.startswith(exempt)):
            return await admit(scope, receive, send)
        if (busy >= limit or exceeded[0]) and not may_have_one_more():
            return await refuse(scope["method"], send)
        busy += 1
        words[_IN_FLIGHT] = busy
        if busy > high_water:
            high_water = words[_HIGH_WATER] = busy
        if busy == limit:
            crossed()
        if scope["method"] != "GET":
            # Even an event stream is work here and counts until it ends.
            def pass_on(message):
                if longs[_LEAVE_BY] and message["type"] == "http.response.start":
                    message = _with_close(scope, message)
                return send(message)

            try:
                return await inner(scope, receive, pass_on)
            finally:
                busy -= 1
                words[_IN_FLIGHT] = busy
                served += 1
                if busy + 1 == limit:
                    crossed()
        role, task = _COUNTED, current_task()

        def watch(message):
            nonlocal role
            if role is None:
                return send(message)
            if role:
                return _gone() if role == _REFUSED else role.write(message)
            if message["type"] == "http.response.start":
                role = None
                if longs[_LEAVE_BY]:
                    message = _with_close(scope, message)
                try:
                    headers = message["headers"]
                    if type(headers) is not list and type(headers) is not tuple:
                        raise TypeError
                    for pair in headers:
                        # The length first, because comparing it is faster.
                        name = pair[0]
                        if len(name) == 12 and (name == b"content-type" or _CONTENT_TYPE[name]):
                            if _EVENT_STREAM[pair[1]]:
                                role = open_stream(_event_stream(message, send, task), scope)
                            break
                except (LookupError, TypeError):
                    message, stream = _examine(message)
                    if stream:
                        role = open_stream(_event_stream(message, send, task), scope)
                if role:
                    return refuse("GET", send) if role == _REFUSED else role.write(message)
            return send(message)

        try:
            return await inner(scope, receive, watch)
        except BaseException as error:
            # Most apps do not catch what sending to nobody raises.
            if not (role and _forgives(role, error)):
                raise
        finally:
            if role:
                close(role)
            else:
                busy -= 1
                words[_IN_FLIGHT] = busy
                served += 1
                if busy + 1 == limit:
                    crossed()
        if role and role != _REFUSED:
            await role.parted()

    async def admit(scope, receive, send):
        """Handles a request that is never refused and does not count."""
        nonlocal served, exempted
        exempted += 1
        words[_EXEMPT_IN_FLIGHT] = exempted
        stream, task = None, current_task()

        def watch(message):
            nonlocal stream, exempted
            if stream is not None:
                return stream.write(message)
            if message["type"] == "http.response.start":
                message, is_stream = _examine(message)
                if longs[_LEAVE_BY]:
                    message = _with_close(scope, message)
                if is_stream and scope["method"] == "GET":
                    exempted -= 1
                    words[_EXEMPT_IN_FLIGHT] = exempted
                    stream = _event_stream(message, send, task)
                    open_streams.open(stream, scope)
                    return stream.write(message)
            return send(message)

        try:
            return await inner(scope, receive, watch)
        except BaseException as error:
            if stream is None or not stream.forgives(error):
                raise
        finally:
            served += 1
            if stream is None:
                exempted -= 1
                words[_EXEMPT_IN_FLIGHT] = exempted
            else:
                open_streams.closed(stream)
        if stream is not None:
            await stream.parted()

    async def other(scope, receive, send):
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await inner(scope, receive, send)

    async def websocket(scope, receive, send):
        nonlocal busy, high_water, served
        if not met:
            meet(scope)
        path = scope["path"]
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

    async def lifespan(scope, receive, send):
        failed = False

        def started():
            # Servers continue without lifespan support, and so do we.
            if words[_STATE] == _STARTING and not failed:
                words[_STATE] = _READY

        def say(message):
            nonlocal failed
            if message["type"] == "lifespan.startup.complete":
                started()
            elif message["type"] == "lifespan.startup.failed":
                failed = True
                _write_failure("the startup failed: %s" % (message.get("message") or "the app does not say why"))
            return send(message)

        async def hear():
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                words[_STATE], longs[_SERVED] = _STOPPING, served
                await _wait_for_others()
            return message

        if not begun:
            try:
                begin(True)
            except Exception:
                import traceback

                await receive()
                return await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
        try:
            await inner(scope, hear, say)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            started()
            raise
        started()

    return app


def _serves_wsgi():
    """Whether Gunicorn's worker class is for WSGI apps. The launcher knows the usual classes by name; here the user's
    own class can be inspected, and a class that only the configuration file names."""
    config = sys.modules.get("mcp_launch_gunicorn_config")
    worker_class = WORKER_CLASS or getattr(config, "worker_class", None)
    if SERVER != "gunicorn" or worker_class is None:
        return False
    from gunicorn.util import load_class

    if worker_class == "sync" and getattr(config, "threads", 1) > 1:
        return True
    bases = {kind.__module__ for kind in load_class(worker_class).__mro__}
    wsgi = ("sync", "gthread", "base_async", "ggevent", "geventlet", "gtornado")
    return any("gunicorn.workers." + name in bases for name in wsgi)


def _refuse_wsgi(inner):
    """Ends the start: a WSGI app would fail at every request without saying why."""
    import inspect

    if inspect.isclass(inner) or _is_async(inner) or _accepts(inner, 3) or not _accepts(inner, 2):
        return
    instead = "worker class gthread (--worker-class)" if SERVER == "gunicorn" else "GRANIAN_INTERFACE=wsgi"
    error = TypeError("%s is a WSGI app (it takes two arguments), and is served as an ASGI app; use %s" % (APP, instead))
    _write_failure(str(error))
    raise error


try:
    _inner = _load()
except Exception as _error:
    _write_failure(_brief(_error))
    raise


def __getattr__(name):
    """Creates a new guard for each caller: servers with threads as workers call this once for each."""
    if name == "app":
        if _serves_wsgi():
            return _inner
        _refuse_wsgi(_inner)
        return _stand_in(_guard(_inner), _inner) if SERVER == "gunicorn" else _guard(_inner)
    if name == "make_app":
        return lambda: _guard(_inner)
    raise AttributeError(name)
