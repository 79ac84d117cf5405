"""A rule under a further name, with options of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lfm4ads_tf.optim.rules.rule import RowRule


@dataclass(frozen=True)
class RuleVariant:
    """What a name of the registry makes: a rule, some of whose options are settled.

    Attributes:
        rule: The rule.
        fixed: Options that cannot be given.
        defaults: Options with other defaults than the rule's.
    """

    rule: type[RowRule]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """Names of the options that can be given."""
        known = fields(self.rule)  # type: ignore[arg-type]
        return [option.name for option in known if option.name not in self.fixed]

    def make(self, given: Mapping[str, Any]) -> RowRule:
        """The rule with some options."""
        return self.rule(**{**self.defaults, **self.fixed, **given})
