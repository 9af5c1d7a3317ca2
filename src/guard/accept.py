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
# For how long closed connections may be replaced without a comparison with other workers; and how often these are
# compared all the same.
_MEMORY, _COMPARISON = 0.025, 0.005
# The options of create_server that are understood, and the values with which others make no difference.
_KNOWN = {"ssl", "backlog", "ssl_handshake_timeout", "ssl_shutdown_timeout"}
_USUAL = {"reuse_address": (None, False, True), "reuse_port": (None, False), "start_serving": (True,)}


class _Accepting:
    """How this worker accepts clients, on all of its listening sockets."""

    def __init__(self, loop, words, siblings, limit):
        import select

        self.loop, self.words, self.siblings, self.limit = loop, words, siblings, limit
        self.servers_own = getattr(loop.create_server, "servers_own", loop.create_server)
        self.connections = None
        self.obstacle = "its worker class does not accept through create_server of the event loop"
        self.listeners = []
        self.kinds = set()  # the classes of the server's protocols
        self.is_open = False
        self.timer = None
        self.waited_for = ()
        # The highest number of connections in the current short period, and in the previous one.
        self.peak = self.peak_before = self.peak_until = self.compare_at = 0
        self.coming = []  # clients that have been accepted, and whose transports are being made
        self.expected = {}  # clients that have been accepted and have not asked yet, oldest first, and until when
        self.expiry = None
        # Watches for clients while the listeners are closed. One-shot, so that clients left to others do not wake us.
        self.watch = select.epoll()
        self.events = select.EPOLLIN | select.EPOLLONESHOT

    # What other workers see of this one.

    def count(self):
        """The number of the server's connections, including those that are being set up."""
        if not self.coming:
            return self.connections()
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

    def adapt(self, kind):
        """Notices when a protocol of this class has lost its connection, and keeps the server from closing one whose client
        has asked. The class is changed, because that costs nothing later; a change to each object would make the
        interpreter slower with all of its attributes."""
        import threading

        if kind in self.kinds:
            return
        self.kinds.add(kind)
        _spare_askers(kind, self.loop, self.patience)
        lost, own = kind.connection_lost, threading.get_ident()

        def connection_lost(protocol, error):
            try:
                lost(protocol, error)
            finally:
                # The app may have a server of its own in another thread.
                if threading.get_ident() == own:
                    self.has_lost_one()

        kind.connection_lost = connection_lost

    def patience(self):
        """How long clients that are connected may take to ask when the server stops: as long as its streams may take."""
        return self.words[_SPREAD] / 1000

    def has_lost_one(self):
        self.words[_CONNECTIONS] = mine = self.count()
        if self.is_open or not self.listeners:
            return
        if 4 * mine < 3 * max(self.peak, self.peak_before) and _takes_clients(self.words):
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
            self.is_open = _takes_clients(self.words)
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
        """Called when a client was accepted, after which the listeners may have to close.

        Short-lived clients replace others. Then there is hardly a comparison with other workers: it would only cost CPU
        time. A worker that has been told to leave notices that with its next heartbeat.
        """
        words, now = self.words, client.since
        if self.limit is not None:
            self.expect(client)
        words[_CONNECTIONS] = mine = self.count() + 1
        self.coming.append(client)
        words[_TURNS] = (words[_TURNS] + 1) & 0xFFFFFFFF
        if now > self.peak_until:
            self.begin_period(now)
        is_replacement = mine <= self.peak or mine <= self.peak_before
        if mine > self.peak:
            self.peak = mine
        if is_replacement and now < self.compare_at and (self.limit is None or not self.is_full()):
            return
        self.compare_at = now + _COMPARISON
        if self.is_open and not self.may_go_on(client.listener.socket, mine, is_replacement):
            client.listener.close_all()

    def begin_period(self, now):
        self.peak_before = self.peak if now <= self.peak_until + _MEMORY else 0
        self.peak, self.peak_until = 0, now + _MEMORY

    def may_go_on(self, sock, mine, is_replacement):
        if not _takes_clients(self.words):
            return _waiting(sock) != 0
        others = self.others()
        if not others:
            return True
        if self.is_full():
            return False
        counts = [words[_CONNECTIONS] for words, _ in others]
        least = min(counts)
        # Short-lived clients are not worth much closing and opening.
        if mine <= least + 2 + least // (2 if is_replacement else 8):
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
        why = "the server does not tell the app when it starts (lifespan), and its worker class is unknown"
    elif accepting.connections is not None:
        return
    else:
        why = accepting.obstacle
    _say("clients are dealt out as the server does it, and perhaps unevenly: " + why)
