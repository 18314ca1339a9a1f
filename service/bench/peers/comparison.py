"""The servers side by side: each one's capacity in every turn, medians, and how many times less than ours."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from service.bench.load import LoadRow, drive, post
from service.bench.peers.capacity import Capacity, find_capacity, keeps_up
from service.bench.peers.hosting import Network
from service.bench.peers.process import HostedPeer, Peer, PeerProcess
from service.demo import ServerProcess

OURS = "sdcom"
_NAMES: Mapping[Peer, str] = {"litserve": "LitServe", "ray": "Ray Serve"}
_NUM_WARM_UPS = 8
_IDLE_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A server with what it hosts.

    Attributes:
        server: its name.
        network: what it hosts.
        started: starts it; yields its URL.
        query: parameters of every request.
    """

    server: str
    network: Network
    started: Callable[[], AbstractContextManager[str]]
    query: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What all turns say of one server.

    Attributes:
        server: its name.
        network: what it hosts.
        throughput: median over the turns, answers in time a second.
        times_less: our throughput over this one; None where it never kept up.
        best: what the turn of the median did at its highest rate that was kept up.
        turns: every turn's throughput, in order.
    """

    server: str
    network: Network
    throughput: float
    times_less: float | None
    best: LoadRow | None
    turns: tuple[float, ...]


def contenders(
    model_dir: Path, settings: Mapping[str, str], *, budget: float | None, num_workers: int
) -> list[Contender]:
    """Return our server, and every peer with each of the networks.

    Args:
        model_dir: what the peers host.
        settings: our server's SDCOM_* variables.
        budget: share of the baseline's FLOPs; None is the model's default.
        num_workers: of each peer.
    """
    query = "" if budget is None else f"budget={budget}"
    return [
        Contender(OURS, "composition", lambda: _our_server(settings), query),
        *(
            _peer(HostedPeer(peer, network, model_dir, num_workers, budget))
            for network in get_args(Network)
            for peer in _NAMES
        ),
    ]


def _peer(hosted: HostedPeer) -> Contender:
    return Contender(_NAMES[hosted.peer], hosted.network, lambda: _peer_server(hosted))


@contextmanager
def _our_server(environment: Mapping[str, str]) -> Iterator[str]:
    with ServerProcess(environment) as server:
        yield f"http://127.0.0.1:{server.http_port}"


@contextmanager
def _peer_server(hosted: HostedPeer) -> Iterator[str]:
    with PeerProcess(hosted) as server:
        yield server.url


def measure(contender: Contender, body: bytes, *, first: float, seconds: float, p99_s: float) -> Capacity:
    """Start a server, search for its capacity, and end it.

    Args:
        contender: the server.
        body: the video that is posted.
        first: arrivals a second to begin with.
        seconds: for which each rate is kept up.
        p99_s: the latency within which 99 in 100 must be answered.
    """
    with contender.started() as url:

        def ask(deadline_s: float) -> None:
            post(url, body, deadline_s=deadline_s, query=contender.query)

        def load(rate: float) -> LoadRow:
            row = drive(url, body, rate=rate, seconds=seconds, query=contender.query, deadline_s=p99_s)
            if not keeps_up(row, seconds):
                ask(_IDLE_LIMIT_S)  # answered once all that still waited before it is
            return row

        for _ in range(_NUM_WARM_UPS):
            ask(_IDLE_LIMIT_S)
        return find_capacity(load, first=first, seconds=seconds)


Turns = list[tuple[Contender, list[Capacity]]]
"""Each server, ours first, with what each turn found."""


def take_turns(order: Iterable[Contender], measured: Callable[[Contender], Capacity]) -> Turns:
    """Measure servers in an order in which each may come again.

    Args:
        order: the servers, ours first.
        measured: finds a server's capacity.
    """
    turns: dict[Contender, list[Capacity]] = {}
    for contender in order:
        turns.setdefault(contender, []).append(measured(contender))
    return list(turns.items())


def standings(turns: Turns) -> list[Standing]:
    """Sum the turns up."""
    medians = [statistics.median(each.throughput for each in capacities) for _, capacities in turns]
    rows = []
    for (contender, capacities), throughput in zip(turns, medians, strict=True):
        middle = sorted(capacities, key=lambda capacity: capacity.throughput)[len(capacities) // 2]
        row = Standing(
            contender.server,
            contender.network,
            throughput,
            medians[0] / throughput if throughput else None,
            middle.best,
            tuple(capacity.throughput for capacity in capacities),
        )
        rows.append(row)
    return rows


def tried(turns: Turns) -> list[dict[str, Any]]:
    """Return every rate of every turn, as JSON."""
    return [
        {"server": contender.server, "network": contender.network, "turn": turn, **asdict(row)}
        for contender, capacities in turns
        for turn, capacity in enumerate(capacities)
        for row in capacity.rows
    ]
