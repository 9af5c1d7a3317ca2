# Gunicorn: which idle connections the server may close.
#
# A server closes idle connections when their time is up, and when it stops. If its event loop lags, a client may have sent a
# request meanwhile that has not been read yet, and closing then resets the connection: the request is lost. Servers find
# out about both in the same turn of the loop, and uvloop looks at the clock first.

# How often a connection that must not be closed yet is looked at again, in seconds.
_AGAIN = 0.01


def _unread(transport):
    """How many bytes of the client have arrived and have not been read."""
    import fcntl
    import termios

    try:
        descriptor = transport.get_extra_info("socket").fileno()
        return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    except (AttributeError, OSError, TypeError, ValueError):
        return 0


def _spare_askers(kind, loop, patience):
    """Changes a class of protocols, so that a connection is not closed when its client has asked. When the server stops, a
    client that has not asked since it came, or has sent a part of its request, has so many seconds to do so as `patience`
    returns: others serve in this worker's place, so nobody waits for it."""
    for name in ("timeout_keep_alive_handler", "_keepalive_timeout"):
        if callable(getattr(kind, name, None)):
            setattr(kind, name, _unless_asked(getattr(kind, name)))
    if callable(getattr(kind, "shutdown", None)):
        kind.shutdown = _once_asked(kind.shutdown, loop, patience)


def _unless_asked(close):
    def timed_out(protocol):
        # What has arrived is read in this turn of the loop. Gunicorn's own class begins with a request in the next one.
        request = getattr(protocol, "_request_ready", None)
        if not (_unread(protocol.transport) or request is not None and request.is_set()):
            close(protocol)

    return timed_out


def _once_asked(close, loop, patience):
    def shutdown(protocol, until=None):
        now = loop.time()
        if until is None:
            until = now + patience()
        transport, cycle = protocol.transport, getattr(protocol, "cycle", protocol)
        # Before the first request the cycle is none; a protocol of an unknown kind has no cycle.
        is_owed = cycle is None or getattr(cycle, "response_complete", False) and _unread(transport)
        if is_owed and now < until and not (transport is None or transport.is_closing()):
            loop.call_later(_AGAIN, shutdown, protocol, until)
        else:
            close(protocol)

    return shutdown
