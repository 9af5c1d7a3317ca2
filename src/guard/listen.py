# Gunicorn: the listening sockets from which this worker accepts clients itself, and the clients that it has accepted.

# For how long, in seconds, a connection may be in its handshake: a failed handshake is not reported.
_COMING = 2
# How many clients are accepted before the event loop continues with other work.
_MOST_AT_ONCE = 64
# The pause when no file descriptor is left, in seconds, as long as asyncio's.
_RETRY = 1


class _Client:
    """An accepted client, until its connection is made and its first request begins."""

    __slots__ = ("accepting", "listener", "protocol", "app", "since")

    def __init__(self, listener):
        self.listener, self.accepting, self.protocol = listener, listener.accepting, None
        self.since = self.accepting.loop.time()

    def make(self):
        self.protocol = protocol = self.listener.factory()
        try:
            if type(protocol) is not self.listener.kind:
                self.listener.kind = type(protocol)
                self.accepting.adapt(type(protocol))
            if self.accepting.limit is not None:
                self.app = protocol.app
                protocol.app = self.first_request
        except (AttributeError, TypeError):
            # The protocol is of an unknown kind: the client is counted with the next heartbeat and expected for a while.
            pass
        return protocol

    def first_request(self, scope, receive, send):
        self.accepting.expect_no_more(self)
        self.protocol.app = self.app
        return self.app(scope, receive, send)

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
        # The class of its protocols, once it is known.
        self.kind = None
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
