# Starting and stopping the app, as the server tells it (ASGI, Lifespan).


def _lifespan(worker, begin):
    """Handles lifespan calls. `begin` takes the slot and returns the app, or raises because its factory does."""

    async def lifespan(scope, receive, send):
        has_started = failed = False

        async def start():
            """What must happen before the server takes clients: it waits for this."""
            nonlocal has_started
            if has_started or failed:
                return
            has_started = True
            # A worker that is told to leave meanwhile is not ready, but servers only stop when the app has started.
            if not WARM_UP or await worker.warm_up(inner, scope.get("state")):
                worker.is_ready()

        async def complete(message):
            await start()
            await send(message)

        def say(message):
            nonlocal failed
            if message["type"] == "lifespan.startup.complete":
                return complete(message)
            if message["type"] == "lifespan.startup.failed":
                failed = True
                _write_failure("the startup failed: %s" % (message.get("message") or "the app does not say why"))
            return send(message)

        async def hear():
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                worker.is_stopping()
                await _wait_for_others()
            return message

        try:
            inner = begin()
        except Exception:
            import traceback

            await receive()
            return await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
        try:
            await inner(scope, hear, say)
        except (SystemExit, KeyboardInterrupt):
            raise
        except GeneratorExit:
            raise
        except BaseException:
            # Servers continue without lifespan support, and so do we.
            await start()
            raise
        await start()

    return lifespan
