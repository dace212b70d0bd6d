"""Runs generations: through the batch, counted from start to end, and failing as the dials say.

Called by `routes.py`; writes streams of any format token by token, or lets the caller write the whole.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from servicekit.testing.tgi_server.counting import End, Generation, Ledger, Stage
from servicekit.testing.tgi_server.dials import Dials, Fault
from servicekit.testing.tgi_server.frames import Format
from servicekit.testing.tgi_server.generation import Plan
from servicekit.testing.tgi_server.metrics import Metrics
from servicekit.testing.tgi_server.prefix_cache import PrefixCache
from servicekit.testing.tgi_server.refusals import FAILED, INCOMPLETE_STREAM, OVERLOADED, refuse_at_start
from servicekit.testing.tgi_server.scheduling import Lockstep, Next, Paced, Scheduler
from servicekit.testing.tgi_server.scheduling import Sequence as BatchSequence
from servicekit.testing.tgi_server.wire import Response

GARBAGE = b'data:{"index":1,"tok\xff\xfe\n\n'
_SILENT_FROM_THE_START = frozenset({Fault.HANG, Fault.DROP})


class Machine:
    """What stands behind the routes: batch, prefix cache, ledger, metrics, and the dials that may change any time."""

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.ledger = Ledger()
        self.metrics = Metrics(dials)
        self._cache = PrefixCache()
        self._paced = Paced(lambda: self.dials)
        self._lockstep = Lockstep(lambda: self.dials)
        self._chance = random.Random(dials.fault_seed)  # noqa: S311  # faults are to be repeatable
        self._idle = asyncio.Event()
        self._idle.set()

    def turn(self, dials: Dials) -> None:
        """Replace the dials; a new seed, or share of faults, draws anew."""
        if (dials.fault_seed, dials.fault_share) != (self.dials.fault_seed, self.dials.fault_share):
            self._chance = random.Random(dials.fault_seed)  # noqa: S311  # faults are to be repeatable
        self.dials = dials

    async def idle(self) -> None:
        """Return once no generation is open."""
        await self._idle.wait()

    def metrics_text(self) -> str:
        """`/metrics` at this moment."""
        batches = (self._paced, self._lockstep)
        return self.metrics.text(
            queued=sum(len(batch.waiting) for batch in batches),
            running=sum(len(batch.batch) for batch in batches),
            running_tokens=sum(sequence.most_tokens for batch in batches for sequence in batch.batch),
        )

    def take_fault(self) -> Fault:
        """The fault that hits this request, if any does; refusals are raised."""
        if self.ledger.counts.open >= self.dials.max_concurrent_requests:
            raise OVERLOADED
        fault = self.dials.fault
        if fault is Fault.NONE or self.dials.fault_requests == 0:
            return Fault.NONE
        if self.dials.fault_share < 1 and self._chance.random() >= self.dials.fault_share:
            return Fault.NONE
        if self.dials.fault_requests > 0:
            self.dials = replace(self.dials, fault_requests=self.dials.fault_requests - 1)
        refuse_at_start(fault)
        return fault

    async def stream(
        self, response: Response, formats: Sequence[Format], *, fault: Fault, headers: dict[str, str], done: bytes = b""
    ) -> None:
        """Answer with one stream, in which the generations mix; `done` follows the last."""
        if fault is Fault.SLOW_LORIS:
            response.drip(self.dials.slow_byte_s)
        if fault not in _SILENT_FROM_THE_START:
            response.start_stream(headers)
        answers = [_Streamed(self, response, one, fault) for one in formats]
        await self._run(answers)
        if all(answer.end is End.COMPLETED for answer in answers):
            response.write(done)
        if not response.is_cut:
            response.end_stream()

    async def generate(self, response: Response, formats: Sequence[Format], *, fault: Fault) -> bool:
        """Run generations whose answer is written by the caller; whether all came to their end."""
        if fault is Fault.SLOW_LORIS:
            response.drip(self.dials.slow_byte_s)
        answers = [Answer(self, response, one, fault) for one in formats]
        await self._run(answers)
        return all(answer.end is End.COMPLETED for answer in answers)

    async def _run(self, answers: Sequence["Answer"]) -> None:
        """All of them to their ends; a lone one without a task of its own."""
        self._idle.clear()
        try:
            if len(answers) == 1:
                await answers[0].run()
                return
            async with asyncio.TaskGroup() as group:
                for answer in answers:
                    group.create_task(answer.run())
        finally:
            if self.ledger.counts.open == 0:
                self._idle.set()

    def scheduler(self) -> Scheduler:
        """The one that the dials ask for."""
        return self._lockstep if self.dials.lockstep else self._paced

    def cached_tokens(self, plan: Plan) -> int:
        """Read a prompt into the prefix cache; how much of it was there."""
        return self._cache.read(
            plan.input_texts,
            adapter=plan.parameters.adapter,
            capacity_blocks=self.dials.prefix_cache_blocks,
            block_tokens=self.dials.prefix_block_tokens,
        )


class Answer:
    """One generation on its way, without anything written yet."""

    def __init__(self, machine: Machine, response: Response, frames: Format, fault: Fault) -> None:
        self._machine = machine
        self._response = response
        self._frames = frames
        self._fault = fault
        self._after_tokens = machine.dials.fault_after_tokens
        self._plan = frames.plan
        self._generation: Generation = frames.generation
        self._generation.fault = "" if fault is Fault.NONE else fault.value
        self.end = End.FAILED

    async def run(self) -> None:
        """Count it in, take it through the batch, and count it out, whatever its end."""
        ledger, generation = self._machine.ledger, self._generation
        ledger.begin(generation)
        try:
            await self._generate()
            await self._response.drained()
        except asyncio.CancelledError:
            if self._fault is Fault.SLOW_LORIS or (self.end is not End.COMPLETED and not self._response.is_cut):
                self.end = End.CANCELLED
            raise
        finally:
            ledger.close(generation, self.end, lost_at_s=self._response.lost_at_s)
            self._measure()

    async def _generate(self) -> None:
        if self._fault is Fault.HANG:
            await asyncio.Event().wait()
        if self._fault is Fault.DROP:
            self._response.cut()
            return
        plan = self._plan
        sequence = BatchSequence(self.admitted, self.send_token, plan.input_tokens, plan.most_tokens)
        await self._machine.scheduler().run(sequence)

    def admitted(self) -> int:
        """It joins the batch: how many tokens of its prompt are to be computed."""
        generation = self._generation
        generation.stage = Stage.PREFILL
        generation.queue_s = time.monotonic() - generation.started_at_s
        cached = self._machine.cached_tokens(self._plan)
        self._machine.ledger.cached(generation, cached)
        return self._plan.input_tokens - cached

    def send_token(self) -> Next:
        """Generate one more token, or fail."""
        generation = self._generation
        index = generation.output_tokens + 1
        generation.stage = Stage.DECODE
        if self._fault is not Fault.NONE and index > self._after_tokens:
            if self._fault is Fault.STALL:
                return Next.SILENCE
            if self.fail():
                return Next.END
        self._machine.ledger.token(generation)
        self.write_token(index)
        if index < len(self._plan.pieces):
            return Next.TOKEN
        self.end = End.COMPLETED
        return Next.END

    def write_token(self, index: int) -> None:
        """Nothing: the whole is written once it is there."""

    def fail(self) -> bool:
        """Whether the fault ends it here; what is answered then is the caller's."""
        if self._fault is Fault.CUT:
            self._response.cut()
        return self._fault in {Fault.CUT, Fault.END_EARLY, Fault.GARBAGE, Fault.ERROR, Fault.INCOMPLETE}

    def _measure(self) -> None:
        metrics, generation = self._machine.metrics, self._generation
        if self.end is not End.COMPLETED:
            if self.end is End.FAILED:
                metrics.failures["incomplete" if self._fault is Fault.INCOMPLETE else "generation"] += 1
            return
        total_s = generation.ended_at_s - generation.started_at_s
        inference_s = total_s - generation.queue_s
        metrics.successes += 1
        metrics.record(
            duration=total_s,
            validation_duration=0.0,
            queue_duration=generation.queue_s,
            inference_duration=inference_s,
            mean_time_per_token_duration=inference_s / generation.output_tokens,
            generated_tokens=generation.output_tokens,
            input_length=generation.input_tokens,
            max_new_tokens=self._plan.most_tokens - generation.input_tokens,
        )


class _Streamed(Answer):
    """One generation that is written as it comes."""

    def write_token(self, index: int) -> None:
        piece = self._plan.pieces[index - 1]
        self._response.write(self._frames.frame(index, piece))
        if index == len(self._plan.pieces) and (end := self._frames.end_frames()):
            self._response.write(end)

    def fail(self) -> bool:
        wrong: dict[Fault, Callable[[], bytes]] = {
            Fault.GARBAGE: lambda: GARBAGE,
            Fault.ERROR: lambda: self._frames.error_frame(FAILED),
            Fault.INCOMPLETE: lambda: self._frames.error_frame(INCOMPLETE_STREAM),
        }
        if self._fault in wrong:
            self._response.write(wrong[self._fault]())
        return super().fail()
