

def _tend_sockets(settings, public, mode, are_passed):
    """Shows hooks and the log only the sockets that clients know: the first ``public`` of those that the launcher passes
    on. One that follows is for its probes. Workers listen on it all the same.

    A Unix socket from the launcher gets the mode and the owner that Gunicorn would have given it, or ``mode``. One that
    was passed to the launcher keeps both.
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
            pass  # made for a predecessor, under a name that no longer exists
        except OSError as error:
            log.warning("the mode or the owner of the socket %s cannot be set: %s", path, error)

    def create_sockets(conf, log, fds=None):
        listeners = create(conf, log, fds)
        if fds and public is not None:
            hidden.extend(listeners[public:])
            del listeners[public:]
        if are_passed or not fds and mode is None:
            return listeners  # the launcher has not made them
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


