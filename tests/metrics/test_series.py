from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.linux.cgroups import pressure
from pycontainers.metrics.sample import FIELDS, Sample
from pycontainers.metrics.series import WHY_NO_PRESSURE, format_bytes, format_duration, format_rate, to_columns, to_series


def test_rates_over_irregular_intervals() -> None:
    samples = [
        Sample(time=100.0, cpu_usage=0, throttled=0, net_rx=50, block_write=0, memory=10, pids=1),
        Sample(time=100.1, cpu_usage=50_000_000, throttled=20_000_000, net_rx=150, block_write=10, memory=20, pids=2),
        Sample(time=102.1, cpu_usage=2_050_000_000, throttled=20_000_000, net_rx=150, block_write=2010, memory=15, pids=3),
    ]
    columns = to_columns(samples, cpus=0.5)
    assert columns["time"] == [100.0, 100.1, 102.1]
    assert columns["seconds"] == pytest.approx([0.0, 0.1, 2.1])
    assert columns["cpu_percent"] == pytest.approx([0.0, 50.0, 100.0])
    assert columns["cpu_limit_percent"] == [50.0, 50.0, 50.0]
    assert columns["throttled_ms_per_s"] == pytest.approx([0.0, 200.0, 0.0])
    assert columns["net_rx_per_s"] == pytest.approx([0.0, 1000.0, 0.0])
    assert columns["block_write_per_s"] == pytest.approx([0.0, 100.0, 1000.0])
    assert columns["memory"] == [10, 20, 15] and columns["pids"] == [1, 2, 3]


def test_a_counter_that_was_reset_and_a_clock_that_was() -> None:
    samples = [Sample(time=1.0, net_rx=1000), Sample(time=2.0, net_rx=30), Sample(time=2.0, net_rx=90), Sample(time=1.5, net_rx=95)]
    assert to_columns(samples)["net_rx_per_s"] == [0.0, 30.0, 0.0, 0.0]


@given(st.lists(st.builds(Sample, st.floats(0, 4e9), *[st.integers(0, 1 << 63)] * (len(FIELDS) - 1)), max_size=6))
def test_columns_are_of_one_length_and_never_negative(samples: list[Sample]) -> None:
    columns = to_columns(samples)
    assert {len(values) for values in columns.values()} == {len(samples)}
    assert all(value >= 0 for name, values in columns.items() if name != "seconds" for value in values)


def test_series_have_units() -> None:
    found = to_series([Sample(time=1.0, memory=5)])
    assert found["memory"].values == [5] and found["memory"].unit == "B"
    assert {name: series.unit for name, series in found.items()} == {
        "cpu_percent": "%",
        "cpu_limit_percent": "%",
        "throttled_ms_per_s": "ms/s",
        "net_rx_per_s": "B/s",
        "net_tx_per_s": "B/s",
        "block_read_per_s": "B/s",
        "block_write_per_s": "B/s",
        "memory": "B",
        "memory_cache": "B",
        "memory_rss": "B",
        "memory_limit": "B",
        "swap": "B",
        "pids": "",
        "pids_limit": "",
        "oom_kills": "",
        **{f"pressure_{name}_{kind}_percent": "%" for name in ("cpu", "memory", "io") for kind in ("some", "full")},
    }


def test_pressure_is_a_share_of_time_and_each_state_without_figures_is_explained() -> None:
    columns = to_columns([Sample(time=1.0), Sample(time=3.0, pressure_io_some=500_000_000, pressure_io_full=100_000_000)])
    assert columns["pressure_io_some_percent"] == [0.0, 25.0] and columns["pressure_io_full_percent"] == [0.0, 5.0]
    states = {pressure.UNRECORDED, pressure.NO_GROUP, pressure.NO_KERNEL, pressure.SWITCHED_OFF}
    assert set(WHY_NO_PRESSURE) == states and pressure.KNOWN not in WHY_NO_PRESSURE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1023.6, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (64 << 20, "64.0 MiB"),
        (1048575, "1.0 MiB"),
        (1.5 * (1 << 40), "1.5 TiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert format_bytes(value) == text and format_rate(value) == f"{text}/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.349, "0.35 s"),
        (9.999, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
