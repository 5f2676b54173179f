"""One process per container, from its first start to its last exit record: streams, log, samples, ports, health, restarts, cleaning up.

Forked from the launcher (small, everything loaded), in a session of its own: it outlives the notebook's kernel and the launcher. It
holds the container's lock, so it alone writes the container's files; whoever wants something of a living container asks it
(:mod:`.control`). When it is killed, the container's first process gets SIGKILL with it (PR_SET_PDEATHSIG): a container never runs on with
a closed pipe and nobody to read its exit. The next command finds what is left and marks it (:mod:`.recover`).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, NoReturn

from .. import errors
from ..errors import ContainersError, StateError
from ..linux import process, seccomp, signals, sockets, syscalls
from ..metrics import history
from ..metrics.sample import ProcessSampler, Sampler, sampler
from ..network import client as network
from ..network import ports as forwarder
from ..network import relay
from . import changes, groups, joining, journal, owners, state
from .control import Control
from .health import Health
from .init import Waiting
from .loop import Loop
from .marks import mark
from .output import Input, Output
from .restart import Restart
from .starting import Starting

_SAMPLES = 3600  # records in the ring file
_GRACE = 10.0  # seconds from the stop signal to SIGKILL where nobody says another number (Docker's)


class Supervisor:
    """Starts one container and stays with it.

    :param conn: the client that asked. ``request``: its message; ``attach``: it wants the output, ``stdin``: it will send input,
        ``size``: (rows, columns) of its terminal.
    :param stdin: a descriptor that the container gets as its standard input, or -1.
    """

    def __init__(
        self,
        home: str,
        run: str,
        container_id: str,
        conn: socket.socket,
        *,
        request: dict[str, Any],
        stdin: int = -1,
        spec: dict[str, Any],
        idmap: int | None = None,
        program: seccomp.Filter | None = None,
    ) -> None:
        self.home, self.run_dir, self.id = home, run, container_id
        self.folder = f"{home}/containers/{container_id}"
        self.spec = spec  # config.json, read by the launcher already
        self.idmap, self.program = idmap, program
        self.record: dict[str, Any] = {}
        self.loop = Loop()
        self.output = Output(f"{self.folder}/log", self.loop)
        self.control = Control(self, self.output, f"{run}/containers/{container_id}.sock")
        self.paused = False
        self.tty = bool(spec.get("process", {}).get("terminal"))
        self.stdin_once = bool(request.get("attach"))
        self.requests: dict[str, Callable[[dict[str, Any]], None]] = {
            "pause": self._pause,
            "unpause": self._unpause,
            "stop": self._stop,
            "kill": self._kill,
            "update": self._update,
            "rename": self._rename,
            "resize": self._resize,
        }
        self._first = self.control.add(conn, attached=bool(request.get("attach")), stdin=bool(request.get("stdin")))
        self._size = request.get("size")
        self._stdin = stdin
        self._input: Input | None = None
        self._console = -1
        self._lock = -1
        self._group: Any = None
        self._starting: Starting | None = None
        self._restart = Restart(None)
        self._stopping = False
        self._ended = False
        self._health: Health | None = None
        self._bound: list[forwarder.Bound] = []
        self._forwarder: tuple[int, int] | None = None
        self._agent: tuple[int, int] | None = None
        self._networked = False
        self._address = ""
        self._started = 0.0
        self._ring: history.Ring | None = None
        self._sampler: Sampler | ProcessSampler | None = None
        self._net: int | None = None
        self._kills = 0  # OOM kills before this run: the cgroup counts over restarts

    # -- the whole life

    def main(self) -> None:
        """Never raises."""
        try:
            self._prepare_self()
            self._start()
        except BaseException as error:
            self._undo(error)
            return
        while True:
            record = self._live()
            ran = record["finished"] - record["started"]
            pause = None if self._stopping else self._restart.after(record["code"], ran)
            if pause is None or not self._rest(record, pause):
                break
            try:
                self._start()
            except BaseException as error:
                self._undo(error)
                return
        self._end(record)

    def _prepare_self(self) -> None:
        os.setsid()
        os.umask(0o022)  # cgroup folders are looked into from inside, by ids that are nobody here
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we end with the container; SIGKILL is handled by whoever comes next
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        lock = state.lock(self.folder)
        if lock is None:
            raise StateError(f"container {self.id[:12]} is running already", "stop it first, or use exec")
        self._lock = lock
        mark("supervisor", "locked")
        self.record = state.read(self.folder, "container.json") or {}
        if not self.spec or not self.record:
            raise StateError(f"container {self.id[:12]} has no readable config.json", "remove it and create it again")
        self._restart.set(self.record.get("restart"))
        for name in ("exit.json", "health.json"):
            try:
                os.unlink(f"{self.folder}/{name}")
            except FileNotFoundError:
                pass

    # -- start

    def _start(self) -> None:
        # First of all: from here on a sweep knows whose leftovers these are.
        self._write_state(state.STARTING)
        mark("supervisor", "starting")
        self._ended = self.paused = False
        self.output.open_log()
        if self.record.get("ports") and not self._bound:
            self._bound = forwarder.bind([forwarder.Published(**port) for port in self.record["ports"]])
        mark("supervisor", "ports")
        self._make_group()
        mark("supervisor", "cgroup")
        if joining.resolve(self.spec, self.record.get("joins") or {}, f"{self.home}/containers"):
            state.write(self.folder, "config.json", self.spec)
        if self._size and self.tty:
            self.spec["process"]["consoleSize"] = {"height": self._size[0], "width": self._size[1]}
        if (self.spec["linux"].get("seccomp") or {}).get("listenerMetadata") == owners.MARK:
            self._agent = self._fork_agent(self.spec["linux"]["seccomp"]["listenerPath"])
        self._starting = starting = Starting(
            self.spec,
            self.record["rootfs"] | {"home": self.home},
            stage=f"{self.run_dir}/stage",
            idmap=self.idmap,
            program=self.program,
            wait=Waiting(about={"id": self.id, "bundle": self.folder}),
        )
        self._started = time.time()
        starting.begin(self._stdio(), self._group)
        mark("supervisor", "cloned")
        starting.release()
        mark("supervisor", "released")
        if self.record["network"] == "bridge":
            self._join_network()  # while the child mounts
        mark("supervisor", "network")
        if self.control.listener is None:
            self.control.open()
        made = starting.mounted()
        state.add_made(self.folder, made["made"])  # a build, a commit and diff leave them out
        mark("supervisor", "mounted")
        starting.execute()
        mark("supervisor", "executed")
        self._take_console()
        self._write_state(state.RUNNING)
        mark("supervisor", "running")
        self._answer()
        mark("supervisor", "answered")
        self.journal("start")

    def _make_group(self) -> None:
        if self._group is None:
            self._group = groups.make(self.spec)
            self._note(self._group.notes)

    def _stdio(self) -> tuple[int, int, int]:
        """stdin, stdout, stderr for the container; with a terminal init makes its own, and these lead nowhere."""
        if self.tty:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            return null, os.dup(null), os.dup(null)
        owner = (self.spec["linux"].get("uidMappings") or [{"hostID": 0}])[0]["hostID"]
        stdin, self._stdin = self._stdin, -1
        if stdin < 0 and self.record.get("stdin_open"):
            stdin, writer = os.pipe2(os.O_CLOEXEC)
            self._input = Input(writer, self.loop, console=False, taken=self.control.input_taken)
        elif stdin < 0:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISFIFO(os.fstat(stdin).st_mode):
            os.fchown(stdin, owner, owner)
        return stdin, *self.output.pipes(owner)

    def _take_console(self) -> None:
        if self.tty:
            assert self._starting is not None
            self._console = self._starting.console
            self.output.console(self._console)
            self._input = Input(os.dup(self._console), self.loop, console=True, taken=self.control.input_taken)

    def _join_network(self) -> None:
        netns = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._networked = True
            found = network.attach(self._paths(), self.id, netns, hostname=self.record["hostname"], python=self.record["python"])
        finally:
            os.close(netns)
        if self._address != found["address"]:
            self._address = found["address"]
            with open(f"{self.folder}/etc/hosts", "a", encoding="utf-8") as file:  # in place: it is bound into the container already
                file.write(f"{self._address}\t{self.record['hostname']}\n")
                file.writelines(f"{found['gateway']}\t{name}\n" for name in self.record.get("gateway_hosts") or [])
        self._note(found.get("notes") or [])

    def _paths(self) -> network.Places:
        return network.Places(self.home, self.run_dir)

    @property
    def _stop_signal(self) -> int:
        return signals.number(self.record.get("stop_signal") or "SIGTERM")

    @property
    def pid(self) -> int:
        """The container's first process, 0 where there is none."""
        return self._starting.pid if self._starting is not None else 0

    def _answer(self) -> None:
        if self._bound:
            self._forwarder = self._fork_forwarder()
        if not self._restart.count:
            self._first.answer({"started": self._started, "pid": self.pid, "tty": self.tty})
            if not self._first.attached:
                self._first.close()

    def _fork_agent(self, path: str) -> tuple[int, int]:
        """Who answers for a container with a single id (:mod:`.owners`): a process of its own, whom its programs may keep waiting."""
        listener = owners.listen(path)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            self.leave_to(lambda: owners.Agent(listener, reader).run())
        os.close(reader)
        listener.close()
        return pid, writer

    def _fork_forwarder(self) -> tuple[int, int]:
        """The relay of published ports, a process of its own: a loaded port does not delay the log. Ends with our pipe's end.

        The bound sockets stay open here too: between two runs of the container nobody else can take the port.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            self.leave_to(lambda: self._forward(reader))
        os.close(reader)
        return pid, writer

    def _forward(self, control: int) -> None:
        if self._networked:
            network.enter_bridge(self._paths())
        relay.serve(self._bound, self._address or "127.0.0.1", control)

    def leave_to(self, work: Callable[[], object]) -> NoReturn:
        """In a forked child: let go of everything that is the supervisor's, do ``work``, and end. It ends with the supervisor, too."""
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            self.control.close_inherited()
            for fd in (*self.output.streams, self._lock):
                os.close(fd)
            if self._input is not None:
                self._input.close()  # a second writer of the pipe would keep the container from seeing its end
            work()
        finally:
            os._exit(0)

    # -- life

    def _live(self) -> dict[str, Any]:
        """Serve until the first process has ended and its pipes are empty; returns the exit record."""
        assert self._starting is not None
        self._begin_samples()
        self.output.watch()
        self.loop.watch(self._starting.pidfd, self._on_end)
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
        self._sample()  # a cgroup keeps its counters until it is removed: the last record is whole
        self.output.drain()
        mark("supervisor", "drained")
        return self._reap()

    def _on_end(self) -> None:
        assert self._starting is not None
        self.loop.forget(self._starting.pidfd)
        self._ended = True

    def _begin_samples(self) -> None:
        if self._ring is None:
            self._ring = history.Ring.create(f"{self.folder}/samples.ring", _SAMPLES)
            self._sampler = sampler(self._group, self.pid)
        else:
            self._sampler.follow(self.pid)  # type: ignore[union-attr]
        self._net = self._open_net()
        self._tick()

    def _tick(self) -> None:
        assert self._ring is not None
        self._sample()
        now = time.monotonic()
        self.loop.at("sample", now + self._ring.interval(time.time() - self._started), self._tick)

    def _open_net(self) -> int | None:
        """The counters of the container's own links, kept open. None where it shares the host's."""
        if self.record["network"] == "host":
            return None
        try:
            return os.open(f"/proc/{self.pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def _sample(self) -> None:
        try:
            self._ring.append(self._sampler.read(self._net))  # type: ignore[union-attr]
        except (OSError, ValueError):
            pass  # the container is ending under our hands; what was recorded stays

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
        state.write(self.folder, "exit.json", record)
        self._starting = None
        self._write_state(state.RESTARTING)
        mark("supervisor", "resting")
        over: list[bool] = []
        self.loop.at("restart", time.monotonic() + pause, lambda: over.append(True))
        while not over and not self._stopping:
            self.loop.turn()
        self.loop.cancel("restart")
        if over:
            os.unlink(f"{self.folder}/exit.json")
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
            self._group.freeze()
        except KeyError:
            raise StateError(f"container {self.record['name']!r} cannot be paused: there is no freezer cgroup here", "see doctor") from None
        mark("supervisor", "frozen")
        self.paused = True
        self._write_state(state.PAUSED)
        self.journal("pause")

    def _unpause(self, message: dict[str, Any]) -> None:
        if not self.paused:
            raise StateError(f"container {self.record['name']!r} is not paused", "")
        self._group.thaw()
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
        assert self._starting is not None
        try:
            signal.pidfd_send_signal(self._starting.pidfd, number)
        except ProcessLookupError:
            return
        mark("supervisor", "signalled")
        self.journal("kill", signal=number)
        if self.paused and (number == signal.SIGKILL or self._stopping):
            self._unpause({})  # what is frozen takes no signal (freezer-subsystem.rst)

    def _update(self, message: dict[str, Any]) -> None:
        self._note(changes.update(self.folder, self.spec, self.record, message, self._group))
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
            kills, peak = int(self._group.events().get("oom_kill", 0)), int(self._group.peak())
            oom, self._kills = kills - self._kills, kills
        except OSError:
            pass
        if oom:
            self.journal("oom")
        self.journal("die", exitCode=code, execDuration=int(finished - self._started))
        return state.exit_record(code, number, oom > 0, started=self._started, finished=finished, memory_peak=peak)

    def _clean_run(self) -> None:
        """Take away what one run had outside itself: processes that are left, address, forwarder. Its mounts and links went with it."""
        for companion in filter(None, (self._forwarder, self._agent)):
            pid, writer = companion
            os.close(writer)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._forwarder = self._agent = None
        owners.forget(self.spec)
        if self._starting is not None and self._starting.pidfd >= 0:
            os.close(self._starting.pidfd)
        if self._input is not None:
            self._input.close()
            self._input = None
        self._console = -1
        if self._net is not None:
            os.close(self._net)
            self._net = None
        self.loop.cancel("sample")
        if self._group is not None:
            try:
                self._group.kill()
            except OSError:
                pass  # a sweep tries again: the state says that it is ours
        if self._networked:
            self._networked = False
            try:
                network.detach(self._paths(), self.id, python=self.record["python"])
            except (OSError, ContainersError):
                pass  # the lease is freed by the next sweep

    def _clean(self) -> None:
        self._clean_run()
        forwarder.close(self._bound)
        self.control.close()
        if self._group is not None:
            try:
                self._group.remove()
            except OSError:
                pass

    def _end(self, record: dict[str, Any]) -> None:
        self._clean()
        mark("supervisor", "cleaned")
        if self._ring is not None:
            self._ring.close()
        self.output.close()
        state.write(self.folder, "exit.json", record)
        mark("supervisor", "exit")
        if self._stopping:
            self.journal("stop")
        if self.record.get("auto_remove"):
            state.remove_folder(f"{self.home}/containers", self.id, self.record["name"])
            self.journal("destroy")
        else:
            self._write_state(state.EXITED)
        mark("supervisor", "exited")
        os.close(self._lock)  # who is told of the end may start it again at once
        self._leave_clients(record)

    def _leave_clients(self, record: dict[str, Any]) -> None:
        """Whoever is attached or waits is told how this run ended. Last of all: a client that does not read keeps nothing from its end."""
        self.control.end({"exit": record})

    def _undo(self, error: BaseException) -> None:
        """A start that failed leaves nothing behind: the first process, cgroup, address, ports; and says why."""
        if self._starting is not None:
            self._starting.abort()
        self._clean()
        mark("supervisor", "undone")
        message = sockets.error_message(error)
        if self._lock >= 0 and self.record:
            code = getattr(errors, message["error"], ContainersError).exit_code
            record = state.exit_record(code, error=message["message"], hint=message["hint"])
            state.write(self.folder, "exit.json", record)
            self._write_state(state.EXITED)
            if self.record.get("auto_remove"):
                state.remove_folder(f"{self.home}/containers", self.id, self.record["name"])
        self._first.last(message)

    def _write_state(self, status: str) -> None:
        data: dict[str, Any] = {
            "status": status,
            "machine": state.machine(),
            "supervisor": process.identity(os.getpid()),
            "address": self._address,
            "started": self._started,
            "restarts": self._restart.count,
            "control": self.control.path,
        }
        if status in (state.RUNNING, state.PAUSED):
            data["init"] = process.identity(self.pid)
            data["ports"] = [vars(port) for port, _ in self._bound]
        if status == state.EXITED:
            del data["supervisor"]
        state.write(self.folder, "state.json", data)

    def _note(self, notes: list[str]) -> None:
        if notes:
            self.record["notes"] = [*self.record.get("notes", []), *(n for n in notes if n not in self.record.get("notes", []))]
            state.write(self.folder, "container.json", self.record)
