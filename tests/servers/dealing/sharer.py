"""Another program that has a server's listening socket and accepts clients from it: `sharer.py PID PORT`.

It answers each client with its own process number, as the app does at /pid, and writes a line for each. It ends when
standard input does.
"""

import ctypes
import os
import select
import socket
import sys

PIDFD_OPEN, PIDFD_GETFD = 434, 438


def shared(pid, port):
    """A copy of the socket on which this process listens at the port."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    process = call(PIDFD_OPEN, pid, 0)
    for name in os.listdir("/proc/%d/fd" % pid):
        copy = call(PIDFD_GETFD, process, int(name), 0)
        try:
            found = socket.socket(fileno=copy)
        except OSError:
            continue  # no socket
        is_tcp = found.family == socket.AF_INET and found.type == socket.SOCK_STREAM
        if is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == port:
            return found
    sys.exit("process %d does not listen at port %d" % (pid, port))


listener = shared(int(sys.argv[1]), int(sys.argv[2]))
# As all who share it have made it: that belongs to the socket and not to the descriptor.
listener.setblocking(False)
print("shared", flush=True)
body = b'{"pid": %d}' % os.getpid()
head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        continue
    client.setblocking(True)
    text = b""
    while b"\r\n\r\n" not in text:
        text += client.recv(4096)
    client.sendall(head + body)
    client.close()
    print("served", flush=True)
