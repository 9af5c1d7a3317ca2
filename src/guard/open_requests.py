# The requests that a worker handles at this moment.

from itertools import islice as _islice

# What is known of each, in a list, because nothing else is as fast: its method, its path, when it began (`perf_counter`),
# its task (ASGI), its greenlet or the number of its thread (WSGI); whether it may take as long as it wants, because its
# response is complete or an event stream; and its `_Late`, if it took longer than its time limit.
_METHOD, _PATH, _SINCE, _WHOSE, _UNLIMITED, _LATE = range(6)
# For ASGI also what its task awaits, its state and what belongs to that, see `_guard_asgi`.
_AWAITED, _ROLE, _IS_EXEMPT, _SCOPE, _SEND, _PEERS, _NUMBER = range(6, 13)


class _OpenRequests:
    """The open requests, by keys that can be anything. Each is in the dictionary that was the `newest` when it began. With
    each heartbeat there is a new one, and `latest` is the one before. WSGI's event streams are in `streams` instead."""

    def __init__(self):
        self.newest, self.latest, self.streams = {}, {}, {}
        # Those before it, the oldest first, each with the time by which its requests had begun.
        self._older = []

    def beat(self, now):
        older = [pair for pair in self._older if pair[1]]
        self.latest, self.newest = self.newest, {}
        if self.latest:
            older.append((now, self.latest))
        self._older = older

    def all(self):
        """What is known of each."""
        requests = [*(requests for _, requests in self._older), self.newest, self.streams]
        return [request for these in requests for request in list(these.values())]

    def lines(self, room):
        """The oldest ones, a line for each: when it began, its method and its path."""
        text = b""
        for began, requests in self._older:
            for request in list(_islice(requests.values(), room // 8)):
                method, path = ascii(request[_METHOD])[1:-1][:20], _without_tokens(_path(request))
                line = b"%d %s %s\n" % (began, method.encode(), path.encode())
                if len(text) + len(line) > room:
                    return text
                text += line
        return text


def _path(request):
    """The path of an open request. WSGI has its bytes as Latin-1."""
    path = request[_PATH]
    return path if len(request) > _AWAITED else path.encode("latin-1", "replace")
