"""What is killed in a run, when, and at which instants: drawn from a seed. Pure; carried out by `killing.py`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_AIMED = 0.5
_FIRST_S = 0.3
_LAST_S = 6.0


class Victim(StrEnum):
    """The processes of the stack by their supervisor's names."""

    SINK = "analytics"
    BROKER = "broker"
    CLICKHOUSE = "clickhouse"
    GATEWAY = "gateway"


class Aim(StrEnum):
    """An instant that a random kill hardly ever meets."""

    INSERT_COMMIT = "between_insert_and_commit"
    PART_RENAME = "inside_part_rename"
    ACKNOWLEDGEMENT = "between_kafkas_and_callers_acknowledgement"


AIM_AT = {
    Victim.SINK: Aim.INSERT_COMMIT,
    Victim.CLICKHOUSE: Aim.PART_RENAME,
    Victim.GATEWAY: Aim.ACKNOWLEDGEMENT,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Kill `victim` `at_s` after the load began; aimed: at the next such instant. `skip`: renames that are let pass."""

    victim: Victim
    at_s: float
    aim: Aim | None
    skip: int = 0


def plan(seed: int) -> Sequence[Fault]:
    """Every victim once, in random order at random instants, half of those that can be aimed at aimed."""
    rng = random.Random(seed)
    faults = [
        Fault(
            victim,
            at_s=rng.uniform(_FIRST_S, _LAST_S),
            aim=AIM_AT.get(victim) if rng.random() < _AIMED else None,
            skip=rng.randrange(4),
        )
        for victim in Victim
    ]
    return sorted(faults, key=lambda fault: fault.at_s)
