"""The metrics of `antflow run`: served, pushed, and written to a file."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest

from antflow.cli.metrics import MOST_REQUESTS
from tests.cli.running import antflow, errors_of, start

pytest.importorskip("prometheus_client", reason="needs the extra `prometheus`")

from prometheus_client.parser import text_string_to_metric_families

QUIET = ("--dashboard", "none")
WAITING = """
import asyncio, time
from pathlib import Path
from antflow import Pipeline, Stage

async def wait(text):
    Path("begun").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return text

async def block(text):
    Path("begun").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return text

pipeline = Pipeline([Stage("Wait", 2, [wait], task_attempts=1)], name="waiting")
blocking = Pipeline([Stage("Block", 2, [block], task_attempts=1)], name="blocking")
"""


@pytest.fixture
def items(folder: Path) -> Path:
    """Twenty lines, of which 16 come through; and a pipeline that waits for the file ``go``."""
    (folder / "waiting.py").write_text(WAITING)
    path = folder / "items.txt"
    path.write_text("".join(f"{number}\n" for number in range(1, 21)))
    return path


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pushed to this machine is not sent to a proxy."""
    monkeypatch.setenv("NO_PROXY", "*")


def samples(text: str) -> dict[tuple[str, str], float]:
    """``(name, state, outcome or type of error)`` → value, summed up over the other labels."""
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            of = labels.get("outcome") or labels.get("error_type") or labels.get("state") or ""
            values[sample.name, of] = values.get((sample.name, of), 0) + sample.value
    return values


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def get(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and body of a request."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


@contextmanager
def serving(folder: Path, name: str = "pipeline", *options: object) -> Iterator[int]:
    """A run whose first items are in hand, and the port of its metrics."""
    port = free_port()
    options = ("--metrics-port", port, *options)
    run = ("run", f"waiting:{name}", "--items", "items.txt", *QUIET, *options)
    process = start(folder, *run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(folder / "begun")
        yield port
        (folder / "go").touch()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


# -- served -----------------------------------------------------------------------------------


def test_metrics_are_served(folder: Path, items: Path) -> None:
    """``--metrics-port`` answers while the run goes on, at /metrics and nowhere else."""
    with serving(folder) as port:
        status, text = get(port)
        assert status == 200
        values = samples(text)
        assert values["antflow_pipeline_running", ""] == 1
        assert values["antflow_stage_workers", "busy"] == 2
        assert get(port, "/")[0] == 404
        assert get(port, method="HEAD") == (200, "")
        assert get(port, method="POST")[0] == 501


def test_metrics_of_a_blocked_loop(folder: Path, items: Path) -> None:
    """They are served while a task blocks the event loop."""
    with serving(folder, "blocking") as port:
        time.sleep(0.8)
        status, text = get(port)
        assert status == 200
        assert samples(text)["antflow_event_loop_lag_seconds", ""] > 0.3


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example:{}", 403),
        ("127.0.0.1.evil.example:{}", 403),
        ("", 403),
        ("localhost:{}", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:{}", 200),
        ("[::1]:{}", 200),
    ],
)
def test_metrics_for_another_host(host: str, status: int, folder: Path, items: Path) -> None:
    """A request under another name than this machine's, as by DNS rebinding, is refused."""
    from antflow.cli.metrics import _Server

    server = _Server(("127.0.0.1", 0))
    with closing(server.socket):
        assert server.knows_as_itself(host.format(9100)) is (status == 200)


def test_metrics_for_another_host_over_http(folder: Path, items: Path) -> None:
    """The same, asked over the wire; and a name that was given as HOST is the server's own."""
    with serving(folder) as port:
        assert get(port, Host=f"evil.example:{port}")[0] == 403
        assert get(port, Host=f"localhost:{port}")[0] == 200


def test_server_with_silent_clients(folder: Path, items: Path) -> None:
    """Clients that say nothing take no more than their share, and do not hold up the run."""
    with serving(folder) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_REQUESTS)]
        time.sleep(0.3)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(port)
        for each in silent:
            each.close()
        deadline = time.monotonic() + 10
        while True:
            try:
                assert get(port)[0] == 200
                break
            except (ConnectionError, http.client.HTTPException):
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_port_that_is_in_use(items: Path) -> None:
    """A port in use is refused before anything is imported or run."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        result = antflow("run", "nowhere:pipeline", "--items", items, "--metrics-port", port)
    assert result.exit_code == 2
    assert errors_of(result) == [
        f"Error: --metrics-port: cannot listen on 127.0.0.1 port {port}: Address already in use"
    ]


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "1:2:x", ":9100", "9100x", "٣", "1.5"])
def test_address_that_is_not_one(text: str, items: Path) -> None:
    """What is neither PORT nor HOST:PORT is refused with both forms."""
    result = antflow("run", "app:pipeline", "--items", items, "--metrics-port", text)
    assert result.exit_code == 2
    assert "must be PORT or HOST:PORT" in " ".join(result.stderr.split())


def test_port_is_free_again(items: Path) -> None:
    """When the command is over, nothing listens any more: the same port can be had at once."""
    port = free_port()
    for address in (port, f"localhost:{port}", f"127.0.0.1:{port}"):
        result = antflow("run", "app:pipeline", "--items", items, *QUIET, "--metrics-port", address)
        assert (result.exit_code, errors_of(result)) == (1, [])
    assert not [each for each in threading.enumerate() if each.name == "antflow metrics"]


# -- a file -----------------------------------------------------------------------------------


def test_metrics_in_a_file(folder: Path, items: Path) -> None:
    """The file has the final counts, is readable for others, and nothing is left beside it."""
    before = {*folder.iterdir()}
    result = antflow("run", "app:pipeline", "--items", items, *QUIET, "--metrics-file", "run.prom")
    assert (result.exit_code, errors_of(result)) == (1, [])
    values = samples((folder / "run.prom").read_text())
    assert values["antflow_pipeline_items_total", "completed"] == 16
    assert values["antflow_stage_errors_total", "LookupError"] == 2
    assert values["antflow_pipeline_running", ""] == 0
    assert values["antflow_pipeline_last_success_timestamp_seconds", ""] > 1e9
    assert {*folder.iterdir()} - before == {folder / "run.prom"}


@pytest.mark.real_time
def test_metrics_file_during_the_run(
    folder: Path, items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there from the beginning, and written again and again."""
    monkeypatch.setattr("antflow.cli.metrics.BETWEEN_WRITES", 0.02)
    (folder / "slow.py").write_text(
        "import asyncio\nfrom pathlib import Path\nfrom antflow import Pipeline, Stage\n"
        "seen = []\n"
        "async def work(text):\n"
        "    seen.append(Path('run.prom').read_text())\n"
        "    await asyncio.sleep(0.1)\n"
        "pipeline = Pipeline([Stage('Work', 1, [work])])\n"
    )
    antflow("run", "slow:pipeline", "--items", items, *QUIET, "--metrics-file", "run.prom")
    seen = [samples(text) for text in sys.modules["slow"].seen]
    counts = [each["antflow_pipeline_items_total", "completed"] for each in seen]
    assert counts[0] == 0
    assert len(set(counts)) > 10


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("run.txt", "'run.txt': must end in .prom"),
        ("folder.prom", "'folder.prom': is a folder"),
        ("./out.prom", "'./out.prom': is the file of --out"),
        ("items.prom", "'items.prom': is the file that --items reads"),
        ("device.prom", "'device.prom': is not an ordinary file"),
        ("nowhere/run.prom", "'nowhere/run.prom': No such file or directory"),
    ],
)
def test_metrics_file_that_cannot_be_written(
    path: str, message: str, folder: Path, items: Path
) -> None:
    """It is refused before the run begins."""
    (folder / "folder.prom").mkdir()
    (folder / "items.prom").symlink_to(items)
    (folder / "device.prom").symlink_to("/dev/null")
    out = ("--out", "out.prom", "--metrics-file", path)
    result = antflow("run", "app:pipeline", "--items", items, *QUIET, *out)
    assert result.exit_code == 2
    assert errors_of(result)[0].startswith(f"Error: --metrics-file {message}")
    assert "fetching" not in result.stderr


def test_metrics_file_is_that_of_the_folder_of_the_command(folder: Path, items: Path) -> None:
    """A module that changes the folder does not move it, and a link to it stays a link."""
    (folder / "moves.py").write_text("import os\nfrom app import *\nos.chdir('elsewhere')\n")
    (folder / "elsewhere").mkdir()
    (folder / "run.prom").symlink_to("real.prom")
    antflow("run", "moves:pipeline", "--items", items, *QUIET, "--metrics-file", "run.prom")
    assert (folder / "run.prom").is_symlink()
    assert "antflow_pipeline_items_total" in (folder / "real.prom").read_text()
    assert [*(folder / "elsewhere").iterdir()] == []


def test_metrics_file_that_cannot_be_written_later(
    folder: Path, items: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that goes away during the run is one warning; the run is as it would be."""
    (folder / "gone.py").write_text(
        "import shutil\nfrom antflow import Pipeline, Stage\n"
        "def work(text):\n"
        "    shutil.rmtree('metrics', ignore_errors=True)\n"
        "pipeline = Pipeline([Stage('Work', 1, [work])])\n"
    )
    (folder / "metrics").mkdir()
    result = antflow(
        "run", "gone:pipeline", "--items", items, *QUIET, "--metrics-file", "metrics/run.prom"
    )
    assert result.exit_code == 0
    assert caplog.text.count("--metrics-file metrics/run.prom: cannot be written: ") == 1


# -- a Pushgateway ----------------------------------------------------------------------------


class Gateway(ThreadingHTTPServer):
    """Keeps what is pushed to it."""

    def __init__(self, status: int = 202) -> None:
        super().__init__(("127.0.0.1", 0), PushHandler)
        self.status = status
        self.pushed: list[tuple[str, str, str]] = []
        self.authorized: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class PushHandler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.authorized.append(self.headers["Authorization"])
        self.server.pushed.append((self.command, self.path, text))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_metrics_are_pushed(gateway: Gateway, items: Path) -> None:
    """At the end, the metrics are pushed once, in a group of their own that is added to."""
    result = antflow("run", "app:pipeline", "--items", items, *QUIET, "--metrics-push", gateway.url)
    assert (result.exit_code, errors_of(result)) == (1, [])
    [(method, path, text)] = gateway.pushed
    assert (method, path) == ("POST", "/metrics/job/antflow/pipeline/pages")
    values = samples(text)
    assert values["antflow_pipeline_items_total", "completed"] == 16
    assert values["antflow_pipeline_running", ""] == 0


WAYS_OUT = {
    "all fail": ("async def work(text): raise ValueError", (), 1, "failed"),
    "too many failures": (
        "async def work(text): raise ValueError",
        ("--max-failures", 2),
        3,
        "failed",
    ),
    "a bad line": ("async def work(text): return 1", (), 2, "completed"),
    "it exits": ("async def work(text): raise SystemExit(5)", (), 3, "cancelled"),
    "it is interrupted": (
        "import os, signal\nasync def work(text): os.kill(os.getpid(), signal.SIGINT)",
        (),
        130,
        "completed",
    ),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_metrics_are_pushed_on_every_way_out(way: str, gateway: Gateway, folder: Path) -> None:
    """However a run ends, what it did is pushed, and the exit code is what it would be."""
    task, options, code, outcome = WAYS_OUT[way]
    (folder / "ends.py").write_text(
        f"from antflow import Pipeline, Stage\n{task}\n"
        "pipeline = Pipeline([Stage('Work', 1, [work], task_attempts=1)], name='ends')\n"
    )
    bad = "not json\n" if way == "a bad line" else ""
    (folder / "items.jsonl").write_text(f"1\n2\n3\n{bad}")
    push = ("--metrics-push", gateway.url)
    result = antflow("run", "ends:pipeline", "--items", "items.jsonl", *QUIET, *push, *options)
    assert result.exit_code == code
    [(_, _, text)] = gateway.pushed
    values = samples(text)
    assert values["antflow_pipeline_items_total", outcome] > 0
    assert values["antflow_pipeline_in_flight_items", ""] == 0
    has_succeeded = ("antflow_pipeline_last_success_timestamp_seconds", "") in values
    assert has_succeeded is (way == "all fail")


def test_nothing_is_pushed_without_a_run(gateway: Gateway, items: Path) -> None:
    """A command that is refused leaves the last push as it was."""
    push = ("--metrics-push", gateway.url)
    result = antflow("run", "app:pipeline", "--items", "none.txt", *QUIET, *push)
    assert (result.exit_code, gateway.pushed) == (2, [])


def test_push_with_a_password(
    gateway: Gateway, items: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name and a password in the URL are sent as such, and shown nowhere."""
    url = gateway.url.replace("//", "//me:secret@")
    gateway.status = 500
    result = antflow("run", "app:pipeline", "--items", items, *QUIET, "--metrics-push", url)
    assert gateway.authorized == ["Basic bWU6c2VjcmV0"]
    assert "secret" not in result.output + caplog.text
    assert f"--metrics-push {gateway.url}: HTTPError: HTTP Error 500" in caplog.text


def test_push_that_fails(items: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that is not there is one warning, and nothing else changes."""
    url = f"http://127.0.0.1:{free_port()}"
    result = antflow("run", "app:pipeline", "--items", items, *QUIET, "--metrics-push", url)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 16
    [line] = [each for each in caplog.messages if "push" in each]
    assert re.match(rf"--metrics-push {url}: URLError: .*refused", line)


def test_push_that_is_not_answered(
    items: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that says nothing is given up."""
    monkeypatch.setattr("antflow.cli.metrics.LONGEST_PUSH", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = antflow("run", "app:pipeline", "--items", items, *QUIET, "--metrics-push", url)
    assert result.exit_code == 1
    assert f"--metrics-push {url}: TimeoutError" in caplog.text


@pytest.mark.parametrize(
    "url", ["", "gateway:9091", "ftp://gateway", "http://", "http://gateway:x", "http://me:s3@:1"]
)
def test_gateway_that_is_not_one(url: str, items: Path) -> None:
    """What is no URL of a gateway is refused, without being shown."""
    result = antflow("run", "app:pipeline", "--items", items, "--metrics-push", url)
    assert result.exit_code == 2
    assert "must be a URL like http://localhost:9091" in " ".join(result.stderr.split())
    assert "s3" not in result.stderr


def test_metrics_without_the_extra(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prometheus-client, the options say what to install; without them nothing does."""
    for name in [each for each in sys.modules if each.startswith("antflow.sinks.prometheus")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert antflow("run", "app:pipeline", "--items", items, *QUIET).exit_code == 1
    result = antflow("run", "app:pipeline", "--items", items, "--metrics-port", 0)
    assert result.exit_code == 2
    assert "install antflow[prometheus]" in errors_of(result)[0]


# -- the real one -----------------------------------------------------------------------------


@pytest.mark.skipif(
    which("prometheus-pushgateway") is None, reason="needs Debian's `prometheus-pushgateway`"
)
def test_metrics_in_a_real_pushgateway(folder: Path, items: Path) -> None:
    """The gateway takes the metrics; a run that fails later does not take the last success away."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}"]
    gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                assert get(port, "/-/ready")[0] == 200
                break
            except (ConnectionError, AssertionError):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        run = ("run", "app:pipeline", *QUIET, "--metrics-push", url, "--items")
        assert antflow(*run, items).exit_code == 1
        first = samples(get(port)[1])
        assert first["antflow_pipeline_items_total", "completed"] == 16
        (folder / "bad.jsonl").write_text('{"a": 1\n')
        assert antflow(*run, "bad.jsonl").exit_code == 2
        second = samples(get(port)[1])
        assert second["antflow_pipeline_items_total", "completed"] == 0
        name = ("antflow_pipeline_last_success_timestamp_seconds", "")
        assert second[name] == first[name] > 0
    finally:
        gateway.kill()
        gateway.wait()
