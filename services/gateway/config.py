"""Settings of the gateway. Read once at start by the runtime."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config
from services.gateway.routes import Route


def _default_routes() -> dict[str, Route]:
    return {"default": Route()}


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_GATEWAY__`."""

    model_config = settings_config("gateway")

    port: int = 7700
    http_host: str | None = Field(default=None, description="where the OpenAI-compatible API listens; unset: host")
    http_port: int = Field(default=7780, ge=0, le=65535, description="the OpenAI-compatible API; 0: a free port")
    guardrail_target: str = Field(default="dns:///127.0.0.1:7703", description="the guardrail service")
    retriever_target: str = Field(default="dns:///127.0.0.1:7701", description="the retriever service")
    generator_target: str = Field(default="dns:///127.0.0.1:7702", description="the generator service")
    state_store_url: str = Field(default="memory://", description="idempotency keys and conversations")
    request_id_key_file: Path | None = Field(
        default=None,
        description="keys that sign request ids, hexadecimal, newest first; the same file for every replica; "
        "unset: request_ids.key in state_dir, made if absent",
    )
    routes: dict[str, Route] = Field(
        default_factory=_default_routes,
        min_length=1,
        description='routes by name as JSON, such as {"default": {"top_k": 8}}; each: retrieval, guard, model, '
        "top_k, mode, release",
    )
    guard_failure: Literal["closed", "open"] = Field(
        default="closed", description="closed: what cannot be judged is refused; open: it passes, and is not recorded"
    )
    speculative_retrieval: bool = Field(
        default=True, description="search while the input is judged; off where the embedder is remote"
    )
    max_concurrent_answers: int = Field(default=256, ge=1, description="answers in flight; more: RESOURCE_EXHAUSTED")
    default_deadline_s: float = Field(default=60.0, gt=0, description="of a question that names no deadline")
    ack_timeout_s: float = Field(default=10.0, gt=0, description="for the bus to acknowledge one record")
    max_http_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024, description="of one HTTP request")
