"""The queries of dashboard and alerts, and what series they name."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.server.harness import REPOSITORY

DASHBOARD = REPOSITORY / "deploy/grafana/atlas.json"
RULES = REPOSITORY / "deploy/prometheus/alerts.yml"

SCRAPE_LABELS = {"job", "instance"}
_SELECTOR = re.compile(r"\b(atlas[_:][\w:]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_LABEL_LIST = re.compile(r"\b(?:by|without|on|group_left)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    panel: str
    expression: str

    def __str__(self) -> str:
        return f"{self.panel}: {self.expression}"


def dashboard() -> Any:
    """The dashboard as Grafana reads it."""
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def panel_queries() -> list[Query]:
    """Every query of every panel, in order."""
    return [
        Query(panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


@dataclass
class Exported:
    """The names of series, with each label's values."""

    series: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "Exported":
        """What an exposition in Prometheus's text format has."""
        found = cls()
        for family in parse_text(text):
            for sample in family.samples:
                found.add(sample.name, sample.labels)
        return found

    def add(self, name: str, labels: Mapping[str, str]) -> None:
        """Add a series."""
        known = self.series.setdefault(name, {})
        for label, value in labels.items():
            known.setdefault(label, set()).add(value)

    def mistakes(self, expression: str) -> Iterator[str]:
        """What an expression names and nobody exports: series, labels, and values of labels."""
        labels = set(SCRAPE_LABELS)
        for name, matchers in _SELECTOR.findall(expression):
            if name not in self.series:
                yield name
            known = self.series.get(name, {})
            labels |= known.keys()
            for label, value in _MATCHER.findall(matchers):
                if label in SCRAPE_LABELS:
                    continue
                if label not in known:
                    yield f"{name}{{{label}}}"
                unknown = set(value.split("|")) - known.get(label, set())
                yield from (f'{name}{{{label}="{one}"}}' for one in unknown if not one.startswith("$"))
        for names in _LABEL_LIST.findall(expression):
            yield from {name.strip() for name in names.split(",") if name.strip()} - labels
