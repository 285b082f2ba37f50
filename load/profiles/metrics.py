"""Those who watch: dashboards, scrapers, health checks."""

import httpx
import msgspec
from locust import task

from load.profiles.answers import UnexpectedAnswerError, read_events, read_json, read_text
from load.profiles.user import AtlasUser

SAMPLES = 3
INTERVAL_MS = 50


class MetricsUser(AtlasUser):
    """Reads status, metrics in each format, and the requests that ended; sometimes follows the stream."""

    profile = "metrics"

    @task
    def look(self) -> None:
        self.random.choice((self._status, self._metrics, self._prometheus, self._requests, self._stream))()

    def _status(self) -> None:
        self.call("GET", "/v1/atlas/status", read_json)

    def _metrics(self) -> None:
        self.call("GET", "/v1/atlas/metrics", read_json, params={"history": 1})

    def _prometheus(self) -> None:
        self.call("GET", "/v1/atlas/metrics/prometheus", read_text)

    def _requests(self) -> None:
        self.call("GET", "/v1/atlas/requests", read_json)

    def _stream(self) -> None:
        name = f"/v1/atlas/metrics/stream, {SAMPLES} samples"
        parameters = {"interval": INTERVAL_MS}
        self.call("GET", "/v1/atlas/metrics/stream", _read_samples, name=name, params=parameters)


def _read_samples(response: httpx.Response, sent: float) -> None:
    if response.status_code != 200:
        read_text(response, sent)
    for count, data in enumerate(read_events(response), start=1):
        if "timestamp" not in msgspec.json.decode(data):
            raise UnexpectedAnswerError("a sample has no timestamp")
        if count == SAMPLES:
            return
    raise UnexpectedAnswerError("the stream of metrics ended")
