# What stands above is put there by the launcher.

# The scoreboard: where this worker tells the launcher how it is.

import os
import struct
import sys
import time

# The layout of the board, of which src/guard/scoreboard.rs is the other end. The header and each slot have 32 words, or
# 16 long ones, in the machine's own byte order.
_MAGIC, _VERSION, _SLOT = b"MCPLGRD1", 2, 128
_PID, _STATE, _IN_FLIGHT, _HIGH_WATER, _LAG, _MOST_LAG, _STREAMS, _FLAGS = 0, 1, 6, 7, 12, 13, 14, 15
_CONNECTIONS, _TURNS, _LISTENER, _LIMIT, _SPREAD, _EXEMPT_IN_FLIGHT, _EXPECTED = 16, 17, 18, 19, 22, 23, 26
_CLAIMED, _HEARTBEAT, _SERVED, _REJECTED, _LEAVE_BY, _MOST_REQUESTS = 1, 2, 4, 5, 10, 12
# In the header: the launcher writes there by when all workers are to have left, and over how many milliseconds; and the
# workers whether one of them has more in flight than its limit.
_ALL_LEAVE_BY, _ALL_SPREAD, _EXCEEDED = 3, 8, 9
_STARTING, _READY, _STOPPING = 1, 2, 3
_TRACEBACK_ON_ABORT, _NO_LIFESPAN, _COUNTS_CONNECTIONS = 1, 2, 4
# At the board's end, a word with its length in front: why the app could not be loaded or started.
_TEXT = 1024


def _say(text):
    """Standard error may be closed, or a pipe that is full: a word lost is better than a worker."""
    try:
        sys.stderr.write("mcp-launch guard: worker %d: %s\n" % (os.getpid(), text))
    except (AttributeError, OSError, ValueError):
        pass


def _write_failure(text):
    """Leaves on the board why the app cannot be served. That must not fail in its turn."""
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

    Forked workers inherited it. Spawned ones get it from their parent; and the number may mean something else here.
    """
    for from_parent in (False, True):
        fd = BOARD
        try:
            if from_parent:
                fd = os.open("/proc/%d/fd/%d" % (os.getppid(), BOARD), os.O_RDWR | os.O_CLOEXEC)
            magic, version, slots, _, launcher = struct.unpack("=8sIIII", os.pread(fd, 24, 0))
        except (OSError, struct.error):
            continue
        if (magic, version) == (_MAGIC, _VERSION):
            os.set_inheritable(fd, False)
            return fd, slots, launcher
        if from_parent:
            os.close(fd)
    return None


# The map must stay: closing a descriptor of a file, and it has one, gives up the process's locks on it.
_map = None
# This process's slot, as words.
_slot = None


def _claim_slot():
    """This process's slot, as words and as long words, the launcher's process, and the other workers; none if there is
    no slot.

    It is ours by a record lock, which the kernel takes back when the process ends, however it ends.
    """
    global _map, _slot
    import fcntl
    import mmap

    if BOARD is None or _map is not None:
        return None
    found = _find_board()
    if found is None:
        _say("no scoreboard to be had: it is not seen how this worker is")
        return None
    fd, slots, launcher = found
    for start in range(_SLOT, _SLOT * (slots + 1), _SLOT):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _SLOT, start)
        except OSError:
            continue
        _map = mmap.mmap(fd, 0)
        slot = memoryview(_map)[start : start + _SLOT]
        # Not to be taken for the last owner meanwhile.
        slot.cast("I")[_STATE] = 0
        slot[:] = bytes(_SLOT)
        _slot = words = slot.cast("I")
        longs = slot.cast("Q")
        # Those that were there already were told in their own slots.
        words[_SPREAD] = struct.unpack_from("=I", _map, 4 * _ALL_SPREAD)[0]
        longs[_LEAVE_BY] = struct.unpack_from("=Q", _map, 8 * _ALL_LEAVE_BY)[0]
        return words, longs, launcher, _LivingSiblings(fd, slots, start)
    _say("the scoreboard is full: it is not seen how this worker is")
    return None


def _descriptor_of(inodes):
    """The number here of a socket with one of these inodes; none if there is no such socket, or not yet.

    Nothing is opened or closed for that: closing any descriptor of a file ends the process's locks on it.
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
    """Answers the launcher, which asks for a copy of a worker's listening socket to steer clients by. It names all that
    listen on the port, by their inodes.

    All workers of the generation hear it, and the first one answers. Spawned workers have not inherited the line, and
    the number may mean something else there.
    """
    import socket
    import struct

    try:
        line = socket.socket(fileno=os.dup(LINE))
    except OSError:
        return
    # Whatever the app has made of socket.setdefaulttimeout.
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
    """Has SIGABRT write where the worker is. Whether it does."""
    import faulthandler

    if not faulthandler.is_enabled():
        try:
            faulthandler.enable()
        except (AttributeError, OSError, RuntimeError, ValueError):
            return False
    return True


# The launcher is not poked more often than this, in seconds.
_POKE_PAUSE = 0.004
_poked = 0.0


def _poke():
    """Wakes the launcher, which then looks at the board: who can take clients, and who is to be replaced."""
    global _poked
    if POKE is None:
        return
    _poked = time.monotonic()
    try:
        os.write(POKE, b"\0")
    except OSError:
        pass  # full: it is about to look anyway


def _draw_most_requests():
    """After how many requests this worker is to be replaced; 0 for never."""
    import random

    return MAX_REQUESTS[0] + random.randint(0, MAX_REQUESTS[1]) if MAX_REQUESTS else 0
