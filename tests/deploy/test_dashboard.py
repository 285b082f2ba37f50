"""The dashboard's form; test_monitoring.py asks its queries."""

from collections import Counter
from itertools import combinations
from typing import Any

from tests.deploy.queries import dashboard, panel_queries

PANELS = dashboard()["panels"]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def is_apart(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )


def test_panels_are_told_apart() -> None:
    assert max(Counter(panel["id"] for panel in PANELS).values()) == 1
    assert max(Counter(panel["title"] for panel in PANELS).values()) == 1
    for one, other in combinations(PANELS, 2):
        assert is_apart(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_panels_say_what_they_show() -> None:
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"] == DATASOURCE, panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert references == sorted(set(references)), panel["title"]
            assert all(target["datasource"] == DATASOURCE for target in panel["targets"])


def test_variables() -> None:
    variables: dict[str, Any] = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "model", "instance"]
    assert 'model=~"$model"' in variables["instance"]["query"]["query"]
    for query in panel_queries():
        selectors = query.expression.count("{")
        assert selectors == query.expression.count('instance=~"$instance"'), query
