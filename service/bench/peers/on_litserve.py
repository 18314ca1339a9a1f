"""On LitServe: one API server, and workers that decode and compute a batch at a time."""

from typing import Annotated

import litserve
from fastapi import Body

from service.bench.peers.hosting import Answer, Hosting


class VideoAPI(litserve.LitAPI):
    """Raw bytes of a video in, its label out."""

    def __init__(self, hosting: Hosting) -> None:
        super().__init__(
            max_batch_size=hosting.max_batch, batch_timeout=hosting.batch_wait_s, api_path="/recognize"
        )
        self._hosting = hosting

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the networks, once in each worker."""
        self._answers = self._hosting.load()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """Return the body as it came."""
        return request

    def predict(self, videos: list[bytes]) -> list[Answer]:
        """Answer a batch."""
        return self._answers(videos)


def serve(hosting: Hosting) -> None:
    """Serve until the process is told to end."""
    server = litserve.LitServer(
        VideoAPI(hosting), accelerator="cpu", workers_per_device=hosting.num_workers, timeout=False
    )
    server.run(host="127.0.0.1", port=hosting.port, num_api_servers=1, generate_client_file=False)
