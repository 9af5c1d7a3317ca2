# Gunicorn: the last moment before a worker listens. Usually its server has told the app that it starts (lifespan), and
# the worker has begun. If that is switched off, it begins now.


def _before_listening(worker, begin):
    """Has this asynchronous function called when the server of this worker creates the first listening socket in its event
    loop. Both known families of worker classes do that with the loop's own method, and differ in who makes the loop."""
    import asyncio

    loop, config = getattr(worker, "loop", None), getattr(worker, "config", None)
    if isinstance(loop, asyncio.AbstractEventLoop):
        return _watch_loop(loop, begin)
    find_factory = getattr(config, "get_loop_factory", None)
    if find_factory is None:
        return

    def get_loop_factory(*args, **kwargs):
        make = find_factory(*args, **kwargs)
        return make and (lambda: _watch_loop(make(), begin))

    config.get_loop_factory = get_loop_factory


def _watch_loop(loop, begin):
    servers_own = loop.create_server

    async def create_server(*args, **options):
        if loop.create_server is create_server:
            loop.create_server = servers_own
        await begin()
        return await loop.create_server(*args, **options)

    create_server.servers_own = servers_own
    try:
        loop.create_server = create_server
    except AttributeError:
        pass  # then clients are not dealt out either, which is said
    return loop
