"""Reading a feature spec: a YAML mapping, merged with overrides, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.shipped_specs import shipped_specs, spec_file
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_checks import check_spec
from lfm4ads_tf.features.yaml_keys import refuse_repeated_keys
from lfm4ads_tf.strict import parse
from lfm4ads_tf.written import load


def load_spec(path: Path | str, overrides: Mapping[str, Any] | None = None) -> FeatureSpec:
    """Reads and checks a feature spec.

    Args:
        path: The YAML file, or the name of a spec that comes with the package.
        overrides: Nested mapping merged over the file before it is checked.

    Returns:
        The spec, checked.

    Raises:
        UserError: The file is missing or not YAML, a key is unknown (the nearest known one is
            named), a value has the wrong type, or a feature reads a side it does not own.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> spec = lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}})
        >>> spec.task_names
        ['click', 'conversion']
    """
    file = spec_file(Path(path))
    raw = read_yaml(file)
    return parse_spec(merge(raw, overrides or {}), source=str(file))


def parse_spec(raw: Mapping[str, Any], *, source: str = "the feature spec") -> FeatureSpec:
    """Checks an already loaded spec, see `load_spec`."""
    spec = parse(FeatureSpec, raw, source=source)
    check_spec(spec)
    return spec


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads one YAML mapping; its scalars remember how they were written, see `written`.

    Raises:
        UserError: The file is missing, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        refuse_repeated_keys(text, str(path))
        raw = load(text)
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read.",
            received=error.strerror,
            fix="give --spec the path of a YAML feature spec, or the name of one that comes with "
            f"the package: {', '.join(shipped_specs())}",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML.", received=error) from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a YAML mapping.", received=type(raw).__name__)
    return raw


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `over` merged in, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged
