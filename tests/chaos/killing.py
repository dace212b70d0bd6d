"""Carries out the faults of a run: plain kills, traps in the proxies, and strace for the engine's renames.

Used by `sink.py`; every kill is noted with the calls that were in flight.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from services.local.supervisor import LocalStack
from tests.chaos.faults import Aim, Fault, Victim
from tests.chaos.proxies import Trap

_LET_GO_S = 2.0
_AIM_WITHIN_S = 8.0  # while another victim is away the instant does not come
_ALIVE_WITHIN_S = 60.0
_POLL_S = 0.02


@dataclass
class Killer:
    """Kills processes of one stack; `note_kill` is told just before each."""

    stack: LocalStack
    traps: Mapping[Aim, Trap]
    note_kill: Callable[[], None]
    kills: Counter[Victim] = field(default_factory=Counter)
    aimed: Counter[Aim] = field(default_factory=Counter)
    obstacles: set[str] = field(default_factory=set)

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        """All of them, each at its instant."""
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                tasks.create_task(self._carry_out(fault))

    async def _carry_out(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        async with asyncio.timeout(_ALIVE_WITHIN_S):
            while self._pid(fault.victim) is None:
                await asyncio.sleep(_POLL_S)
        if fault.aim is not None and await self._aim(fault, fault.aim):
            self.aimed[fault.aim] += 1
        else:
            self._kill(fault.victim)

    def _pid(self, victim: Victim) -> int | None:
        return self.stack.processes[victim].pid

    def _kill(self, victim: Victim) -> bool:
        pid = self._pid(victim)
        if pid is None:
            return False
        self.note_kill()
        os.kill(pid, signal.SIGKILL)
        self.kills[victim] += 1
        return True

    async def _aim(self, fault: Fault, aim: Aim) -> bool:
        match aim:
            case Aim.INSERT_COMMIT | Aim.ACKNOWLEDGEMENT:
                return await self.traps[aim].catch(lambda: self._kill(fault.victim), within_s=_AIM_WITHIN_S)
            case Aim.PART_RENAME:
                return await self._kill_in_rename(fault)
            case _:
                assert_never(aim)

    async def _kill_in_rename(self, fault: Fault) -> bool:
        strace, pid = shutil.which("strace"), self._pid(fault.victim)
        if strace is None or pid is None:
            self.obstacles.add(f"{Aim.PART_RENAME}: strace is not installed")
            return False
        renames = "rename,renameat,renameat2"
        inject = f"inject={renames}:signal=SIGKILL:when={fault.skip + 1}"
        tracer = await asyncio.create_subprocess_exec(
            *(strace, "-f", "-qq", "-o", os.devnull, "-p", str(pid), "-e", f"trace={renames}", "-e", inject),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_AIM_WITHIN_S):
                _, told = await tracer.communicate()
        except TimeoutError:
            await let_go(tracer)
            told = b""
        if await self._ended(fault.victim, pid):
            self.note_kill()
            self.kills[fault.victim] += 1
            return True
        if told:
            self.obstacles.add(f"{Aim.PART_RENAME}: {told.decode(errors='replace').strip()[:200]}")
        return False

    async def _ended(self, victim: Victim, pid: int) -> bool:
        """The kernel may tell a moment later than strace."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self._pid(victim) == pid:
                    await asyncio.sleep(_POLL_S)
        return self._pid(victim) != pid


async def let_go(tracer: asyncio.subprocess.Process) -> None:
    """End a tracer; one that waits for threads of a process killed under it heeds nothing but SIGKILL."""
    tracer.terminate()
    try:
        async with asyncio.timeout(_LET_GO_S):
            await tracer.wait()
    except TimeoutError:
        tracer.kill()
        await tracer.wait()
