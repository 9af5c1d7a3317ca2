

def _tell_guard(settings, module):
    """Tells the guard when a worker has loaded the app and is about to serve. Then comes the user's own hook."""
    import pkgutil
    import sys

    hook = settings.get("post_worker_init")
    if isinstance(hook, str):
        # Gunicorn takes the name of a function, too.
        hook = pkgutil.resolve_name(hook)

    def post_worker_init(worker):
        if module in sys.modules:
            sys.modules[module].post_worker_init(worker)
        if hook:
            hook(worker)

    settings["post_worker_init"] = post_worker_init


