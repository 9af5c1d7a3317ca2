# How a worker that leaves ends the event streams of a WSGI app.
#
# The server iterates over the body of a response, and a stream ends when that does. A thread that waits for the app's
# next event cannot be interrupted, so there a stream ends after its next chunk; a greenlet can.


class _StreamEnds(BaseException):
    """Raised in a greenlet that waits for the next event of a stream that must end. Apps do not catch it."""


class _WsgiStreams(set):
    """When event streams must end. For greenlets, it also contains the open ones."""

    def __init__(self):
        super().__init__()
        # The worker's slot.
        self.words, self.longs = _dummy_slot()
        # Functions of the greenlets' package, see `_Timers`.
        self.current = self._in_hub = self._timers = None
        self._looks, self._since = False, None

    def have_greenlets(self, timers):
        self.current, self._in_hub, self._timers = timers.current, timers.in_hub, timers

    def is_due(self, share):
        """Whether the worker leaves, and this share of the time over which its streams end is over."""
        if not self.longs[_LEAVE_BY]:
            self._since = None
            return False
        now, since = time.monotonic(), self._since
        if since is None:
            self._since = since = now
        return now >= since + share * self.words[_SPREAD] / 1000

    def is_overdue(self):
        return time.monotonic_ns() > self.longs[_LEAVE_BY] - _KEPT_BACK * 1e9

    def open(self, headers):
        """A new stream. If the worker is leaving already, it ends at once: the client connects again elsewhere."""
        import random

        encodings = {value.lower() for name, value in headers if name.lower() == "content-encoding"}
        share = 0 if self.longs[_LEAVE_BY] else random.random()
        stream = _WsgiStream(self, share, not encodings <= {"identity"})
        if self._in_hub is not None:
            self.add(stream)
            if not self._looks:
                self._look()
        return stream

    def look(self, now):
        """Called with each heartbeat: notices when the worker begins to leave."""
        self.is_due(0)

    def _look(self):
        """Interrupts greenlets whose streams must end, again and again while a stream is open."""
        self._looks = bool(self)
        for stream in list(self):
            if stream.must_end():
                self._in_hub(stream.interrupt)
        if self._looks:
            self._timers.call_later(_LOOK, self._look)


class _WsgiStream:
    """An open event stream."""

    __slots__ = ("_streams", "_share", "_opaque", "_tail", "_waiting", "passed_on")

    def __init__(self, streams, share, opaque):
        self._streams, self._share, self._waiting = streams, share, None
        # In a compressed stream the end of an event cannot be seen, so each chunk counts as complete.
        self._opaque, self._tail = opaque, b""
        # How many chunks have gone through it.
        self.passed_on = 0

    def must_end(self):
        streams = self._streams
        return streams.is_due(self._share) and (
            self._opaque or _is_between_events(self._tail) or streams.is_overdue()
        )

    def wait_for(self, following):
        """The next chunk of the app's, unless the stream must end before it."""
        if self.must_end():
            raise StopIteration
        current = self._streams.current
        if current is None:
            return following()
        self._waiting = current()
        try:
            return following()
        except _StreamEnds:
            raise StopIteration from None
        finally:
            self._waiting = None

    def interrupt(self):
        """Called where no other greenlet runs, so that the one of this stream still waits if it does now."""
        if self._waiting is not None and self.must_end():
            self._waiting.throw(_StreamEnds)

    def passed(self, chunk):
        self.passed_on += 1
        self._tail = (self._tail + chunk[-4:])[-4:]


class _Chunks:
    """Iterates over the body of a request that is an event stream, or may turn out to be one."""

    __slots__ = ("_request", "_following")

    def __init__(self, request):
        self._request, self._following = request, iter(request.body).__next__

    def __iter__(self):
        return self

    def __next__(self):
        stream = self._request.stream
        try:
            chunk = self._following() if stream is None else stream.wait_for(self._following)
        except _TooManyStreams:
            self._following = iter(()).__next__
            return self._request.refused()
        # An app that is a generator starts its response only now.
        stream = self._request.stream
        if stream is not None:
            stream.passed(chunk)
        return chunk
