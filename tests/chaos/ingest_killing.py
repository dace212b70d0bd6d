"""Carries out the kills of a run: at random, when a document enters a step, in a proxy's trap, in a rename.

Used by `ingest.py`.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from tests.chaos.ingest_aims import Aim, Fault, Victim
from tests.chaos.ingest_stack import IngestStack
from tests.chaos.killing import let_go

_AIM_WITHIN_S = 12.0  # beyond, all may be written
_ALIVE_WITHIN_S = 60.0
_POLL_S = 0.002
_ALIVE_POLL_S = 0.1
_RENAMES = "rename,renameat,renameat2,link,linkat"
# What the retriever logs, at level debug, of a document that enters a step.
_STEP = '"ingest.step"'
_STEPS = {
    Aim.FETCH: "fetching",
    Aim.PREPARE: "preparing",
    Aim.GUARD: "guarding",
    Aim.EMBED: "embedding",
    Aim.WRITE: "writing",
}


@dataclass
class Killer:
    """Kills the processes of one stack; counts kills by the step that was met, `anywhere` for those at random."""

    stack: IngestStack
    by_step: Counter[str] = field(default_factory=Counter)
    obstacles: set[str] = field(default_factory=set)

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        """All of them: those of one victim one after the other, each counted from when the victim is there."""
        async with asyncio.TaskGroup() as tasks:
            for victim in Victim:
                tasks.create_task(self._carry_out_on([fault for fault in faults if fault.victim is victim]))

    async def _carry_out_on(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            async with asyncio.timeout(_ALIVE_WITHIN_S):
                while not await self.stack.processes[fault.victim].command.ready():
                    await asyncio.sleep(_ALIVE_POLL_S)
            await self._carry_out(fault)

    async def _carry_out(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if fault.aim is not None and await self._aim(fault, fault.aim):
            self.by_step[fault.aim] += 1
        elif self._kill(fault.victim):
            self.by_step["anywhere" if fault.victim is Victim.RETRIEVER else fault.victim] += 1

    def _pid(self, victim: Victim) -> int | None:
        return self.stack.processes[victim].pid

    def _kill(self, victim: Victim) -> bool:
        pid = self._pid(victim)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    async def _aim(self, fault: Fault, aim: Aim) -> bool:
        match aim:
            case Aim.FETCH | Aim.PREPARE | Aim.GUARD | Aim.EMBED | Aim.WRITE:
                return await self._kill_in_step(fault, _STEPS[aim])
            case Aim.PUBLISH | Aim.COMMIT:
                return await self.stack.traps[aim].catch(lambda: self._kill(fault.victim), within_s=_AIM_WITHIN_S)
            case Aim.STORE_COMMIT:
                return await self._kill_in_rename(fault)
            case _:
                assert_never(aim)

    async def _kill_in_step(self, fault: Fault, step: str) -> bool:
        """Read the retriever's log as it grows; kill when a document enters that step, after so many that did."""
        passing = itertools.count()
        with self.stack.processes[fault.victim].log_path.open(encoding="utf-8", errors="replace") as lines:
            lines.seek(0, os.SEEK_END)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AIM_WITHIN_S):
                    while True:
                        entered = [line for line in lines.readlines() if _STEP in line and f'"{step}"' in line]
                        if any(next(passing) >= fault.skip for _ in entered):
                            return self._kill(fault.victim)
                        await asyncio.sleep(_POLL_S)
        return False

    async def _kill_in_rename(self, fault: Fault) -> bool:
        """The store's commit is the renaming, or linking, of a file: strace kills in the middle of one."""
        strace, pid = shutil.which("strace"), self._pid(fault.victim)
        if strace is None or pid is None:
            self.obstacles.add(f"{Aim.STORE_COMMIT}: strace is not installed")
            return False
        inject = f"inject={_RENAMES}:signal=SIGKILL:when={fault.skip + 1}"
        tracer = await asyncio.create_subprocess_exec(
            *(strace, "-f", "-qq", "-o", os.devnull, "-p", str(pid), "-e", f"trace={_RENAMES}", "-e", inject),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        told = b""
        try:
            async with asyncio.timeout(_AIM_WITHIN_S):
                _, told = await tracer.communicate()
        except TimeoutError:
            await let_go(tracer)
        if await self._ended(fault.victim, pid):
            return True
        if told:
            self.obstacles.add(f"{Aim.STORE_COMMIT}: {told.decode(errors='replace').strip()[:200]}")
        return False

    async def _ended(self, victim: Victim, pid: int) -> bool:
        """The kernel may tell a moment later than strace."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self._pid(victim) == pid:
                    await asyncio.sleep(_POLL_S)
        return self._pid(victim) != pid
