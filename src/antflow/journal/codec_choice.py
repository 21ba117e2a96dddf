"""Which codec a journal uses: that of a name, or the user's own."""

from __future__ import annotations

import os
from typing import Any

from antflow._core.checks import check_choice, check_flag, refusal
from antflow.journal.codec import Codec
from antflow.journal.databases import is_remote
from antflow.journal.json_codec import JsonCodec
from antflow.journal.private_files import refuse_unless_private

CODECS = ("json", "msgspec", "pickle")


def codec_of(codec: Any, path: str | os.PathLike[str], trusted: bool = False) -> Codec:
    """The codec to use for a journal.

    Args:
        codec: ``"json"``, ``"msgspec"``, ``"pickle"``, or an object with ``name``, ``encode`` and
            ``decode``.
        path: The journal.
        trusted: Whether pickles in it may be loaded, which runs whatever they say.

    Raises:
        TypeError: It is not a codec.
        ValueError: There is no such codec, or pickles are not trusted.
        ImportError: ``msgspec`` is not installed.
        JournalOpenError: Pickles are trusted, and others can write to the journal or its folder.
    """
    check_flag(TypeError, "trusted", trusted)
    if not isinstance(codec, str):
        return _own(codec)
    check_choice(ValueError, "codec", codec, CODECS, ", or an object with encode and decode")
    if codec == "json":
        return JsonCodec()
    if codec == "msgspec":
        return _msgspec()
    if not trusted:
        told = "runs code in the file when it is read; if you trust the file, pass trusted=True"
        raise refusal(ValueError, "codec", codec, told)
    if not is_remote(path):  # else its tables are looked at when it is opened
        refuse_unless_private(path)
    from antflow.journal.pickle_codec import PickleCodec  # few need it

    return PickleCodec()


def _own(codec: Any) -> Codec:
    for name in ("encode", "decode"):
        if isinstance(codec, type) or not callable(getattr(codec, name, None)):
            allowed = "must be 'json', 'msgspec', 'pickle', or an object with encode and decode"
            raise refusal(TypeError, "codec", codec, allowed)
    if not isinstance(getattr(codec, "name", None), str):
        raise refusal(TypeError, "codec", codec, "must have a name, a string")
    own: Codec = codec
    return own


def _msgspec() -> Codec:
    try:
        from antflow.journal.msgspec_codec import MsgspecCodec
    except ModuleNotFoundError as error:
        if error.name != "msgspec":
            raise
        told = "codec='msgspec': install it with: pip install 'antflow[msgspec]'"
        raise ModuleNotFoundError(told, name="msgspec") from error
    return MsgspecCodec()
