"""Addresses of clusters: which runner each scheme stands for."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from antflow._core.errors import StageValidationError
from antflow._core.executor_kind import RunnerKind
from antflow._core.misspellings import did_you_mean
from antflow._core.stage import Stage
from antflow._core.text import clean, safe_repr

GROUP = "antflow.runners"
"""The entry points of other packages that bring a scheme: its name → a function of the address."""

OWN = {
    "dask": "antflow.runners.dask_runner:DaskRunner",
    "ray": "antflow.runners.ray_runner:RayRunner",
}


def runner_kind(stage: Stage, address: str) -> RunnerKind:
    """The runner that an address like ``"dask://scheduler:8786"`` stands for.

    Raises:
        StageValidationError: The scheme is not known, its library is not installed, or the address
            is not one of it.
    """
    scheme = address.partition("://")[0]
    where = f"Stage {clean(safe_repr(stage.name))}: executor={safe_repr(address)}"
    found = {name: EntryPoint(name, value, GROUP) for name, value in OWN.items()}
    found |= {each.name: each for each in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(f"{name}://" for name in sorted(found))
        meant = did_you_mean(scheme, found)
        raise StageValidationError(f"{where}: unknown scheme; known are {known}{meant}")
    try:
        kind = found[scheme].load()(address)
    except ImportError as error:
        raise StageValidationError(f"{where}: {error}") from error
    except ValueError as error:
        raise StageValidationError(f"{where}: {error}") from error
    if not isinstance(kind, RunnerKind):
        raise StageValidationError(f"{where}: its entry point returned {safe_repr(kind)}")
    return kind
