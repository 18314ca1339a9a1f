# Targets: `cpu` (the default, being the last) and `gpu`.
ARG PYTHON_IMAGE=python:3.12.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS source
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scripts/install.sh scripts/
COPY sdcom sdcom
COPY service service
COPY training training

FROM source AS build-cpu
RUN scripts/install.sh /opt/venv cpu --no-cache-dir

FROM source AS build-gpu
RUN scripts/install.sh /opt/venv gpu --no-cache-dir

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin sdcom
COPY deploy/healthcheck.py /usr/local/bin/sdcom-healthcheck
# Nothing is written but uploads, which wait in unnamed files under /tmp: mount a tmpfs there.
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SDCOM_HOST=0.0.0.0 \
    SDCOM_LOG_FORMAT=json
WORKDIR /
USER 10001:10001
EXPOSE 8000 50051
# The exec form: SIGTERM reaches the server itself, which then drains (SDCOM_DRAIN_SECONDS).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "/usr/local/bin/sdcom-healthcheck"]
ENTRYPOINT ["sdcom"]
CMD ["serve"]

FROM runtime AS gpu
# The CUDA libraries come with the wheels; the driver comes from the host (NVIDIA's container toolkit).
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/venv /opt/venv

FROM runtime AS cpu
COPY --from=build-cpu /opt/venv /opt/venv
