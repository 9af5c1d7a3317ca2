# The other workers of the generation, as the board describes them.


class _Sibling:
    """Another worker: its slot as words, and for how long it has not taken a client that was left to it."""

    __slots__ = ("words", "start", "turn", "silence")

    def __init__(self, words, start):
        self.words, self.start = words, start
        self.turn = self.silence = 0

    def heartbeat(self):
        """When its event loop last ran, in nanoseconds."""
        return struct.unpack_from("=Q", self.words, 8 * _HEARTBEAT)[0]


class _LivingSiblings:
    """The living workers. Which workers live is looked up at most four times a second, and more often before a request
    is refused; the contents of their slots are always current."""

    _AGAIN, _AGAIN_TO_REFUSE = 0.25, 0.01

    def __init__(self, fd, slots, own):
        whole = memoryview(_map)
        starts = range(_SLOT, _SLOT * (slots + 1), _SLOT)
        self._all = [_Sibling(whole[start : start + _SLOT].cast("I"), start) for start in starts if start != own]
        self._fd, self._seen, self._living = fd, 0, ()
        # Whether a worker has more requests than its limit: the others then check the sum before they admit one.
        self.exceeded = whole[4 * _EXCEEDED : 4 * _EXCEEDED + 4].cast("I")

    def ready(self, again=_AGAIN):
        """The workers that take clients: they have started and were not told to leave."""
        now = time.monotonic()
        if now >= self._seen + again:
            self._seen = now
            self._living = [one for one in self._all if one.words[_STATE] == _READY and self._is_owned(one.start)]
        return [one for one in self._living if _takes_clients(one.words)]

    def have_room(self, busy, limit):
        """Whether a worker with this many requests may admit one more, because all workers together have room."""
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
        """Whether a living worker holds the lock on the slot: the contents outlive the worker."""
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
