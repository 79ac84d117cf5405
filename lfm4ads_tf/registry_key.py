"""Keys of a configuration that hold a name of a registry, or options of what it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import AfterValidator

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.registry import Registry
from lfm4ads_tf.strict import StrictModel, parse


def known_name(registry: Registry[Any]) -> AfterValidator:
    """Checks a text key: `Annotated[str, known_name(REGISTRY)]` takes names of the registry alone.

    Args:
        registry: The names; those that are added later count too.
    """

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(
                f"the {registry.what} is unknown.{nearest(name, registry)} "
                f"Use one of {', '.join(registry)}"
            )
        return name

    return AfterValidator(check)


def options_of(registry: Registry[Any], name: str, given: Mapping[str, Any], key: str) -> Any:
    """The options of an entry, as its class's `Config` reads them.

    Args:
        registry: The entries; each has a `Config`, a `StrictModel`, whose fields are its options.
        name: Name of the entry.
        given: Name -> options, as the configuration holds them.
        key: Where the configuration holds them, for messages.

    Raises:
        UserError: An option is unknown or its value is not valid.
    """
    model: type[StrictModel] = registry[name].Config
    options = given.get(name, {})
    if options and not model.model_fields:
        raise UserError(
            f"The {registry.what} '{name}' has no options of its own.",
            received=f"{key}.{name}: {', '.join(options)}",
            fix=f"leave {key}.{name} out",
        )
    return parse(model, options, source=f"{key}.{name}")


def checked_options(
    registry: Registry[Any], given: Mapping[str, Mapping[str, Any]], key: str
) -> dict[str, dict[str, Any]]:
    """Refuses options of an entry that is not there, and those that it does not have.

    Args:
        registry, given, key: As for `options_of`; scalars as they were written
            (`written.UNREAD`), which the entry's class reads by the type of its option.

    Returns:
        The same options with plain values.

    Raises:
        UserError: A name or an option is unknown, or a value is not valid.
    """
    checked: dict[str, dict[str, Any]] = {}
    for name in given:
        if name not in registry:
            raise UserError(
                f"{key} names the unknown {registry.what} '{name}'.{nearest(name, registry)}",
                fix=f"use some of {', '.join(registry)}",
            )
        options = options_of(registry, name, given, key)
        checked[name] = options.model_dump(mode="json", exclude_unset=True)
    return checked
