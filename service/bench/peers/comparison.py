"""The servers side by side: each one's capacity in every turn, medians, and how many times less than ours."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from sdcom.sampling import Sampling
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
    model_dir: Path, *, budget: float | None, num_workers: int, sampling: Sampling
) -> list[Contender]:
    """Return our server and every peer with each of the networks."""
    ours = {"SDCOM_MODEL_DIR": str(model_dir), "SDCOM_SAMPLING": sampling}
    query = "" if budget is None else f"budget={budget}"
    return [
        Contender(OURS, "composition", lambda: _our_server(ours), query),
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


def standings(entrants: Sequence[Contender], capacities: Sequence[Sequence[Capacity]]) -> list[Standing]:
    """Sum the turns up.

    Args:
        entrants: the servers, ours first.
        capacities: of each server, each turn's.
    """
    ours = statistics.median(capacity.throughput for capacity in capacities[0])
    found = []
    for entrant, turns in zip(entrants, capacities, strict=True):
        throughput = statistics.median(capacity.throughput for capacity in turns)
        middle = sorted(turns, key=lambda capacity: capacity.throughput)[len(turns) // 2]
        found.append(
            Standing(
                entrant.server,
                entrant.network,
                throughput,
                ours / throughput if throughput else None,
                middle.best,
                tuple(capacity.throughput for capacity in turns),
            )
        )
    return found


def tried(entrants: Sequence[Contender], capacities: Sequence[Sequence[Capacity]]) -> list[dict[str, Any]]:
    """Return every rate of every turn, as JSON."""
    return [
        {"server": entrant.server, "network": entrant.network, "turn": turn, **asdict(row)}
        for entrant, turns in zip(entrants, capacities, strict=True)
        for turn, capacity in enumerate(turns)
        for row in capacity.rows
    ]
