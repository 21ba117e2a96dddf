"""Plant each fault in a copy of the tree, and see which test catches it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple

from tests.planted import PACKAGE, ROOT, Fault, Stale, all_faults

SECONDS = 60.0
"""For the nets of one fault; what takes longer hangs."""

RESULT = re.compile(r"^(tests\S*::.*?)(?: (FAILED|ERROR|[A-Z]+) .*)?$", re.MULTILINE)
"""A line of ``pytest -v``: a test, and how it ended if it has."""

BROKEN = re.compile(r"^ERROR (tests\S*)", re.MULTILINE)
"""A line of its summary: a file that cannot be imported."""


class Finding(NamedTuple):
    """What became of a fault.

    Attributes:
        is_caught: Whether something noticed it.
        told: By what, or why not.
        test: The test that did, if it was one.
    """

    is_caught: bool
    told: str
    test: str | None = None


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Sweep; the exit code is 1 if a fault escapes or no longer applies."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*", help="of faults or tables, also with * (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (default: 1)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which nets hang")
    options = parser.parse_args(arguments)
    faults = [
        fault for fault in all_faults(root / "tests" / "planted") if _is_named(fault, options.names)
    ]
    began = monotonic()
    findings = sweep(faults, root, options.jobs, options.seconds)
    caught = sum(finding.is_caught for finding in findings)
    print(f"{caught} of {len(faults)} caught in {monotonic() - began:.0f} s")
    return 0 if faults and caught == len(faults) else 1


def sweep(faults: Sequence[Fault], root: Path, jobs: int, seconds: float) -> list[Finding]:
    """Plant each fault and run its nets; what catches one has to hold without it."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            trees.put(_copied(root, Path(folder, str(number))))

        def look(fault: Fault) -> Finding:
            tree, began = trees.get(), monotonic()
            try:
                found = find(fault, tree, seconds)
            finally:
                trees.put(tree)
            word = "caught" if found.is_caught else "ESCAPED"
            print(f"{monotonic() - began:4.1f} s  {fault} {word}: {found.told}", flush=True)
            return found

        with ThreadPoolExecutor(jobs) as threads:
            findings = list(threads.map(look, faults))
        tests = sorted({found.test for found in findings if found.test is not None})
        if tests and (bad := _failing(tests, trees.get(), seconds * len(tests))):
            print("ESCAPED: these fail without a fault:", *sorted(bad), sep="\n  ")
            findings = [
                found._replace(is_caught=False) if found.test in bad else found
                for found in findings
            ]
        return findings


def find(fault: Fault, tree: Path, seconds: float) -> Finding:
    """Plant a fault in a tree, run its nets, and take it out again."""
    try:
        with _planted(fault, tree):
            code, output = _pytest(tree, ["-x", *shlex.split(fault.nets)], seconds)
    except Stale as error:
        return Finding(False, str(error))
    results = [(test.strip(), result) for test, result in RESULT.findall(output)]
    failed = [test for test, result in results if result in ("FAILED", "ERROR")]
    failed += BROKEN.findall(output)
    last = results[-1][0] if results else None
    if code is None:
        return Finding(True, f"{last or fault.nets} hangs", last)
    if failed:
        return Finding(True, failed[0], failed[0])
    if last is None:
        return Finding(False, f"there are no tests in {fault.nets}\n{output}")
    if code == 0 and results[-1][1]:
        return Finding(False, f"nothing fails in {fault.nets}")
    return Finding(True, f"{last} ends the tests with code {code}", last)


def _is_named(fault: Fault, names: Sequence[str]) -> bool:
    return not names or any(
        fnmatchcase(text, name) for name in names for text in (fault.name, fault.table, str(fault))
    )


def _copied(root: Path, tree: Path) -> Path:
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns(".*", "venv", "site", "build"))
    return tree


@contextmanager
def _planted(fault: Fault, tree: Path) -> Iterator[None]:
    path = tree / PACKAGE / fault.file
    text = path.read_text("utf-8") if path.exists() else ""
    # The text may be as long as it was, and as young: the compiled file would be taken for its own.
    compiled = Path(cache_from_source(str(path)))
    planted = fault.applied(text)
    try:
        path.write_text(planted, "utf-8")
        compiled.unlink(missing_ok=True)
        yield
    finally:
        path.write_text(text, "utf-8")
        compiled.unlink(missing_ok=True)


def _failing(tests: Sequence[str], tree: Path, seconds: float) -> set[str]:
    """Those of the tests that fail in a tree without a fault."""
    # Without their parameters: what those are called may be another thing each time.
    functions = sorted({test.partition("[")[0] for test in tests})
    code, output = _pytest(tree, functions, seconds)
    if code == 0:
        return set()
    results = [(test.partition("[")[0], result) for test, result in RESULT.findall(output)]
    passed = {test for test, _ in results} - {
        test for test, result in results if result in ("", "FAILED", "ERROR")
    }
    return {test for test in tests if test.partition("[")[0] not in passed}


def _pytest(tree: Path, arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run tests of a tree; the exit code, ``None`` where they hang, and the output."""
    path = os.pathsep.join(filter(None, [str(tree / "src"), os.environ.get("PYTHONPATH")]))
    # With one seed, so that what is caught today is caught tomorrow.
    quietly = ["-v", "--tb=no", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    with tempfile.TemporaryFile("w+", errors="replace") as told:  # of a pipe it may leave an heir
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *quietly, *arguments],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        told.seek(0)
        return code, told.read()


if __name__ == "__main__":
    sys.exit(main())
