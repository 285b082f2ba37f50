import pytest

from atlas_plugin.metrics import Family
from tests.unit.metrics.making import counter, gauge, histogram


@pytest.fixture
def families() -> list[Family]:
    """Those of a server after twelve requests, one of them in progress."""
    chat = {"route": "chat", "atlas": "yes"}
    return [
        counter(
            "atlas_requests_total",
            ({**chat, "outcome": "ok"}, 6),
            ({"route": "infill", "atlas": "no", "outcome": "ok"}, 1),
            ({**chat, "outcome": "error"}, 1),
            ({**chat, "outcome": "refused"}, 2),
            ({**chat, "outcome": "cancelled"}, 1),
        ),
        gauge("atlas_requests_in_progress", ({}, 1)),
        counter("atlas_cache_requests_total", ({"result": "hit"}, 4), ({"result": "miss"}, 3)),
        counter("atlas_answer_tokens_total", ({}, 200)),
        histogram("atlas_request_overhead_seconds", 0.0015, 0.0015, 0.003),
        counter(
            "atlas_prompt_tokens_total",
            ({"source": "computed"}, 50),
            ({"source": "slot"}, 20),
            ({"source": "ram"}, 30),
            ({"source": "disk"}, 0),
        ),
        histogram("atlas_time_to_first_token_seconds", 0.0015, 0.003),
        gauge("atlas_layer_budget_bytes", ({"layer": "ram"}, 1 << 20), ({"layer": "disk"}, None)),
        gauge("atlas_layer_bytes", ({"layer": "ram"}, 4096), ({"layer": "disk"}, 1 << 20)),
        gauge("atlas_pool_contexts", ({}, 4)),
        gauge("atlas_pool_contexts_in_use", ({}, 1)),
        gauge("atlas_uptime_seconds", ({}, 8.0)),
        gauge("atlas_build_info", ({"version": "1", "model": 'a "b"\\c\nd'}, 1)),
    ]
