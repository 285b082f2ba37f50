"""The alerts: promtool's checks and their own tests, and that each is explained."""

import re

import pytest

from tests.deploy.prometheus import promtool
from tests.deploy.queries import RULES
from tests.server.harness import REPOSITORY

TEXT = RULES.read_text(encoding="utf-8")
ALERTS = re.findall(r"^ +- alert: (\w+)$", TEXT, re.M)


def test_rules_and_scrape_configuration() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", RULES.with_name("prometheus.yml"))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", RULES.with_name("alerts.test.yml"))


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_tested_and_explained(alert: str) -> None:
    assert f"docs/monitoring.md#{alert.lower()}\n" in TEXT
    assert re.search(rf"\b{alert}\b", RULES.with_name("alerts.test.yml").read_text(encoding="utf-8"))
    assert f"### {alert}\n" in (REPOSITORY / "docs/monitoring.md").read_text(encoding="utf-8")
