# What this worker is doing, when the launcher asks: its threads, its tasks, its open requests. The values of variables
# are never part of it.
#
# Signals have the threads written. The handler of the first is a Python function, which the interpreter calls between two
# instructions, even if the event loop is blocked. The handlers of the others are in C (faulthandler) and need no
# interpreter, one for all threads, one for the main thread. They read the stacks as they are at that moment, and if Python
# is running there, that crashes the process now and then, so the launcher only sends them if the interpreter does not
# react. What else there is to tell, and the threads if they have not been written, is written with the next heartbeat.

from _thread import get_ident as _get_ident

# The layout of the memory for that, the same as in src/guard/stacks.rs: a header, and an area for each slot of the board.
# An area has seven words: the process that takes the signals, the number of the launcher's question, the number of the
# question that was answered, the length of that answer, where the launcher has found the end of the stacks, which signals
# are taken, and the number of the question for which the interpreter has written the threads. Then there is the answer,
# and the threads, in the form in which faulthandler writes them.
_STACKS_MAGIC, _STACKS_VERSION = b"MCPLSTK1", 1
_FIRST_AREA, _AREA, _ANSWER_AT, _DUMP_AT = 1 << 16, 1 << 24, 4096, 1 << 20
_TAKER, _ASKED, _ANSWERED, _LENGTH, _END, _TAKEN, _WRITTEN, _WORDS = 0, 1, 2, 3, 4, 5, 6, 16
# Which signals: for the interpreter, for faulthandler about all threads, and about the main thread; and whether the
# heartbeat has a thread of its own.
_FOR_PYTHON, _FOR_ALL, _FOR_MAIN, _BEATS_IN_THREAD = 1, 2, 4, 8

# How many threads the interpreter writes, and how many frames of each, the same as faulthandler.
_MOST_THREADS, _MOST_THREAD_FRAMES = 100, 100
# How many different stacks are shown, how many requests, the oldest, how many names for one stack, and how many names of
# threads.
_SHOWN_STACKS, _SHOWN_REQUESTS, _SHOWN_NAMES, _SHOWN_THREADS = 50, 100, 8, 1000
# For how long tasks are looked at, in nanoseconds: the event loop waits meanwhile.
_TIME_FOR_TASKS = 50_000_000


class _Inquiries:
    """The launcher's questions, and this worker's answers."""

    def __init__(self, worker, beats_in_thread):
        import mmap

        self._worker, self._answered, self._written, self._is_used = worker, 0, 0, False
        descriptor, *signals = STACKS
        # With a position of its own, and without what another worker has there.
        holder = os.getppid() if _is_spawned else "self"
        self._file = os.open("/proc/%s/fd/%d" % (holder, descriptor), os.O_RDWR | os.O_CLOEXEC)
        self._area = _FIRST_AREA + _AREA * _slot_index
        if struct.unpack("=8sI", os.pread(self._file, 12, 0)) != (_STACKS_MAGIC, _STACKS_VERSION):
            raise ValueError("the memory for stacks looks different")
        self._words = memoryview(mmap.mmap(self._file, 4 * _WORDS, offset=self._area)).cast("I")
        for word in range(_WORDS):
            self._words[word] = 0
        self._rewind()
        takers = (_FOR_PYTHON, self._interpret), (_FOR_ALL, self._dump_all), (_FOR_MAIN, self._dump_main)
        taken = sum(bit for (bit, take), signal in zip(takers, signals) if self._is_free(signal) and take(signal))
        if taken:
            self._words[_TAKEN] = taken | (_BEATS_IN_THREAD if beats_in_thread else 0)
            self._words[_TAKER] = os.getpid()

    @staticmethod
    def _is_free(signal):
        is_free = not _is_caught(signal)
        if not is_free:
            _say("signal %d is taken: `mcp-launch stacks` does not see this worker when it is blocked" % signal)
        return is_free

    def _interpret(self, number):
        """Has the interpreter take this signal. Returns whether it does."""
        import signal

        try:
            signal.signal(number, lambda _, frame: self._write_threads(frame))
            # System calls go on, as with faulthandler's handler.
            signal.siginterrupt(number, False)
        except ValueError:
            return False  # this is not the main thread
        return True

    def _dump_all(self, number, all_threads=True):
        import faulthandler

        faulthandler.register(number, file=self._file, all_threads=all_threads, chain=False)
        return True

    def _dump_main(self, number):
        return self._dump_all(number, all_threads=False)

    def _write_threads(self, main_frame=None):
        """Writes where the threads are, if that has not been done since the last question. `main_frame` is what a signal
        has interrupted."""
        try:
            asked = self._words[_ASKED]
            if asked == self._written:
                return
            self._written = asked
            os.write(self._file, _threads_here(main_frame))
            self._words[_WRITTEN] = asked
        except Exception:
            pass  # this may be anywhere in the app's code, at the end of the stack or of the memory

    def _rewind(self):
        os.lseek(self._file, self._area + _DUMP_AT, os.SEEK_SET)
        self._words[_END] = 0

    def look(self, now):
        """Called with each heartbeat."""
        asked = self._words[_ASKED]
        if asked != self._answered:
            self._answered, self._is_used = asked, True
            self._write_threads()
            try:
                text = _what_is_done(self._worker)
            except Exception as error:
                text = _as_json({"problem": _brief(error).strip()})
            os.pwrite(self._file, text, self._area + _ANSWER_AT)
            self._words[_LENGTH], self._words[_ANSWERED] = len(text), asked
            _poke()
        elif self._is_used:
            # Not earlier: a thread may have been writing.
            self._is_used = False
            self._rewind()


def _threads_here(main_frame):
    """Where all threads are, in faulthandler's form, the main thread last."""
    current, main = _get_ident(), sys.modules.get("threading")
    main = current if main is None else main.main_thread().ident
    frames = sys._current_frames()
    if main_frame is not None:
        frames[current] = main_frame
    order = [ident for ident in frames if ident != main][: _MOST_THREADS - 1] + [main]
    lines = []
    for ident in order:
        head = "Current thread" if ident == current else "Thread"
        lines.append("%s 0x%016x (most recent call first):" % (head, ident))
        frame, left = frames.get(ident), _MOST_THREAD_FRAMES
        while frame is not None and left:
            place = frame.f_code.co_filename[:500], frame.f_lineno or 0, frame.f_code.co_name[:500]
            lines.append('  File "%s", line %d in %s' % place)
            frame, left = frame.f_back, left - 1
        if frame is not None:
            lines.append("  ...")
    if len(order) < len(frames):
        lines.append("...")
    return ("\n".join(lines) + "\n").encode("ascii", "backslashreplace")


def _is_caught(signal):
    """Whether this process has a handler for a signal, in Python or not, or ignores it."""
    with open("/proc/self/status", "rb") as file:
        lines = file.read().splitlines()
    sets = [line.split()[1] for line in lines if line.startswith((b"SigCgt:", b"SigIgn:"))]
    return any(int(found, 16) >> (signal - 1) & 1 for found in sets)


def _as_json(value):
    import json

    return json.dumps(value, separators=(",", ":")).encode()


def _what_is_done(worker):
    """What the interpreter knows, as JSON."""
    threading = sys.modules.get("threading")
    # Not `enumerate`, which waits for a lock.
    threads = list(getattr(threading, "_active", {}).items())[:_SHOWN_THREADS]
    found = {"names": {"%x" % ident: _name(thread.name) for ident, thread in threads if isinstance(ident, int)}}
    tasks, stacks = _tasks_here(), _Found(worker.code_of_app)
    if tasks is not None:
        stacks.look_at_tasks(tasks)
        found["tasks"], found["not_looked_at"] = len(tasks), len(tasks) - stacks.looked
    else:
        stacks.look_at_requests(worker.open_requests.all())
        if stacks.looked:
            found["tasks"] = stacks.looked
    while True:
        text = _as_json({**found, **stacks.described()})
        if len(text) <= _DUMP_AT - _ANSWER_AT or not stacks.shown:
            return text
        stacks.shown //= 2


def _tasks_here():
    """The tasks of the event loop that runs in this thread; None if there is none."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio and asyncio.all_tasks()
    except RuntimeError:
        return None


class _Found:
    """The stacks of tasks, each different one once, and the open requests in them."""

    def __init__(self, code_of_app):
        self._code, self._stacks, self.requests, self.looked = code_of_app, {}, [], 0
        self.shown = _SHOWN_STACKS

    def look_at_tasks(self, tasks):
        until = time.monotonic_ns() + _TIME_FOR_TASKS
        for task in tasks:
            if self.looked % 16 == 15 and time.monotonic_ns() > until:
                return
            self.looked += 1
            frames = _chain(task.get_coro())
            self._find_request(frames, task)
            self._add(frames, task)

    def look_at_requests(self, requests):
        """Those of WSGI."""
        for request in requests:
            whose = request[_WHOSE]
            if not isinstance(whose, int):
                self.looked += 1
                frames, whose = _frames_from(whose.gr_frame), _Greenlet(whose)
                self._add(frames, whose)
            self.requests.append((request[_SINCE], request[_METHOD], _path(request), whose))

    def _add(self, frames, task):
        seen = tuple((frame.f_code, frame.f_lineno) for frame in frames[-_MOST_FRAMES:])
        self._stacks.setdefault(seen, [len(frames) - len(seen), []])[1].append(task)

    def _find_request(self, frames, task):
        """Adds the request that these frames of a task belong to, if they do."""
        frame = next((frame for frame in frames if frame.f_code is self._code), None)
        if frame is not None:
            values = frame.f_locals
            scope = values["scope"]
            if "path" in scope:
                method = scope.get("method", "websocket")
                self.requests.append((values.get("since"), method, scope["path"], task))

    def described(self):
        order = lambda entry: (-len(entry[1][1]), _name_of(entry[1][1][0]))
        stacks = sorted(self._stacks.items(), key=order)
        now = time.perf_counter()
        requests = sorted(self.requests, key=lambda request: request[0] or now)
        return {
            "stacks": [_described(seen, *same) for seen, same in stacks[: self.shown]],
            "stacks_left_out": max(len(stacks) - self.shown, 0),
            "requests": [_request(now, *request) for request in requests[:_SHOWN_REQUESTS]],
            "requests_left_out": max(len(requests) - _SHOWN_REQUESTS, 0),
        }


class _Greenlet:
    """A greenlet, with a name as tasks have one."""

    __slots__ = ("_greenlet",)

    def __init__(self, greenlet):
        self._greenlet = greenlet

    def get_name(self):
        return "greenlet %x" % id(self._greenlet)


def _described(seen, left_out, tasks):
    waits_for = list(_tasks_in(getattr(tasks[0], "_fut_waiter", None)))[:_SHOWN_NAMES]
    return {
        "count": len(tasks),
        "names": [_name_of(task) for task in tasks[:_SHOWN_NAMES]],
        "waits_for": [_name_of(task) for task in waits_for],
        "frames": [_frame(code, line) for code, line in seen],
        "left_out": left_out,
    }


def _frame(code, line):
    return {
        "file": _clean(code.co_filename),
        "line": line or 0,
        "function": _clean(getattr(code, "co_qualname", code.co_name)),
    }


def _request(now, since, method, path, whose):
    """An open request."""
    age = None if since is None else round(now - since, 3)
    where = {"thread": "0x%016x" % whose} if isinstance(whose, int) else {"task": _name_of(whose)}
    return {"method": _clean(method), "path": _without_tokens(path), "age_seconds": age, **where}


def _clean(text):
    """A text as it can be part of JSON that everybody reads."""
    return str(text)[:500].encode("utf-8", "backslashreplace").decode()


def _name_of(task):
    return _name(getattr(task, "get_name", str)())


def _name(text):
    """The name of a task or thread, without pieces that may be secrets."""
    import re

    secret = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"
    return _clean(re.sub(secret, "...", str(text)[:1000])[:200])
