"""The dashboard and the alert rules of deploy/: they fit the metrics, and a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import CallbackSink, PipelineCollector
from antflow.testing import run_virtual
from tests.support import odd_only

pytest.importorskip("prometheus_client", reason="needs the extra `prometheus`")

from prometheus_client.parser import text_string_to_metric_families

from antflow.sinks.prometheus import FAMILIES, exposition

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "antflow.rules.yml"
RULE_TESTS = RULES.with_name("antflow.rules.test.yml")
DASHBOARD = DEPLOY / "grafana" / "antflow.json"
EXAMPLE = ROOT / "examples" / "metrics_for_prometheus.py"

OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus itself gives to what it scrapes."""

has_promtool = pytest.mark.skipif(
    which("promtool") is None, reason="needs promtool, of Debian's `prometheus`"
)
has_prometheus = pytest.mark.skipif(
    which("prometheus") is None, reason="needs Debian's `prometheus`"
)


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return content


def expressions() -> list[str]:
    """Every expression of the dashboard, with its variables replaced."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [re.sub(r'"\$\w+"', '".*"', each.replace("$__rate_interval", "1m")) for each in found]


def shown() -> tuple[set[str], set[str]]:
    """The names of all samples of a run, and of their labels; with those of Prometheus."""
    sink = CallbackSink(lambda events: None)
    pipeline = Pipeline([Stage("Say", 1, [odd_only], task_attempts=2)], observers=[sink])
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run([1, 2], on_failures="ignore"))
    families = list(text_string_to_metric_families(exposition(collector).decode()))
    samples = [sample for family in families for sample in family.samples]
    gauges = {name for name, (kind, _) in FAMILIES.items() if kind == "gauge"}
    return {each.name for each in samples} | gauges, {
        key for each in samples for key in each.labels
    }


def unknown_names(text: str) -> list[str]:
    """Metrics and labels in expressions that no run has."""
    metrics, labels = shown()
    text = re.sub(r'"[^"]*"', '""', text)
    used = set(re.findall(r"\bantflow_\w+", text))
    within = set(re.findall(r"(\w+)\s*=~?\s*\"", text))
    for names in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", text):
        within |= {name.strip() for name in names.split(",")}
    return sorted((used - metrics) | (within - labels - OF_PROMETHEUS))


# -- names ------------------------------------------------------------------------------------


def test_dashboard_shows_what_there_is() -> None:
    """Every metric and label in the dashboard is one that runs have."""
    queries = [each.get("definition", "") for each in dashboard()["templating"]["list"]]
    assert unknown_names("\n".join([*expressions(), *queries])) == []


def test_rules_watch_what_there_is() -> None:
    """The same of the alert rules, and of the series in their tests."""
    expressions = re.sub(r"(?m)^ *(summary|description|alert|#).*$", "", RULES.read_text("utf-8"))
    assert unknown_names(expressions) == []
    series = re.findall(r"series: '(.*)'", RULE_TESTS.read_text("utf-8"))
    assert unknown_names("\n".join(series)) == []


def test_name_that_no_run_has() -> None:
    """A metric or a label that is misspelt is found."""
    assert unknown_names('rate(antflow_stage_item_total{stage="x"}[5m])') == [
        "antflow_stage_item_total"
    ]
    assert unknown_names('sum by (stage, kind) (antflow_stage_items_total{stages=~"x"})') == [
        "kind",
        "stages",
    ]


# -- the dashboard ----------------------------------------------------------------------------


def test_dashboard_can_be_imported() -> None:
    """It has what Grafana's import asks for, no id of its own, and a source that is chosen."""
    board = dashboard()
    assert board["id"] is None
    assert (board["uid"], board["title"]) == ("antflow", "antflow")
    assert board["schemaVersion"] >= 36
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert {"job", "instance", "pipeline"} <= variables.keys()
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in board["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"] == chosen
        assert [each["datasource"] for each in panel["targets"]] == [chosen] * len(panel["targets"])
        ids = [each["refId"] for each in panel["targets"]]
        assert len(set(ids)) == len(ids) > 0
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert "id" not in [key for panel in board["panels"] for key in panel["options"]]


def test_panels_do_not_overlap() -> None:
    """Each cell of the grid, which is 24 wide, has one panel at most."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


# -- the rules --------------------------------------------------------------------------------


@has_promtool
@pytest.mark.parametrize("check", [("check", "rules", RULES), ("test", "rules", RULE_TESTS)])
def test_rules_pass_promtool(check: tuple[str, str, Path]) -> None:
    """Prometheus's own tool reads the rules, and their tests pass."""
    command, kind, path = check
    done = subprocess.run(
        ["promtool", command, kind, path.name], cwd=path.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@has_promtool
def test_settings_in_the_guide_pass_promtool(tmp_path: Path) -> None:
    """The ``prometheus.yml`` of the guide is one, beside the rules."""
    guide = (ROOT / "docs" / "guide" / "metrics.md").read_text("utf-8")
    (settings,) = re.findall(r"```\n(scrape_configs:\n.*?)```", guide, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(settings)
    (tmp_path / RULES.name).write_bytes(RULES.read_bytes())
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 rules found" in done.stdout


@has_promtool
def test_rule_tests_can_fail(tmp_path: Path) -> None:
    """Each rule is needed by its tests: one whose threshold is out of reach fails them."""
    rules = RULES.read_text("utf-8")
    (tmp_path / RULE_TESTS.name).write_bytes(RULE_TESTS.read_bytes())
    limits = [
        ("== 0\n", "< 0\n"),
        ("> 0.1\n", "> 0.9\n"),
        ("> 0.5\n", "> 50\n"),
        (") > 0\n", ") > 99\n"),
    ]
    for limit, out_of_reach in limits:
        assert rules.count(limit) == 1
        (tmp_path / RULES.name).write_text(rules.replace(limit, out_of_reach), "utf-8")
        done = subprocess.run(
            ["promtool", "test", "rules", RULE_TESTS.name], cwd=tmp_path, capture_output=True
        )
        assert done.returncode != 0, limit


# -- a real Prometheus ------------------------------------------------------------------------


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


class Prometheus:
    """A server, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer."""
        query = urllib.parse.urlencode(parameters)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/api/v1/{path}?{query}", timeout=10) as response:
            answer = json.loads(response.read())
        assert answer["status"] == "success"
        return answer["data"]

    def value(self, expression: str) -> float | None:
        """The value of an expression with one; ``None`` if it has none."""
        results = self.ask("query", query=expression)["result"]
        return float(results[0]["value"][1]) if results else None

    def wait_for(self, expression: str, least: float) -> None:
        """Wait until an expression has a value, and this one at least."""
        deadline = time.monotonic() + 30
        while True:
            try:
                if (self.value(expression) or 0.0) >= least:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            assert time.monotonic() < deadline, f"{expression} is {self.value(expression)}"
            time.sleep(0.1)


@contextmanager
def prometheus(folder: Path, *targets: int) -> Iterator[Prometheus]:
    """A Prometheus that scrapes ports of this machine, with our rules."""
    hosts = ", ".join(f"'127.0.0.1:{target}'" for target in targets)
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}\n"
        f"rule_files: [{RULES}]\n"
        "scrape_configs:\n"
        "  - job_name: antflow\n"
        f"    static_configs: [{{targets: [{hosts}]}}]\n"
    )
    port = free_port()
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        server.terminate()
        server.wait(20)


COMMANDED = """
import asyncio
from antflow import Pipeline, Stage

async def work(text):
    await asyncio.sleep(0.1)

pipeline = Pipeline([Stage("Work", 1, [work])], name="commanded")
"""


@contextmanager
def running(folder: Path, *arguments: object) -> Iterator[None]:
    """A program in Python that is ended at the end."""
    program = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        program.kill()
        program.wait()


@has_prometheus
def test_prometheus_scrapes_what_runs(tmp_path: Path) -> None:
    """A real Prometheus has the counters of the example and of the command, and all panels."""
    (tmp_path / "app.py").write_text(COMMANDED)
    (tmp_path / "items.txt").write_text("item\n" * 1_000)
    ports = free_port(), free_port()
    command = ("-m", "antflow", "run", "app:pipeline", "--items", "items.txt", "--metrics-port")
    items = 'sum(antflow_pipeline_items_total{job="antflow",pipeline="%s"})'
    with prometheus(tmp_path, *ports) as server:
        server.wait_for("count(up)", 2)  # it has begun to scrape; nothing answers yet
        with running(tmp_path, EXAMPLE, ports[0]), running(tmp_path, *command, ports[1]):
            server.wait_for(items % "commanded", 5)
            server.wait_for(items % "pages", 500)  # of the second run, too
            assert server.value("sum(max_over_time(antflow_pipeline_running[1m]))") == 2
            assert server.value("count(up == 1)") == 2
            assert server.value('sum(antflow_stage_errors_total{stage="Parse"})') is not None
            assert server.value('sum(antflow_sink_events_total{sink="CallbackSink"})') is not None
            assert [each for each in expressions() if server.value(each) is None] == []
            told = {name.removesuffix("_total") for name in server.ask("metadata")}
            assert {name for name in told if name.startswith("antflow_")} == FAMILIES.keys()
        [group] = server.ask("rules")["groups"]
        names = re.findall(r"alert: (\w+)", RULES.read_text("utf-8"))
        assert [rule["name"] for rule in group["rules"]] == names
        assert [rule["health"] for rule in group["rules"]] == ["ok"] * 4
