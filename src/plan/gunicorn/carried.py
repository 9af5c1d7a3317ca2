"""Gunicorn's configuration as mcp-launch hands it on, made for one start of the server."""


def _leave_no_trace():
    """Removes the path entry that this module came by: neither the app nor what it starts shall see it."""
    import os
    import sys

    entry = os.path.dirname(__file__)
    first, _, rest = os.environ.get("PYTHONPATH", "").partition(os.pathsep)
    if first == entry:
        if rest:
            os.environ["PYTHONPATH"] = rest
        else:
            del os.environ["PYTHONPATH"]
    sys.path[:] = [other for other in sys.path if other != entry]
    sys.path_importer_cache.pop(entry, None)


_leave_no_trace()
