"""Rules from their names and options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.optim.rules.registry import RULES
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.variant import RuleVariant


def row_rule(name: str, **options: Any) -> RowRule:
    """The rule of a name.

    Args:
        name: A name of `RULES`, such as `adagrad`, `rowwise_adagrad` (`Adagrad` with `row_wise`),
            `adam`, `adamw` (`LazyAdam` with a weight decay of 0.01 unless another is given),
            `ftrl` or `sgd`.
        **options: Fields of the rule that differ from their defaults.

    Returns:
        A new rule; rules of equal options are equal.

    Raises:
        UserError: The name or an option is unknown, or an option is out of its bounds.
    """
    variant = rule_variant(name)
    for option in options:
        if option not in variant.options:
            raise UserError(
                f"The update rule '{name}' has no option '{option}'."
                + nearest(option, variant.options),
                fix=f"Its options are {', '.join(variant.options)}.",
            )
    return variant.make(options)


def options_of_rule(rule: RowRule) -> tuple[str, dict[str, Any]]:
    """The name and the options that `row_rule` makes an equal rule of.

    Raises:
        UserError: The rule's class is not registered.
    """
    options = asdict(rule)  # type: ignore[call-overload]
    for name in RULES:
        if not rule_variant(name).fixed and type(rule) is rule_variant(name).rule:
            return name, options
    raise UserError(
        f"The update rule {type(rule).__name__} has no name and so cannot be saved.",
        fix="register it: @RULES.register('<name>')",
    )


def rule_variant(name: str) -> RuleVariant:
    """What a name makes.

    Raises:
        UserError: The name is unknown.
    """
    entry = RULES[str(name)]
    return entry if isinstance(entry, RuleVariant) else RuleVariant(entry)
