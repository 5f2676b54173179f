"""One process per container, from its first start to its last exit record: streams, log, samples, ports, health, restarts, cleaning up.

Forked from the launcher (small, everything loaded), in a session of its own: it outlives the notebook's kernel and the launcher. It
holds the container's lock, so it alone writes the container's files; whoever wants something of a living container asks it
(:mod:`.control`). When it is killed, the container's first process gets SIGKILL with it (PR_SET_PDEATHSIG): a container never runs on with
a closed pipe and nobody to read its exit. The next command finds what is left and marks it (:mod:`.recover`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors
from ..errors import ContainersError, StateError
from ..linux import cgroups, idmap, process, seccomp, signals, sockets, syscalls
from ..network import ports, relay
from . import changes, hooks, journal, network, owners, starter, state
from .companions import Companion, Doors
from .control import Control
from .health import Health
from .loop import Loop
from .marks import mark
from .output import Input, Output
from .places import Places
from .recording import Recording
from .restart import Restart

if TYPE_CHECKING:
    from .pattern import Pattern
    from .starter import Ingredients

_FIRST_LOOK = 0.02  # seconds after the start: the starter has ended, or is about to
_SHORT = 0.03  # seconds: to a run that ends within them no process is prepared for the next one beside it, which takes two processors
_GRACE = 10.0  # seconds from the stop signal to SIGKILL where nobody says another number (Docker's)


class Supervisor:
    """Starts one container and stays with it.

    :param orders: where the launcher says which container it is to be, perhaps long after: ``{"op": "start", "container", …}`` with the
        connection of the client that asked and, where it gives one, a descriptor that the container gets as its standard input.
    :param ingredients: what a start needs of what the launcher keeps; ``forget``: let go of that, in this process.
    :param usual: what a first process can be made with ahead of need.
    """

    def __init__(
        self,
        home: str,
        run: str,
        orders: socket.socket,
        ingredients: Ingredients,
        forget: Callable[[], None],
        usual: Pattern | None,
    ) -> None:
        self.home, self.run_dir = home, run
        self._orders, self._ingredients, self._forget, self._usual = orders, ingredients, forget, usual
        self.loop = Loop()
        self.requests: dict[str, Callable[[dict[str, Any]], None]] = {
            "pause": self._pause,
            "unpause": self._unpause,
            "stop": self._stop,
            "kill": self._kill,
            "update": self._update,
            "rename": self._rename,
            "resize": self._resize,
        }
        self._me: dict[str, Any] = {}
        """Who this process is, as its starter has found out: what is looked at there stays out of our memory."""
        self.record: dict[str, Any] = {}
        self.pid = 0
        """The container's first process, 0 where there is none."""
        self.paused = False
        self._pidfd = -1
        self._starter: tuple[int, socket.socket] | None = None
        self._input: Input | None = None
        self._console = -1
        self._lock = -1
        self._cgroup = ""
        """The path of its group, once it has been made."""
        self._group: cgroups.Group | None = None
        self._restart = Restart(None)
        self._stopping = False
        self._ended = False
        self._health: Health | None = None
        self._doors = Doors(self.loop, self.leave_to)
        self._agent: Companion | None = None
        self._networked = False
        self._address = ""
        self._started = self._begun = 0.0
        """When the run began, by the wall and by the monotonic clock: what lasts is measured by the one that nobody sets."""
        self._poststop = False
        self._pattern: list[Any] | None = None
        self._kills = 0  # OOM kills before this run: the cgroup counts over restarts

    def _accept(self, message: dict[str, Any], fds: list[int]) -> None:
        """From here on it is the supervisor of one container."""
        self.id = message["container"]
        self.folder = f"{self.home}/containers/{self.id}"
        self.output = Output(f"{self.folder}/log", self.loop)
        self.control = Control(self, self.output, f"{self.run_dir}/containers/{self.id}.sock")
        self._recording = Recording(f"{self.folder}/samples.ring", self.loop)
        self.stdin_once = bool(message.get("attach"))
        self._size = message.get("size")
        self._stdin = fds[1] if len(fds) > 1 else -1
        conn = socket.socket(fileno=fds[0])
        self._first = self.control.add(conn, attached=bool(message.get("attach")), stdin=bool(message.get("stdin")))

    # -- the whole life

    def main(self) -> None:
        """Never raises."""
        self._prepare_self()
        message, fds = sockets.receive(self._orders)
        if message is None:
            return  # the launcher has ended: this one was not needed
        try:
            self._accept(message, fds)
            self._take()
            self._start()
        except BaseException as error:
            self._undo(error)
            return
        while True:
            record = self._live()
            pause = None if self._stopping else self._restart.after(record["code"], time.monotonic() - self._begun)
            if pause is None or not self._rest(record, pause):
                break
            try:
                self._start()
            except BaseException as error:
                self._undo(error)
                return
        self._end(record)

    def _prepare_self(self) -> None:
        """All that does not need to know which container it will be."""
        os.setsid()
        os.umask(0o022)  # cgroup folders are looked into from inside, by ids that are nobody here
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we end with the container; SIGKILL is handled by whoever comes next
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        self._starter = self._fork_starter(self._usual)
        self._forget()
        self._rehearse()

    def _rehearse(self) -> None:
        """Go through some motions ahead of need: pages that a start would write to first are copied now, while nobody waits for it."""
        message = {"op": "start", "container": "0" * 64, "attach": True, "stdin": False, "size": None, "mounts": [{"path": "/"}] * 20}
        loop = Loop()
        output = Output("/dev/null", loop)
        output.open_log()
        sockets.close_all(output.pipes())
        output.watch()
        output.drain()
        output.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            sockets.send(ours, message, [ours.fileno()])
            sockets.close_all(sockets.receive(theirs)[1])
            loop.watch(theirs.fileno(), bool)
            loop.forget(theirs.fileno())

    def _take(self) -> None:
        """Make the container ours."""
        lock = state.lock(self.folder)
        if lock is None:
            raise StateError(f"container {self.id[:12]} is running already", "stop it first, or use exec")
        self._lock = lock
        mark("supervisor", "locked")
        self.record = state.read(self.folder, "container.json") or {}
        if not self.record:
            raise StateError(f"container {self.id[:12]} has no readable container.json", "remove it and create it again")
        self.tty = bool(self.record.get("tty"))
        self._restart.set(self.record.get("restart"))
        for name in ("exit.json", "health.json"):
            try:
                os.unlink(f"{self.folder}/{name}")
            except FileNotFoundError:
                pass

    # -- start

    def _start(self) -> None:
        self._ended = self.paused = False
        self.output.open_log()
        self._doors.bind(self.record.get("ports") or [])
        mark("supervisor", "ports")
        if self._starter is None:
            self._starter = self._fork_starter()
        if idmap.single() and ((spec := self._spec())["linux"].get("seccomp") or {}).get("listenerMetadata") == owners.MARK:
            # A process of its own: a container with a single id may keep it waiting.
            listener = owners.listen(spec["linux"]["seccomp"]["listenerPath"])
            self._agent = Companion(self.leave_to, lambda control: owners.Agent(listener, control).run())
            listener.close()
        stdio = self._stdio()
        self._networked = self.record["network"] == "bridge"
        message = {
            "container": self.id,
            "me": {"address": self._address, "restarts": self._restart.count, "control": self.control.path},
            "size": self._size,
            "group": bool(self._cgroup),
            "ports": self._doors.published,
        }
        try:
            sockets.send(self._starter[1], message, stdio)
        except (BrokenPipeError, ConnectionResetError):  # killed while it waited for this
            self._end_starter(self._starter)
            self._starter = self._fork_starter()
            sockets.send(self._starter[1], message, stdio)
        channel = self._starter[1]
        sockets.close_all(stdio)
        mark("supervisor", "asked")
        if self.control.listener is None:
            self.control.open()
        answer, fds = sockets.receive(channel)
        if answer is None:
            raise ContainersError("the process that starts the container was killed", "start it again")
        sockets.raise_error(answer)
        self.pid, self._me = answer["pid"], answer["supervisor"]
        self._pidfd = os.pidfd_open(self.pid)
        self._address, self._started, self._cgroup = answer["address"], answer["started"], answer["cgroup"]
        self._poststop, self._begun = answer["poststop"], time.monotonic()
        if fds:
            self._take_console(fds[0])
        mark("supervisor", "running")
        self._answer()
        self._pattern = answer.get("pattern")
        if self._first.attached and not self._restart.count:  # somebody waits for its end
            self.loop.at("orders", time.monotonic() + _SHORT, self._end_orders)
        else:
            self._end_orders()
        mark("supervisor", "answered")
        self.output.watch()
        self._recording.begin(self._found_group, self.pid, own_network=self.record["network"] != "host")
        self._note(answer["notes"])
        channel.close()
        for pid in answer["ended"]:
            os.waitpid(pid, 0)
        self.loop.at("starter", time.monotonic() + _FIRST_LOOK, self._reap_soon)
        self.journal("start")

    def _fork_starter(self, usual: Pattern | None = None) -> tuple[int, socket.socket]:
        """The process that starts the container: its pid, and what we talk to it by. ``usual``: what it is to make ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self.leave_to(lambda: starter.main(theirs, self.home, self.run_dir, self._ingredients, usual))
        theirs.close()
        return pid, ours

    def _end_starter(self, killed: tuple[int, socket.socket]) -> None:
        """With it ends the first process that it had ready, of which we have not been told: whatever child is left but the agent."""
        os.waitpid(killed[0], 0)
        killed[1].close()
        for pid in _children():
            if self._agent is None or pid != self._agent.pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _end_orders(self) -> None:
        """The launcher may prepare the next one; where what was ready did not fit, it is told what would have (:mod:`.pattern`)."""
        if self._pattern is not None:
            with contextlib.suppress(OSError):  # it has ended
                sockets.send(self._orders, {"pattern": self._pattern})
            self._pattern = None
        self._orders.close()

    def _end_starting(self) -> None:
        """After a start that failed: end all that it may have made, also that of which we were told nothing."""
        if self._starter is not None:
            # First, as it is known without a descriptor: where none is left its siblings cannot be listed, and it waits for our message.
            self._starter[1].close()
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass
        if self._agent is not None:
            owners.forget(self._spec())
        self._starter = self._agent = None
        self._doors.forget()
        self.pid = 0

    def _reap_soon(self) -> None:
        self._reap_starter()
        if self._starter is not None:
            self.loop.at("starter", time.monotonic() + 5 * _FIRST_LOOK, self._reap_soon)

    def _reap_starter(self, wait: bool = False) -> None:
        """It has answered, and ends by itself; its mounts take the kernel a while."""
        if self._starter is not None and os.waitpid(self._starter[0], 0 if wait else os.WNOHANG)[0]:
            self._starter = None

    @property
    def _found_group(self) -> cgroups.Group | None:
        """The container's group, as far as there is one."""
        if self._group is None:
            path = self._cgroup or (self._spec().get("linux") or {}).get("cgroupsPath")
            self._group = cgroups.open(path) if path else None
        return self._group

    def _spec(self) -> dict[str, Any]:
        return state.read(self.folder, "config.json") or {}

    @property
    def program(self) -> seccomp.Filter | None:
        """The container's compiled filter."""
        return self._ingredients(self._spec()["linux"])[1]

    def _stdio(self) -> tuple[int, int, int]:
        """stdin, stdout, stderr for the container; with a terminal init makes its own, and these lead nowhere."""
        if self.tty:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            return null, os.dup(null), os.dup(null)
        stdin, self._stdin = self._stdin, -1
        if stdin < 0 and self.record.get("stdin_open"):
            stdin, writer = os.pipe2(os.O_CLOEXEC)
            self._input = Input(writer, self.loop, console=False, taken=self.control.input_taken)
        elif stdin < 0:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return stdin, *self.output.pipes()

    def _take_console(self, master: int) -> None:
        self._console = master
        self.output.console(master)
        self._input = Input(os.dup(master), self.loop, console=True, taken=self.control.input_taken)

    def _paths(self) -> Places:
        return Places(self.home, self.run_dir)

    @property
    def _stop_signal(self) -> int:
        return signals.number(self.record.get("stop_signal") or "SIGTERM")

    def _answer(self) -> None:
        self._doors.open(self._relay)
        if not self._restart.count:
            self._first.answer({"started": self._started, "pid": self.pid, "tty": self.tty})
            if not self._first.attached:
                self._first.close()

    def _relay(self, bound: list[ports.Bound], control: int) -> None:
        """In the relay: pass on what comes to a published port."""
        if self._networked:
            network.enter_bridge(self._paths())
        relay.serve(bound, self._address or "127.0.0.1", control)

    def leave_to(self, work: Callable[[], object]) -> NoReturn:
        """In a forked child: let go of everything that is the supervisor's, do ``work``, and end. It ends with the supervisor, too."""
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            self._orders.close()
            if self._lock >= 0:
                self.control.close_inherited()
                sockets.close_all([*self.output.streams, self._lock])
            if self._input is not None:
                self._input.close()  # a second writer of the pipe would keep the container from seeing its end
            work()
        finally:
            os._exit(0)

    # -- life

    def _live(self) -> dict[str, Any]:
        """Serve until the first process has ended and its pipes are empty; returns the exit record."""
        self.loop.watch(self._pidfd, self._on_end)
        self._watch_owner()
        if (check := self.record.get("health")) and check["test"][0] != "NONE":
            self._health = Health(self, check)
        while not self._ended:
            self.loop.turn()
        mark("supervisor", "ended")
        if self._health is not None:
            self._health.close()
            self._health = None
        self.loop.cancel("stop")
        self._reap_starter()
        self._recording.end(self._found_group, keep=not self.record.get("auto_remove"))
        self.output.drain()
        mark("supervisor", "drained")
        return self._reap()

    def _on_end(self) -> None:
        self.loop.forget(self._pidfd)
        self._ended = True

    def _watch_owner(self) -> None:
        """``--lifetime kernel|server``: the container ends with the process that it was made for."""
        if self.record.get("lifetime", "detached") == "detached" or not self.record.get("owner"):
            return
        owner = process.open_pidfd(self.record["owner"])
        if owner is None:
            self._stop({})
        else:
            self.loop.watch(owner, lambda: self._orphaned(owner))

    def _orphaned(self, owner: int) -> None:
        self.loop.forget(owner)
        os.close(owner)
        self._stop({})

    def _rest(self, record: dict[str, Any], pause: float) -> bool:
        """Between two runs; False when somebody asked to stop meanwhile."""
        self._clean_run()
        self._leave_clients(record)
        self.pid = 0
        self._reap_starter(wait=True)
        state.write_end(self.folder, self._state(state.RESTARTING), record)
        mark("supervisor", "resting")
        over: list[bool] = []
        self.loop.at("restart", time.monotonic() + pause, lambda: over.append(True))
        while not over and not self._stopping:
            self.loop.turn()
        self.loop.cancel("restart")
        if over:
            try:
                os.unlink(f"{self.folder}/exit.json")
            except FileNotFoundError:
                pass
        return bool(over)

    # -- what clients ask

    def journal(self, action: str, **attributes: object) -> None:
        """Write an event of this container."""
        journal.record(self.home, action, self.id, journal.of(self.record, **attributes))

    def feed(self, data: bytes) -> bool:
        """Input for the container. False: it has enough, :meth:`.Control.input_taken` says when it takes more."""
        return self._input is None or self._input.feed(data)

    def end_input(self) -> None:
        if self._input is not None:
            self._input.end()

    def _pause(self, message: dict[str, Any]) -> None:
        if self.paused:
            raise StateError(f"container {self.record['name']!r} is paused already", "unpause it")
        if self.pid == 0:
            raise StateError(f"container {self.record['name']!r} is restarting", "try again when it runs")
        try:
            assert self._found_group is not None
            self._found_group.freeze()
        except KeyError:
            raise StateError(f"container {self.record['name']!r} cannot be paused: there is no freezer cgroup here", "see doctor") from None
        mark("supervisor", "frozen")
        self.paused = True
        self._write_state(state.PAUSED)
        self.journal("pause")

    def _unpause(self, message: dict[str, Any]) -> None:
        if not self.paused:
            raise StateError(f"container {self.record['name']!r} is not paused", "")
        assert self._found_group is not None
        self._found_group.thaw()
        self.paused = False
        self._write_state(state.RUNNING)
        self.journal("unpause")

    def _stop(self, message: dict[str, Any]) -> None:
        """The stop signal now, SIGKILL after ``timeout`` seconds; no restart follows."""
        self._stopping = True
        if self.pid == 0:
            return  # between two runs: that was all
        number = int(message.get("signal") or self._stop_signal)
        timeout = message.get("timeout")
        if timeout is None:
            timeout = self.record.get("stop_timeout")
        if timeout is None:
            timeout = _GRACE
        self._send(number)
        if timeout >= 0:  # -1: for ever, as Docker
            self.loop.at("stop", time.monotonic() + timeout, lambda: self._send(signal.SIGKILL))

    def _kill(self, message: dict[str, Any]) -> None:
        number = int(message["signal"])
        if self.pid == 0:
            raise StateError(f"container {self.record['name']!r} is restarting", "stop it, or try again when it runs")
        if number in (signal.SIGKILL, self._stop_signal):
            self._stopping = True  # who kills it does not want it back (moby, containerKill)
        self._send(number)

    def _send(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return
        if number == signal.SIGKILL and self._health is not None:
            self._health.interrupt()
        mark("supervisor", "signalled")
        self.journal("kill", signal=number)
        if self.paused and (number == signal.SIGKILL or self._stopping):
            self._unpause({})  # what is frozen takes no signal (freezer-subsystem.rst)

    def _update(self, message: dict[str, Any]) -> None:
        self._note(changes.update(self.folder, self._spec(), self.record, message, self._found_group))
        self._restart.set(self.record.get("restart"))
        self.journal("update")

    def _rename(self, message: dict[str, Any]) -> None:
        old = self.record["name"]
        changes.rename(self.folder, self.record, message["name"])
        self.journal("rename", oldName=f"/{old}")

    def _resize(self, message: dict[str, Any]) -> None:
        if self._console >= 0:
            fcntl.ioctl(self._console, termios.TIOCSWINSZ, struct.pack("HHHH", int(message["rows"]), int(message["columns"]), 0, 0))

    # -- end

    def _reap(self) -> dict[str, Any]:
        _, status = os.waitpid(self.pid, 0)
        mark("supervisor", "reaped")
        code, number = (128 + os.WTERMSIG(status), os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), 0)
        finished = time.time()
        oom = peak = 0
        try:
            assert self._found_group is not None
            kills, peak = int(self._found_group.events().get("oom_kill", 0)), int(self._found_group.peak())
            oom, self._kills = kills - self._kills, kills
        except OSError:
            pass
        if oom:
            self.journal("oom")
        self.journal("die", exitCode=code, execDuration=int(time.monotonic() - self._begun))
        return state.exit_record(code, number, oom > 0, started=self._started, finished=finished, memory_peak=peak)

    def _clean_run(self) -> None:
        """Take away what one run had outside itself: processes that are left, address, forwarder. Its mounts and links went with it."""
        self._doors.rest()
        if self._agent is not None:
            self._agent.end()
            self._agent = None
            owners.forget(self._spec())
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._input is not None:
            self._input.close()
            self._input = None
        self._console = -1
        self._recording.rest()
        if self._found_group is not None:
            try:
                self._found_group.kill()
            except OSError:
                pass  # a sweep tries again: the state says that it is ours
        if self._networked:
            self._networked = False
            network.detach(self._paths(), self.id, self._address)

    def _clean(self) -> None:
        self._clean_run()
        self._doors.close()
        self.control.close()
        if self._group is not None:
            try:
                self._group.remove()
            except OSError:
                pass

    def _end(self, record: dict[str, Any]) -> None:
        self._clean()
        mark("supervisor", "cleaned")
        if self._poststop:
            self._run_poststop()
        self._recording.close()
        self.output.close()
        kept: dict[str, Any] | None = None
        if not self.record.get("auto_remove"):  # else the folder goes at once, with all that is in it
            try:
                state.write(self.folder, "exit.json", record)
            except OSError:  # the disk is full
                kept = record
        mark("supervisor", "exit")
        if self._stopping:
            self.journal("stop")
        if self.record.get("auto_remove"):
            state.remove_folder(f"{self.home}/containers", self.id, self.record["name"])
            self.journal("destroy")
        else:
            state.write_end(self.folder, self._state(state.EXITED), kept)
        mark("supervisor", "exited")
        os.close(self._lock)  # who is told of the end may start it again at once
        self._leave_clients(record)

    def _run_poststop(self) -> None:
        """The specification's hooks for when all is gone; one that fails changes nothing any more (config.md, Poststop), but is noted."""
        spec = self._spec()
        try:
            hooks.run(spec, "poststop", hooks.state(spec, {"id": self.id, "bundle": self.folder}, "stopped", 0))
        except ContainersError as error:
            self._note([error.message])

    def _leave_clients(self, record: dict[str, Any]) -> None:
        """Whoever is attached or waits is told how this run ended. Last of all: a client that does not read keeps nothing from its end."""
        self.control.end({"exit": record})
        self._end_orders()

    def _undo(self, error: BaseException) -> None:
        """A start that failed leaves nothing behind: the first process, cgroup, address, ports; and says why."""
        self._end_starting()
        message = sockets.error_message(error)
        if self._lock >= 0 and self.record:
            self._clean()
            mark("supervisor", "undone")
            code = getattr(errors, message["error"], ContainersError).exit_code
            record = state.exit_record(code, error=message["message"], hint=message["hint"])
            state.write_end(self.folder, self._state(state.EXITED), record)
            if self.record.get("auto_remove"):
                state.remove_folder(f"{self.home}/containers", self.id, self.record["name"])
        self._first.last(message)

    def _about_me(self) -> dict[str, Any]:
        """What is the same in ``state.json`` as long as this process lives."""
        return {
            "machine": state.machine(),
            "supervisor": self._me or process.identity(os.getpid()),
            "address": self._address,
            "restarts": self._restart.count,
            "control": self.control.path,
        }

    def _write_state(self, status: str) -> None:
        state.write(self.folder, "state.json", self._state(status))

    def _state(self, status: str) -> dict[str, Any]:
        data: dict[str, Any] = {"status": status, **self._about_me(), "started": self._started}
        if status in (state.RUNNING, state.PAUSED):
            data["init"] = process.identity(self.pid)
            data["ports"] = self._doors.published
        if status == state.EXITED:
            del data["supervisor"]
        return data

    def _note(self, notes: list[str]) -> None:
        if notes:
            self.record["notes"] = [*self.record.get("notes", []), *(n for n in notes if n not in self.record.get("notes", []))]
            state.write(self.folder, "container.json", self.record)


def _children() -> list[int]:
    """Pids of this process's children, also of those that another process has made for it (CLONE_PARENT)."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []  # a kernel without CONFIG_PROC_CHILDREN: what waits for the starter ends by its end
