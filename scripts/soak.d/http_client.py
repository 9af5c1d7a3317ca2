"""A small HTTP/1.1 and WebSocket client that hides nothing: it never tries again."""

import asyncio
import base64
import os
import struct

PATIENCE = 30  # seconds that a client waits for anything


class Broken(Exception):
    """The server did not do what it had to."""


async def within(what, awaitable, seconds=PATIENCE):
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise Broken(f"{what}: nothing within {seconds} s") from None


class Connection:
    """A connection; `opened` is the time at which it was asked for."""

    def __init__(self, reader, writer, opened):
        self.reader, self.writer, self.opened = reader, writer, opened

    @classmethod
    async def open(cls, address, tls=None):
        loop = asyncio.get_running_loop()
        opened = loop.time()
        try:
            reader, writer = await within("connecting", asyncio.open_connection(*address, ssl=tls))
        except OSError as error:
            raise Broken(f"connecting: {error}") from None
        return cls(reader, writer, opened)

    async def send(self, data):
        try:
            self.writer.write(data)
            await within("sending", self.writer.drain())
        except OSError as error:
            raise Broken(f"sending: {error}") from None

    async def request(self, method, path, headers=(), body=None, close=False):
        """Sends a request. A body that is a list is sent in chunks."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        if close:
            lines.append("Connection: close")
        if isinstance(body, list):
            lines.append("Transfer-Encoding: chunked")
        elif body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("".join(line + "\r\n" for line in [*lines, ""]).encode())
        if isinstance(body, list):
            for chunk in body:
                await self.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await self.send(b"0\r\n\r\n")
        elif body:
            await self.send(body)

    async def read(self, what, awaitable):
        try:
            return await within(what, awaitable)
        except asyncio.IncompleteReadError as error:
            raise Broken(f"{what}: closed after {len(error.partial)} bytes") from None
        except OSError as error:
            raise Broken(f"{what}: {error}") from None

    async def head(self):
        """Status and headers of a response."""
        text = await self.read("the response", self.reader.readuntil(b"\r\n\r\n"))
        first, *lines = text.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers

    async def chunks(self):
        """The chunks of a response, to its end."""
        while True:
            size = await self.read("a chunk", self.reader.readuntil(b"\r\n"))
            data = await self.read("a chunk", self.reader.readexactly(int(size, 16) + 2))
            if len(data) == 2:
                return
            yield data[:-2]

    async def response(self):
        """Status, headers and body of a response."""
        status, headers = await self.head()
        if "chunked" in headers.get("transfer-encoding", ""):
            return status, headers, b"".join([chunk async for chunk in self.chunks()])
        length = headers.get("content-length")
        whole = self.reader.read() if length is None else self.reader.readexactly(int(length))
        return status, headers, await self.read("the body", whole)

    def is_open(self):
        return not self.reader.at_eof() and self.reader.exception() is None

    def abort(self):
        self.writer.transport.abort()

    def close(self):
        self.writer.close()


class WebSocket:
    """The client's side of RFC 6455, as far as an echo needs it."""

    TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

    def __init__(self, connection):
        self.connection = connection

    @classmethod
    async def open(cls, connection, path, headers=()):
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        await connection.request("GET", path, [*upgrade, f"Sec-WebSocket-Key: {key}", *headers])
        status, _ = await connection.head()
        if status != 101:
            raise Broken(f"the WebSocket is answered {status}")
        return cls(connection)

    async def send(self, data, kind=TEXT):
        mask = os.urandom(4)
        head = bytes([0x80 | kind]) + (
            bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        )
        await self.connection.send(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    async def receive(self):
        """The next message: its kind and its data."""
        connection = self.connection
        while True:
            first, length = await connection.read("a frame", connection.reader.readexactly(2))
            if length == 126:
                (length,) = struct.unpack(">H", await connection.read("a frame", connection.reader.readexactly(2)))
            data = await connection.read("a frame", connection.reader.readexactly(length))
            if first & 0x0F == self.PING:
                await self.send(data, self.PONG)
            else:
                return first & 0x0F, data


async def must_be_healthy(target):
    """Asks the health path on a connection of its own. Raises `Broken` if the answer is not 200."""
    connection = await Connection.open(target.address, target.tls)
    try:
        await connection.request("GET", "/health", close=True)
        status, _, _ = await connection.response()
        if status != 200:
            raise Broken(f"status {status}")
    finally:
        connection.close()
