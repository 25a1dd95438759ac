"""Load YAML that anyone may have written: experiments, recipes, catalogs and values of `--set`.

The result is that of `yaml.safe_load`. What could exhaust time or memory, and what is almost
certainly a mistake, is refused with one line.
"""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 2**20  # of a file
MAX_VALUES = 100_000  # keys and values, each alias counted as often as it is used
MAX_DIGITS = 64  # of an integer

_NUMBER_TAG = "tag:yaml.org,2002:int"
_MERGE_TAG = "tag:yaml.org,2002:merge"


def load(text: str | bytes, place: str) -> Any:
    """Load a YAML document.

    Args:
      text: The document.
      place: The file or option, for messages.

    Raises:
      ConfigError: If it is not valid YAML, has Python objects, too many values, a key twice or a
        number of too many digits.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(place, f"is larger than {MAX_BYTES:,} bytes", remedy="shorten it")
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        problems: list[str] = []
        _count_values(root, {}, problems)
        if problems:
            raise ConfigError(place, *problems, remedy="correct the YAML")
        return loader.construct_document(root)
    except RecursionError as error:
        raise ConfigError(place, "is nested too deeply", remedy="correct the YAML") from error
    # The constructors of dates and numbers raise ValueError and OverflowError.
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as error:
        raise ConfigError(place, f"is not valid YAML: {' '.join(str(error).split())}") from error


def _count_values(node: yaml.Node, counts: dict[int, int], problems: list[str]) -> int:
    """Count the values below a node, and add what is wrong with them to the problems.

    Args:
      node: The node. The nodes of YAML with aliases are a graph, in which each is visited once.
      counts: The counts of the nodes so far, by id; 0 for a node that is not finished.
      problems: Messages.
    """
    if id(node) in counts:
        if counts[id(node)] == 0:
            _add(problems, f"an alias that contains itself{_line(node)}")
        return counts[id(node)]
    counts[id(node)] = 0
    count = 1
    if isinstance(node, yaml.MappingNode):
        seen: set[tuple[str, str]] = set()
        for key, value in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen and key.tag != _MERGE_TAG:
                _add(problems, f"key '{key.value[:MAX_DIGITS]}' is given twice{_line(key)}")
            seen |= {name} if name else set()
            count += _count_values(key, counts, problems) + _count_values(value, counts, problems)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_count_values(item, counts, problems) for item in node.value)
    elif node.tag == _NUMBER_TAG and len(node.value) > MAX_DIGITS:
        problem = f"a number of {len(node.value):,} characters{_line(node)}"
        _add(problems, f"{problem}; at most {MAX_DIGITS}")
    if count > MAX_VALUES:
        _add(problems, f"more than {MAX_VALUES:,} values, with those that aliases repeat")
        count = MAX_VALUES + 1  # it would grow without limit
    counts[id(node)] = count
    return count


def _add(problems: list[str], problem: str) -> None:
    """Add a problem, unless it is known or there are many."""
    if problem not in problems and len(problems) < 8:
        problems.append(problem)


def _line(node: yaml.Node) -> str:
    return f" in line {node.start_mark.line + 1}" if node.start_mark else ""
