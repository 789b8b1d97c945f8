"""How a code base names the layers of a network."""

from __future__ import annotations

import re
from typing import NamedTuple

Rules = tuple[tuple[str, str], ...]


class Names(NamedTuple):
    """How a code base names the layers of a network.

    Attributes:
        rules: (regular expression, template): the first expression that matches the whole name of a layer gives, through
            `re.Match.expand`, the dotted name of the module it is called there.
        head: regular expression of the layers that belong to the head, not to the trunk.
        ignored: regular expression of tensors that the published code keeps but no forward pass reads.
        tripled: regular expression of layers whose weights are to be multiplied by three, because the hard sigmoid after them is
            (x + 1) / 2 there and (x + 3) / 6 here.
    """

    rules: Rules
    head: str = "heatmaps"
    ignored: str = ""
    tripled: str = ""

    def module_of(self, layer: str) -> str | None:
        """The module that a layer is called in the published code; None where no rule matches."""
        for pattern, template in self.rules:
            if match := re.fullmatch(pattern, layer):
                return match.expand(template)
        return None
