"""The text that Prometheus reads, read by its own parsers."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from atlas_plugin.metrics import Family
from atlas_plugin.metrics.exposition import expose
from tests.unit.metrics.making import gauge, histogram

PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain;version=1.0.0", PLAIN),
        ("application/openmetrics-texts", PLAIN),
        (PROMETHEUS_ACCEPT, OPENMETRICS),
        ("text/html, Application/OpenMetrics-Text ; version=nonsense", OPENMETRICS),
    ],
)
def test_accept(families: list[Family], accept: str, content_type: str) -> None:
    text, kind = expose(families, accept)
    assert kind == content_type
    parse = parse_openmetrics if kind == OPENMETRICS else parse_text
    assert {family.name for family in parse(text.decode())} == {
        family.name.removesuffix("_total") for family in families
    }
    assert text.endswith(b"# EOF\n") == (kind == OPENMETRICS)


def test_numbers_and_labels_arrive(families: list[Family]) -> None:
    text = expose(families, "")[0].decode()
    parsed = {family.name: family for family in parse_text(text)}
    requests = parsed["atlas_requests"]
    assert (requests.type, requests.documentation) == ("counter", "Help of atlas_requests_total.")
    assert {(one.labels["route"], one.labels["outcome"], one.value) for one in requests.samples} == {
        ("chat", "ok", 6.0),
        ("infill", "ok", 1.0),
        ("chat", "error", 1.0),
        ("chat", "refused", 2.0),
        ("chat", "cancelled", 1.0),
    }
    (info,) = parsed["atlas_build_info"].samples
    assert info.labels == {"version": "1", "model": 'a "b"\\c\nd'}
    name = "atlas_request_overhead_seconds"
    overhead = {(one.name, one.labels.get("le")): one.value for one in parsed[name].samples}
    assert overhead == {
        (f"{name}_bucket", "0.001"): 0.0,
        (f"{name}_bucket", "0.002"): 2.0,
        (f"{name}_bucket", "0.004"): 3.0,
        (f"{name}_bucket", "+Inf"): 3.0,
        (f"{name}_sum", None): 0.006,
        (f"{name}_count", None): 3.0,
    }


def test_families_without_samples() -> None:
    empty = [gauge("a"), Family("b", "histogram", "", []), histogram("c_seconds")]
    for accept in ("", OPENMETRICS):
        assert b"c_seconds_count 0.0" in expose(empty, accept)[0]
