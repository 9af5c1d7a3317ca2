

def _settings_of(location):
    """Runs a configuration file or imports a module, in the way and under the name that Gunicorn does."""
    import importlib
    import importlib.machinery
    import importlib.util
    import os
    import sys
    import traceback

    if location.startswith("python:"):
        found = vars(importlib.import_module(location[len("python:"):]))
    else:
        path = location[len("file:"):] if location.startswith("file:") else location
        if not os.path.exists(path):
            raise RuntimeError("%r doesn't exist" % path)
        loader = None if path.endswith((".py", ".pyc")) else importlib.machinery.SourceFileLoader("__config__", path)
        spec = importlib.util.spec_from_file_location("__config__", path, loader=loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["__config__"] = module
        try:
            spec.loader.exec_module(module)
        except Exception:
            print("Failed to read config file: %s" % path, file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            sys.exit(1)
        found = vars(module)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def _reconcile(settings, longest_grace):
    """Corrects what conflicts with the launcher, or with other settings in the file, even if it was computed."""
    import sys

    def say(text):
        try:
            print("mcp-launch: " + text, file=sys.stderr, flush=True)
        except (AttributeError, OSError, ValueError):
            pass  # standard error may be closed

    if settings.get("reload") and settings.get("preload_app"):
        # A preloaded app is never loaded again.
        settings["preload_app"] = False
    grace = settings.get("graceful_timeout")
    if longest_grace is not None and isinstance(grace, int) and grace > longest_grace:
        say("graceful_timeout = %s in the configuration file exceeds the stop budget and is reduced to %s s"
            % (grace, longest_grace))
        settings["graceful_timeout"] = longest_grace


def _renew_after_fork(settings, source):
    """The gateway's renewals in a new worker, after the user's own. They may be done twice."""
    import pkgutil
    import types

    if "RENEWALS" in settings:
        return  # the file is ours, or a copy
    renewals = types.ModuleType("mcp_launch_gateway")
    exec(compile(source, "mcp_launch_gateway.py", "exec"), renewals.__dict__)
    own = settings.get("post_fork")
    if isinstance(own, str):
        own = pkgutil.resolve_name(own)

    def post_fork(server, worker):
        if own:
            own(server, worker)
        renewals.post_fork(server, worker)

    settings["post_fork"] = post_fork


