"""Draw what :mod:`.steps` recorded: the median of each step, in the order in which they begin."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

from .steps import ROLES

_Key = tuple[int, str, int, int]  # role, name, depth, how often before in the same run


def show(state: Any, watch: Any, options: Any) -> None:
    from pycontainers.protocol import ContainerConfig, ExecConfig

    engine, info, network = state.engine, None, options.network
    image = options.image or state.image
    for _ in range(options.beside):
        engine.start(engine.create(ContainerConfig(image, ("sleep", "1000"), network=network)).id)
    time.sleep(10 if options.beside else 0)  # they sample more rarely then
    if options.exec:
        info = engine.start(engine.create(ContainerConfig(image, ("sleep", "1000"), network=network)).id)

    def once(first: list[int]) -> None:
        def seen(stream: str, data: bytes) -> None:
            first.append(time.perf_counter_ns())

        if info is not None:
            engine.exec(info.id, ExecConfig(("echo", "x")), None, seen)
        else:
            engine.run(ContainerConfig(image, ("echo", "x"), network=network, auto_remove=True), None, seen)

    found: dict[_Key, list[tuple[float, float, int, int]]] = defaultdict(list)  # begins, takes, CPU, faults
    firsts, wholes = [], []
    for number in range(options.runs + 2):
        watch.clear()
        watch.depth = 0
        first: list[int] = []
        begun = time.perf_counter_ns()
        once(first)
        ended = time.perf_counter_ns()
        time.sleep(0.05)  # what the supervisor does after its last message
        if number < 2:
            continue  # the first ones start helpers
        firsts.append(first[0] - begun)
        wholes.append(ended - begun)
        times: dict[Any, int] = defaultdict(int)
        for role, name, depth, start, end, faults, cpu in watch.read():
            if start < begun:
                continue
            key = (role, name, depth, times[role, name, depth])
            times[role, name, depth] += 1
            found[key].append(((start - begun) / 1000, (end - start) / 1000 if end else -1.0, cpu, faults))
    _draw({key: values for key, values in found.items() if len(values) >= options.runs / 2}, options)
    print(f"\nfirst output {statistics.median(firsts) / 1000:.0f}, whole {statistics.median(wholes) / 1000:.0f}")


def _draw(found: dict[_Key, list[tuple[float, float, int, int]]], options: Any) -> None:
    print(f"{'at':>7} {'takes':>7} {'CPU':>6} {'faults':>6}   medians of {options.runs}, microseconds")
    lines = [(*(statistics.median(column) for column in zip(*values, strict=True)), key) for key, values in found.items()]
    for begins, takes, cpu, faults, (role, name, depth, _) in sorted(lines, key=lambda line: (line[0], line[4][2])):
        if 0 <= takes < options.least:
            continue
        rest = f"{takes:7.0f} {cpu:6.0f} {faults:6.0f}" if takes >= 0 else f"{'-':>7} {'-':>6} {'-':>6}"  # ended by execve
        print(f"{begins:7.0f} {rest}   {ROLES[role]:14}{'  ' * depth}{name}")
