"""Spans on their way to the collector."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from atlas_plugin.version import __version__

log = logging.getLogger("atlas")


class Delivery:
    """Batches of spans, which a thread of the SDK sends; the SDK takes what it needs from the environment.

    Raises ValueError for what is wrong there. Any thread.
    """

    def __init__(self, resource: Mapping[str, str]) -> None:
        self.exporter = WatchedExporter(OTLPSpanExporter())
        # What the environment says of the service counts more.
        given = OTELResourceDetector().detect().attributes
        own = {name: value for name, value in resource.items() if name not in given}
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self._provider.get_tracer("atlas", __version__)

    def flush(self) -> None:
        """Send what there is; as long as it takes."""
        self._provider.force_flush()

    def close(self) -> None:
        """The same, and take no more."""
        self._provider.shutdown()


class WatchedExporter(SpanExporter):
    """Counts what another exporter sends, and says once that it fails, and once that it does no more."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.spans = 0
        """How many it was given: those sent, and those lost."""
        self.sent = 0
        """Traces that the collector took."""
        self.lost = 0
        """Traces that it did not take."""
        self.problem: str | None = None
        """Why the last batch was not taken; None when it was."""
        self._exporter = exporter
        self._complaints = _Complaints()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. Never raises; one at a time."""
        reason = "the collector did not take them"
        with self._complaints.kept():
            try:
                result = self._exporter.export(spans)
            except Exception as error:
                result, reason = SpanExportResult.FAILURE, f"{type(error).__name__}: {error}"
        # Of each request there is one.
        traces = sum(span.kind is SpanKind.SERVER for span in spans)
        self.spans += len(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += traces
            if self.problem is not None:
                log.info("traces are delivered again; %d were lost so far", self.lost)
            self.problem = None
        else:
            self.lost += traces
            first, self.problem = self.problem is None, self._complaints.first or reason
            if first:
                log.warning(
                    "traces are not delivered: %s; later batches are tried all the same", self.problem
                )
        return result

    def shutdown(self) -> None:
        """Send no more."""
        with self._complaints.kept():
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Keeps nothing back."""
        return self._exporter.force_flush(timeout_millis)


class _Complaints(logging.Filter):
    """Keeps what the SDK's exporter says of each failure out of the log, while it works for us."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""
        """The line that was kept first; the later ones say that it was tried again."""
        self._threads: set[int] = set()
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(self)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what this thread logs."""
        self.first = ""
        self._threads.add(threading.get_ident())
        try:
            yield
        finally:
            self._threads.discard(threading.get_ident())

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is for the log."""
        if record.thread not in self._threads:
            return True
        self.first = self.first or record.getMessage()
        return False
