"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

# From a P-256 signature in software (20 µs) to an RSA key made in an HSM.
ENGINE_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120,
)  # fmt: skip


class Metrics:
    """Everything that one process counts; a registry of its own, so that two do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.engines = EngineFigures(self._registry)
        self.lint = LintFigures(self._registry)

    def exposition(self) -> bytes:
        """All figures, in the text format."""
        return generate_latest(self._registry)


class EngineFigures:
    """Latency by engine, operation and outcome, and whether the engine can be used: what the
    KMS's `EngineMeter` wants."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "lamassu_crypto_engine_operation_seconds",
            "Time that a crypto engine took, waiting for a free thread included.",
            ("engine", "operation"),
            buckets=ENGINE_SECONDS,
            registry=registry,
        )
        self._outcomes = Counter(
            "lamassu_crypto_engine_operations",
            "Operations asked of a crypto engine; refused ones never reached it.",
            ("engine", "operation", "outcome"),
            registry=registry,
        )
        self._up = Gauge(
            "lamassu_crypto_engine_up",
            "1 if the crypto engine can be used, 0 if not.",
            ("engine",),
            registry=registry,
        )
        # a labelled child costs more to find than to change
        self._timed: dict[tuple[str, str], Histogram] = {}
        self._counted: dict[tuple[str, str, str], Counter] = {}

    def observe(self, engine_id: str, operation: str, outcome: str, seconds: float) -> None:
        """An operation ended."""
        counted = self._counted.get((engine_id, operation, outcome))
        if counted is None:
            counted = self._outcomes.labels(engine_id, str(operation), str(outcome))
            self._counted[engine_id, operation, outcome] = counted
        counted.inc()
        if outcome == "refused":
            return
        timed = self._timed.get((engine_id, operation))
        if timed is None:
            timed = self._seconds.labels(engine_id, str(operation))
            self._timed[engine_id, operation] = timed
        timed.observe(seconds)

    def usable(self, engine_id: str, usable: bool) -> None:
        """Whether the engine is asked at all now."""
        self._up.labels(engine_id).set(1 if usable else 0)


class LintFigures:
    """What the CA's `LintMeter` wants."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sampled = Counter(
            "lamassu_lint_sampled_certificates",
            "Issued certificates that all linters read, by whether they found something.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("clean", "finding"):
            self._sampled.labels(outcome)

    def sampled(self, *, clean: bool) -> None:
        """A certificate was read by all linters."""
        self._sampled.labels("clean" if clean else "finding").inc()
