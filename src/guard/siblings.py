# The other workers of the generation, as they describe themselves on the board.


class _Sibling:
    """Another worker: its slot as words, and how long it has been waited for in vain, at which of its turns."""

    __slots__ = ("words", "start", "turn", "silence")

    def __init__(self, words, start):
        self.words, self.start = words, start
        self.turn = self.silence = 0


class _LivingSiblings:
    """The workers that live. Which ones these are is looked up four times a second, if anybody asks, and more often
    before a request is refused; what their slots say is always as it is now."""

    _AGAIN, _AGAIN_TO_REFUSE = 0.25, 0.01

    def __init__(self, fd, slots, own):
        whole = memoryview(_map)
        starts = range(_SLOT, _SLOT * (slots + 1), _SLOT)
        self._all = [_Sibling(whole[start : start + _SLOT].cast("I"), start) for start in starts if start != own]
        self._fd, self._seen, self._living = fd, 0, ()
        # Whether a worker has more requests than its limit: then the others ask before they let one in.
        self.exceeded = whole[4 * _EXCEEDED : 4 * _EXCEEDED + 4].cast("I")

    def ready(self, again=_AGAIN):
        """Those that take clients: they have started, and have not been told to leave."""
        now = time.monotonic()
        if now >= self._seen + again:
            self._seen = now
            self._living = [one for one in self._all if one.words[_STATE] == _READY and self._is_owned(one.start)]
        return [one for one in self._living if _takes_clients(one.words)]

    def have_room(self, busy, limit):
        """Whether a worker that has this many requests may have one more: all together have fewer than they may."""
        return self._have_room(busy, limit, self._AGAIN) or self._have_room(busy, limit, self._AGAIN_TO_REFUSE)

    def _have_room(self, busy, limit, again):
        taken, capacity, exceeded = busy, limit, busy >= limit
        for sibling in self.ready(again):
            there, most = sibling.words[_IN_FLIGHT], sibling.words[_LIMIT]
            taken += there
            capacity += most
            exceeded = exceeded or there > most
        if taken >= capacity:
            return False
        self.exceeded[0] = exceeded
        return True

    def _is_owned(self, start):
        """Whether its worker has its lock on the slot: what it wrote stays there when it dies."""
        import fcntl

        # struct flock: type, whence, start, length, process.
        asked = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, start, _SLOT, 0)
        try:
            return struct.unpack_from("h", fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK
        except (OSError, struct.error):
            return True


def _takes_clients(words):
    """Whether the worker of a slot has started, and has not been told to leave."""
    return words[_STATE] == _READY and not (words[2 * _LEAVE_BY] or words[2 * _LEAVE_BY + 1])
