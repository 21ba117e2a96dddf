"""Clusters that a stage's tasks can run on: ``Stage(..., executor="dask://scheduler:8786")``.

Each is loaded with its first use: it alone knows the library it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antflow._core.executor_kind import RunnerKind
    from antflow.runners.dask_runner import DaskRunner
    from antflow.runners.ray_runner import RayRunner
else:
    _HOMES = {
        "DaskRunner": "antflow.runners.dask_runner",
        "RayRunner": "antflow.runners.ray_runner",
        "RunnerKind": "antflow._core.executor_kind",
    }

    # Not for type checkers: they would believe that a misspelt name exists.
    def __getattr__(name: str) -> Any:
        if (home := _HOMES.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(home), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = ["DaskRunner", "RayRunner", "RunnerKind"]
