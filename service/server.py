"""The process: both transports in one event loop, from start to a clean end."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Generator

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from sdcom.errors import SettingsError
from sdcom.recognizer import Recognizer
from service.app import create_app
from service.calls import CallLog
from service.engine import Engine
from service.logs import configure_logs, get_logger
from service.metrics import Metrics
from service.pb import recognition_pb2, recognition_pb2_grpc
from service.rpc import RecognitionService
from service.settings import Settings
from service.streams import Streams

SERVICE_NAME = recognition_pb2.DESCRIPTOR.services_by_name["Recognition"].full_name
LAST_WORDS_S = 2.0  # for answers on their way out when the drain is over


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight finish.

    Raises:
        SettingsError: an address cannot be listened on.
        ModelDirectoryError: the model cannot be loaded.
    """
    configure_logs(settings.log_level, settings.log_format)
    listener = listen(settings.host, settings.http_port)
    metrics = Metrics(CollectorRegistry())
    recognizer = Recognizer.load(**settings.recognizer_options(), on_restart=metrics.worker_restarted)
    engine = Engine(recognizer, settings, metrics)
    try:
        asyncio.run(Server(engine, CallLog(metrics, get_logger())).run(listener))
    finally:
        engine.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        SettingsError: the address is taken, or not ours.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}; set SDCOM_HOST or SDCOM_HTTP_PORT"
        ) from error


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handling: one place decides when both transports end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield


class Server:
    """REST and gRPC over one engine.

    Args:
        engine: loaded, not yet warm.
        call_log: writes down how each call ended.
    """

    def __init__(self, engine: Engine, call_log: CallLog) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._call_log = call_log
        self._streams = Streams(engine)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing from grpc-stubs
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin the end: drain, then leave `run`."""
        self._stopping.set()

    async def run(self, listener: socket.socket) -> None:
        """Serve HTTP on `listener`, and gRPC on its port, until told to stop.

        Raises:
            SettingsError: gRPC's port cannot be listened on.
        """
        self._stop_on_signals()
        rpc, grpc_port = await self._start_grpc()
        http = HttpServer(
            uvicorn.Config(
                create_app(self._engine, self._call_log),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(LAST_WORDS_S),
            )
        )
        serving = asyncio.create_task(http.serve([listener]))
        ports = {"http_port": listener.getsockname()[1], "grpc_port": grpc_port}
        self._call_log.logger.info("listening", host=self._settings.host, **ports)
        try:
            await self._until_stopped(serving)
        finally:
            await self._drain()
            await rpc.stop(LAST_WORDS_S)
            http.should_exit = True
            await serving
            self._streams.close()
        self._call_log.logger.info("stopped")

    def _stop_on_signals(self) -> None:
        """Stop at the first SIGTERM or SIGINT; a second one ends the process the hard way."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.stop()
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGINT, stop)

    async def _start_grpc(self) -> tuple[grpc.aio.Server, int]:
        settings = self._settings
        rpc = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),  # else a second server would quietly share the port
            ],
            # Bounds memory before admission: 115 calls x 4 MiB = 460 MiB by default, never over 512 MiB.
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        service = RecognitionService(self._engine, self._streams, self._call_log)
        add_service = recognition_pb2_grpc.add_RecognitionServicer_to_server
        add_service(service, rpc)  # type: ignore[no-untyped-call]  # generated
        health_pb2_grpc.add_HealthServicer_to_server(self._health, rpc)
        reflection.enable_server_reflection([SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME], rpc)
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            port = rpc.add_insecure_port(_address(settings.host, settings.grpc_port))
        except RuntimeError as error:
            raise SettingsError(
                f"cannot listen on {settings.host} port {settings.grpc_port}; "
                "set SDCOM_HOST or SDCOM_GRPC_PORT"
            ) from error
        await rpc.start()
        return rpc, port

    async def _until_stopped(self, serving: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        warming = asyncio.create_task(self._warm_up())
        await asyncio.wait({stopping, warming, serving}, return_when=asyncio.FIRST_COMPLETED)
        if warming.done():
            warming.result()
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        await warming
        stopping.cancel()

    async def _warm_up(self) -> None:
        await self._engine.warm_up()
        gc.freeze()  # what is loaded stays: a full collection would stop all threads to walk it
        await self._report(health_pb2.HealthCheckResponse.SERVING)
        self._call_log.logger.info(
            "ready",
            model=self._engine.info.full_name,
            provider=self._engine.recognizer.provider.name,
            sampling=self._settings.sampling,
            governor=self._settings.governor,
        )

    async def _drain(self) -> None:
        """Take nothing new, and wait for what is in flight."""
        self._engine.admission.close()
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._call_log.logger.info("draining", in_flight=self._engine.admission.num_admitted)
        if not await self._engine.admission.emptied(self._settings.drain_seconds):
            self._call_log.logger.warning("drain_cut_short", in_flight=self._engine.admission.num_admitted)
            self._engine.cut_short()
            await self._engine.admission.emptied(LAST_WORDS_S)

    async def _report(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
