

def _know_successors(settings, channel):
    """Makes the main process start no worker in place of one that has a successor already.

    To replace a worker, the launcher first has another one started (SIGTTIN), and writes the process number of the one
    that leaves to a pipe. When that worker has ended, the number of workers is again what it was. SIGTTOU could not do
    this: it ends the oldest worker, whichever that is. Then comes the user's own hook.
    """
    import os
    import pkgutil
    import struct

    hook = settings.get("child_exit")
    if isinstance(hook, str):
        # Gunicorn takes the name of a function, too.
        hook = pkgutil.resolve_name(hook)
    try:
        os.set_inheritable(channel, False)
    except OSError:
        return  # it is not there if somebody only looks at the configuration
    leaving = set()

    def child_exit(server, worker):
        try:
            while text := os.read(channel, 4096):
                leaving.update(struct.unpack("=%di" % (len(text) // 4), text))
        except OSError:
            pass  # that was all
        # Not only this worker: one may have ended before it was known that it has a successor.
        for gone in leaving.difference(server.WORKERS):
            leaving.remove(gone)
            server.num_workers -= 1
        if hook:
            hook(server, worker)

    settings["child_exit"] = child_exit


