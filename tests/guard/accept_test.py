"""How a worker accepts clients: a real listening socket, a real event loop, and siblings that are slots on a scoreboard.

The first argument is the guard's text. The test that runs this file limits its time.
"""

import asyncio
import fcntl
import multiprocessing
import os
import socket
import struct
import tempfile
import types
import unittest

from guard_test import SIZE, Client, Gate, GuardTestCase, guard, slot, turn

STARTING, READY, STOPPING = 1, 2, 3
NO_LIFESPAN = 2
PID, STATE, IN_FLIGHT, CONNECTIONS, TURNS, LIMIT, LEAVE_BY, SPREAD, EXPECTED = 0, 1, 6, 16, 17, 19, 20, 22, 26


def write(fd, index, **words):
    for name, value in words.items():
        os.pwrite(fd, struct.pack("=I", value), SIZE * (index + 1) + 4 * globals()[name])


def hold(fd, index, ready, done):
    fcntl.lockf(fd, fcntl.LOCK_EX, SIZE, SIZE * (index + 1))
    ready.set()
    done.wait(60)


class Sibling:
    """Another worker, which only owns a slot."""

    def __init__(self, fd, index, **words):
        context = multiprocessing.get_context("fork")
        ready, self.done = context.Event(), context.Event()
        self.process = context.Process(target=hold, args=(fd, index, ready, self.done))
        self.process.start()
        ready.wait(30)
        self.fd, self.index = fd, index
        self.write(PID=self.process.pid, STATE=READY, **words)

    def write(self, **words):
        write(self.fd, self.index, **words)

    def end(self):
        self.done.set()
        self.process.join(30)


class State:
    def __init__(self):
        self.connections = set()


class Protocol(asyncio.Protocol):
    """Like Uvicorn's: it is in the server's set while it is connected, and calls its app for each request."""

    def __init__(self, server_state, app):
        self.connections, self.app, self.transport, self.cycle = server_state.connections, app, None, None
        self.was_shut_down = False

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(self)

    def data_received(self, data):
        self.cycle = Client(self.app, data.decode())
        self.cycle.start().add_done_callback(lambda _: self.transport.write(b"%d" % (self.cycle.status or 0)))

    def connection_lost(self, error):
        self.connections.discard(self)

    def shutdown(self):
        self.was_shut_down = True
        self.transport.close()

    timeout_keep_alive_handler = shutdown


def kind_of_protocol():
    """A class of protocols. The guard changes it, for one event loop."""
    return type("Own", (Protocol,), {})


class AcceptTest(GuardTestCase):
    FAMILY = socket.AF_INET

    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.siblings, self.clients, self.protocols = [], [], []
        self.gate = Gate()
        self.state = State()
        self.socket = socket.socket(self.FAMILY)
        self.directory = tempfile.TemporaryDirectory()
        unix = self.FAMILY == socket.AF_UNIX
        self.socket.bind(self.directory.name + "/socket" if unix else ("127.0.0.1", 0))
        self.socket.listen(128)

    async def asyncTearDown(self):
        self.gate.open.set()
        for each in self.siblings:
            each.end()
        for client in self.clients:
            client.close()
        self.server.close()
        await self.server.wait_closed()
        self.socket.close()
        self.directory.cleanup()

    def sibling(self, **words):
        self.siblings.append(Sibling(self.board, len(self.siblings) + 5, **words))
        return self.siblings[-1]

    async def serve(self, **constants):
        # Not a divisor of the times for which clients are left to others: both would always be over at once.
        app = guard(self.gate, BOARD=self.board, DEALS=True, BEAT=0.013, **constants).app
        started = Client(app, kind="lifespan", messages=[{"type": "lifespan.startup"}])
        self.gate.open.set()
        await started.call
        self.gate.open.clear()
        server_state = self.state
        own_kind = kind_of_protocol()

        def create_protocol():
            self.protocols.append(own_kind(server_state, app))
            return self.protocols[-1]

        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(create_protocol, sock=self.socket, backlog=128)
        self.assertEqual(self.own.state, READY)

    @property
    def own(self):
        return slot(self.board)

    def connect(self):
        client = socket.socket(self.FAMILY)
        client.setblocking(False)
        client.connect(self.socket.getsockname()) if self.FAMILY == socket.AF_UNIX else client.connect_ex(
            self.socket.getsockname()
        )
        self.clients.append(client)
        return client

    async def ask(self, client=None):
        client = client or self.connect()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"/")
        return client

    async def answer(self, client):
        return int(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 10))

    async def test_alone_it_accepts_everybody_and_says_how_many_there_are(self):
        await self.serve()
        for _ in range(100):
            self.connect()
        await self.until(lambda: len(self.state.connections) == 100)
        await self.until(lambda: self.own.connections == 100)
        for client in self.clients:
            client.close()
        await self.until(lambda: self.own.connections == 0, seconds=0.5)

    async def test_if_the_server_does_not_tell_that_it_starts_the_worker_begins_when_it_listens(self):
        asked = []

        async def warm(scope, receive, send):
            asked.append((scope["path"], self.own.state))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        loop = asyncio.get_running_loop()
        module = guard(warm, BOARD=self.board, DEALS=True, WARM_UP=("/warm",))
        app = module.app
        module.post_worker_init(types.SimpleNamespace(loop=loop))
        state = self.state
        kind = kind_of_protocol()
        self.server = await loop.create_server(lambda: kind(state, app), sock=self.socket, backlog=128)
        self.assertEqual(asked, [("/warm", STARTING)])
        self.assertEqual((self.own.state, self.own.flags & NO_LIFESPAN), (READY, 0))
        for _ in range(3):
            self.connect()
        await self.until(lambda: self.own.connections == 3)

    async def test_whoever_has_fewer_connections_does_not_wait(self):
        await self.serve()
        self.sibling(CONNECTIONS=8)
        start = self.clock.monotonic()
        for number in range(8):
            self.connect()
            await self.until(lambda: len(self.state.connections) == number + 1)
        self.assertLess(self.clock.monotonic() - start, 1)

    async def test_whoever_has_more_leaves_the_client_to_another_for_a_moment_only(self):
        await self.serve()
        await asyncio.sleep(0.3)
        for _ in range(4):
            self.connect()
        await self.until(lambda: len(self.state.connections) == 4)
        other = self.sibling(CONNECTIONS=0)
        await asyncio.sleep(0.3)
        turns, moments = 0, 0
        for _ in range(3):
            before = self.clock.monotonic()
            count = len(self.state.connections)
            self.connect()
            while len(self.state.connections) == count:
                # It is running, and others are faster.
                turns += 1
                other.write(TURNS=turns)
                await asyncio.sleep(0.0005)
            moments += self.clock.monotonic() - before
        self.assertGreater(moments, 0.003)
        self.assertLess(moments, 2)

    async def test_a_silent_one_is_not_waited_for_until_it_moves(self):
        await self.serve()
        self.sibling(CONNECTIONS=0)
        await asyncio.sleep(0.3)
        for number in range(40):
            self.connect()
            await self.until(lambda: len(self.state.connections) == number + 1)
        accepting, waits = self.server.accepting, []
        wait = accepting.come_back
        accepting.come_back = lambda *how_long: waits.append(how_long) or wait(*how_long)
        for number in range(40, 80):
            self.connect()
            await self.until(lambda: len(self.state.connections) == number + 1)
        self.assertEqual(waits, [])

    async def test_the_dead_and_those_who_start_or_leave_are_nobody_to_wait_for(self):
        self.sibling(CONNECTIONS=0).write(STATE=1)
        self.sibling(CONNECTIONS=0).write(STATE=STOPPING)
        self.sibling(CONNECTIONS=0).write(LEAVE_BY=1)
        self.sibling(CONNECTIONS=0).end()
        await self.serve(LIMIT=1)
        taken = await self.ask()
        await self.until(lambda: self.own.in_flight == 1)
        # If there were others with room, a full worker would wait.
        start = self.clock.monotonic()
        refused = await self.ask()
        self.assertEqual(await self.answer(refused), 503)
        self.assertLess(self.clock.monotonic() - start, 0.02)
        self.gate.open.set()
        self.assertEqual(await self.answer(taken), 200)

    async def test_a_full_one_leaves_clients_to_those_with_room_and_refuses_at_once_when_there_are_none(self):
        other = self.sibling(CONNECTIONS=50, LIMIT=2, IN_FLIGHT=1)
        await self.serve(LIMIT=2)
        for _ in range(2):
            await self.ask()
        await self.until(lambda: self.own.in_flight == 2)
        waiting = await self.ask()
        for turns in range(40):
            other.write(TURNS=turns)
            await asyncio.sleep(0.005)
        self.assertEqual(len(self.state.connections), 2)
        other.write(IN_FLIGHT=2)
        self.assertEqual(await self.answer(waiting), 503)

    async def test_a_client_that_has_not_asked_yet_takes_up_room_and_not_for_ever(self):
        other = self.sibling(CONNECTIONS=50, LIMIT=2)
        await self.serve(LIMIT=2)
        for _ in range(3):
            self.connect()
        await self.until(lambda: len(self.state.connections) == 2)
        for turns in range(20):
            other.write(TURNS=turns)
            await asyncio.sleep(0.005)
        self.assertEqual(len(self.state.connections), 2)
        await self.until(lambda: len(self.state.connections) == 3, seconds=1)
        answered = await self.ask(self.clients[0])
        await self.until(lambda: self.own.in_flight == 1)
        self.gate.open.set()
        self.assertEqual(await self.answer(answered), 200)

    async def test_on_a_connection_of_its_own_a_full_one_lets_in_what_others_have_room_for(self):
        other = self.sibling(LIMIT=2, IN_FLIGHT=1)
        await self.serve(LIMIT=2)
        kept = [await self.ask() for _ in range(2)]
        await self.until(lambda: self.own.in_flight == 2)
        app = self.protocols[0].app
        third = Client(app).start()
        await turn()
        self.assertEqual(self.own.in_flight, 3)
        fourth = Client(app)
        await fourth.call
        self.assertEqual(fourth.status, 503, "all of the capacity is taken")
        other.write(IN_FLIGHT=0)
        more = Client(app).start()
        await turn()
        other.write(LIMIT=100)
        fifth = Client(app)
        await fifth.call
        self.assertEqual((self.own.in_flight, fifth.status), (4, 503), "no more than twice its own")
        self.gate.open.set()
        await asyncio.gather(third, more)
        self.assertEqual([await self.answer(client) for client in kept], [200, 200])

    async def test_whoever_has_room_lets_in_no_more_than_all_may_have_while_another_exceeds_its_limit(self):
        other = self.sibling(LIMIT=2, IN_FLIGHT=3)
        os.pwrite(self.board, struct.pack("=I", 1), 36)
        await self.serve(LIMIT=2)
        first = await self.ask()
        await self.until(lambda: self.own.in_flight == 1)
        second = await self.ask()
        self.assertEqual(await self.answer(second), 503)
        other.write(IN_FLIGHT=2)
        await self.ask(second)
        await self.until(lambda: self.own.in_flight == 2)
        self.gate.open.set()
        self.assertEqual([await self.answer(client) for client in (first, second)], [200, 200])

    async def test_one_that_leaves_accepts_nobody_while_others_can_and_may_be_taken_back(self):
        await self.serve()
        write(self.board, 0, LEAVE_BY=1)
        await self.until(lambda: not self.server.accepting.is_open)
        before = self.clock.monotonic()
        self.connect()
        await self.until(lambda: len(self.state.connections) == 1)
        self.assertGreater(self.clock.monotonic() - before, 0.09, "there was time for others")
        write(self.board, 0, LEAVE_BY=0)
        before = self.clock.monotonic()
        self.connect()
        await self.until(lambda: len(self.state.connections) == 2)
        self.assertLess(self.clock.monotonic() - before, 0.09)

    async def test_after_closing_it_accepts_nobody_and_late_connections_are_ended(self):
        await self.serve()
        client = self.connect()
        # Accepted, but its transport is still being made.
        self.server.accept()
        self.assertEqual(([client.protocol for client in self.server.accepting.coming], self.protocols), ([None], []))
        self.server.close()
        self.connect()
        await self.server.wait_closed()
        await self.until(lambda: self.protocols[0].was_shut_down)
        self.assertEqual(await asyncio.get_running_loop().sock_recv(client, 1), b"")
        await asyncio.sleep(0.05)
        self.assertEqual(len(self.protocols), 1)

    async def test_a_client_that_is_connected_has_a_moment_to_ask_when_the_server_stops(self):
        await self.serve()
        write(self.board, 0, LEAVE_BY=1, SPREAD=400)
        asks, never = self.connect(), self.connect()
        await self.until(lambda: len(self.protocols) == 2)
        before = self.clock.monotonic()
        for protocol in self.protocols:
            protocol.shutdown()
        self.gate.open.set()
        await self.ask(asks)
        self.assertEqual(await self.answer(asks), 200)
        self.assertEqual(await asyncio.get_running_loop().sock_recv(never, 1), b"")
        self.assertGreater(self.clock.monotonic() - before, 0.39)

    async def test_a_client_that_has_asked_is_answered_before_its_connection_is_closed(self):
        await self.serve()
        write(self.board, 0, LEAVE_BY=1, SPREAD=400)
        client = self.connect()
        await self.until(lambda: self.protocols)
        self.gate.open.set()
        await self.ask(client)
        self.assertEqual(await self.answer(client), 200)
        self.protocols[0].cycle.response_complete = True
        client.send(b"/")
        for close in (self.protocols[0].timeout_keep_alive_handler, self.protocols[0].shutdown):
            close()
            self.assertFalse(self.protocols[0].was_shut_down)
        self.assertEqual(await self.answer(client), 200)

    async def test_what_is_not_the_servers_goes_to_the_loops_own_method(self):
        await self.serve()
        loop = asyncio.get_running_loop()
        with socket.socket() as own:
            own.bind(("127.0.0.1", 0))
            server = await loop.create_server(asyncio.Protocol, sock=own)
            self.assertIsInstance(server, asyncio.Server)
            server.close()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        self.assertIsInstance(server, asyncio.Server)
        server.close()

    async def test_without_descriptors_it_tries_again(self):
        await self.serve()
        loop = asyncio.get_running_loop()
        said = []
        loop.set_exception_handler(lambda _, context: said.append(context))
        real = self.server.socket

        class Exhausted:
            def accept(self):
                raise OSError(24, "Too many open files")

            def __getattr__(self, name):
                return getattr(real, name)

        self.server.socket = Exhausted()
        self.connect()
        await self.until(lambda: said)
        self.server.socket = real
        await self.until(lambda: len(self.state.connections) == 1)
        self.assertEqual(len(said), 1)


class UnixAcceptTest(AcceptTest):
    FAMILY = socket.AF_UNIX


if __name__ == "__main__":
    import sys

    unittest.main(argv=sys.argv[:1])
