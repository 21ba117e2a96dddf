"""Addresses of PostgreSQL databases, as users give them and as messages show them."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

SCHEMES = ("postgresql://", "postgres://")

NOT_SHOWN = "postgresql://…"


def without_password(source: str) -> str:
    """An address as it may be shown: without its password and options. Other texts as they are."""
    if not source.startswith(SCHEMES):
        return source
    try:
        parts = urlsplit(source)
    except ValueError:
        return NOT_SHOWN
    user, at, hosts = parts.netloc.rpartition("@")
    # In a password that is not quoted, / ? # end the address: what follows is part of it.
    is_clear = "@" not in parts.path + parts.query + parts.fragment and "#" not in source
    if not is_clear or not re.fullmatch(r"((\[[^]]*\]|[^]:[]*)(:\d*)?(,|$))*", hosts):
        return NOT_SHOWN
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{hosts}{parts.path}"


def shown_address(source: str) -> str:
    """An address without its password, and with the schema that it names, if it names one."""
    shown = without_password(source)
    if shown == NOT_SHOWN:
        return shown
    schema = parse_qs(urlsplit(source).query).get("search_path", [""])[-1]
    return f"{shown}?search_path={schema}" if re.fullmatch(r"[\w,$ ]+", schema) else shown


def check_address(name: str, source: str) -> None:
    """Refuse what is not the address of a database.

    Args:
        name: Name of the argument.
        source: What was given.

    Raises:
        ValueError: It is not one, or its password is not quoted.
    """
    if not source.startswith(SCHEMES) or without_password(source) == NOT_SHOWN:
        raise ValueError(
            f"{name}: must be the address of a PostgreSQL database, like "
            "postgresql://user:password@host/name, where / ? # @ in a password are %2F %3F "
            "%23 %40"
        )
