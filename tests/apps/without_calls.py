"""Runs a program without some system calls: `without_calls.py NUMBER,... PROGRAM ARGS...`.

A seccomp filter answers them with ENOSYS, as an old kernel does. With `NUMBER/VALUE`, a call is only refused if that is
its third argument, and then with EPERM, as a container's profile does.
"""

import ctypes
import os
import struct
import sys

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ENOSYS, EPERM = 0x7FFF0000, 0x00050000 | 38, 0x00050000 | 1
SET_NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
# Offsets in struct seccomp_data: the number of the call, and the low half of its third argument.
NUMBER, THIRD = 0, 32 + (4 if sys.byteorder == "big" else 0)


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, value)


def refusal(call):
    """The instructions that refuse one call."""
    number, _, third = call.partition("/")
    if not third:
        return instruction(EQUAL, int(number), 0, 1) + instruction(RETURN, ENOSYS)
    check = instruction(LOAD, THIRD) + instruction(EQUAL, int(third), 0, 1) + instruction(RETURN, EPERM)
    return instruction(EQUAL, int(number), 0, 4) + check + instruction(LOAD, NUMBER)


def refuse(calls):
    """Installs the filter, which every descendant has as well."""
    code = instruction(LOAD, NUMBER) + b"".join(map(refusal, calls)) + instruction(RETURN, ALLOW)
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer := ctypes.create_string_buffer(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((SET_NO_NEW_PRIVS, 1, 0, 0, 0), (SET_SECCOMP, FILTER, ctypes.create_string_buffer(program))):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    return buffer


kept = refuse(sys.argv[1].split(","))
os.execvp(sys.argv[2], sys.argv[2:])
