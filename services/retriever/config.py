"""Settings of the retriever. Read once at start by the runtime."""

from pathlib import Path

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config
from services.retriever.ingestion.guarding import GuardMode
from services.retriever.ingestion.quality import Decision
from services.retriever.search.query_cache import DEFAULT_ENTRIES

# `reranker_url` where there is no reranker.
NO_RERANKER = "none"


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_RETRIEVER__`."""

    model_config = settings_config("retriever")

    port: int = 7701
    vector_store_url: str = Field(default="lancedb:///var/lib/binnacle/lancedb", description="the vector store")
    embedder_url: str = Field(
        default="onnx://minilm?precision=int8",
        description="the embedder: onnx://minilm, onnx:///folder of a sentence-transformers model (precision=…, "
        "threads=…, cache_dir=…), tei://host:port or openai://host/v1?model=…",
    )
    embedder_api_key_file: Path | None = Field(default=None, description="file with the embedder's key, where it asks")
    previous_embedder_url: str | None = Field(
        default=None,
        description="while indexes move to the model of embedder_url: the embedder whose model they are of now. They "
        "are searched and written with it until each is rebuilt and switched; take it away once GetIndex shows the new "
        "model for every tenant. Restarts are harmless at any moment",
    )
    previous_embedder_api_key_file: Path | None = Field(default=None, description="file with that embedder's key")
    reembedding_share: float = Field(
        default=0.5, gt=0, le=1, description="how much of the time a rebuild works; the rest is left to other work"
    )
    state_store_url: str = Field(default="memory://", description="where operations are kept for a day")
    reranker_url: str = Field(
        default="lexical://",
        description="the reranker of searches that ask for one: lexical://, tei://host:port or none",
    )
    reranker_api_key_file: Path | None = Field(default=None, description="file with the reranker's key, where it asks")
    profiles_file: Path | None = Field(
        default=None, description="YAML with search profiles by name; unset: the built-in default alone"
    )
    query_cache_entries: int = Field(
        default=DEFAULT_ENTRIES, ge=0, le=1_000_000, description="queries whose vectors are remembered; 0: none"
    )
    fetch_allowed_prefixes: str = Field(
        default="",
        description="what fetch_uri may name, parted by blanks: https://host/path, http://host/path or file:///folder, "
        "each with all below it; empty: nothing",
    )
    fetch_timeout_s: float = Field(default=30.0, gt=0, le=600, description="for one attempt to fetch a document")
    parse_workers: int = Field(default=2, ge=1, le=64, description="processes that read PDF and Word files, at most")
    parse_memory_mb: int = Field(default=1024, ge=256, description="address space of such a process")
    parse_timeout_s: float = Field(default=60.0, gt=0, description="for one such file; longer: refused (PARSE_LIMIT)")
    check_duplicates: Decision = Field(
        default=Decision.FLAG, description="off, flag or refuse a document whose text another one has, or nearly so"
    )
    check_boilerplate: Decision = Field(
        default=Decision.FLAG, description="off, flag or refuse a text that is mostly repetition or navigation"
    )
    check_language: Decision = Field(
        default=Decision.FLAG,
        description="off; flag or refuse a document in none of expected_languages. Its language is told unless off",
    )
    expected_languages: str = Field(default="", description="ISO 639-1 codes parted by blanks; empty: any")
    guardrail_target: str = Field(
        default="",
        description="the guardrail that judges what is to be indexed, host:port; needed unless ingest_guard "
        "is off, as is token_private_key_file",
    )
    ingest_guard: GuardMode = Field(
        default=GuardMode.OFF,
        description="what is done about the guardrail's findings: off, flag, redact (refusing what it blocks), refuse",
    )
    guard_deadline_s: float = Field(default=20.0, gt=0, description="for one call of the guardrail, 100 texts at most")
