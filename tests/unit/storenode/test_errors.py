"""The tree of errors in the docstring is the tree of the classes, and each that is raised has one fate."""

from __future__ import annotations

import inspect
import re

from storenode import errors
from storenode.errors import StorenodeError

FATES = {"retry", "halt", "refuse"}


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    grouped: set[str] = set()
    parents = {0: StorenodeError.__name__}
    for branch, name, text in re.findall(r"^    ([│├└─ ]+)(\w+) +(.+)$", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        drawn[name] = parents[depth - 1]
        parents[depth] = name
        if text.partition(":")[0] not in FATES:
            grouped.add(name)
    made = {
        name: found.__mro__[1].__name__
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, StorenodeError) and found is not StorenodeError
    }
    assert drawn == made
    assert grouped == set(made.values()) - {StorenodeError.__name__}, "what has classes below it is never raised itself"
