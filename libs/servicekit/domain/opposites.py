"""Common English words whose exchange turns a statement around.

Pure; used by `statements.py`. A short list by hand: what is not in it is not seen.
"""

from functools import cache

from servicekit.domain.sentences import stem

_PAIRS = """
above below / accept reject / active inactive / add remove / agree disagree / allow forbid / allow prevent /
always never / amateur professional / ancient modern / appear disappear / arrive depart / artificial natural /
ascending descending / asynchronous synchronous / before after / begin end / began ended / best worst / better worse /
big small / birth death / born died / buy sell / bought sold / cheap expensive / clockwise counterclockwise /
cold hot / cold warm / common rare / connect disconnect / dead alive / dark light / deep shallow / defeat victory /
dependent independent / different same / difficult easy / direct indirect / dry wet / early late / earlier later /
eastern western / east west / empty full / enable disable / enter leave / exclude include / expand shrink /
external internal / fail succeed / failure success / false true / far near / fast slow / faster slower / fat thin /
female male / fewer more / first last / former current / forward backward / gain loss / good bad / guilty innocent /
happy sad / hard soft / heavy light / high low / higher lower / highest lowest / hero villain / huge tiny /
husband wife / increase decrease / inner outer / inside outside / king queen / land sea / large small /
larger smaller / largest smallest / left right / legal illegal / less more / least most / local global / long short /
longer shorter / longest shortest / lose win / lost won / major minor / man woman / maximum minimum /
mandatory optional / many few / mother father / mutable immutable / new old / newer older / newest oldest /
north south / northern southern / occupied vacant / odd even / older younger / oldest youngest / on off / open close /
open closed / optional required / oppose support / original copy / over under / parent child / partial complete /
pass fail / permanent temporary / positive negative / possible impossible / present absent / private public /
raise lower / rich poor / rise fall / rose fell / rough smooth / rural urban / safe dangerous / secure insecure /
single double / pull push / start stop / strong weak / sunrise sunset / tall short / thick thin / top bottom / up down /
upper lower / valid invalid / visible invisible / wide narrow / winter summer / with without / young old
"""


@cache
def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in _PAIRS.split("/"):
        one, other = (stem(word) for word in pair.split())
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return {term: frozenset(others) for term, others in found.items()}


def opposites_of(term: str) -> frozenset[str]:
    """The stems that say the opposite of a stem."""
    return _opposites().get(term, frozenset())
