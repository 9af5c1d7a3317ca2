# Gunicorn: sharing new clients evenly among workers that accept from the same listening sockets.
#
# The kernel wakes all workers for each client, and does not care which of them accepts it. So a worker that has more
# connections than the others stops listening, and a full one leaves new clients to workers that have room. Meanwhile it
# watches: a client that still waits after a moment is accepted after all, so no client waits for a worker that is stopped
# or busy.
#
# The server calls `create_server` of its event loop for each listening socket. That method is replaced in this one loop
# object. If it is called in an unknown way, the server's own method is used.

# All times here are in seconds. How long a worker waits for each connection that it has more than the least loaded one,
# and at most. Event loops round this to milliseconds.
_MOMENT, _LONGEST_MOMENT = 0.0005, 0.005
# How long a worker that was told to leave waits: others serve in its place, unless everything is stopping.
_LEAVERS_MOMENT = 0.1
# How long altogether to wait for a worker that shows no sign of life.
_PATIENCE = 0.03
# For how long an accepted client is expected to send its first request.
_EXPECTATION = 0.25
# For how long a connection may be in its handshake: a failed handshake is not reported.
_COMING = 2
# For how long closed connections may be replaced without comparing with other workers.
_MEMORY = 0.025
# How many clients are accepted before the event loop continues with other work.
_MOST_AT_ONCE = 64
# The pause when no file descriptor is left, as long as asyncio's.
_RETRY = 1
# The options of create_server that are understood, and the values with which others make no difference.
_KNOWN = {"ssl", "backlog", "ssl_handshake_timeout", "ssl_shutdown_timeout"}
_USUAL = {"reuse_address": (None, False, True), "reuse_port": (None, False), "start_serving": (True,)}


class _Accepting:
    """How this worker accepts clients, on all of its listening sockets."""

    def __init__(self, loop, words, siblings, limit):
        import select

        self.loop, self.words, self.siblings, self.limit = loop, words, siblings, limit
        self.servers_own = loop.create_server
        self.connections = None
        self.obstacle = "its worker class does not accept through create_server of the event loop"
        self.listeners = []
        self.is_open = True
        self.timer = None
        self.waited_for = ()
        # The highest number of connections in the current short period, and in the previous one.
        self.peak = self.peak_before = self.peak_until = 0
        self.coming = []  # clients that have been accepted, and whose transports are being made
        self.expected = {}  # clients that have been accepted and have not asked yet, oldest first, and until when
        self.expiry = None
        # Watches for clients while the listeners are closed. One-shot, so that clients left to others do not wake us.
        self.watch = select.epoll()
        self.events = select.EPOLLIN | select.EPOLLONESHOT

    # What other workers see of this one.

    def count(self):
        """The number of the server's connections, including those that are being set up."""
        if self.coming:
            now = self.loop.time()
            self.coming = [client for client in self.coming if client.is_coming(now)]
        return self.connections() + len(self.coming)

    def publish_count(self):
        self.words[_CONNECTIONS] = self.count()

    def beat(self):
        """Called with each heartbeat, which also proves that a worker is alive that came too late for recent clients."""
        if self.connections is not None:
            self.publish_count()
            self.count_turn()
            if self.is_open and not _takes_clients(self.words):
                self.close()

    def has_lost_one(self):
        mine = self.words[_CONNECTIONS] = self.count()
        recent = max(self.peak, self.peak_before)
        if not self.is_open and 4 * mine < 3 * recent and self.listeners and _takes_clients(self.words):
            self.open()

    def count_turn(self):
        words = self.words
        words[_TURNS] = (words[_TURNS] + 1) & 0xFFFFFFFF

    # Listening.

    def listener(self, factory, host, port, options):
        """The listener for a call of create_server; None if the call is not understood."""
        import socket

        options = dict(options)
        sock = options.pop("sock", None)
        # Gunicorn's own objects, of which one family of worker classes passes on what is inside.
        sock = getattr(sock, "sock", sock)
        if host is not None or port is not None or not isinstance(sock, socket.socket):
            return None
        for name, usual in _USUAL.items():
            if options.pop(name, usual[0]) not in usual:
                return None
        connections = _connections_of(factory)
        if connections is None or options.keys() - _KNOWN or not _is_listening(sock):
            self.obstacle = "it calls create_server of the event loop in a way that is not known"
            return None
        self.connections = connections
        self.words[_FLAGS] |= _COUNTS_CONNECTIONS
        kind = _NativeListener if type(self.loop).__module__.partition(".")[0] == "uvloop" else _Listener
        return kind(self, sock, factory, options)

    def listen(self, listener):
        if not self.listeners:
            self.loop.add_reader(self.watch.fileno(), self.look)
        self.listeners.append(listener)
        if self.is_open:
            listener.open()
        else:
            self.watch.register(listener.socket, self.events)

    def end(self, listener):
        """Stops accepting on a listener. Waiting clients are left to the other workers."""
        if self.is_open:
            listener.close_gate()
        else:
            # Closing would not remove it, because other processes have the same open file.
            self.watch.unregister(listener.socket)
        self.listeners.remove(listener)
        if not self.listeners:
            self.loop.remove_reader(self.watch.fileno())
            self.watch.close()
            if self.timer is not None:
                self.timer.cancel()

    # Deciding whether to accept.

    def accepted(self, client):
        """Called when a client was accepted, after which the listeners may have to close."""
        words = self.words
        if self.limit is not None:
            self.expect(client)
        self.coming.append(client)
        words[_CONNECTIONS] = mine = self.count()
        words[_TURNS] = (words[_TURNS] + 1) & 0xFFFFFFFF
        is_full = self.limit is not None and self.is_full()
        if not self.is_replacement(mine, client.since) or is_full or not _takes_clients(words):
            if self.is_open and not self.may_go_on(client.listener.socket, mine):
                client.listener.close_all()

    def is_replacement(self, mine, now):
        """Whether there were as many connections a moment ago. Short-lived clients are replaced without comparing with
        other workers, which would only cost CPU time."""
        if now > self.peak_until:
            self.peak_before, self.peak, self.peak_until = self.peak, 0, now + _MEMORY
        recent = max(self.peak_before, self.peak)
        if mine > self.peak:
            self.peak = mine
        # Not all of them, so that an uneven distribution does not persist.
        return 4 * mine <= 3 * recent

    def may_go_on(self, sock, mine):
        if not _takes_clients(self.words):
            return _waiting(sock) != 0
        others = self.others()
        if not others:
            return True
        if self.is_full():
            return False
        counts = [words[_CONNECTIONS] for words, _ in others]
        least = min(counts)
        if mine <= least + 2 + least // 8:
            return True
        # Its share of all connections, those that wait included.
        return mine * (len(counts) + 1) < mine + sum(counts) + _waiting(sock)

    def others(self):
        """The workers to which clients can be left: they have room and show signs of life."""
        found = []
        for sibling in self.siblings.ready():
            words = sibling.words
            if sibling.silence >= _PATIENCE and words[_TURNS] == sibling.turn:
                continue
            most = words[_LIMIT]
            if not most or words[_IN_FLIGHT] + words[_EXPECTED] < most:
                found.append((words, sibling))
        return found

    def is_full(self):
        words = self.words
        return words[_LIMIT] and words[_IN_FLIGHT] + len(self.expected) >= words[_LIMIT]

    def open(self):
        self.is_open = True
        for listener in self.listeners:
            self.watch.unregister(listener.socket)
            listener.open()

    def close(self):
        if not self.is_open:
            return
        self.is_open = False
        for listener in self.listeners:
            listener.close_gate()
            self.watch.register(listener.socket, self.events)

    def look(self):
        """Called when a client waits while the listeners are closed."""
        self.watch.poll(0)
        if not self.is_open and self.timer is None:
            self.consider(False)

    def consider(self, waited):
        """Accepts the client, or leaves it to others for a moment."""
        self.count_turn()
        if not _takes_clients(self.words):
            return self.open() if waited else self.come_back(_LEAVERS_MOMENT, ())
        others = self.others()
        if others and self.is_full():
            return self.come_back(_LONGEST_MOMENT, others)
        mine = self.words[_CONNECTIONS] = self.count()
        fewer = [other for other in others if other[0][_CONNECTIONS] < mine]
        if waited or not fewer or 4 * mine < 3 * max(self.peak, self.peak_before):
            return self.open()
        least = min(words[_CONNECTIONS] for words, _ in fewer)
        self.come_back(min(_MOMENT * (mine - least), _LONGEST_MOMENT), fewer)

    def come_back(self, moment, waited_for):
        self.waited_for = [(sibling, words[_TURNS], moment) for words, sibling in waited_for]
        self.timer = self.loop.call_later(moment, self.after_moment)

    def after_moment(self):
        self.timer = None
        for sibling, turn, moment in self.waited_for:
            if sibling.words[_TURNS] != turn:
                sibling.silence = 0
            else:
                sibling.silence = moment + (sibling.silence if sibling.turn == turn else 0)
                sibling.turn = turn
        if self.is_open:
            return
        for listener in self.listeners:
            self.watch.modify(listener.socket, self.events)
        # Otherwise another worker was faster, and the watch continues.
        if self.watch.poll(0):
            self.consider(True)

    # Accepted clients that have not sent a request yet: they take up room.

    def expect(self, client):
        self.expected[client] = self.loop.time() + _EXPECTATION
        self.words[_EXPECTED] = len(self.expected)
        if self.expiry is None:
            self.expiry = self.loop.call_later(_EXPECTATION, self.expire)

    def expect_no_more(self, client):
        if self.expected.pop(client, None) is not None:
            self.words[_EXPECTED] = len(self.expected)

    def expire(self):
        now = self.loop.time()
        for client in [client for client, until in self.expected.items() if until <= now]:
            del self.expected[client]
        self.words[_EXPECTED] = len(self.expected)
        first = next(iter(self.expected.values()), None)
        self.expiry = None if first is None else self.loop.call_at(first, self.expire)


class _Client:
    """An accepted client, until its first request begins or its connection is lost."""

    __slots__ = ("accepting", "listener", "protocol", "app", "lost", "since")

    def __init__(self, listener):
        self.listener, self.accepting, self.protocol = listener, listener.accepting, None
        self.since = self.accepting.loop.time()

    def make(self):
        self.protocol = protocol = self.listener.factory()
        try:
            self.lost = protocol.connection_lost
            protocol.connection_lost = self.connection_lost
            if self.accepting.limit is not None:
                self.app = protocol.app
                protocol.app = self.first_request
        except AttributeError:
            # The protocol has no such method: the client is counted with the next heartbeat and expected for a while.
            pass
        return protocol

    def first_request(self, scope, receive, send):
        self.accepting.expect_no_more(self)
        self.protocol.app = self.app
        return self.app(scope, receive, send)

    def connection_lost(self, error):
        # Restores the original method, which also removes the reference cycle.
        del self.protocol.connection_lost
        try:
            self.lost(error)
        finally:
            self.accepting.has_lost_one()

    def is_coming(self, now):
        return getattr(self.protocol, "transport", None) is None and now < self.since + _COMING

    def end(self):
        """Ends a connection that the server did not know yet when it told its connections to end. It may still serve one
        request, if that comes soon."""
        shutdown = getattr(self.protocol, "shutdown", None)
        now = self.accepting.loop.time()
        if self.is_coming(now) or getattr(self.protocol, "cycle", self) is None and now < self.since + _EXPECTATION:
            self.accepting.loop.call_later(0.01, self.end)
        elif shutdown is not None and self.protocol.transport is not None:
            shutdown()


class _Listener:
    """What create_server returns, as far as servers use it. It accepts clients itself."""

    def __init__(self, accepting, sock, factory, options):
        self.accepting, self.socket, self.factory = accepting, sock, factory
        self.backlog = options.pop("backlog", None)
        self.options = {name: value for name, value in options.items() if value is not None}
        sock.setblocking(False)
        if self.backlog is not None:
            sock.listen(self.backlog)
        accepting.listen(self)

    # Starting and stopping to listen.

    def open(self):
        self.accepting.loop.add_reader(self.socket.fileno(), self.accept)

    def close_gate(self):
        self.accepting.loop.remove_reader(self.socket.fileno())

    def close_all(self):
        self.accepting.close()

    def accept(self):
        loop = self.accepting.loop
        for _ in range(_MOST_AT_ONCE):
            try:
                connection, _ = self.socket.accept()
                connection.setblocking(False)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                return self.pause(error)
            client = _Client(self)
            task = loop.create_task(loop.connect_accepted_socket(client.make, connection, **self.options))
            # Retrieves an exception, which the transport or the protocol has reported already.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self.accepting.accepted(client)
            if self.socket is None or not self.accepting.is_open:
                return

    def pause(self, error):
        loop = self.accepting.loop
        loop.call_exception_handler({"message": "a client could not be accepted", "exception": error})
        self.close_gate()
        loop.call_later(_RETRY, self.go_on)

    def go_on(self):
        if self.socket is not None and self.accepting.is_open:
            self.open()

    # What servers use.

    def close(self):
        if self.socket is None:
            return
        self.accepting.end(self)
        self.socket = None
        for client in self.accepting.coming:
            if client.listener is self:
                client.end()

    async def wait_closed(self):
        """Waits for clients that were just accepted, but not for slow handshakes."""
        import asyncio

        until = self.accepting.loop.time() + 2 * _EXPECTATION
        while self.socket is None and self.accepting.coming and self.accepting.loop.time() < until:
            await asyncio.sleep(0.01)
            self.accepting.count()

    def is_serving(self):
        return self.socket is not None

    def get_loop(self):
        return self.accepting.loop

    @property
    def sockets(self):
        return () if self.socket is None else (self.socket,)

    async def start_serving(self):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()
        await self.wait_closed()


class _NativeListener(_Listener):
    """Uses uvloop's own server, which is faster: it is closed and created again."""

    server = None

    def open(self):
        options = {**self.options, "sock": self.socket.dup()}
        if self.backlog is not None:
            options["backlog"] = self.backlog
        try:
            # With an existing socket the coroutine never waits.
            self.accepting.servers_own(self.make, **options).send(None)
        except StopIteration as made:
            self.server = made.value

    def close_gate(self):
        if self.server is not None:
            self.server.close()
            self.server = None

    def close_all(self):
        # Not from within the accept loop. The callback runs before the next client is accepted.
        self.accepting.loop.call_soon(self.accepting.close)

    def make(self):
        client = _Client(self)
        protocol = client.make()
        self.accepting.accepted(client)
        return protocol


def _is_listening(sock):
    import socket

    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    try:
        return sock.family in families and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False


def _connections_of(factory):
    """A function that counts the server's connections, found through its protocol factory; None if it is unknown."""
    cells = [cell.cell_contents for cell in getattr(factory, "__closure__", None) or ()]
    for value in [*cells, *(getattr(factory, "keywords", None) or {}).values()]:
        # Uvicorn's server or its state.
        connections = getattr(getattr(value, "server_state", value), "connections", None)
        if isinstance(connections, set):
            return connections.__len__
        # Gunicorn's own worker class.
        if isinstance(getattr(value, "nr_conns", None), int):
            return lambda: value.nr_conns
    return None


def _waiting(sock):
    """How many clients wait to be accepted, as far as the kernel tells us."""
    import socket

    if sock.family == socket.AF_UNIX:
        return 0
    # For a listening socket that is tcpi_unacked (tcp(7)).
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return struct.unpack_from("I", info, 24)[0] if len(info) == 28 else 0


def _deal(words, siblings, limit):
    """Takes over accepting from the server that is about to listen in the running loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    accepting = _Accepting(loop, words, siblings, limit)
    try:
        if not callable(loop.connect_accepted_socket):
            raise AttributeError("no connect_accepted_socket")

        async def create_server(factory, host=None, port=None, **options):
            listener = accepting.listener(factory, host, port, options)
            if listener is None:
                return await accepting.servers_own(factory, host, port, **options)
            return listener

        loop.create_server = create_server
    except (AttributeError, TypeError) as error:
        accepting.obstacle = "its event loop, %s, does not allow it (%s)" % (type(loop).__name__, error)
    return accepting


def _say_unless_dealt(accepting):
    """Called with the first request, when it is certain: says why new clients are distributed by the kernel."""
    if accepting is None:
        why = "the server does not tell the app when it starts (lifespan), which would have been the moment to begin"
    elif accepting.connections is not None:
        return
    else:
        why = accepting.obstacle
    _say("clients are dealt out as the server does it, and perhaps unevenly: " + why)
