# Importing the app, and finding out its form.


def _load():
    """Imports the app as the server would, so that the same forms work and errors look the same."""
    if SERVER == "gunicorn":
        from gunicorn.util import import_app

        return import_app(APP)
    from granian._internal import load_target

    # Granian was told to look for this module in the root directory, because elsewhere it depends on the files there.
    if sys.path[:1] == ["/"]:
        del sys.path[0]
    return load_target(APP, factory=FACTORY)


def _accepts(function, count):
    """Whether it can be called with this number of arguments; False if that is unknown."""
    import inspect

    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def _is_async(function):
    import inspect

    call = None if inspect.isclass(function) else getattr(function, "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _asgi3(inner):
    """The app as a callable with three arguments. Uvicorn would inspect the app to find out, but it sees us."""
    import inspect

    if CALLS_FACTORIES and not _is_async(inner) and _accepts(inner, 0):
        inner = inner()
        if not callable(inner):
            raise TypeError("the app's factory returned %r, which is no app: it cannot be called" % (inner,))
    if inspect.isclass(inner):
        double = not hasattr(inner, "__await__")
    else:
        double = not _is_async(inner) and _accepts(inner, 1) and not _accepts(inner, 3)
    if not double:
        return inner

    async def single(scope, receive, send):
        await inner(scope)(receive, send)

    return single
