"""The 29 methods of the LFM4Ads public experiment and what they are called here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lfm4ads_tf.errors import UserError, nearest

Usage = Literal["feature", "module", "model"]

# CR_0 ... CR_5 are taken from these layers; CR'_0 ... CR'_6 copy the upstream up to these parts.
LAYERS = ("towers", "cross_1", "cross_2", "cross_3", "dnn_1", "dnn_2")
PARTS = ("embeddings", *LAYERS[1:], "output")
VANILLA, RETRIEVER = "none", "model/own"


@dataclass(frozen=True)
class PublicMethod:
    """One method of the experiment.

    Attributes:
        label: Its name in the paper's code, such as `gate CR_3`.
        name: Its name in our results, such as `feature/gate/CR_user@cross_3`.
        usage: Granularity: feature, module or model.
        curve: Curve of its figure that it is a point of; None for a horizontal line.
        layer: Its position on that curve, 0 to 6; None for a horizontal line.

    Source: LFM4Ads (arXiv 2508.14948), public experiment.
    """

    label: str
    name: str
    usage: Usage
    curve: str | None = None
    layer: int | None = None


def _all_methods() -> tuple[PublicMethod, ...]:
    methods = [PublicMethod("SUM", "feature/linear/UR", "feature")]
    for curve, adapter in (("concat", "linear"), ("gate", "gate")):
        methods += [
            PublicMethod(
                f"{curve} CR_{k}", f"feature/{adapter}/CR_user@{layer}", "feature", curve, k
            )
            for k, layer in enumerate(LAYERS)
        ]
    methods.append(PublicMethod("Vanilla", VANILLA, "module"))
    methods += [
        PublicMethod(f"CR'_{k}", f"module/warm_start/{part}", "module", "warm start", k)
        for k, part in enumerate(PARTS)
    ]
    methods.append(PublicMethod("Retriever", RETRIEVER, "model"))
    methods.append(PublicMethod("IR & UR", "model/IR*UR", "model"))
    methods += [
        PublicMethod(f"IR & CR_{k}", f"model/IR*CR_user@{layer}", "model", "IR & CR", k)
        for k, layer in enumerate(LAYERS)
    ]
    return tuple(methods)


METHODS = _all_methods()


def select_methods(names: str | None) -> list[PublicMethod]:
    """The methods of a comma-separated list, by either of their names, in the table's order.

    Args:
        names: The list; None for all 29.

    Raises:
        UserError: A name is unknown.
    """
    if names is None:
        return list(METHODS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [text for method in METHODS for text in (method.label, method.name)]
    for name in wanted:
        if name not in known:
            raise UserError(
                f"The method '{name}' is not one of the experiment's 29.{nearest(name, known)}",
                fix=f"use some of {', '.join(m.label for m in METHODS)}",
            )
    return [m for m in METHODS if m.label in wanted or m.name in wanted]
