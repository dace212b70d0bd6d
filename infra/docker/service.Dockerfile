# One image recipe for every service: docker build --build-arg SERVICE=retriever -f infra/docker/service.Dockerfile .
FROM python:3.11-slim AS build
ARG SERVICE
COPY infra/locks/bootstrap.lock /build/
RUN pip install --no-cache-dir --require-hashes -r /build/bootstrap.lock
WORKDIR /app
COPY infra/locks /app/infra/locks
RUN uv venv /venv && VIRTUAL_ENV=/venv uv pip sync --require-hashes "infra/locks/$(echo "$SERVICE" | tr _ -).lock"
COPY pyproject.toml README.md /app/
COPY protos/gen /app/protos/gen
COPY libs /app/libs
COPY services/__init__.py /app/services/__init__.py
COPY services/${SERVICE} /app/services/${SERVICE}
COPY infra/clickhouse /app/infra/clickhouse
ENV PYTHONPATH=/app:/app/libs:/app/protos/gen
# The images of what embeds carry the embedding graph, so that no container builds it at its start.
RUN mkdir -p /var/lib/binnacle/models && if [ "$SERVICE" = retriever ] || [ "$SERVICE" = guardrail ]; then \
      XDG_CACHE_HOME=/var/lib/binnacle/models /venv/bin/python -m servicekit.adapters.onnx.build; fi
RUN /venv/bin/python -c "import services.${SERVICE}.bootstrap"

FROM python:3.11-slim
ARG SERVICE
ENV SERVICE=${SERVICE} PYTHONPATH=/app:/app/libs:/app/protos/gen PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/lib/binnacle/models
RUN useradd --uid 10001 --create-home binnacle && mkdir -p /var/lib/binnacle/lancedb /var/lib/binnacle/state && chown -R binnacle /var/lib/binnacle
COPY --from=build /venv /venv
COPY --from=build /app /app
COPY --from=build --chown=binnacle /var/lib/binnacle/models /var/lib/binnacle/models
USER binnacle
WORKDIR /app
ENTRYPOINT ["/bin/sh", "-c", "exec /venv/bin/python -m services.$SERVICE"]
