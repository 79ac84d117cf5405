"""Update rules by the name that a configuration gives them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.adam import LazyAdam
from lfm4ads_tf.optim.rules.ftrl import Ftrl
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.sgd import Sgd

_RULES: dict[str, type[RowRule]] = {
    "adagrad": Adagrad,
    "rowwise_adagrad": Adagrad,
    "adam": LazyAdam,
    "adamw": LazyAdam,
    "ftrl": Ftrl,
    "sgd": Sgd,
}
_FIXED: dict[str, dict[str, Any]] = {"rowwise_adagrad": {"row_wise": True}}
_DEFAULTS: dict[str, dict[str, Any]] = {"adamw": {"weight_decay": 0.01}}


def row_rule(name: str, **options: Any) -> RowRule:
    """The rule of a name.

    Args:
        name: `adagrad`, `rowwise_adagrad` (`Adagrad` with `row_wise`), `adam`, `adamw` (`LazyAdam`
            with a weight decay of 0.01 unless another is given), `ftrl` or `sgd`.
        **options: Fields of the rule that differ from their defaults.

    Returns:
        A new rule; rules of equal options are equal.

    Raises:
        UserError: The name or an option is unknown, or an option is out of its bounds.
    """
    if name not in _RULES:
        raise UserError(
            f"The update rule '{name}' is unknown.{nearest(str(name), _RULES)}",
            fix=f"Choose one of {', '.join(_RULES)}.",
        )
    rule, fixed = _RULES[name], _FIXED.get(name, {})
    known = [field.name for field in fields(rule) if field.name not in fixed]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise UserError(
                f"The update rule '{name}' has no option '{option}'.{nearest(option, known)}",
                fix=f"Its options are {', '.join(known)}.",
            )
    return rule(**{**_DEFAULTS.get(name, {}), **fixed, **options})
