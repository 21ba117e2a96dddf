"""Exception groups: each error in a group counts as it would alone.

Only the leaves count, however deep they are. A group itself counts if an option names a class of
groups: ``give_up_on=ExceptionGroup``.
"""

from __future__ import annotations

from collections.abc import Sequence

from antflow._core.foreign import is_a, members_of


def parts(error: BaseException) -> Sequence[BaseException]:
    """The error and, if it is a group, all groups and errors in it, each object once."""
    if not is_a(error, BaseExceptionGroup):
        return (error,)
    found: list[BaseException] = []
    todo: list[BaseException] = [error]
    seen = {id(error)}
    while todo:
        part = todo.pop()
        found.append(part)
        if is_a(part, BaseExceptionGroup):
            inside = [each for each in members_of(part) if id(each) not in seen]
            seen.update(map(id, inside))
            todo += reversed(inside)
    return found


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group that are not groups; for any other error, just that error."""
    return [part for part in parts(error) if not is_a(part, BaseExceptionGroup)]


def matches(
    error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
    """Whether the error, or anything in it, is of one of these classes."""
    if not is_a(error, BaseExceptionGroup):  # most are not: each failed try asks several times
        return is_a(error, kinds)
    return any(is_a(part, kinds) for part in parts(error))


def consists_of(
    error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
    """Whether the error, or each error in it if it is a group, is of one of these classes."""
    if not is_a(error, BaseExceptionGroup):
        return is_a(error, kinds)
    return all(is_a(leaf, kinds) for leaf in leaves(error))
