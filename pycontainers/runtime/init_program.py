"""The program of ``--init``: process 1 of a container, which forwards signals to the command and reaps whoever dies without a parent.

Process 1 ignores signals that it has no handler for, and inherits every orphan (pid_namespaces(7)): a command that was not written
for that neither ends on SIGTERM nor waits for strangers. Docker ships a compiled tini; here the program, about 1 KB, is put together
from a list of instructions, once for each architecture: there is nothing to compile, to download or to link, and it runs in an image
that has nothing but one static file.
"""

from __future__ import annotations

import os

from ..errors import IsolationError
from ..linux import files
from ..linux.assembler import DATA, TARGETS, Assembler, elf, text_address

_FULL, _EMPTY, _STATUS, _GROUP, _PATH = (DATA + offset for offset in (0, 8, 16, 24, 64))
_FOLDER_END, _PATH_END = _PATH + 4096, _PATH + 8192  # PATH_MAX each for a folder and a name
_MEMORY = 64 + 8192 + 64
_SIGCHLD, _SIG_SETMASK, _WNOHANG, _TIOCSPGRP = 17, 2, 1, 0x5410
_ENOENT, _EACCES, _ENOTDIR = -2, -13, -20
_NOT_FOUND = b"docker-init: the command is not in the image\n"
_NOT_EXECUTABLE = b"docker-init: the command cannot be executed\n"
#: registers of the program
_WORDS, _ENV, _CHILD, _CODE, _AT, _TO, _CHAR, _NAME = range(8)


def path(home: str) -> str:
    """Where it lies on this machine; written when it is not there as it should be. :raises IsolationError: no such architecture."""
    machine = os.uname().machine
    if machine not in TARGETS:
        raise IsolationError(f"--init has no program for {machine}", f"it has one for {' and '.join(TARGETS)}")
    wanted = build(machine)
    folder = f"{home}/init"
    place = f"{folder}/docker-init"
    try:
        with open(place, "rb") as file:
            if file.read() == wanted:
                return place
    except FileNotFoundError:
        os.makedirs(folder, mode=0o711, exist_ok=True)
    files.replace(place, wanted, 0o755)
    return place


def build(machine: str) -> bytes:
    """The whole ELF file. ``machine``: as uname(2) names it."""
    target = TARGETS[machine]
    asm = Assembler(target)
    first = text_address()
    _write_program(asm, first, first + len(_NOT_FOUND))
    return elf(target.machine, asm.finished(), _NOT_FOUND + _NOT_EXECUTABLE, _MEMORY)


def _write_program(asm: Assembler, not_found: int, not_executable: int) -> None:
    """Given the addresses of the two texts."""
    # argc, the words, NULL, the environment, NULL (the kernel's layout of a new stack)
    asm.from_stack(_WORDS)
    asm.add(_WORDS, 8)
    asm.copy(_ENV, _WORDS)
    asm.label("environment")
    asm.load(_AT, _ENV)
    asm.add(_ENV, 8)
    asm.jump_if(_AT, "!=", 0, "environment")
    asm.add(_WORDS, 8)  # its own name
    _skip_dashes(asm)
    asm.set(_AT, _FULL)
    asm.set(_CHAR, -1)
    asm.store(_CHAR, _AT)
    # Everything blocked, nothing handled: signals are taken one at a time. Those to process 1 are kept when blocked (signal(7)).
    asm.call("rt_sigprocmask", _SIG_SETMASK, _FULL, 0, 8)
    asm.call("clone", _SIGCHLD, 0, 0, 0, to=_CHILD)
    asm.jump_if(_CHILD, "==", 0, "child")
    asm.jump_if(_CHILD, "<", 0, "not executable")
    _parent(asm)
    asm.label("child")
    # A group of its own, in the foreground where there is a terminal: ^C is the command's, not ours.
    asm.call("setpgid", 0, 0)
    asm.call("getpid", to=_CHAR)
    asm.set(_AT, _GROUP)
    asm.store(_CHAR, _AT)
    asm.call("ioctl", 0, _TIOCSPGRP, _GROUP)
    asm.call("rt_sigprocmask", _SIG_SETMASK, _EMPTY, 0, 8)
    _execute(asm)
    for name, code, address, text in (
        ("not found", 127, not_found, _NOT_FOUND),
        ("not executable", 126, not_executable, _NOT_EXECUTABLE),
    ):
        asm.label(name)
        asm.call("write", 2, address, len(text))
        asm.call("exit_group", code)


def _skip_dashes(asm: Assembler) -> None:
    asm.load(_AT, _WORDS)
    asm.jump_if(_AT, "==", 0, "not found")
    for place, char in enumerate(b"--\0"):
        asm.load(_CHAR, _AT, place, 1)
        asm.jump_if(_CHAR, "!=", char, "words")
    asm.add(_WORDS, 8)
    asm.load(_AT, _WORDS)
    asm.jump_if(_AT, "==", 0, "not found")
    asm.label("words")


def _parent(asm: Assembler) -> None:
    asm.set(_CODE, -1)
    asm.label("wait")
    asm.call("rt_sigtimedwait", _FULL, 0, 0, 8, to=_CHAR)
    asm.jump_if(_CHAR, "<", 0, "wait")
    asm.jump_if(_CHAR, "==", _SIGCHLD, "reap")
    asm.call("kill", (_CHILD,), (_CHAR,))
    asm.jump("wait")
    asm.label("reap")  # one SIGCHLD may stand for several
    asm.call("wait4", -1, _STATUS, _WNOHANG, 0, to=_AT)
    asm.jump_if(_AT, "<=", 0, "reaped")
    asm.jump_if(_AT, "!=", (_CHILD,), "reap")
    asm.set(_AT, _STATUS)
    asm.load(_CODE, _AT, 0, 4)
    asm.copy(_CHAR, _CODE)
    asm.mask(_CHAR, 0x7F)
    asm.jump_if(_CHAR, "!=", 0, "signalled")
    asm.shift(_CODE, 8)
    asm.mask(_CODE, 0xFF)
    asm.jump("reap")
    asm.label("signalled")
    asm.copy(_CODE, _CHAR)
    asm.add(_CODE, 128)
    asm.jump("reap")
    asm.label("reaped")
    asm.jump_if(_CODE, "<", 0, "wait")
    asm.call("exit_group", (_CODE,))


def _execute(asm: Assembler) -> None:
    """execve, looking for a plain name in PATH as execvp(3) does."""
    asm.load(_AT, _WORDS)
    asm.label("slash")
    asm.load(_CHAR, _AT, 0, 1)
    asm.add(_AT, 1)
    asm.jump_if(_CHAR, "==", 0, "search")
    asm.jump_if(_CHAR, "!=", ord("/"), "slash")
    asm.load(_AT, _WORDS)
    asm.call("execve", (_AT,), (_WORDS,), (_ENV,), to=_CHAR)
    asm.jump_if(_CHAR, "==", _ENOENT, "not found")
    asm.jump_if(_CHAR, "==", _ENOTDIR, "not found")
    asm.jump("not executable")
    asm.label("search")
    asm.copy(_CHILD, _ENV)  # no longer needed for the child's number, which is 0 here
    asm.set(_CODE, 0)
    asm.label("variable")
    asm.load(_AT, _CHILD)
    asm.add(_CHILD, 8)
    asm.jump_if(_AT, "==", 0, "not found")
    for place, char in enumerate(b"PATH="):
        asm.load(_CHAR, _AT, place, 1)
        asm.jump_if(_CHAR, "!=", char, "variable")
    asm.add(_AT, 5)
    asm.label("folder")
    asm.set(_TO, _PATH)
    asm.label("letter")
    asm.load(_CHAR, _AT, 0, 1)
    asm.add(_AT, 1)
    asm.jump_if(_CHAR, "==", 0, "folder ends")
    asm.jump_if(_CHAR, "==", ord(":"), "folder ends")
    asm.store(_CHAR, _TO, 0, 1)
    asm.add(_TO, 1)
    asm.jump_if(_TO, "<", _FOLDER_END, "letter")
    asm.jump("not found")
    asm.label("folder ends")
    asm.copy(_CHILD, _CHAR)  # 0 after the last one
    asm.jump_if(_TO, "!=", _PATH, "named")
    asm.set(_CHAR, ord("."))  # an empty one is the working directory
    asm.store(_CHAR, _TO, 0, 1)
    asm.add(_TO, 1)
    asm.label("named")
    asm.set(_CHAR, ord("/"))
    asm.store(_CHAR, _TO, 0, 1)
    asm.add(_TO, 1)
    asm.load(_NAME, _WORDS)
    asm.label("name")
    asm.load(_CHAR, _NAME, 0, 1)
    asm.add(_NAME, 1)
    asm.store(_CHAR, _TO, 0, 1)
    asm.add(_TO, 1)
    asm.jump_if(_TO, ">=", _PATH_END, "not found")
    asm.jump_if(_CHAR, "!=", 0, "name")
    asm.set(_TO, _PATH)
    asm.call("execve", (_TO,), (_WORDS,), (_ENV,), to=_CHAR)
    asm.jump_if(_CHAR, "==", _ENOENT, "next folder")
    asm.jump_if(_CHAR, "==", _ENOTDIR, "next folder")
    asm.jump_if(_CHAR, "!=", _EACCES, "not executable")
    asm.set(_CODE, 1)
    asm.label("next folder")
    asm.jump_if(_CHILD, "!=", 0, "folder")
    asm.jump_if(_CODE, "!=", 0, "not executable")
    asm.jump("not found")
