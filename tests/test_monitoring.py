"""The rules, the dashboard and the page of docs/monitoring fit what the scrape tells."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from airflow_provider_gpu_cluster.plugins.metric_families import ClusterCollector
from tests.servers.prometheus import MONITORING, promtool

DASHBOARD: dict[str, Any] = json.loads((MONITORING / "gpu-cluster.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
PAGE = (MONITORING / "README.md").read_text()
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def names() -> dict[str, str]:
    """Return all metrics, as they are in the scrape, with their types."""
    families = {family.name: family.type for family in ClusterCollector([]).collect()}
    return {name + ("_total" if kind == "counter" else ""): kind for name, kind in families.items()}


def mentioned(text: str) -> set[str]:
    return set(re.findall(r"\bgpu_cluster_[a-z_]+[a-z]\b", text))


@pytest.mark.heavy
def test_the_rules_are_valid_and_fire_when_they_should() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", MONITORING / "rules.yml")
    promtool("test", "rules", MONITORING / "rules.test.yml")


def test_each_alert_is_tested_and_explained() -> None:
    tested = yaml.safe_load((MONITORING / "rules.test.yml").read_text())["tests"]
    fired = {rule["alertname"] for test in tested for rule in test["alert_rule_test"] if rule["exp_alerts"]}
    assert fired == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        assert {"summary", "description", "runbook_url"} <= set(alert["annotations"])
        anchor = alert["annotations"]["runbook_url"].partition("docs/monitoring/README.md#")[2]
        assert anchor == alert["alert"].lower()
        assert f"### {alert['alert']}\n" in PAGE


def test_rules_and_dashboard_use_only_metrics_that_there_are() -> None:
    series = set(names())
    for name, kind in names().items():
        if kind == "histogram":
            series |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    texts = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS]
    assert {name for text in texts for name in mentioned(text)} <= series


def test_the_page_tells_every_metric_and_its_type() -> None:
    told = dict(re.findall(r"^\| `(gpu_cluster_\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
    assert told == names()


def test_the_dashboard_can_be_imported_beside_others() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["uid"] == "gpu-cluster"
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for target in TARGETS:
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*variables, "__range"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
