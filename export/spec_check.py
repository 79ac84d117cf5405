"""Does an export ask for what a feature spec declares?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfm4ads_tf.data.vectors import settled_by
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.kinds.kind import ExportKind, kind_of
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.features.raw_types import RawType, raw_sides, raw_types
from lfm4ads_tf.features.shipped_specs import spec_file
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec, read_yaml
from lfm4ads_tf.features.tables import embedded_features
from lfm4ads_tf.features.vector_columns import is_settled

_SCORED = ("serving_default", "predict", "rank")  # signatures with one output per task


def read_spec(path: Path) -> FeatureSpec:
    """A feature spec, or the one inside the `config.yaml` of a run.

    Args:
        path: The YAML file, or the name of a spec that comes with the package.

    Raises:
        UserError: It cannot be read, is not valid, or leaves the size of a vector to the data.
    """
    path = spec_file(path)
    raw = read_yaml(path)
    if "features" not in raw and isinstance(raw.get("spec"), dict):
        spec = parse_spec(raw["spec"], source=str(path))
        spec = settled_by(spec, path.parent / "data") or spec
    else:
        spec = parse_spec(raw, source=str(path))
    if not is_settled(spec):
        raise UserError(
            "The feature spec takes the columns of a vector from the data, by a pattern.",
            received=path,
            fix="give the `config.yaml` of the run, or list the columns in the spec",
        )
    return spec


def check_against_spec(contract: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Compares an export's contract with a feature spec.

    Each column must be one of the spec's, of the same type and side; the foundation asks for all
    that the spec reads. The inputs of `predict` are the columns and representations under their
    request names, and no others. The tasks are the spec's, and the outputs are the tasks.

    Args:
        contract: What `contract.json` holds.
        spec: The feature spec.

    Raises:
        ExportRefused: They differ; the column is named.
    """
    kind = _kind(contract)
    read = raw_types(spec)
    types, sides = dict(read), dict[str, str](raw_sides(spec))
    for side, key in (("user", spec.keys.user), ("item", spec.keys.item)):
        if key is not None:  # no feature need read it: representations are looked up by it
            types.setdefault(key, RawType("text"))
            sides[key] = side
    kind_columns = kind.own_columns
    columns = dict(contract["columns"])
    told_sides = contract["user_columns"] or contract["item_columns"]  # a tower's go unsaid
    for column, wanted in columns.items():
        if column in kind_columns and kind_columns[column].kind == wanted:
            continue
        if column not in types:
            raise ExportRefused(
                f"the export asks for the column '{column}', which no feature of the spec "
                f"'{spec.name}' reads"
            )
        if types[column].kind != wanted:
            raise ExportRefused(
                f"the export reads the column '{column}' as {wanted}, the spec '{spec.name}' as "
                f"{types[column].kind}"
            )
        for side in ("user", "item") if told_sides else ():
            if (column in contract[f"{side}_columns"]) != (sides[column] == side):
                told = "does" if sides[column] == side else "does not"
                raise ExportRefused(
                    f"the column '{column}' {told} belong to the {side} in the spec "
                    f"'{spec.name}', unlike in the export"
                )
    projection = bool(kind_columns) and bool(contract["representations"])
    if not columns.keys() - kind_columns.keys() and not projection:
        raise ExportRefused(f"the export asks for no column of the spec '{spec.name}'")
    missing = [column for column in read if column not in columns]
    if kind.reads_all and missing:
        raise ExportRefused(
            f"the export does not ask for the column '{missing[0]}', which the spec "
            f"'{spec.name}' reads"
        )
    schema = RequestSchema(
        {column: kind_columns.get(column) or types[column] for column in columns},
        contract["representations"],
    )
    _check_groups(contract, spec)
    _check_inputs(contract["signatures"], schema, spec)
    if kind.predicts:
        _check_outputs(contract, spec)


def _check_groups(contract: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Fields that weights read together are embedded features of the spec, each once a layer."""
    embedded = embedded_features(spec)
    for layer, groups in contract.get("field_groups", {}).items():
        named = [field for fields in groups.values() for field in fields]
        for field in named:
            if field not in embedded:
                raise ExportRefused(
                    f"the layer '{layer}' of the export reads the field '{field}', which is no "
                    f"embedded feature of the spec '{spec.name}'"
                )
            if named.count(field) > 1:
                raise ExportRefused(
                    f"the layer '{layer}' of the export reads the field '{field}' in two groups"
                )


def _kind(contract: Mapping[str, Any]) -> ExportKind:
    """The kind of the export."""
    try:
        return kind_of(str(contract["kind"]))
    except ValueError as error:
        raise ExportRefused(f"the export is of the unknown kind {contract['kind']!r}") from error


def _check_inputs(signatures: Mapping[str, Any], schema: RequestSchema, spec: FeatureSpec) -> None:
    """The inputs of `predict` (and `rank`) are those of the schema."""
    wanted = {
        name: {"dtype": tensor_spec.dtype.name, "shape": tensor_spec.shape.as_list()}
        for name, tensor_spec in schema.tensor_specs().items()
    }
    for signature in ("predict", "rank"):
        if signature not in signatures:
            continue
        inputs = signatures[signature]["inputs"]
        if inputs.keys() != wanted.keys():
            raise ExportRefused(
                f"'{signature}' has the inputs {sorted(inputs)}, but the columns and "
                f"representations of the export are {sorted(wanted)} in a request"
            )
        first = 1 if signature == "rank" else 0  # how many rows it takes of each is its own matter
        for name, tensor in wanted.items():
            if _from_axis(first, inputs[name]) != _from_axis(first, tensor):
                raise ExportRefused(
                    f"the input '{name}' of '{signature}' is {_plain(inputs[name])}, by the spec "
                    f"'{spec.name}' it is {_plain(tensor)}"
                )


def _check_outputs(contract: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Tasks, and the outputs that are named after them."""
    trained = {*contract["tasks"], *contract.get("auxiliary_tasks", [])}
    served = [task for task in spec.task_names if task in contract["tasks"]]
    if trained != set(spec.task_names) or contract["tasks"] != served:
        raise ExportRefused(
            f"the export predicts {', '.join(contract['tasks']) or 'nothing'}, the spec "
            f"'{spec.name}' {', '.join(spec.task_names)}"
        )
    for signature in _SCORED:
        if signature not in contract["signatures"]:
            continue  # a foundation has no `rank`
        outputs = contract["signatures"][signature]["outputs"]
        if outputs.keys() != set(served):
            raise ExportRefused(
                f"'{signature}' has the outputs {sorted(outputs)}, the tasks that it answers "
                f"are {sorted(served)}"
            )


def _from_axis(first: int, tensor: Mapping[str, Any]) -> tuple[str, Any]:
    """Type, and shape from an axis on; the shape is None where the rank is unknown."""
    shape = tensor["shape"]
    return tensor["dtype"], shape if shape is None else shape[first:]


def _plain(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['dtype']} {tensor['shape']}"
