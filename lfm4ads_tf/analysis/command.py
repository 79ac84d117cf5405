"""The command line that makes a run again."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lfm4ads_tf.config import Resolved, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.shipped_specs import shipped_specs
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.written import dump


def command(resolved: Resolved) -> str:
    """The `train.py` command with every setting that differs from the spec.

    What a search chose is not among them: the command makes the same search again. Only where the
    whole configuration has to be given, so that nothing is left to a search, it gives what was
    chosen.

    Args:
        resolved: Feature spec and run configuration.

    Returns:
        The command, one option a line. For a spec that is not shipped, or one that assignments
        cannot express, it names `spec.yaml`, to be taken from the resolved configuration.
    """
    name = resolved.spec.name
    head = ["python train.py run"]
    tail = [f"--out runs/{shlex.quote(name)}_again"]
    if resolved.spec.dataset is None:
        tail.insert(0, "--data-dir DIR")
    shipped = shipped_specs().get(name)
    assignments = None if shipped is None else _assignments(shipped, resolved)
    if assignments is not None:
        return _joined([*head, f"--spec feature_specs/{name}.yaml", *_options(assignments), *tail])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_text(dump(resolved.spec.model_dump(mode="json")), "utf-8")
        assignments = _assignments(path, resolved)
    note = "# spec.yaml: the section `spec` of the resolved configuration below"
    if assignments is None:
        note += ", with the section `config` as its key `run`"
        assignments, more = _chosen(resolved)
        note = "\n".join([note, *more])
    return f"{note}\n" + _joined([*head, "--spec spec.yaml", *_options(assignments), *tail])


def _chosen(resolved: Resolved) -> tuple[list[str], list[str]]:
    """Assignments that train as the searches chose, without a search; and lines of explanation.

    One configuration holds one setting for all scenarios: where those of the downstream models
    differ, the lines say what to add for which scenarios.
    """
    off = [f"{part}.training.auto=false" for part in ("upstream", "downstream")]
    config = resolved.config
    upstream = _changes("upstream", config.upstream, resolved.upstream())
    scenarios: dict[tuple[str, ...], list[str]] = {}
    for scenario in resolved.chosen.downstream:
        of = _changes("downstream", config.downstream, resolved.downstream(scenario))
        scenarios.setdefault(tuple(of), []).append(scenario)
    if len(scenarios) < 2:
        return [*off, *upstream, *(of for found in scenarios for of in found)], []
    lines = ["# the downstream models of the scenarios were trained with settings of their own:"]
    for found, names in scenarios.items():
        text = " ".join(["--scenarios", shlex.quote(_listed(names)), *_options(found)])
        lines.append(f"#   {text}")
    return [*off, *upstream], lines


def _changes(name: str, before: StrictModel, after: StrictModel) -> list[str]:
    """Assignments that make one part of the configuration the other."""
    changed = _differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    return [f"{'.'.join((name, *path))}={json.dumps(value)}" for path, value in changed]


def _listed(names: Sequence[str]) -> str:
    """A list as `--scenarios` reads it; a name with a comma or a quote stands in quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def _options(assignments: Sequence[str]) -> list[str]:
    return [f"--set {shlex.quote(a)}" for a in assignments]


def _joined(parts: list[str]) -> str:
    return " \\\n  ".join(parts)


def _assignments(path: Path, resolved: Resolved) -> list[str] | None:
    """What turns a spec file into the resolved one; None when assignments cannot."""
    wanted = _document(resolved)
    preset, given = resolved.config.preset, resolved.given or []
    first = [] if preset is None else [f"preset={json.dumps(preset)}"]
    try:
        start = _document(resolve(path, first))
        parts = [(start[part], wanted[part]) for part in ("spec", "config")]
        changed = [change for pair in parts for change in _differences(*pair)]
        assignments = first + [
            f"{'.'.join(steps)}={json.dumps(_without_dropout(steps, value, given))}"
            for steps, value in changed
        ]
        # What was given stays fixed in a search, also where it is what the spec says anyway.
        missing = set(given) - set(resolve(path, assignments).given or ())
        assignments += [
            f"{key}={json.dumps(_at(wanted['config'], key))}" for key in sorted(missing)
        ]
        again = _document(resolve(path, assignments))
    except (UserError, KeyError, TypeError):
        return None
    return assignments if again == wanted else None


def _document(resolved: Resolved) -> dict[str, Any]:
    """Plain values, without what says the same in other words and without a search's choice."""
    document = resolved.model_dump(mode="json")
    document["spec"].pop("run", None)
    document.pop("chosen")
    return document


def _without_dropout(steps: Sequence[str], value: Any, given: Sequence[str]) -> Any:
    """The layers of a block without the dropout that nobody gave: a search may choose it."""
    if steps[-1] != "layers" or f"{'.'.join(steps)}.dropout" in given:
        return value
    return [{k: v for k, v in layer.items() if k != "dropout"} for layer in value]


def _at(document: Any, path: str) -> Any:
    """The value of a dotted path."""
    for step in path.split("."):
        document = document[step]
    return document


def _differences(
    shipped: Mapping[str, Any], wanted: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values of `wanted` that are not in `shipped`."""
    for key, value in wanted.items():
        old = shipped.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            yield from _differences(old, value, (*path, key))
        elif key not in shipped or old != value:
            yield (*path, key), value
