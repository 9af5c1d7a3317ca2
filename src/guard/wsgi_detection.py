# Finding out whether the server, or the app, is for WSGI.


def _serves_wsgi():
    """Whether Gunicorn's worker class is for WSGI apps. The launcher knows the usual classes by name; here the user's
    own class can be inspected, and a class that only the configuration file names."""
    config = sys.modules.get("mcp_launch_gunicorn_config")
    worker_class = WORKER_CLASS or getattr(config, "worker_class", None)
    if SERVER != "gunicorn" or worker_class is None:
        return False
    from gunicorn.util import load_class

    if worker_class == "sync" and getattr(config, "threads", 1) > 1:
        return True
    bases = {kind.__module__ for kind in load_class(worker_class).__mro__}
    wsgi = ("sync", "gthread", "base_async", "ggevent", "geventlet", "gtornado")
    return any("gunicorn.workers." + name in bases for name in wsgi)


def _refuse_wsgi(inner):
    """Ends the start: a WSGI app would fail at every request without saying why."""
    import inspect

    if inspect.isclass(inner) or _is_async(inner) or _accepts(inner, 3) or not _accepts(inner, 2):
        return
    instead = "worker class gthread (--worker-class)" if SERVER == "gunicorn" else "GRANIAN_INTERFACE=wsgi"
    error = TypeError("%s is a WSGI app (it takes two arguments), and is served as an ASGI app; use %s" % (APP, instead))
    _write_failure(str(error))
    raise error


def _refuse_asgi(inner):
    """Ends the start: an ASGI app would fail at every request without saying why."""
    if not (_is_async(inner) or _accepts(inner, 3) and not _accepts(inner, 2)):
        return
    instead = "worker class auto (--worker-class)" if SERVER == "gunicorn" else "GRANIAN_INTERFACE=asgi"
    error = TypeError("%s is an ASGI app, and is served as a WSGI app; use %s" % (APP, instead))
    _write_failure(str(error))
    raise error


def _refuse_late_patch():
    """Ends the start if the app has replaced threads by greenlets when it was imported: the server's threads, which were
    made before, would wait for ever."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return
    server = "" if SERVER == "gunicorn" else "--server gunicorn "
    error = RuntimeError(
        "%s calls gevent.monkey.patch_all() when it is imported, which is too late: the server has threads already; use "
        "%s--worker-class gevent, which does so first" % (APP, server)
    )
    _write_failure(str(error))
    raise error
