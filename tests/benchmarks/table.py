"""Draw what :mod:`.steps` recorded: the median of each step, in the order in which they begin."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

from .steps import ROLES


def show(state: Any, watch: Any, runs: int, network: str, image: str, execs: bool, beside: int) -> None:
    from pycontainers.protocol import ContainerConfig, ExecConfig

    engine, info = state.engine, None
    for _ in range(beside):
        engine.start(engine.create(ContainerConfig(image, ("sleep", "1000"), network=network)).id)
    time.sleep(10 if beside else 0)  # they sample more rarely then
    if execs:
        info = engine.start(engine.create(ContainerConfig(image, ("sleep", "1000"), network=network)).id)

    def once(first: list[int]) -> None:
        def seen(stream: str, data: bytes) -> None:
            first.append(time.perf_counter_ns())

        if info is not None:
            engine.exec(info.id, ExecConfig(("echo", "x")), None, seen)
        else:
            engine.run(ContainerConfig(image, ("echo", "x"), network=network, auto_remove=True), None, seen)

    begins: dict[Any, list[float]] = defaultdict(list)
    lengths: dict[Any, list[float]] = defaultdict(list)
    faults: dict[Any, list[int]] = defaultdict(list)
    order: dict[Any, float] = {}
    firsts, wholes = [], []
    for number in range(runs + 2):
        watch.clear()
        first: list[int] = []
        begun = time.perf_counter_ns()
        once(first)
        ended = time.perf_counter_ns()
        time.sleep(0.03)  # what the supervisor does after its last message
        if number < 2:
            continue  # the first ones start helpers
        firsts.append(first[0] - begun)
        wholes.append(ended - begun)
        seen: dict[Any, int] = defaultdict(int)
        for role, name, depth, start, end, fault in watch.read():
            key = (role, name, depth, seen[role, name, depth])
            seen[role, name, depth] += 1
            begins[key].append((start - begun) / 1000)
            if end:
                lengths[key].append((end - start) / 1000)
                faults[key].append(fault)
    for key, values in begins.items():
        order[key] = statistics.median(values)
    print(f"{'at':>7} {'takes':>7} {'faults':>6}   medians of {runs}, microseconds")
    for key in sorted(order, key=lambda key: (order[key], key[2])):
        role, name, depth, _ = key
        if len(begins[key]) < runs / 2:
            continue
        took = f"{statistics.median(lengths[key]):7.0f}" if lengths[key] else "      -"
        paged = f"{statistics.median(faults[key]):6.0f}" if faults[key] else "     -"
        print(f"{order[key]:7.0f} {took} {paged}   {ROLES[role]:14}{'  ' * depth}{name}")
    print(f"\nfirst output {statistics.median(firsts) / 1000:.0f}, whole {statistics.median(wholes) / 1000:.0f}")
