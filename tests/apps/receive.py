"""An app that calls `receive` as frameworks do that watch whether the client is still there: twice at once, and in calls
that it cancels. The response tells what the calls returned within half a second."""

import asyncio


async def app(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": "lifespan.%s.complete" % kind})
        return
    if scope["path"] == "/cancelled":
        call = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
    calls = [asyncio.ensure_future(once(receive)) for _ in range(3)]
    _, pending = await asyncio.wait(calls, timeout=0.5)
    told = ["nothing" if call in pending else call.result() for call in calls]
    for call in pending:
        call.cancel()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(told).encode()})


async def once(receive):
    """The next message, in short."""
    message = await receive()
    return message["type"] + message.get("body", b"").decode()
