"""Open-loop load on a running server: arrivals come when they come, whatever becomes of those before."""

import http.client
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request: its status and seconds; of an answer, the share saved and `max_budget`.

    Status 0 is a connection that failed, or a reply that is no JSON.
    """

    status: int
    seconds: float
    saved: float = 0.0
    max_budget: float = 1.0


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One arrival rate.

    Attributes:
        rate: arrivals a second that were asked for.
        num_requests: that were sent.
        goodput: answers a second within the deadline.
        statuses: requests by HTTP status; 0 is a connection that failed.
        latency_s: of the answers, at the percentiles 50, 95 and 99.
        saved: mean share of the baseline's FLOPs that answers saved; None without answers.
        mean_max_budget: of the answers, 1 where there was no limit: how far the governor went.
    """

    rate: float
    num_requests: int
    goodput: float
    statuses: dict[int, int]
    latency_s: dict[int, float] = field(default_factory=dict)
    saved: float | None = None
    mean_max_budget: float = 1.0


def drive(
    url: str,
    body: bytes,
    *,
    rate: float,
    seconds: float,
    query: str = "",
    deadline_s: float = 10.0,
    seed: int = 0,
) -> LoadRow:
    """Post one video over and over, with exponential gaps between arrivals.

    Args:
        url: of the server.
        body: the video.
        rate: arrivals a second.
        seconds: for how long to send; then answers are waited for.
        query: parameters of every request.
        deadline_s: an answer after it is worth nothing; sent along as `deadline_ms`.
        seed: of the gaps.
    """
    rng, replies, lock = random.Random(seed), list[Reply](), threading.Lock()  # noqa: S311 - arrivals

    def send() -> None:
        reply = post(url, body, deadline_s=deadline_s, query=query)
        with lock:
            replies.append(reply)

    started = time.perf_counter()
    due = started
    with ThreadPoolExecutor(max_workers=1024) as threads:
        while (due := due + rng.expovariate(rate)) < started + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            threads.submit(send)
    return summarize(replies, rate=rate, seconds=seconds, deadline_s=deadline_s)


def summarize(replies: Sequence[Reply], *, rate: float, seconds: float, deadline_s: float) -> LoadRow:
    """Return what the replies to one arrival rate say."""
    answers = [reply for reply in replies if reply.status == 200]
    times_s = sorted(reply.seconds for reply in answers)
    in_time = sum(seconds_taken <= deadline_s for seconds_taken in times_s)
    return LoadRow(
        rate=rate,
        num_requests=len(replies),
        goodput=in_time / seconds,
        statuses=dict(sorted(Counter(reply.status for reply in replies).items())),
        latency_s={percent: percentile(times_s, percent) for percent in (50, 95, 99)} if answers else {},
        saved=fmean(reply.saved for reply in answers) if answers else None,
        mean_max_budget=fmean(reply.max_budget for reply in answers) if answers else 1.0,
    )


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed (nearest rank)."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def post(url: str, body: bytes, *, deadline_s: float, query: str = "") -> Reply:
    """Post one video, and wait for what becomes of it: 5 s longer than its deadline at most."""
    started, parts = time.perf_counter(), urlsplit(url)
    path = f"/recognize?deadline_ms={round(deadline_s * 1e3)}&{query}"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=deadline_s + 5)
    try:
        connection.request("POST", path, body, {"Content-Type": "video/mp4"})
        response = connection.getresponse()
        document = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return Reply(0, time.perf_counter() - started)
    finally:
        connection.close()
    compute = document.get("compute", {})
    return Reply(
        response.status,
        time.perf_counter() - started,
        saved=compute.get("saved", 0.0),
        max_budget=compute.get("max_budget", 1.0),
    )
