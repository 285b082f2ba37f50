"""A trace of each request, to a collector that speaks OTLP.

Of these modules `environment` alone is imported without `opentelemetry`, which the extra `tracing` installs.
"""
