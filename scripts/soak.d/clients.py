"""The clients of a soak: each does one thing again and again, and checks every answer."""

import asyncio
import json
import zlib

from http_client import Broken, Connection, WebSocket

# A connection that was idle for longer may be closed by the server at any moment, so it is not used again.
KEPT_FOR = 1.0


class Clients:
    """All clients of one application."""

    def __init__(self, target, outcomes, chance):
        self.target, self.outcomes, self.chance = target, outcomes, chance
        self.tasks = []
        self.may_come = asyncio.Event()
        self.may_come.set()

    def start(self):
        for kind, number in self.target.crowd.items():
            for _ in range(number):
                self.tasks.append(asyncio.ensure_future(self.go_on(kind)))

    async def stop(self):
        rest = set(self.tasks)
        while rest:
            # Before Python 3.12 wait_for forgets about it if it has just ended.
            for task in rest:
                task.cancel()
            done, rest = await asyncio.wait(rest, timeout=1)
            for task in done:
                if not task.cancelled():
                    task.result()

    async def go_on(self, kind):
        act = getattr(self, kind)
        while True:
            await self.may_come.wait()
            began = asyncio.get_running_loop().time()
            holder = []
            try:
                await act(holder)
                self.outcomes.good(kind)
            except Broken as error:
                opened = holder[-1].opened if holder else began
                self.outcomes.bad(kind, opened, str(error))
                # Whoever is refused does not try again at once.
                await asyncio.sleep(0.2)
            finally:
                for connection in holder:
                    connection.abort()
            await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def connect(self, holder):
        connection = await Connection.open(self.target.address, self.target.tls)
        holder.append(connection)
        return connection

    async def ask(self, connection, close=False):
        """One request that must be answered with what was asked for."""
        path, check = self.target.question(self.chance)
        await connection.request("GET", path, self.target.headers, close=close)
        status, headers, body = await connection.response()
        if status != 200:
            raise Broken(f"{path}: status {status}: {body[:100]!r}")
        check(body)
        return headers

    async def fresh(self, holder):
        await self.ask(await self.connect(holder), close=True)

    async def slow(self, holder):
        """Waits before it asks."""
        connection = await self.connect(holder)
        await asyncio.sleep(self.chance.uniform(0.1, 1.5))
        await self.ask(connection, close=True)

    async def dribble(self, holder):
        """Sends its request in pieces."""
        connection = await self.connect(holder)
        path, check = self.target.question(self.chance)
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *self.target.headers, "", ""]
        text = "\r\n".join(lines).encode()
        for start in range(0, len(text), 40):
            await connection.send(text[start : start + 40])
            await asyncio.sleep(self.chance.uniform(0, 0.2))
        status, _, body = await connection.response()
        if status != 200:
            raise Broken(f"{path}: status {status}: {body[:100]!r}")
        check(body)

    async def kept(self, holder):
        """Many requests on one connection, which the server may close between two of them."""
        connection = await self.connect(holder)
        for _ in range(self.chance.randrange(1, 40)):
            headers = await self.ask(connection)
            if headers.get("connection", "").lower() == "close":
                return
            await asyncio.sleep(self.chance.uniform(0, KEPT_FOR / 2))
            if not connection.is_open():
                return

    async def upload(self, holder):
        connection = await self.connect(holder)
        size = self.chance.choice([10, 1000, 100_000, 1_000_000])
        body = self.chance.randbytes(size)
        chunks = [body[start : start + 20_000] for start in range(0, size, 20_000)]
        whole = self.chance.random() < 0.5
        await connection.request("POST", "/upload", body=body if whole else chunks, close=True)
        status, _, answer = await connection.response()
        expected = {"length": size, "checksum": zlib.adler32(body)}
        if status != 200 or json.loads(answer) != expected:
            raise Broken(f"upload: status {status}: {answer[:100]!r} for {expected}")

    async def post(self, holder):
        """A request with a body, for an app that does something with it."""
        connection = await self.connect(holder)
        path, body, check = self.target.form(self.chance)
        headers = [*self.target.headers, "Content-Type: application/json"]
        await connection.request("POST", path, headers, body=body, close=True)
        status, _, answer = await connection.response()
        if status != 200:
            raise Broken(f"{path}: status {status}: {answer[:100]!r}")
        check(answer)

    async def stream(self, holder):
        """Reads events. The server may end the stream between two of them, and not otherwise."""
        connection = await self.connect(holder)
        await connection.request("GET", "/events", self.target.headers)
        status, _ = await connection.head()
        if status != 200:
            raise Broken(f"the stream is answered {status}")
        text, wanted = b"", self.chance.randrange(1, 150)
        async for chunk in connection.chunks():
            text += chunk
            if text.count(b"\n\n") >= wanted:
                break
        events, _, rest = text.rpartition(b"\n\n")
        numbers = [event.decode() for event in events.split(b"\n\n") if event]
        if rest or numbers != [f"data: {number}" for number in range(len(numbers))]:
            raise Broken(f"the stream ended within an event: {text[-60:]!r}")

    async def websocket(self, holder):
        """An echo. The server may close it, with a reason."""
        socket = await WebSocket.open(await self.connect(holder), "/ws", self.target.headers)
        for _ in range(self.chance.randrange(1, 60)):
            text = b"%d" % self.chance.getrandbits(60)
            broken = None
            try:
                await socket.send(text)
            except Broken as error:
                # The server may have closed it meanwhile, and said why.
                broken = error
            kind, data = await socket.receive()
            if broken is not None and kind != WebSocket.CLOSE:
                raise broken
            if kind == WebSocket.CLOSE:
                code = int.from_bytes(data[:2], "big")
                if code not in (1001, 1012):
                    raise Broken(f"the WebSocket was closed with {code}")
                return
            if data != text:
                raise Broken(f"the echo of {text!r} is {data!r}")
            await asyncio.sleep(self.chance.uniform(0, 0.3))
        await socket.send(b"\x03\xe8", WebSocket.CLOSE)

    async def abort(self, holder):
        """Leaves in the middle of something."""
        connection = await self.connect(holder)
        what = self.chance.randrange(4)
        if what == 0:
            await connection.send(b"GET / HT")
        elif what == 1:
            await connection.request("GET", "/slow?2", self.target.headers)
        elif what == 2:
            body = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + bytes(5000)
            await connection.send(body)
        else:
            await connection.request("GET", "/events", self.target.headers)
            await connection.head()
        await asyncio.sleep(self.chance.uniform(0, 0.5))
