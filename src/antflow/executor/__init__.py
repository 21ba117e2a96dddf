"""`AsyncExecutor`: single calls of async and plain functions, with retries but no stages."""

from antflow._engine.iteration import Iteration
from antflow.executor.executor import AsyncExecutor
from antflow.executor.future import AsyncFuture, WaitStrategy

__all__ = ["AsyncExecutor", "AsyncFuture", "Iteration", "WaitStrategy"]
