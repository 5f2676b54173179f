"""Metrics: reading a cgroup, recording it, turning counters into series."""
