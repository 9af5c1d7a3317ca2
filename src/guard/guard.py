# The guard: the module's names that servers import.


try:
    _inner = _load()
except Exception as _error:
    _write_failure(_brief(_error))
    raise


# Begins the worker, if the app is a WSGI app: its server does not tell it when it starts.
_begin_wsgi = None
# Begins the worker, if the app is an ASGI app and Gunicorn has not told it that it starts.
_begin_asgi = None


def __getattr__(name):
    """Creates a new guard for each caller: servers with threads as workers call this once for each."""
    global _begin_wsgi, _begin_asgi
    if name == "app":
        if WSGI or WSGI is None and _serves_wsgi():
            _refuse_asgi(_inner)
            if SERVER == "granian":
                _refuse_late_patch()
            app, _begin_wsgi = _guard_wsgi(_inner)
        else:
            _refuse_wsgi(_inner)
            app, _begin_asgi = _guard_asgi(_inner)
        return _stand_in(app, _inner) if SERVER == "gunicorn" else app
    if name == "make_app":
        return lambda: __getattr__("app")
    raise AttributeError(name)


def post_worker_init(worker):
    """Called in each of Gunicorn's workers when the app has been loaded, before it accepts clients."""
    if _begin_asgi is not None:
        _before_listening(worker, _begin_asgi)
    if _begin_wsgi is None:
        return
    modules = {kind.__module__ for kind in type(worker).__mro__}
    greenlets = {"gunicorn.workers.ggevent": "gevent", "gunicorn.workers.geventlet": "eventlet"}
    package = next((package for module, package in greenlets.items() if module in modules), None)
    threads = None
    if "gunicorn.workers.gthread" in modules:
        _refuse_late_patch()
        threads = worker.cfg.threads
    elif "gunicorn.workers.sync" in modules:
        threads = 1
    _begin_wsgi(package, threads, lambda: not worker.alive, worker.notify)
