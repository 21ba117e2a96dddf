"""Whether a folder is on a file system that other machines share."""

from __future__ import annotations

import os
import re

MOUNTS = "/proc/self/mounts"
"""The mounted file systems; only Linux has it."""

SHARED = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda"),
    *("lustre", "ceph", "glusterfs", "gpfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2"),
    *("9p", "vboxsf", "prl_fs"),
}
"""File systems in which several machines, or a virtual one and its host, have the same files."""


def network_file_system(folder: str) -> str | None:
    """The type of the file system that a folder is on, if other machines share it; else ``None``.

    Those that programs provide (FUSE) count as shared: most are, and which ones is not known.

    Args:
        folder: An absolute path without symbolic links.
    """
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:  # not Linux, or no /proc
        return None
    best, found = "", ""
    for line in lines:
        _, where, kind, *_ = map(_unescaped, line.split(" "))
        is_above = where == "/" or folder == where or folder.startswith(f"{where}/")
        if is_above and len(where) >= len(best):  # of two at one place, the later one is on top
            best, found = where, kind
    return found if found in SHARED or found.startswith("fuse.") or found == "fuse" else None


def _unescaped(field: str) -> str:
    """A field as it was: spaces and the like are written as three octal digits."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)
