"""All workloads, by name."""

from __future__ import annotations

from benchmarks.workload import Workload
from benchmarks.workloads import (
    calls,
    displays,
    flows,
    growth,
    journals,
    kinds,
    ladder,
    limits,
    requests,
    small,
    waits,
    watching,
)

WORKLOADS: dict[str, Workload] = {
    each.name: each
    for module in (
        requests,
        flows,
        waits,
        watching,
        displays,
        calls,
        small,
        limits,
        kinds,
        ladder,
        growth,
        journals,
    )
    for each in module.WORKLOADS
}
