"""Prometheus metrics: base units, bounded labels, one registry that is handed in."""

import threading
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sdcom.engine.ledger import Ledger, Part
from sdcom.recognition import Provider

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LAMBDA_BUCKETS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)  # 0 is the trained policy


class ExecutedWork(Collector):
    """The process's ledger: whole MACs and frames, so that sums stay exact where floats would round.

    What was executed is read where it is counted, at the networks; answers add what they are a part of.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = Ledger()
        self._executed: Callable[[], Mapping[Part, int]] = dict

    def expect(self, widths: Iterable[float]) -> None:
        """Show these widths from the start, though no frame has taken them yet."""
        with self._lock:
            self._answers.width_counts.update(dict.fromkeys(widths, 0))

    def watch(self, executed: Callable[[], Mapping[Part, int]]) -> None:
        """Read what was executed, by part, from `executed` at every scrape."""
        self._executed = executed

    def add(self, ledger: Ledger) -> None:
        """Add the answer to one video, or to one frame of a stream. Any thread may call it."""
        with self._lock:
            self._answers.add(ledger)

    def collect(self) -> Iterable[Metric]:
        """Return the families of counters; nothing answered is missing from what was executed."""
        frames = CounterMetricFamily(
            "sdcom_frames", "Frames by the dynamic network's width.", labels=["width"]
        )
        with self._lock:
            for width, count in self._answers.width_counts.items():
                frames.add_metric([f"{width:g}"], count)
            answered = CounterMetricFamily(
                "sdcom_answered_macs",
                "Multiply-accumulates of the videos and frames that were computed to their end.",
                value=self._answers.total_macs,
            )
            baseline = CounterMetricFamily(
                "sdcom_baseline_macs",
                "Multiply-accumulates of the full-width dynamic network on the same frames.",
                value=self._answers.baseline_macs,
            )
        macs = CounterMetricFamily(
            "sdcom_macs",
            "Multiply-accumulates executed, for answers and for none: padding, failures, callers gone.",
            labels=["part"],
        )
        for part, count in (dict.fromkeys(Part, 0) | dict(self._executed())).items():
            macs.add_metric([part], count)
        return [macs, answered, baseline, frames]


class Metrics:
    """Everything that the service measures.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.work = ExecutedWork()
        registry.register(self.work)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter(
            "sdcom_requests", "Recognitions asked for.", ["transport", "outcome"], registry=registry
        )
        self._request_seconds = Histogram(
            "sdcom_request_seconds",
            "Arrival to answer, of videos.",
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._stage_seconds = Histogram(
            "sdcom_stage_seconds", "Stages of a video.", ["stage"], registry=registry, buckets=SECONDS_BUCKETS
        )
        self._budget_lambda = Histogram(
            "sdcom_budget_lambda",
            "Price at which the gate chose a video's widths to keep within its budget.",
            registry=registry,
            buckets=LAMBDA_BUCKETS,
        )
        self._rejected = Counter(
            "sdcom_rejected", "Requests refused, by the problem's name.", ["reason"], registry=registry
        )
        self._decode_failures = Counter(
            "sdcom_decode_failures", "Videos that could not be decoded.", ["reason"], registry=registry
        )
        self._damaged_videos = Counter(
            "sdcom_damaged_videos",
            "Videos answered though sampled frames could not be read, or the file is cut off.",
            registry=registry,
        )
        self._worker_restarts = Counter(
            "sdcom_decode_worker_restarts", "Decode workers replaced.", ["reason"], registry=registry
        )
        self._in_flight = Gauge(
            "sdcom_in_flight", "Videos being received, waiting or worked on.", registry=registry
        )
        self._governor_max_budget = Gauge(
            "sdcom_governor_max_budget",
            "Share of the baseline's FLOPs that a video may cost now; 1 is no limit.",
            registry=registry,
        )
        self._model_info = Gauge("sdcom_model_info", "The model served.", ["model"], registry=registry)
        self._provider_info = Gauge(
            "sdcom_provider_info", "What computes the networks.", ["provider", "version"], registry=registry
        )

    def model_loaded(self, model: str, widths: Iterable[float], provider: Provider) -> None:
        """Name the model that is served (name@version), its widths, and what computes it."""
        self._model_info.labels(model).set(1)
        self._provider_info.labels(provider.name, provider.version).set(1)
        self.work.expect(widths)

    def watch_in_flight(self, num_admitted: Callable[[], int]) -> None:
        """Read the number of requests in flight from `num_admitted` at every scrape."""
        self._in_flight.set_function(num_admitted)

    def watch_governor(self, max_budget: Callable[[], float]) -> None:
        """Read the governor's ceiling from `max_budget` at every scrape."""
        self._governor_max_budget.set_function(max_budget)

    def request_done(self, transport: str, outcome: str) -> None:
        """Count one recognition asked for, over "http" or "grpc"."""
        self._requests.labels(transport, outcome).inc()

    def request_rejected(self, reason: str) -> None:
        """Count one refusal by its problem's name."""
        self._rejected.labels(reason).inc()

    def decode_failed(self, reason: str) -> None:
        """Count one video that could not be decoded."""
        self._decode_failures.labels(reason).inc()

    def damaged_video_answered(self) -> None:
        """Count one video answered from what could be read of it."""
        self._damaged_videos.inc()

    def worker_restarted(self, reason: str) -> None:
        """Count one decode worker replaced. Any thread may call it."""
        self._worker_restarts.labels(reason).inc()

    def video_composed(self, ledger: Ledger) -> None:
        """Add what one video's answer cost, and observe its price. Any thread may call it."""
        self.work.add(ledger)
        self._budget_lambda.observe(ledger.lam)

    def video_answered(self, timing_ms: Mapping[str, float]) -> None:
        """Observe the stages of one answered video, and their total."""
        for stage, milliseconds in timing_ms.items():
            if stage == "total":
                self._request_seconds.observe(milliseconds / 1e3)
            else:
                self._stage_seconds.labels(stage).observe(milliseconds / 1e3)
