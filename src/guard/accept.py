# How clients are dealt out among Gunicorn's workers, which share their listening sockets: politely.
#
# All workers are woken for each client, and the kernel does not care which of them accepts it. So a worker that has more
# connections than the others stops listening, and one that is full leaves new clients to those that have room. It then
# watches: a client that still waits after a moment is accepted all the same, so nobody waits for a worker that is
# stopped or busy.
#
# The server calls `create_server` of its event loop for each listening socket. That method is replaced, in this one loop
# object. Where it is called in a way that is not known here, the server's own method does what it always does.

# The moment for each connection that a worker has more than the one with the fewest; and the longest one. Event loops
# round them to milliseconds.
_MOMENT, _LONGEST_MOMENT = 0.0005, 0.005
# For a worker that has been told to leave: others serve in its place, unless everything is about to end.
_LEAVERS_MOMENT = 0.1
# How long in all a worker is waited for that shows no sign of life.
_PATIENCE = 0.03
# For how long a client that has been accepted is expected to send its first request.
_EXPECTATION = 0.25
# For how long a connection is being made, at most: if a handshake fails nobody says so.
_COMING = 2
# How long connections that are gone may be replaced without asking who has fewer.
_MEMORY = 0.025
# How many clients are accepted before the event loop may do something else.
_MOST_AT_ONCE = 64
# When no descriptor is left. asyncio waits as long.
_RETRY = 1
# What may be said to create_server besides the socket; of these other than the first ones nothing but the usual.
_KNOWN = {"ssl", "backlog", "ssl_handshake_timeout", "ssl_shutdown_timeout"}
_USUAL = {"reuse_address": (None, False, True), "reuse_port": (None, False), "start_serving": (True,)}


class _Accepting:
    """How this worker accepts, whatever the number of its listening sockets."""

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
        # The most connections in this short while, and in the one before.
        self.peak = self.peak_before = self.peak_until = 0
        self.coming = []  # clients that have been accepted, and whose transports are being made
        self.expected = {}  # clients that have been accepted and have not asked yet, oldest first, and until when
        self.expiry = None
        # Looks for clients while the listeners are closed. Only once each time: it stays silent for the others.
        self.watch = select.epoll()
        self.events = select.EPOLLIN | select.EPOLLONESHOT

    # What others see of this worker.

    def count(self):
        """The server's connections, some of which it may have lost unseen, and those that it is about to get."""
        if self.coming:
            now = self.loop.time()
            self.coming = [client for client in self.coming if client.is_coming(now)]
        return self.connections() + len(self.coming)

    def publish_count(self):
        self.words[_CONNECTIONS] = self.count()

    def beat(self):
        """With each heartbeat: a worker that has been too late for its last clients thereby proves that it is there."""
        if self.connections is not None:
            self.publish_count()
            self.count_turn()
            if self.is_open and not _takes_clients(self.words):
                self.close()

    def has_lost_one(self):
        mine = self.words[_CONNECTIONS] = self.count()
        if not self.is_open and 4 * mine < 3 * max(self.peak, self.peak_before) and self.listeners and _takes_clients(self.words):
            self.open()

    def count_turn(self):
        words = self.words
        words[_TURNS] = (words[_TURNS] + 1) & 0xFFFFFFFF

    # Listening.

    def listener(self, factory, host, port, options):
        """The listener for what the server asks of create_server; none if that is not what is known here."""
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
        """Accepts no more. Clients that wait are left to the other workers."""
        if self.is_open:
            listener.close_gate()
        else:
            # It would stay there: other processes have the same open file.
            self.watch.unregister(listener.socket)
        self.listeners.remove(listener)
        if not self.listeners:
            self.loop.remove_reader(self.watch.fileno())
            self.watch.close()
            if self.timer is not None:
                self.timer.cancel()

    # Whether to accept.

    def accepted(self, client):
        """A client has been accepted. Maybe it should be the last one for now."""
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
        """Whether there were as many connections a moment ago. Clients that come and go need not be dealt out anew: it
        would only keep the processor busy."""
        if now > self.peak_until:
            self.peak_before, self.peak, self.peak_until = self.peak, 0, now + _MEMORY
        recent = max(self.peak_before, self.peak)
        if mine > self.peak:
            self.peak = mine
        # A part of them, so that what came about by chance does not last.
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
        # Its share of all that are there already.
        return mine * (len(counts) + 1) < mine + sum(counts) + _waiting(sock)

    def others(self):
        """Those that clients can be left to: they have room, and show signs of life."""
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
        """A client waits, and the listeners are closed."""
        self.watch.poll(0)
        if not self.is_open and self.timer is None:
            self.consider(False)

    def consider(self, waited):
        """Accepts, or leaves the client to others for a moment."""
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
        # Otherwise others were quicker, and it watches again.
        if self.watch.poll(0):
            self.consider(True)

    # Clients that have been accepted and have not asked yet: they take up room.

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
    """A client that has been accepted: until its transport is made, its first request begins, its connection is lost."""

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
            # It is counted with the next heartbeat, then, and expected for a while.
            pass
        return protocol

    def first_request(self, scope, receive, send):
        self.accepting.expect_no_more(self)
        self.protocol.app = self.app
        return self.app(scope, receive, send)

    def connection_lost(self, error):
        # As it was made, and without a reference to us and so to itself.
        del self.protocol.connection_lost
        try:
            self.lost(error)
        finally:
            self.accepting.has_lost_one()

    def is_coming(self, now):
        return getattr(self.protocol, "transport", None) is None and now < self.since + _COMING

    def end(self):
        """Its server has told its connections to end, and has not seen this one: it ends after the request that it was
        made for, for which there is a little time."""
        shutdown = getattr(self.protocol, "shutdown", None)
        now = self.accepting.loop.time()
        if self.is_coming(now) or getattr(self.protocol, "cycle", self) is None and now < self.since + _EXPECTATION:
            self.accepting.loop.call_later(0.01, self.end)
        elif shutdown is not None and self.protocol.transport is not None:
            shutdown()


class _Listener:
    """What create_server returns, as far as servers use it. It accepts by itself."""

    def __init__(self, accepting, sock, factory, options):
        self.accepting, self.socket, self.factory = accepting, sock, factory
        self.backlog = options.pop("backlog", None)
        self.options = {name: value for name, value in options.items() if value is not None}
        sock.setblocking(False)
        if self.backlog is not None:
            sock.listen(self.backlog)
        accepting.listen(self)

    # The gate.

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
            # Whatever becomes of it: the transport or the protocol has said so.
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
        """Waits for clients that have just been accepted; a handshake may take longer than a server wants to wait."""
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
    """uvloop's own server accepts, which is faster, and is closed and made again."""

    server = None

    def open(self):
        options = {**self.options, "sock": self.socket.dup()}
        if self.backlog is not None:
            options["backlog"] = self.backlog
        try:
            # With a socket that is there, it has nothing to wait for.
            self.accepting.servers_own(self.make, **options).send(None)
        except StopIteration as made:
            self.server = made.value

    def close_gate(self):
        if self.server is not None:
            self.server.close()
            self.server = None

    def close_all(self):
        # Not while it accepts. That happens before it accepts the next one.
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
    """How to count a server's connections, by what its protocol factory refers to; none if it is not a known one's."""
    cells = [cell.cell_contents for cell in getattr(factory, "__closure__", None) or ()]
    for value in [*cells, *(getattr(factory, "keywords", None) or {}).values()]:
        # Uvicorn's server, or its state.
        connections = getattr(getattr(value, "server_state", value), "connections", None)
        if isinstance(connections, set):
            return connections.__len__
        # Gunicorn's own worker.
        if isinstance(getattr(value, "nr_conns", None), int):
            return lambda: value.nr_conns
    return None


def _waiting(sock):
    """How many clients wait to be accepted, as far as the kernel tells."""
    import socket

    if sock.family == socket.AF_UNIX:
        return 0
    # Of a listening socket tcpi_unacked is that (tcp(7)).
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return struct.unpack_from("I", info, 24)[0] if len(info) == 28 else 0


def _deal(words, siblings, limit):
    """Takes the accepting over from the server that is about to listen in the running loop."""
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
    """With the first request, when it is certain: why clients are dealt out as the kernel and the server do it."""
    if accepting is None:
        why = "the server does not tell the app when it starts (lifespan), which would have been the moment to begin"
    elif accepting.connections is not None:
        return
    else:
        why = accepting.obstacle
    _say("clients are dealt out as the server does it, and perhaps unevenly: " + why)
