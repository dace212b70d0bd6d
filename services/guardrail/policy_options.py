"""Reads a detector's own options from a policy file: its pydantic model says what they may be.

Pure; used by `policy_file.py`.
"""

from typing import Any

from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from services.guardrail.policy_nodes import PolicyNodes, unknown


def read_options(nodes: PolicyNodes, node: Node, *, name: str, under: BaseModel) -> BaseModel:
    """`under`, changed by what the node states; nested settings are replaced as a whole.

    Raises:
        PolicyError: a setting that the detector does not know, or a value that it does not take.
    """
    model = type(under)
    stated: dict[str, Any] = {}
    for key, value in nodes.items(node, name, tuple(model.model_fields)):
        try:
            stated[key.value] = SafeConstructor().construct_document(value)
        except (ConstructorError, RecursionError, ValueError) as exc:
            nodes.refuse(value, f"{name}.{key.value} cannot be read: {exc}")
    try:
        return model.model_validate({**under.model_dump(), **stated})
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        place = tuple(error["loc"])
        path = ".".join(map(str, (name, *place)))
        where = _at(node, place)
        if error["type"] == "extra_forbidden":
            owner = ".".join(map(str, (name, *place[:-1])))
            nodes.refuse(where, unknown(f"name in {owner}", str(place[-1]), _fields(under, place[:-1])))
        nodes.refuse(where, f"{path}: {error['msg']}, got {error['input']!r}")


def _at(node: Node, place: tuple[int | str, ...]) -> Node:
    """The node that an error is about; where it is none of the file's own, the nearest around it."""
    for step in place:
        inner = None
        if isinstance(node, MappingNode):
            inner = next(
                (value for key, value in node.value if isinstance(key, ScalarNode) and key.value == step), None
            )
        elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        if inner is None:
            return node
        node = inner
    return node


def _fields(under: BaseModel, place: tuple[int | str, ...]) -> tuple[str, ...]:
    """The names that are known at a place, where what stands there now tells them."""
    value: Any = under
    for step in place:
        value = getattr(value, str(step), None)
    return tuple(type(value).model_fields) if isinstance(value, BaseModel) else ()
