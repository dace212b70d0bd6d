"""Finds the line on which each value of a YAML file stands, so that a fault is told by its line.

Pure; used by `model_config.py` once something is wrong.
"""

from collections.abc import Sequence

import yaml

Path = tuple[str | int, ...]


def line_of(source: bytes | str, path: Sequence[str | int]) -> int | None:
    """The line, from 1, of the value at `path`, or of the innermost value on the way that is there.

    None where the source is no YAML.
    """
    try:
        node = yaml.compose(source, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    if node is None:
        return None
    line: int = node.start_mark.line
    for part in path:
        found = _child(node, part)
        if found is None:
            break
        node, line = found
    return line + 1


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, int] | None:
    """The value under a key (with the key's line), or at a place of a list."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item, item.start_mark.line
    return None
