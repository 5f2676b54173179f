"""One process per container, from its start to its exit record: stdio, log, samples, published ports, cleaning up.

Forked from the launcher (small, everything loaded), in a session of its own: it outlives the notebook's kernel and the launcher.
When it is killed, the container's first process gets SIGKILL with it (PR_SET_PDEATHSIG): a container never runs on with a closed
pipe and nobody to read its exit. The next command finds what is left and marks it (:mod:`pycontainers.runtime.recover`).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import ContainersError, StateError
from ..linux import cgroups, process, sockets, syscalls
from ..metrics import history
from ..metrics.sample import Sampler
from ..network import client as network
from ..network import ports as forwarder
from ..paths import Paths
from ..protocol import Port
from . import state
from .output import Output
from .starting import Starting

_SAMPLES = 3600  # records in the ring file


class Supervisor:
    """Starts one container and stays with it.

    :param conn: the client that asked, or None; ``stdin``: a descriptor for the container, or -1 for /dev/null.
    :param attach: the client wants the output as it comes, and the exit status at the end.
    """

    def __init__(
        self,
        home: str,
        run: str,
        container_id: str,
        conn: socket.socket | None,
        *,
        stdin: int = -1,
        attach: bool = False,
        spec: dict[str, Any],
        idmap: int | None = None,
        program: bytes | None = None,
    ) -> None:
        self.home, self.run_dir, self.id = home, run, container_id
        self.folder = f"{home}/containers/{container_id}"
        self.attach, self.stdin = attach, stdin
        self.output = Output(f"{self.folder}/log", conn, attach)
        self.idmap, self.program = idmap, program
        self.spec = spec  # config.json, read by the launcher already
        self.record: dict[str, Any] = {}
        self.group: Any = None
        self.starting: Starting | None = None
        self.pid = 0
        self.pidfd = -1
        self.lock = -1
        self.bound: list[forwarder.Bound] = []
        self.forwarder: tuple[int, int] | None = None
        self.networked = False
        self.address = ""
        self.started = 0.0

    # -- start

    def main(self) -> None:
        """The whole life; never raises."""
        try:
            self._prepare_self()
            self._start()
        except BaseException as error:
            self._undo(error)
            return
        try:
            self._loop()
        finally:
            self._finish()

    def _prepare_self(self) -> None:
        os.setsid()
        os.umask(0o022)  # cgroup folders are looked into from inside, by ids that are nobody here
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we end with the container; SIGKILL is handled by whoever comes next
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        lock = state.lock(self.folder)
        if lock is None:
            raise StateError(f"container {self.id[:12]} is running already", "stop it first, or use exec")
        self.lock = lock
        self.record = state.read(self.folder, "container.json") or {}
        if not self.spec or not self.record:
            raise StateError(f"container {self.id[:12]} has no readable config.json", "remove it and create it again")
        try:
            os.unlink(f"{self.folder}/exit.json")
        except FileNotFoundError:
            pass
        # First of all: from here on a sweep knows whose leftovers these are.
        self._write_state(state.STARTING)

    def _start(self) -> None:
        linux = self.spec["linux"]
        self.output.open_log()
        if self.record.get("ports"):
            self.bound = forwarder.bind([Port(**port) for port in self.record["ports"]])
        self.group = cgroups.create(linux["cgroupsPath"], linux.get("resources") or {})
        lacking = {name: why for name, why in self.group.missing.items() if name not in self.group.paths}
        self._note([f"{name} is not limited and not measured: {why}" for name, why in lacking.items()])
        self.starting = Starting(
            self.spec, self.record["rootfs"] | {"home": self.home}, stage=f"{self.run_dir}/stage", idmap=self.idmap, program=self.program
        )
        self.started = time.time()
        self.starting.begin(self._pipes(), self.group)
        self.stdin = -1
        self.pid, self.pidfd = self.starting.pid, self.starting.pidfd
        self.starting.release()
        if self.record["network"] == "bridge":
            self._join_network()  # while the child mounts
        state.write(self.folder, "made.json", self.starting.mounted())  # mount points that the image did not have: a build leaves them out
        self.starting.execute()
        self._write_state(state.RUNNING)
        self._reply_started()

    def _join_network(self) -> None:
        netns = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.networked = True
            found = network.attach(self._paths(), self.id, netns, hostname=self.spec["hostname"], python=self.record["python"])
        finally:
            os.close(netns)
        self.address = found["address"]
        self._note(found.get("notes") or [])
        with open(f"{self.folder}/etc/hosts", "a", encoding="utf-8") as file:  # in place: it is bound into the container already
            file.write(f"{self.address}\t{self.spec['hostname']}\n")

    def _paths(self) -> Paths:
        return Paths(Path(self.home), Path(self.run_dir))

    def _pipes(self) -> tuple[int, int, int]:
        """stdin, stdout, stderr for the container."""
        stdin = self.stdin if self.stdin >= 0 else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        owner = (self.spec["linux"].get("uidMappings") or [{"hostID": 0}])[0]["hostID"]
        if stat.S_ISFIFO(os.fstat(stdin).st_mode):
            os.fchown(stdin, owner, owner)
        return stdin, *self.output.pipes(owner)

    def _reply_started(self) -> None:
        if self.bound:
            self.forwarder = self._fork_forwarder()
        if self.output.conn is None:
            return
        try:
            sockets.send(self.output.conn, {"started": self.started, "pid": self.pid})
        except OSError:
            self.output.detach()
        if not self.attach:
            self.output.detach()

    def _fork_forwarder(self) -> tuple[int, int]:
        """The relay of published ports, a process of its own: a loaded port does not delay the log. Ends with our pipe's end."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
                os.close(writer)
                for fd in (*self.output.streams, self.lock):
                    os.close(fd)
                self.output.detach()
                forwarder.serve(self.bound, self.address or "127.0.0.1", reader)
            finally:
                os._exit(0)
        os.close(reader)
        forwarder.close(self.bound)
        return pid, writer

    # -- life

    def _loop(self) -> None:
        """Pass output on, sample, notice a client that leaves; until the first process has ended and the pipes are empty."""
        output = self.output
        ring = history.Ring.create(f"{self.folder}/samples.ring", _SAMPLES)
        sampler = Sampler(self.group)
        net = self._open_net()
        poll = select.poll()
        client = -1
        if output.conn is not None:
            output.conn.setblocking(False)
            client = output.conn.fileno()
            poll.register(client, select.POLLIN)
        for fd in (self.pidfd, *output.streams):
            poll.register(fd, select.POLLIN)
        begun = due = time.monotonic()
        ended = False
        while not ended:
            now = time.monotonic()
            if now >= due:
                self._sample(ring, sampler, net)
                due = max(due + ring.interval(now - begun), now)
            for fd, _ in poll.poll(max(0.0, due - now) * 1000):
                if fd in output.streams:
                    if not output.pump(fd):
                        poll.unregister(fd)
                elif fd == client:
                    poll.unregister(fd)
                    output.detach()
                else:
                    ended = True
        self._sample(ring, sampler, net)  # a cgroup keeps its counters until it is removed: the last record is whole
        output.drain()
        ring.close()
        if net is not None:
            os.close(net)

    def _open_net(self) -> int | None:
        """The counters of the container's own links, kept open. None where it shares the host's."""
        if self.record["network"] == "host":
            return None
        try:
            return os.open(f"/proc/{self.pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def _sample(self, ring: Any, sampler: Sampler, net: int | None) -> None:
        try:
            ring.append(sampler.read(net))
        except (OSError, ValueError):
            pass  # the container is ending under our hands; what was recorded stays

    # -- end

    def _finish(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code, number = (128 + os.WTERMSIG(status), os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), 0)
        finished = time.time()
        oom = peak = 0
        try:
            oom, peak = int(self.group.events().get("oom_kill", 0)), int(self.group.peak())
        except OSError:
            pass
        record = {
            "code": code,
            "signal": number,
            "oom_killed": oom > 0,
            "error": "",
            "hint": "",
            "started": self.started,
            "finished": finished,
            "memory_peak": peak,
        }
        self._clean()
        state.write(self.folder, "exit.json", record)
        if self.record.get("auto_remove"):
            state.remove_folder(f"{self.home}/containers", self.id, self.record["name"])
        else:
            self._write_state(state.EXITED)
        if self.output.conn is not None:
            try:
                self.output.conn.setblocking(True)
                sockets.send(self.output.conn, {"exit": record})
            except OSError:
                pass
            self.output.conn.close()

    def _clean(self) -> None:
        """Take away what the container had outside itself: cgroup, address, port. Its mounts and links went with it."""
        if self.forwarder is not None:
            pid, writer = self.forwarder
            os.close(writer)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.forwarder = None
        forwarder.close(self.bound)
        if self.group is not None:
            try:
                self.group.kill()
                self.group.remove()
            except OSError:
                pass  # a sweep tries again: the state says that it is ours
        if self.networked:
            try:
                network.detach(self._paths(), self.id, python=self.record["python"])
            except (OSError, ContainersError):
                pass  # the lease is freed by the next sweep

    def _undo(self, error: BaseException) -> None:
        """A start that failed leaves nothing behind: the first process, cgroup, address, ports; and says why."""
        if self.starting is not None:
            self.starting.abort()
        self._clean()
        message = sockets.error_message(error)
        if self.lock >= 0:
            code = getattr(errors, message["error"], ContainersError).exit_code
            now = time.time()
            state.write(
                self.folder,
                "exit.json",
                {
                    "code": code,
                    "signal": 0,
                    "oom_killed": False,
                    "error": message["message"],
                    "hint": message["hint"],
                    "started": 0.0,
                    "finished": now,
                    "memory_peak": 0,
                },
            )
            self._write_state(state.EXITED)
            if self.record and self.record.get("auto_remove"):
                state.remove_folder(f"{self.home}/containers", self.id, self.record["name"])
        if self.output.conn is not None:
            sockets.reply_error(self.output.conn, error)
            self.output.conn.close()

    def _write_state(self, status: str) -> None:
        data: dict[str, Any] = {
            "status": status,
            "machine": state.machine(),
            "supervisor": process.identity(os.getpid()),
            "address": self.address,
            "started": self.started,
        }
        if status == state.RUNNING:
            data["init"] = process.identity(self.pid)
            data["ports"] = [vars(port) for port, _ in self.bound]
        if status == state.EXITED:
            del data["supervisor"]
        state.write(self.folder, "state.json", data)

    def _note(self, notes: list[str]) -> None:
        if notes:
            self.record["notes"] = [*self.record.get("notes", []), *(n for n in notes if n not in self.record.get("notes", []))]
            state.write(self.folder, "container.json", self.record)
