"""Search profiles: what a search does where its request leaves it open, by name; read from a YAML file.

Parsed at start by `bootstrap.py`; a fault is told by its place in the file. Used by `searching.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from servicekit.domain.fusion import FusionMethod
from servicekit.errors import InvalidRequest
from servicekit.ports.vector_store import SearchMode

DEFAULT_PROFILE = "default"
MAX_TOP_K = 100
MAX_NEIGHBOURS = 3
_MAX_FILE_BYTES = 1_048_576

ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]


class SearchProfile(BaseModel):
    """One profile. Its defaults are those of the profile `default`, as measured on several collections.

    nDCG@10, all-MiniLM-L6-v2 in int8, chunks of 220 tokens behind title and headings. Through the service on LanceDB
    (`tests.bench.retrieval_quality`), and, in the last three columns, for fusions of the same rankings:

    | collection                       | dense | sparse | hybrid | reranked | weight .4 | weight .5 | by ranks |
    |----------------------------------|-------|--------|--------|----------|-----------|-----------|----------|
    | Cranfield, abstracts             | .4074 | .3848  | .4360  | .4409    | .4307     | .4349     | .4354    |
    | MTRAG, last turns on passages    | .8648 | .8616  | .8981  | .9017    | .8932     | .8938     | .8903    |
    | HaluEval, questions (not served) | .9520 | .9902  | .9920  | .9920    | .9923     | .9906     | .9787    |

    Relative score is better than either mode everywhere; reciprocal ranks lose where one mode is far ahead. Weights of
    .4 to .55 are alike but there, where a smaller one is safer. Reranking gains a little more, and is off because it
    costs a few milliseconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Annotated[SearchMode, Field(strict=False)] = SearchMode.HYBRID
    dense_weight: float = Field(default=0.45, ge=0.0, le=1.0)
    fusion: Annotated[FusionMethod, Field(strict=False)] = FusionMethod.RELATIVE_SCORE
    top_k: int = Field(default=8, ge=1, le=MAX_TOP_K)
    score_floor: float | None = Field(default=None, allow_inf_nan=False)
    rerank: bool = False
    mmr_relevance: float | None = Field(default=None, ge=0.0, le=1.0)
    neighbours: int = Field(default=0, ge=0, le=MAX_NEIGHBOURS)
    candidates: int = Field(default=50, ge=1, le=MAX_TOP_K, description="how many of the best are ranked anew")


class _ProfilesFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    profiles: Mapping[ProfileName, SearchProfile] = Field(max_length=256)


@dataclass(frozen=True, slots=True)
class SearchProfiles:
    """Profiles by name, `default` among them."""

    by_name: Mapping[str, SearchProfile]

    def choose(self, name: str) -> tuple[str, SearchProfile]:
        """The profile of this name, or `default` where there is none; with the name that was chosen."""
        chosen = name if name in self.by_name else DEFAULT_PROFILE
        return chosen, self.by_name[chosen]


def read_profiles(path: Path | None) -> SearchProfiles:
    """Read the file; without one there is `default` alone.

    Raises:
        InvalidRequest: no such file, not YAML, or something in it that cannot be followed.
    """
    if path is None:
        return parse_profiles({"profiles": {}}, file="profiles_file")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _invalid(path, error.strerror or "cannot be read") from error
    if len(source) > _MAX_FILE_BYTES:
        raise _invalid(path, f"is larger than {_MAX_FILE_BYTES} bytes")
    try:
        content = yaml.safe_load(source)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(path, f"is no YAML: {error}") from error
    return parse_profiles(content, file=path)


def parse_profiles(content: Any, *, file: Path | str) -> SearchProfiles:
    """Check what was read; what a profile leaves open is as in the file's `default`, then as built in.

    Raises:
        InvalidRequest: names the file, the place in it and the fault.
    """
    try:
        stated = _ProfilesFile.model_validate(content).profiles
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the file"
        got = "" if isinstance(fault["input"], Mapping) else f", got {fault['input']!r}"
        raise _invalid(file, f"{place}: {fault['msg']}{got}") from error
    default = stated.get(DEFAULT_PROFILE, SearchProfile())
    others = {name: default.model_copy(update=one.model_dump(exclude_unset=True)) for name, one in stated.items()}
    return SearchProfiles({**others, DEFAULT_PROFILE: default})


def _invalid(file: Path | str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{file}: {fault}", field="profiles_file", reason="INVALID_PROFILES_FILE")
