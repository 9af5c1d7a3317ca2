# The launcher writes the constants above.

# The scoreboard, through which this worker reports its state to the launcher.

import os
import struct
import sys
import time

# The layout of the board, the same as in src/guard/scoreboard.rs. The header and each slot have 32 words, or 16 long
# words, in the machine's own byte order.
_MAGIC, _VERSION, _SLOT = b"MCPLGRD1", 3, 128
_PID, _STATE, _IN_FLIGHT, _HIGH_WATER, _LAG, _MOST_LAG, _STREAMS, _FLAGS = 0, 1, 6, 7, 12, 13, 14, 15
_CONNECTIONS, _TURNS, _LISTENER, _LIMIT, _SPREAD, _EXEMPT_IN_FLIGHT, _EXPECTED = 16, 17, 18, 19, 22, 23, 26
_STUCK = 31
_CLAIMED, _HEARTBEAT, _SERVED, _REJECTED, _LEAVE_BY, _MOST_REQUESTS = 1, 2, 4, 5, 10, 12
_TIMED, _SQUARES, _LATENCY = 27, 14, 30
# In the header: the launcher writes by when all workers must have left, and over how many milliseconds they close their
# streams; the workers write whether one of them has more requests in flight than its limit.
_ALL_LEAVE_BY, _ALL_SPREAD, _EXCEEDED = 3, 8, 9
# After all slots, for each of them: what has been counted now, and what had been counted about ten seconds ago, each in
# long words: when, requests served and rejected, the sum of their latencies, and how many are in each bucket.
_COUNTS, _LATEST, _EARLIER = 768, 0, 48
_STARTING, _READY, _STOPPING = 1, 2, 3
_TRACEBACK_ON_ABORT, _NO_LIFESPAN, _COUNTS_CONNECTIONS, _WARMING_UP, _MAY_SPIN = 1, 2, 4, 8, 16
# At the end of the board: why the app could not be loaded or started, preceded by the length of that text.
_TEXT = 1024
# The slot of a worker that has ended is not taken for so many nanoseconds if there are others: the launcher may not have
# read yet what that worker left there.
_LEFT_ALONE = 10_000_000_000


def _say(text):
    """Writes to standard error. It may be closed, or a full pipe: a lost message is better than a lost worker."""
    try:
        sys.stderr.write("mcp-launch guard: worker %d: %s\n" % (os.getpid(), text))
    except (AttributeError, OSError, ValueError):
        pass


def _write_failure(text):
    """Writes to the board why the app cannot be served. Must not raise."""
    found = None if BOARD is None else _find_board()
    if found is not None:
        try:
            text = " ".join(text.split()).encode("utf-8", "replace")[: _TEXT - 4]
            os.pwrite(found[0], struct.pack("=I", len(text)) + text, os.fstat(found[0]).st_size - _TEXT)
        except OSError:
            pass


def _brief(error):
    import traceback

    return traceback.format_exception_only(type(error), error)[-1]


def _find_board():
    """The board's descriptor, its number of slots and the launcher's process.

    Forked workers inherited it. In spawned ones the number may belong to another file, and they open their parent's.
    """
    global _is_spawned
    for from_parent in (False, True):
        fd = BOARD
        try:
            if from_parent:
                fd = os.open("/proc/%d/fd/%d" % (os.getppid(), BOARD), os.O_RDWR | os.O_CLOEXEC)
            magic, version, slots, _, launcher = struct.unpack("=8sIIII", os.pread(fd, 24, 0))
        except (OSError, struct.error):
            continue
        if (magic, version) == (_MAGIC, _VERSION):
            _is_spawned = from_parent
            os.set_inheritable(fd, False)
            return fd, slots, launcher
        if from_parent:
            os.close(fd)
    return None


# Kept for ever: closing any descriptor of a file, and the map has one, releases the process's locks on it.
_map = None
# This process's slot, as words, and its index.
_slot, _slot_index = None, 0
# Whether this worker was spawned: it inherited no descriptors, and the numbers may belong to other files.
_is_spawned = False


def _claim_slot():
    """Takes a slot: its words and long words, the long words of its counts, the launcher's process, the other workers,
    and the space for its report. None if there is no slot.

    A record lock makes it ours, which the kernel releases when the process ends, however it ends.
    """
    global _map, _slot, _slot_index
    import fcntl
    import mmap

    if BOARD is None or _map is not None:
        return None
    found = _find_board()
    if found is None:
        _say("no scoreboard to be had: it is not seen how this worker is")
        return None
    fd, slots, launcher = found
    whole = mmap.mmap(fd, 0)
    for start in _in_order_of_preference(whole, slots):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _SLOT, start)
        except OSError:
            continue
        _map = whole
        slot = memoryview(_map)[start : start + _SLOT]
        # So that nobody mistakes us for the previous owner meanwhile.
        slot.cast("I")[_STATE] = 0
        slot[:] = bytes(_SLOT)
        counts_start = _SLOT * (slots + 1) + _COUNTS * (start // _SLOT - 1)
        counts = memoryview(_map)[counts_start : counts_start + _COUNTS]
        counts[:] = bytes(_COUNTS)
        _slot, _slot_index = slot.cast("I"), start // _SLOT - 1
        words = _slot
        longs = slot.cast("Q")
        # The launcher wrote this to the slots of the workers that existed then.
        words[_SPREAD] = struct.unpack_from("=I", _map, 4 * _ALL_SPREAD)[0]
        longs[_LEAVE_BY] = struct.unpack_from("=Q", _map, 8 * _ALL_LEAVE_BY)[0]
        siblings = _LivingSiblings(fd, slots, start)
        return words, longs, counts.cast("Q"), launcher, siblings, _space_of(start, slots)
    _say("the scoreboard is full: it is not seen how this worker is")
    return None


def _in_order_of_preference(board, slots):
    """Where slots begin: first those that nobody has used lately."""
    lately = time.monotonic_ns() - _LEFT_ALONE
    starts = range(_SLOT, _SLOT * (slots + 1), _SLOT)
    return sorted(starts, key=lambda start: struct.unpack_from("=Q", board, start + 8 * _HEARTBEAT)[0] > lately)


def _descriptor_of(inodes):
    """The descriptor in this process of a socket with one of these inodes; None if there is none yet.

    Opens and closes nothing: closing any descriptor of a file releases the process's locks on it.
    """
    import stat

    for name in os.listdir("/proc/self/fd"):
        try:
            found = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode) and found.st_ino in inodes:
            return int(name)
    return None


def _lend_listener(loop, launcher):
    """Answers the launcher when it asks for a copy of a worker's listening socket, which it needs to steer clients.

    The question lists the inodes of all sockets on the port. It reaches all workers of the generation, and the first
    one answers. Spawned workers did not inherit the channel, and there the number may belong to another file.
    """
    import socket
    import struct

    try:
        line = socket.socket(fileno=os.dup(LINE))
    except OSError:
        return
    # The app may have called socket.setdefaulttimeout.
    line.setblocking(False)
    try:
        maker = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if line.family != socket.AF_UNIX or maker != launcher:
            raise OSError
        os.set_inheritable(LINE, False)
    except OSError:
        line.close()
        return

    def answer():
        try:
            inodes = {int(number) for number in line.recv(65536).split()}
            listener = _descriptor_of(inodes)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            loop.remove_reader(line)
            return
        try:
            if listener is None:
                line.send(b"-")
            else:
                socket.send_fds(line, [b"+"], [listener])
        except OSError:
            pass

    loop.add_reader(line, answer)


def _trace_on_abort():
    """Makes SIGABRT print a traceback, and returns whether it does."""
    import faulthandler

    if not faulthandler.is_enabled():
        try:
            faulthandler.enable()
        except (AttributeError, OSError, RuntimeError, ValueError):
            return False
    return True


# The launcher is woken at most this often, in seconds, through this pipe.
_POKE_PAUSE = 0.004
_poked = 0.0
_wakeup = None


def _open_wakeup():
    """Finds the pipe. Spawned workers did not inherit it, and open their parent's."""
    global _wakeup
    if POKE is None:
        return
    try:
        if _is_spawned:
            _wakeup = os.open("/proc/%d/fd/%d" % (os.getppid(), POKE), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:
            os.set_inheritable(POKE, False)
            _wakeup = POKE
    except OSError:
        pass


def _poke():
    """Wakes the launcher, which then reads the board: which workers can take clients, which must be replaced, and which
    limits must change."""
    global _poked
    if _wakeup is None:
        return
    _poked = time.monotonic()
    try:
        os.write(_wakeup, b"\0")
    except OSError:
        pass  # the pipe is full: the launcher is about to look anyway


def _draw_most_requests():
    """The number of requests after which this worker is replaced; 0 for never."""
    import random

    return MAX_REQUESTS[0] + random.randint(0, MAX_REQUESTS[1]) if MAX_REQUESTS else 0
