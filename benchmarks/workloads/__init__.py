"""All workloads, by name."""

from __future__ import annotations

from benchmarks.workload import Workload
from benchmarks.workloads import calls, flows, limits, watching

WORKLOADS: dict[str, Workload] = {
    each.name: each
    for module in (flows, watching, calls, limits)
    for each in module.WORKLOADS
}
