"""On Ray Serve: replicas that decode and compute a batch at a time (`@serve.batch`), behind its proxy."""

import signal

import ray
from ray import serve as ray_serve
from starlette.requests import Request

from service.bench.peers.hosting import Answer, Hosting

_OBJECT_STORE_BYTES = 100 << 20  # videos travel in messages; the default takes a third of the memory


class Videos:
    """Raw bytes of a video in, its label out."""

    def __init__(self, hosting: Hosting) -> None:
        self._answers = hosting.load()
        self.answer.set_max_batch_size(hosting.max_batch)
        self.answer.set_batch_wait_timeout_s(hosting.batch_wait_s)

    @ray_serve.batch
    async def answer(self, videos: list[bytes]) -> list[Answer]:
        """Answer a batch."""
        return self._answers(videos)

    async def __call__(self, request: Request) -> Answer:
        """Answer one request, in whichever batch it falls."""
        answer: Answer = await self.answer(await request.body())
        return answer


def serve(hosting: Hosting) -> None:
    """Serve until the process is told to end."""
    ray.init(num_cpus=hosting.num_workers, object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False)
    ray_serve.start(http_options={"host": "127.0.0.1", "port": hosting.port})
    deployment = ray_serve.deployment(
        num_replicas=hosting.num_workers,
        max_ongoing_requests=2 * hosting.max_batch,  # a batch at work, and one that gathers
        ray_actor_options={"num_cpus": 1},
    )
    ray_serve.run(deployment(Videos).bind(hosting), route_prefix="/recognize")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray_serve.shutdown()
    ray.shutdown()
