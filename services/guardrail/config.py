"""Settings of the guardrail. Read once at start by the runtime."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_GUARDRAIL__`."""

    model_config = settings_config("guardrail")

    port: int = Field(default=7703, ge=0, le=65535, description="the gRPC port; 0: a free one")
    policy_dir: Path | None = Field(
        default=None, description="folder of <tenant>.yaml and default.yaml; unset: the packaged policy for all"
    )
    policy_poll_s: float = Field(default=2.0, gt=0, description="between two looks for changed policy files")
    worker_threads: int = Field(default=2, ge=1, description="threads that judge")
    worker_queue: int = Field(default=64, ge=0, description="checks waiting; more: RESOURCE_EXHAUSTED")
    system_prompts_dir: Path | None = Field(
        default=None,
        description="folder of the deployment's own prompt templates, the generator's prompts_dir: answers that quote "
        "them are found, as those that quote the packaged ones",
    )
    canary_key_file: Path | None = Field(
        default=None,
        description="file of hexadecimal keys, the newest first, the same as the generator's: answers that hold the "
        "canary of one of them are found; unset: only canaries that policies state",
    )
    embedder_url: str = Field(
        default="onnx://minilm?precision=int8",
        description="the embedder of detectors that compare meanings: onnx://minilm, onnx:///folder of a "
        "sentence-transformers model, tei://host:port or openai://host/v1?model=…; empty: they do without",
    )
    embedder_api_key_file: Path | None = Field(default=None, description="file with the embedder's key, where it asks")
    embedding_timeout_s: float = Field(default=0.5, gt=0, description="for one text's embedding, or a few together")
    embedding_cache_entries: int = Field(default=20_000, ge=0, description="vectors of texts kept in memory")
    retrieved_cache_entries: int = Field(default=50_000, ge=0, description="judgements of chunks kept in memory")
    decision_queue: int = Field(
        default=10_000,
        ge=1,
        description="decisions held while neither Kafka nor the spool takes them; more: checks wait, then fail",
    )
    state_store_url: str = Field(
        default="memory://",
        description="where the vault keeps what placeholders stand for, sealed: redis://host:6379/0; memory:// is one "
        "process's own, and refused unless allow_memory_vault",
    )
    allow_memory_vault: bool = Field(
        default=False, description="take memory:// for the vault: for trying things, never with replicas"
    )
    vault_key_file: Path | None = Field(
        default=None,
        description="keys that seal the vault, 64 hexadecimal digits a line, newest first; the same file for every "
        "replica; unset: vault.key in state_dir, made if absent, with memory:// only",
    )
    vault_ttl_s: float = Field(
        default=24 * 3600.0,
        gt=0,
        description="what a conversation's placeholders stand for is kept at least so long after its last turn; no "
        "shorter than the gateway keeps a conversation",
    )
    vault_request_ttl_s: float = Field(
        default=3600.0, gt=0, description="the same for those of a request outside of any conversation"
    )
    vault_failure: Literal["open", "closed"] = Field(
        default="open",
        description="where the vault is away or full; open: what was redacted cannot be put back, and a verdict says "
        "so; closed: the input is blocked",
    )
