"""Whether OpenTelemetry's own variables ask for traces; the SDK reads the rest of them."""

from collections.abc import Mapping

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def endpoint_variable(environment: Mapping[str, str]) -> str | None:
    """The variable that names the collector; None where no traces are wanted."""
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_disabled or environment.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return None
    return _first(environment, _ENDPOINTS)


def protocol_problem(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the protocol asked for; None when nothing is."""
    variable = _first(environment, _PROTOCOLS)
    if variable is None or environment[variable] == _PROTOCOL:
        return None
    return f"{variable} is '{environment[variable]}': only {_PROTOCOL} is spoken; set it to that, or unset it"


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    # An empty variable counts as one that is not set.
    return next((name for name in names if environment.get(name)), None)
