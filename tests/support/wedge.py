"""Makes a running process useless without ending it: stopped, spinning, or asleep for ever (ptrace(2)).

The process goes on from where it is with instructions of ours; x86-64 only.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Callable, Mapping
from typing import Final

_GET_REGISTERS, _SET_REGISTERS, _DETACH, _SEIZE, _INTERRUPT = 12, 13, 17, 0x4206, 0x4207
_REGISTERS: Final = struct.Struct("27Q")  # struct user_regs_struct, sys/user.h
_RDX, _RSI, _RDI, _RAX, _ORIG_RAX, _RIP = 12, 13, 14, 10, 15, 16
_POLL: Final = 7
_NO_RESTART: Final = 2**64 - 1
_SPIN: Final = b"\xeb\xfe"  # jmp to itself
_SYSCALL: Final = b"\x0f\x05"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def stop(pid: int) -> None:
    """SIGSTOP: it gets no CPU time until somebody continues it."""
    os.kill(pid, signal.SIGSTOP)


def spin(pid: int) -> None:
    """It takes all the CPU time it gets, and does nothing with it."""
    _go_on_with(pid, _SPIN, {})


def sleep_for_ever(pid: int) -> None:
    """It waits in poll(2) for nothing, without a time-out."""
    _go_on_with(pid, _SYSCALL + _SPIN, {_RAX: _POLL, _RDI: 0, _RSI: 0, _RDX: 2**64 - 1})


WEDGES: Final[Mapping[str, Callable[[int], None]]] = {
    "stopped": stop,
    "spinning": spin,
    "asleep": sleep_for_ever,
}


def _go_on_with(pid: int, code: bytes, registers: Mapping[int, int]) -> None:
    _ptrace(_SEIZE, pid)
    _ptrace(_INTERRUPT, pid)
    os.waitpid(pid, 0x40000000)  # __WALL
    try:
        buffer = ctypes.create_string_buffer(_REGISTERS.size)
        _ptrace(_GET_REGISTERS, pid, data=ctypes.addressof(buffer))
        values = list(_REGISTERS.unpack(buffer.raw))
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(values[_RIP])
            memory.write(code)
        values[_ORIG_RAX] = _NO_RESTART
        for place, value in registers.items():
            values[place] = value
        buffer.raw = _REGISTERS.pack(*values)
        _ptrace(_SET_REGISTERS, pid, data=ctypes.addressof(buffer))
    finally:
        _ptrace(_DETACH, pid)


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request:#x} of {pid}: {os.strerror(code)}")
