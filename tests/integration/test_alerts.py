"""The alert rules, judged by Prometheus's own tool, and by what is published about them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
ALERTS = re.findall(
    r"- alert: (\w+)\n(.*?)(?=\n +- alert:|\n +- name:|\Z)", (RULES / "alerts.yml").read_text(), re.DOTALL
)
METRICS = (ROOT / "docs" / "format" / "metrics.md").read_text("utf-8")


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("VRAM_TESTS_NEED_TOOLS"):
            pytest.fail("promtool is missing: install prometheus")
        pytest.skip("promtool is missing: install prometheus")
    return found


@pytest.mark.parametrize(
    "words",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=lambda words: words[0],
)
def test_the_rules_hold_before_prometheus_itself(words: tuple[str, ...], promtool: str):
    """They parse; each alert fires on what it is for, and is silent where all is well."""
    done = subprocess.run([promtool, *words], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_expression_of_the_dashboard_is_one(promtool: str, tmp_path: Path):
    """As a rule, Prometheus must take it."""
    text = (ROOT / "deploy" / "grafana" / "dashboard.json").read_text("utf-8")
    expressions = re.findall(r'"expr": ("(?:[^"\\]|\\.)*")', text)
    assert len(expressions) > 15
    rules = ["groups:", "  - name: panels", "    rules:"]
    for number, expression in enumerate(expressions):
        plain = expression.replace("$__rate_interval", "5m").replace("$__range", "1h")
        rules += [f"      - record: panel:{number}", f"        expr: {plain}"]
    (tmp_path / "panels.yml").write_text("\n".join(rules) + "\n", "utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", "panels.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "rule"), ALERTS, ids=[name for name, _ in ALERTS])
def test_an_alert_says_what_to_do_and_is_tested_both_ways(name: str, rule: str):
    """Severity, summary, a line of runbook, a paragraph in the documents, and two cases."""
    for part in ("severity: ", "summary: ", "runbook: "):
        assert part in rule
    cases = (RULES / "alerts_test.yml").read_text("utf-8")
    assert f"name: {name} fires" in cases
    assert f"name: {name} is silent" in cases
    assert f"**{name}**" in METRICS


def test_every_metric_of_a_rule_is_published():
    asked = re.findall(r"\bvram_[a-z_]+", (RULES / "alerts.yml").read_text("utf-8"))
    known = set(re.findall(r"^\| `(vram_[a-z_]+)`", METRICS, re.MULTILINE))
    assert {re.sub(r"_bucket$", "", name) for name in asked} <= known
