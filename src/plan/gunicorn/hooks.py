

def _announce_reload(settings):
    """Calls ``on_reload`` in the main process of a generation that starts next to another one, before ``on_starting``.
    Each generation has its own main process, so the hooks of a start and of an end run once for each; this is how a
    file can distinguish a reload from a start.
    """
    import os
    import pkgutil

    hooks = {name: settings.get(name) for name in ("on_reload", "on_starting")}
    for name, hook in hooks.items():
        if isinstance(hook, str):
            # Gunicorn takes the name of a function, too.
            hooks[name] = pkgutil.resolve_name(hook)
    if not hooks["on_reload"]:
        return

    def is_beside_another():
        """Whether the launcher has other children: a main process, or workers that outlived theirs."""
        launcher = os.getppid()
        try:
            with open("/proc/%d/task/%d/children" % (launcher, launcher)) as children:
                others = [int(child) for child in children.read().split() if int(child) != os.getpid()]
            for other in others:
                with open("/proc/%d/stat" % other, "rb") as status:
                    if status.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                        return True
        except OSError:
            pass
        return False

    def on_starting(server):
        if is_beside_another():
            hooks["on_reload"](server)
        if hooks["on_starting"]:
            hooks["on_starting"](server)

    settings["on_starting"] = on_starting


