"""Method names, as they stand in results, read into what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.transfer.adapter import Adapter
from lfm4ads_tf.transfer.config import AdapterConfig
from lfm4ads_tf.transfer.gate import GateAdapter
from lfm4ads_tf.transfer.linear import LinearAdapter
from lfm4ads_tf.transfer.mlp import MlpAdapter

AdapterFactory = Callable[[Sequence[str], AdapterConfig, int], Adapter]

ADAPTERS: dict[str, AdapterFactory] = {
    "linear": lambda sources, config, seed: LinearAdapter(
        sources, dim=config.linear_dim, seed=seed
    ),
    "mlp": lambda sources, config, seed: MlpAdapter(sources, units=config.adapter_units, seed=seed),
    "gate": lambda sources, config, seed: GateAdapter(sources, seed=seed),
}


@dataclass(frozen=True)
class Method:
    """A parsed transfer method.

    Attributes:
        name: As given.
        parts: Feature-level adapters: (kind, sources).
    """

    name: str
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def sources(self) -> list[str]:
        """Representations that it reads, each once."""
        return list(dict.fromkeys(s for _, sources in self.parts for s in sources))

    def adapters(self, config: AdapterConfig, seed: int) -> list[Adapter]:
        """New adapters of this method."""
        return [ADAPTERS[kind](list(sources), config, seed) for kind, sources in self.parts]


def parse_method(name: str, layers: Sequence[str]) -> Method:
    """Reads a method name: `none`, or `feature/<adapter>/<A+B>` joined by ` & `.

    Args:
        name: The method.
        layers: Layers of the upstream's interaction block.

    Raises:
        UserError: The form, the adapter, a representation or a layer is unknown.
    """
    if name == "none":
        return Method(name)
    parts = []
    for piece in name.split(" & "):
        level, _, rest = piece.partition("/")
        kind, _, sources = rest.partition("/")
        if level != "feature" or not sources:
            raise UserError(
                f"The method '{piece}' is unknown.",
                received=name,
                fix="use none, feature/linear/UR, feature/gate/CR_user@<layer>, "
                "feature/mlp/<A+B+...>, or several of them joined by ' & '",
            )
        if kind not in ADAPTERS:
            raise UserError(
                f"The adapter '{kind}' is unknown.{nearest(kind, ADAPTERS)}",
                received=name,
                fix=f"use one of {', '.join(ADAPTERS)}",
            )
        parts.append((kind, tuple(_source(s, layers, name) for s in sources.split("+"))))
        if parts[-1] in parts[:-1]:
            raise UserError(f"The method names '{piece}' twice.", received=name)
    return Method(name, tuple(parts))


def _source(text: str, layers: Sequence[str], method: str) -> str:
    known = ["UR", "IR", *[f"CR_{side}@{layer}" for side in ("user", "item") for layer in layers]]
    if text not in known:
        raise UserError(
            f"The representation '{text}' is unknown.{nearest(text, known)}",
            received=method,
            fix="use UR, IR, CR_user@<layer> or CR_item@<layer> with a layer of "
            + ", ".join(layers),
        )
    return text
