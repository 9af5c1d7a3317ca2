"""The lifespan protocol of an ASGI app that has nothing to do when it starts and stops."""


async def serve_lifespan(receive, send):
    """Startup and shutdown."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
