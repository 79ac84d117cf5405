"""Method names, as they stand in results, read into what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.registry_key import options_of
from lfm4ads_tf.transfer.adapters.adapter import Adapter
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.transfer.config import OPTIONS_KEY, AdapterConfig

_FORMS = (
    "use none, full, feature/linear/UR, feature/mlp/<A+B+...>, feature/gate/CR_user@<layer>, "
    "module/warm_start/<level>[+frozen], module/isomorphic[+fresh][+frozen], or several of them "
    "joined by ' & '"
)


@dataclass(frozen=True)
class WarmStart:
    """The downstream starts from the upstream's weights.

    Attributes:
        level: What is copied: `embeddings` the tables; `towers` those and both towers; a layer of
            the interaction block, everything up to it; `output` the head as well.
        frozen: Whether copied weights stay as they are.
    """

    level: str
    frozen: bool = False


@dataclass(frozen=True)
class Isomorphic:
    """A module with the mix tower's structure reads the stored UR and IR.

    Attributes:
        fresh: Whether it starts from its own initial weights instead of the upstream's.
        frozen: Whether copied weights stay as they are.
    """

    fresh: bool = False
    frozen: bool = False


@dataclass(frozen=True)
class Method:
    """A parsed transfer method.

    Attributes:
        name: As given; it names the results.
        parts: Feature-level adapters: (kind, sources).
        warm_start: Module level, None without.
        isomorphic: Module level, None without.
        resolved: The combination itself where `name` is an alias, else the name.
    """

    name: str
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    warm_start: WarmStart | None = None
    isomorphic: Isomorphic | None = None
    resolved: str = ""

    @property
    def sources(self) -> list[str]:
        """Representations that it reads, each once."""
        named = [s for _, sources in self.parts for s in sources]
        return list(dict.fromkeys([*named, *(["UR", "IR"] if self.isomorphic else [])]))

    @property
    def copies(self) -> bool:
        """Whether the model starts from weights of the upstream."""
        fresh = self.isomorphic is None or self.isomorphic.fresh
        return self.warm_start is not None or not fresh

    def adapters(self, config: AdapterConfig, seed: int) -> list[Adapter]:
        """New adapters of this method."""
        if self.warm_start is not None:
            # Both the adapter's output and its weights behind being zero would have no gradient.
            config = config.model_copy(update={"adapter_zero_init": False})
        return [
            ADAPTERS[kind].create(list(sources), config, adapter_options(config, kind), seed)
            for kind, sources in self.parts
        ]

    @property
    def widens(self) -> bool:
        """Whether an adapter joins something to the stream."""
        return any(ADAPTERS[kind].widens for kind, _ in self.parts)


def adapter_options(config: AdapterConfig, kind: str) -> Any:
    """Options of an adapter, an instance of its `Config`."""
    return options_of(ADAPTERS, kind, config.adapter_options, OPTIONS_KEY)


def parse_method(
    name: str,
    layers: Sequence[str],
    *,
    full: str | None = None,
    representations: Sequence[str] | None = None,
    levels: Sequence[str] | None = None,
) -> Method:
    """Reads a method name: `none`, `full`, or parts of feature and module level joined by ` & `.

    Args:
        name: The method.
        layers: Layers of the upstream's interaction block.
        full: What `full` stands for.
        representations: Names of the stored representations; UR, IR and both CRs of every layer
            when absent.
        levels: Levels of a warm start, in order; from the layers when absent.

    Raises:
        UserError: The form, the adapter, a representation, a layer or a level is unknown.
    """
    if name == "none":
        return Method(name, resolved=name)
    if name == "full":
        if not full or full == "full":
            raise UserError(
                "The method 'full' stands for no combination.",
                received=f"downstream.full: {full}",
                fix="set downstream.full to the combination that was chosen on validation",
            )
        meant = parse_method(full, layers, representations=representations, levels=levels)
        return Method(name, meant.parts, meant.warm_start, meant.isomorphic, full)
    known = list(representations or _all_representations(layers))
    of_levels = list(levels or ["embeddings", *layers, "output"])
    parts: list[tuple[str, tuple[str, ...]]] = []
    warm_start: WarmStart | None = None
    isomorphic: Isomorphic | None = None
    seen: set[str] = set()
    for piece in name.split(" & "):
        if piece in seen:
            raise UserError(f"The method names '{piece}' twice.", received=name)
        seen.add(piece)
        level, _, rest = piece.partition("/")
        kind, _, tail = rest.partition("/")
        if level == "feature" and tail:
            parts.append(_feature(kind, tail, known, name))
        elif level == "module" and kind == "warm_start" and tail:
            if warm_start is not None:
                raise UserError(
                    "A method can have one warm start.",
                    received=name,
                    fix="name the highest level alone; it includes those below",
                )
            warm_start = _warm_start(tail, of_levels, name)
        elif level == "module" and kind.partition("+")[0] == "isomorphic" and not tail:
            if isomorphic is not None:
                raise UserError("A method can have one isomorphic module.", received=name)
            isomorphic = _isomorphic(kind, name)
        else:
            raise UserError(f"The method '{piece}' is unknown.", received=name, fix=_FORMS)
    return Method(name, tuple(parts), warm_start, isomorphic, name)


def _feature(
    kind: str, sources: str, known: Sequence[str], method: str
) -> tuple[str, tuple[str, ...]]:
    if kind not in ADAPTERS:
        raise UserError(
            f"The adapter '{kind}' is unknown.{nearest(kind, ADAPTERS)}",
            received=method,
            fix=f"use one of {', '.join(ADAPTERS)}",
        )
    return kind, tuple(_source(s, known, method) for s in sources.split("+"))


def _warm_start(text: str, levels: Sequence[str], method: str) -> WarmStart:
    level, plus, option = text.partition("+")
    if level not in levels:
        raise UserError(
            f"The level '{level}' of a warm start is unknown.{nearest(level, levels)}",
            received=method,
            fix=f"use one of {', '.join(levels)}",
        )
    if plus and option != "frozen":
        raise UserError(
            f"The option '+{option}' of a warm start is unknown.", received=method,
            fix="use +frozen or none",
        )  # fmt: skip
    return WarmStart(level, frozen=bool(plus))


def _isomorphic(text: str, method: str) -> Isomorphic:
    options = text.split("+")[1:]
    unknown = [o for o in options if o not in ("fresh", "frozen")]
    if unknown or len(set(options)) != len(options) or len(options) > 1:
        raise UserError(
            "The options of the isomorphic module cannot be read.",
            received=method,
            fix="use module/isomorphic, module/isomorphic+fresh or module/isomorphic+frozen",
        )
    return Isomorphic(fresh="fresh" in options, frozen="frozen" in options)


def _all_representations(layers: Sequence[str]) -> list[str]:
    return ["UR", "IR", *[f"CR_{side}@{layer}" for side in ("user", "item") for layer in layers]]


def _source(text: str, known: Sequence[str], method: str) -> str:
    if text not in known:
        raise UserError(
            f"The representation '{text}' is unknown.{nearest(text, known)}",
            received=method,
            fix=f"use one of {', '.join(known)}",
        )
    return text
