"""Metrics that plugins make, through the real binary."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from atlas_plugin import facts
from tests.server.conftest import StartServer
from tests.server.harness import Server, write_plugin

ASKED = """
from atlas_plugin import hookimpl


@hookimpl
def register_metrics(metrics):
    global asked, length
    asked = metrics.counter("asked_total", "Requests by route.", labels=("route",))
    length = metrics.histogram("asked_characters", "What was asked.", buckets=(10, 1000))


@hookimpl(deadline_ms=5000)
def on_request(request, body):
    asked.labels(route=request.route).inc()
    length.observe(len(body["prompt"]))
"""


def metrics_of(server: Server) -> dict[str, float]:
    """By name and the values of the labels."""
    families = text_string_to_metric_families(server.get(facts.ROUTE_METRICS).text)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_of_plugins_are_exported_with_the_servers(start_server: StartServer, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, ASKED, "asked")
    server = start_server(["--atlas-plugin", plugin, "--atlas-python-patience-ms", "5000"])
    for prompt in ("short", "long " * 20):
        assert server.post("/completion", {"prompt": prompt, "n_predict": 1}).status_code == 200
    found = metrics_of(server)
    assert found["asked_total /completion"] == 2
    assert found["asked_characters_bucket 10.0"] == 1
    assert found["asked_characters_count"] == 2
    assert found["atlas_hook_errors_total register_metrics asked"] == 0
    plugin.write_text(ASKED.replace("asked", "heard"))
    assert server.post("/v1/atlas/plugins/reload", {}).status_code == 200
    assert [name for name in metrics_of(server) if name.startswith("asked_")] == []
