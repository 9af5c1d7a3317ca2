# Reading the headers of a response.


class _Known(dict):
    """A function's results, cached for the first few hundred texts."""

    def __init__(self, function):
        self.function = function

    def __missing__(self, text):
        answer = self.function(text)
        if len(self) < 256:
            self[text] = answer
        return answer


def _folded(text):
    """A header's name or value in lower-case bytes; some servers accept strings."""
    if isinstance(text, str):
        text = text.encode("latin-1", "replace")
    return bytes(text).strip().lower() if isinstance(text, (bytes, bytearray, memoryview)) else b""


def _is_content_type(name):
    return _folded(name) == b"content-type"


def _is_event_stream(value):
    return _folded(_folded(value).partition(b";")[0]) == b"text/event-stream"


_CONTENT_TYPE, _EVENT_STREAM = _Known(_is_content_type), _Known(_is_event_stream)


def _examine(message):
    """The start of a response with its headers as a list of pairs, and whether it starts an event stream.

    The headers may be any iterable, perhaps one that can be read only once, and so may each pair (ASGI, HTTP).
    """
    if message.get("headers") is None:
        return message, False
    headers = [tuple(pair) for pair in message["headers"]]
    types = (_is_event_stream(pair[1]) for pair in headers if len(pair) == 2 and _is_content_type(pair[0]))
    return {**message, "headers": headers}, next(types, False)
