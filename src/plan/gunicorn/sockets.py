

def _tend_sockets(settings, private, mode):
    """Has hooks and the log see the sockets that clients know, and nothing else. One of those that the launcher hands
    down is private; ``private`` is its place among them. Workers listen on it all the same.

    A Unix socket that the launcher has made gets the mode and the owner that Gunicorn would have given it, or ``mode``.
    """
    import os
    import pkgutil
    import socket

    from gunicorn import sock as sockets

    create = sockets.create_sockets
    own = settings.get("post_fork")
    if isinstance(own, str):
        # Gunicorn takes the name of a function, too.
        own = pkgutil.resolve_name(own)
    hidden = []

    def set_permissions(listener, conf, log):
        path = listener.getsockname()
        try:
            os.chmod(path, 0o777 & ~conf.umask if mode is None else mode)
            if (conf.uid, conf.gid) != (os.geteuid(), os.getegid()):
                os.chown(path, conf.uid, conf.gid)
        except FileNotFoundError:
            pass  # made for a predecessor, under the name that it has no more
        except OSError as error:
            log.warning("the mode or the owner of the socket %s cannot be set: %s", path, error)

    def create_sockets(conf, log, fds=None):
        listeners = create(conf, log, fds)
        if fds and private is not None:
            hidden.append(listeners.pop(private))
        if not fds and mode is None:
            return listeners  # Gunicorn has made them
        for listener in listeners:
            if listener.family == socket.AF_UNIX and listener.getsockname():
                set_permissions(listener, conf, log)
        return listeners

    def post_fork(server, worker):
        if own:
            own(server, worker)
        worker.sockets = [*worker.sockets, *hidden]

    sockets.create_sockets = create_sockets
    settings["post_fork"] = post_fork


