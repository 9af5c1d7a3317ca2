"""Runs a program under a kernel that does not know some system calls: `without_calls.py NUMBER,... PROGRAM ARGS...`.

A seccomp filter answers them with ENOSYS, as an old kernel does.
"""

import ctypes
import os
import struct
import sys

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ENOSYS = 0x7FFF0000, 0x00050000 | 38
SET_NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, value)


def refuse(numbers):
    """Installs the filter, which every descendant has as well."""
    code = instruction(LOAD, 0)
    for number in numbers:
        code += instruction(EQUAL, number, 0, 1) + instruction(RETURN, ENOSYS)
    code += instruction(RETURN, ALLOW)
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer := ctypes.create_string_buffer(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((SET_NO_NEW_PRIVS, 1, 0, 0, 0), (SET_SECCOMP, FILTER, ctypes.create_string_buffer(program))):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    return buffer


kept = refuse([int(number) for number in sys.argv[1].split(",")])
os.execvp(sys.argv[2], sys.argv[2:])
