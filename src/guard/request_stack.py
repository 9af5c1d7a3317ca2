# Where a request is: the stacks of its coroutine and of the tasks that it waits for, or of its thread. The values of
# variables are never part of it.

# Of each stack, this many frames are shown: the innermost.
_MOST_FRAMES = 50
# How far a chain of coroutines is followed, and how many tasks are shown.
_MOST_LINKS, _MOST_TASKS = 20000, 8

# How a coroutine, a generator and an asynchronous generator name their frame and what they wait for.
_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def _format(frames):
    """The frames as in a traceback, the innermost last."""
    import traceback

    left_out = max(len(frames) - _MOST_FRAMES, 0)
    text = "  [%d frames left out]\n" % left_out if left_out else ""
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames[left_out:])
    return text + "".join(summary.format())


def _chain(waiting):
    """The frames of a suspended coroutine, the innermost last."""
    frames = []
    for _ in range(_MOST_LINKS):
        names = next((names for names in _LINKS if getattr(waiting, names[0], None) is not None), None)
        if names is None:
            break
        frames.append(getattr(waiting, names[0]))
        waiting = getattr(waiting, names[1])
    return frames


def _tasks_in(value):
    """The tasks that a value is, contains, or has started as a task group."""
    import asyncio

    tasks = getattr(value, "_tasks", None) or getattr(value, "_children", None)
    for candidates in (value, tasks):
        if isinstance(candidates, asyncio.Task):
            yield candidates
        elif isinstance(candidates, (set, frozenset, list, tuple, dict)) and len(candidates) < 1000:
            yield from (task for task in list(candidates) if isinstance(task, asyncio.Task))


def _stack_of_coroutine(coroutine, task):
    """The stack of a suspended coroutine, and those of the tasks that it waits for.

    An app may leave its work to other tasks (`gather`, task groups, middleware). Nothing says which: they are found in
    what the coroutine waits for, and in the variables of its frames.
    """
    pieces, known = [], {task}
    left = [(task, coroutine)]
    while left:
        waiting, coroutine = left.pop(0)
        frames = _chain(coroutine)
        if waiting is not task:
            pieces.append("  waiting for the task %s:\n" % ascii(waiting.get_name()))
        pieces.append(_format(frames))
        values = [value for frame in frames[-_MOST_FRAMES:] for value in list(frame.f_locals.values())]
        for value in [getattr(waiting, "_fut_waiter", None), *values]:
            try:
                found = [other for other in _tasks_in(value) if other not in known and not other.done()]
            except Exception:
                continue  # an object of the app that does not like to be looked at
            for other in found[: _MOST_TASKS - len(known)]:
                known.add(other)
                left.append((other, other.get_coro()))
    return "".join(pieces)


def _frames_from(frame):
    """The frames of a thread or greenlet whose innermost frame this is, that one last."""
    frames = []
    while frame is not None and len(frames) < _MOST_LINKS:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _stack_of_frame(frame):
    """The stack of a thread or greenlet whose innermost frame this is."""
    return _format(_frames_from(frame))
