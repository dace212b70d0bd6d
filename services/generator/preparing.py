"""Makes of a question what one engine is sent: settings in force, packed for its window, with its prompt.

Called by `generating.py` once for each engine of the chain; every replica of it is sent the same.
"""

from dataclasses import dataclass, field

from servicekit.domain.generation import ModelInfo, TokenCount
from servicekit.domain.prompt import EngineRequest, PromptRef, Sampling
from services.generator.models import Backend
from services.generator.packing import Packed, Prompt, pack
from services.generator.pool.lease import Work
from services.generator.templates import PromptLibrary

# What a replica's prefix cache may hold is compared as far as this.
_PREFIX_CHARS = 32_768


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what may be used to answer it; empty `model`, `prompt_id` and `adapter` mean the defaults."""

    prompt: Prompt
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    prompt_id: str = ""
    request_id: str = ""
    tenant: str = ""
    output_schema: str = ""
    adapter: str = ""
    want_logprobs: bool = False


@dataclass(slots=True)
class Prepared:
    """What is sent, and where; `input_count` is settled once it is needed (see `accounting.py`)."""

    request: EngineRequest
    packed: Packed
    info: ModelInfo
    work: Work
    prompt: PromptRef
    input_count: TokenCount | None = None


async def prepare(question: Question, backend: Backend, prompts: PromptLibrary, *, stands_in: bool) -> Prepared:
    """Pack the question for this engine.

    The adapter that was asked for is one of the alias that was asked for: what stands in for it uses its own.

    Raises:
        ContextWindowExceeded, NotFound (prompt), BackendUnavailable, BackendTimeout.
    """
    route = backend.route
    template = prompts.get(question.prompt_id or route.prompt_id)
    info = await backend.info()
    sampling = route.sampling_for(
        question.sampling, request_id=question.request_id, max_total_tokens=info.max_total_tokens
    )
    output_tokens = sampling.max_output_tokens or 1
    packed = await pack(question.prompt, template, info=info, output_tokens=output_tokens, counts=backend.counts)
    adapter = backend.engine.adapter if stands_in else question.adapter or backend.engine.adapter
    request = EngineRequest(
        messages=packed.messages,
        question=question.prompt.question,
        context=packed.context,
        sampling=sampling,
        request_id=question.request_id,
        output_schema=question.output_schema,
        adapter=adapter,
        want_logprobs=question.want_logprobs,
    )
    known = TokenCount(packed.input_tokens, estimated=False) if packed.exact else None
    return Prepared(request, packed, info, _work(question, request, packed), template.ref, known)


def _work(question: Question, request: EngineRequest, packed: Packed) -> Work:
    """What a pool has to place; caches of different adapters are different caches."""
    beginning = "\n".join(message.content for message in request.messages)[:_PREFIX_CHARS]
    return Work(
        tenant=question.tenant,
        prefix=f"{request.adapter}\n{beginning}",
        input_tokens=packed.input_tokens,
        output_tokens=request.sampling.max_output_tokens or 1,
    )
