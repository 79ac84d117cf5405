"""The run configuration: everything that is not the data's declaration (the feature spec)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from lfm4ads_tf.baselines.config import BaselineConfig
from lfm4ads_tf.cluster.config import ClusterSettings
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, ServedStorage
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.shipped_specs import spec_file
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import merge, override, parse_spec, read_yaml
from lfm4ads_tf.features.tables import is_bag
from lfm4ads_tf.interactions.block import (
    check_joined,
    check_names,
    check_sequences,
    sequence_lengths,
    settled_block,
)
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.spec_reads import block_reads
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.plugins import load_plugins
from lfm4ads_tf.presets import PRESETS
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.retrieval.config import RetrievalConfig
from lfm4ads_tf.strict import StrictModel, parse
from lfm4ads_tf.training.config import FittedTrainingConfig
from lfm4ads_tf.transfer.config import AdapterConfig
from lfm4ads_tf.tuning.budget import seconds
from lfm4ads_tf.tuning.settings import PATHS, SCHEDULE, Settings
from lfm4ads_tf.written import dump, load, plain, text_of


class DownstreamConfig(AdapterConfig):
    """The per-scenario models and the transfer methods that are compared.

    Attributes:
        methods: Method names as in results, such as `feature/gate/CR_user@cross_3`.
        omit: Names or patterns of features that the downstream models do not read.
        module_inputs: What a module taken from the upstream reads: `own`, what the downstream
            reads; `upstream`, all that the upstream does, so that a warm-started network has all
            of its inputs and an isomorphic module the whole context, whatever `omit` says.
        min_rows: Training rows below which a scenario is skipped unless asked for by name.
    """

    network: NetworkConfig = NetworkConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    training: FittedTrainingConfig = FittedTrainingConfig(epochs=15, patience=2)
    methods: list[str] = ["none", "feature/linear/UR", "full"]
    omit: list[str] = []
    module_inputs: Literal["own", "upstream"] = "own"
    min_rows: int = Field(default=2000, ge=1)


class ExportConfig(StrictModel):
    """SavedModel exports.

    Attributes:
        method: Transfer method of the exported rankers; the best on validation when absent.
        warmup_rows: Warm-up requests of one row per model, beside one for every other signature;
            TensorFlow Serving replays at most 1000 in all.
        tables: Type of the embedding tables; `float16` and `int8` are smaller and less exact.
        representations: How a ranker gets stored representations: with the `request`, or from a
            `lookup` of its own by the keys of user and item.
        keep: Versions of a model that stay published; older ones are deleted.
    """

    method: str | None = None
    warmup_rows: int = Field(default=64, ge=1, le=1000)
    tables: ServedStorage = "float32"
    representations: Literal["request", "lookup"] = "request"
    keep: int = Field(default=3, ge=1)


class RunConfig(StrictModel):
    """One run, fully resolved.

    Attributes:
        seed: First seed.
        seeds: Number of seeds, from `seed` on; each is run for upstream and downstream.
        scenarios: Scenarios with a downstream model; all with enough rows when absent.
        preset: Name of a set of overrides applied before the spec's and the user's own.
        packed_cache: Folder or address that `python -m lfm4ads_tf.data.pack` wrote this run's
            encoded cache to; rows are then read from there.
        budget: What the search of `training.auto` may cost, as `90s`, `5m` or `1h`: seconds by a
            fixed table. Most of it goes to the upstream, the rest to the downstream models.
        plugins: Python files or modules that register models, layers, losses or adapters of the
            user's own; files are relative to the working directory.
        embeddings: Short for the same keys of the upstream's, the downstream's and the retriever's
            tables; a part's own key goes before it.
    """

    seed: int = Field(default=0, ge=0)
    seeds: int = Field(default=1, ge=1)
    scenarios: list[str] | None = None
    preset: str | None = None
    upstream: UpstreamConfig = UpstreamConfig()
    representations: RepresentationsConfig = RepresentationsConfig()
    downstream: DownstreamConfig = DownstreamConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    baseline: BaselineConfig = BaselineConfig()
    export: ExportConfig = ExportConfig()
    cluster: ClusterSettings = ClusterSettings()
    packed_cache: str | None = None
    budget: str = "5m"
    plugins: list[str] = []
    embeddings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_plugins(cls, data: Any) -> Any:
        """Imports the plug-ins: only then are the names known that other keys hold."""
        names = data.get("plugins") if isinstance(data, Mapping) else None
        if isinstance(names, list):
            load_plugins([str(text_of(name)) for name in names])
        return data

    @property
    def all_seeds(self) -> list[int]:
        """The seeds of this run."""
        return list(range(self.seed, self.seed + self.seeds))


class Chosen(StrictModel):
    """What the searches of a run chose, setting -> value; see `lfm4ads_tf.tuning.settings`.

    Attributes:
        upstream: Settings of the upstream.
        downstream: Scenario -> settings of its downstream models.
    """

    upstream: dict[str, int | float] = {}
    downstream: dict[str, dict[str, int | float]] = {}


class Resolved(StrictModel):
    """A run's feature spec and configuration, as `OUT/config.yaml` holds them.

    Attributes:
        spec: The feature spec.
        config: The configuration, before a search.
        given: Settings that spec, file or command line gave; no search changes them. None in a run
            from before there were searches.
        chosen: What searches chose.
    """

    spec: FeatureSpec
    config: RunConfig
    given: list[str] | None = None
    chosen: Chosen = Chosen()

    def upstream(self) -> UpstreamConfig:
        """The upstream's configuration with what a search chose."""
        return _with(self.config.upstream, self.chosen.upstream)

    def downstream(self, scenario: str) -> DownstreamConfig:
        """The downstream's configuration in a scenario with what a search chose."""
        return _with(self.config.downstream, self.chosen.downstream.get(scenario, {}))

    def with_shards(self, shards: int) -> Resolved:
        """The same run with all of its tables in some number of parts."""
        config = self.config
        parts = {
            name: part.model_copy(
                update={"embeddings": part.embeddings.model_copy(update={"shards": shards})}
            )
            for name, part in (
                ("upstream", config.upstream),
                ("downstream", config.downstream),
                ("retrieval", config.retrieval),
            )
        }
        return self.model_copy(update={"config": config.model_copy(update=parts)})

    def fixed(self, part: str) -> set[str]:
        """Settings of `upstream` or `downstream` that no search may change."""
        given = self.given or ()
        return {name for name, path in PATHS.items() if f"{part}.{path}" in given}

    def to_yaml(self) -> str:
        """The resolved documents as YAML."""
        absent = {"given"} if self.given is None else None
        return dump(self.model_dump(mode="json", exclude=absent))


def resolve(
    spec_path: Path,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    config_path: Path | None = None,
) -> Resolved:
    """Merges defaults, the spec's `run` section, a file, `--set` assignments and options.

    Later ones win. A preset is merged just before the document that names it: one given with
    `--set` replaces what the spec's `run` section says.

    `embeddings.<key>` is short for the same key of the upstream's, the downstream's and the
    retriever's tables.

    Args:
        spec_path: The feature spec, or the name of one that comes with the package.
        assignments: `key.path=value` strings; the value is read as YAML. The first step of the
            path decides whether it belongs to the spec or to the run configuration.
        options: Top-level run configuration keys given as command-line options.
        config_path: YAML file of run configuration keys.

    Raises:
        UserError: An assignment or the file cannot be read, a key is unknown, or the chosen
            upstream does not read it.
    """
    spec_path = spec_file(spec_path)
    raw_spec = read_yaml(spec_path)
    over_spec: dict[str, Any] = {}
    over_run: dict[str, Any] = {}
    for assignment in assignments:
        path, value = _parse_assignment(assignment)
        if path[0] in RunConfig.model_fields:
            over_run = merge(over_run, _nested(path, value))
        elif path[0] in FeatureSpec.model_fields:
            over_spec = merge(over_spec, _nested(path, value))
        else:
            known = [*RunConfig.model_fields, *FeatureSpec.model_fields]
            raise UserError(
                f"--set names the unknown key '{path[0]}'.{nearest(path[0], known)}",
                received=assignment,
                fix=f"start the path with one of {', '.join(sorted(set(known)))}",
            )
    raw_spec = override(raw_spec, over_spec)
    spec = parse_spec(raw_spec, source=str(spec_path))
    over_run = merge(over_run, options or {})
    of_file = {} if config_path is None else _read_config(config_path)
    # A preset stands just below the document that names it.
    # The spec's own part is taken as it was written: only here the types of its keys are known.
    documents = (raw_spec.get("run", {}), of_file, over_run)
    layers = [part for d in documents for part in (_preset(d.get("preset")), d)]
    # Over the full defaults: a part given by halves must keep the other half's own defaults.
    run = RunConfig().model_dump(mode="json")
    for layer in layers:
        run = merge(run, _with_embeddings(layer))
    given = {path for layer in layers for path in _paths(layer)}
    config = parse(RunConfig, run, source="the run configuration")
    if not given & {"embeddings.sets", "upstream.embeddings.sets"}:
        config = _with_default_sets(config, spec.task_names)
    config.upstream.model_class.check(config.upstream, ads=spec.ads is not None)
    config.upstream.model_class.check_tasks(config.upstream, spec.task_names)
    scenarios = spec.keys.scenario is not None
    config.upstream.model_class.check_scenarios(config.upstream, given=scenarios)
    upstream = config.upstream.model_class.settled(config.upstream, spec)
    config = config.model_copy(update={"upstream": upstream})
    config = _with_settled_downstream(config, spec)
    _refuse_unread(merge(of_file, over_run), config.upstream.model)
    check_names(config.downstream.network.block)
    check_joined(config.downstream.network.block, "a downstream")
    _check_sequences(config, spec)
    _check_auto(config, given)
    for part in (config.upstream, config.downstream):
        TaskLoss.of(part.training, spec.task_names)  # refuses what it cannot be made of
    settings = [f"{part}.{path}" for part in ("upstream", "downstream") for path in PATHS.values()]
    return Resolved(spec=spec, config=config, given=[key for key in settings if key in given])


def _with_settled_downstream(config: RunConfig, spec: FeatureSpec) -> RunConfig:
    """The downstream's block with what its features settle."""
    downstream = config.downstream
    reads = block_reads(spec, downstream.embeddings.sets, downstream.omit)
    block = settled_block(downstream.network.block, reads)
    network = downstream.network.model_copy(update={"block": block})
    downstream = downstream.model_copy(update={"network": network})
    return config.model_copy(update={"downstream": downstream})


def _with(part: Any, settings: Mapping[str, Any]) -> Any:
    """A part of the configuration with settings of a search."""
    if not settings:
        return part
    known = Settings(**{**vars(Settings.of(part)), **settings})
    return known.apply(part)


def _with_default_sets(config: RunConfig, tasks: Sequence[str]) -> RunConfig:
    """The configuration with as many sets of embeddings as its upstream wants for the tasks."""
    upstream = config.upstream
    sets = {"sets": upstream.model_class.default_sets(upstream, tasks)}
    tables = upstream.embeddings.model_copy(update=sets)
    return config.model_copy(
        update={"upstream": upstream.model_copy(update={"embeddings": tables})}
    )


def _paths(value: Any, path: str = "") -> list[str]:
    """Dotted paths of all keys of a document; the items of a list have their list's."""
    if isinstance(value, Mapping):
        found = [path] if path else []
        for key, below in value.items():
            found += _paths(below, f"{path}.{key}" if path else str(key))
        return found
    if isinstance(value, list):
        return [path, *(p for below in value for p in _paths(below, path))]
    return [path]


def _check_auto(config: RunConfig, given: Collection[str]) -> None:
    """Refuses a budget that is none, and given keys that the schedule does not read."""
    seconds(config.budget)
    for name in ("upstream", "downstream"):
        training: FittedTrainingConfig = getattr(config, name).training
        if not training.auto:
            continue
        other = ("epochs", "patience", "min_gain") if training.schedule == "chain" else SCHEDULE
        default = getattr(RunConfig(), name).training
        for key in other:
            of_ours = getattr(training, key)
            if f"{name}.training.{key}" in given and of_ours != getattr(default, key):
                raise UserError(
                    f"{name}.training.{key} contradicts the schedule: "
                    f"`{training.schedule}` does not read it.",
                    received=f"{name}.training.schedule: {training.schedule}, "
                    f"{name}.training.{key}: {of_ours}",
                    fix=f"leave it out, or set it to its default {getattr(default, key)}; or "
                    f"choose another {name}.training.schedule, or set {name}.training.auto=false",
                )


def _read_config(path: Path) -> dict[str, Any]:
    """The run configuration keys of a file; only their first steps are checked here."""
    if not path.is_file():
        raise UserError(
            f"The file {path} cannot be read.",
            fix="give --config the path of a YAML file of run configuration keys",
        )
    found = read_yaml(path)
    for key in found:
        if key not in RunConfig.model_fields:
            raise UserError(
                f"{path} names the unknown key '{key}'."
                + nearest(str(key), RunConfig.model_fields),
                fix=f"use some of {', '.join(RunConfig.model_fields)}",
            )
    return found


def _refuse_unread(given: Mapping[str, Any], model: str) -> None:
    """Refuses keys of another upstream among what the user gave for this run.

    A spec may hold the sizes of several, so that `--set upstream.model` compares them.
    """
    mine = _read_by(model)
    for other in UPSTREAMS:
        for key in _read_by(other):
            value = given.get("upstream", {})
            for step in key.split("."):
                value = value.get(step) if isinstance(value, Mapping) else None
            if key not in mine and plain(value) not in (None, False):
                raise UserError(
                    f"The upstream model '{model}' does not read upstream.{key}.",
                    received=plain(value),
                    fix=f"leave it out, or set upstream.model={other}",
                )


def _read_by(model: str) -> list[str]:
    """Keys below `upstream` that one model reads and another may not."""
    own = UPSTREAMS[model]
    return [*own.reads, *([model] if own.Config is not None else [])]


def _check_sequences(config: RunConfig, spec: FeatureSpec) -> None:
    """Refuses interaction layers that read the values of what is no multi-valued feature."""
    bags = [name for name, feature in spec.features.items() if is_bag(feature)]
    blocks = {"upstream": config.upstream.read_block, "downstream": config.downstream.network.block}
    for section, block in blocks.items():
        if block is not None:
            check_sequences(sequence_lengths(block), bags, f"the {section}")


def _with_embeddings(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Spreads `embeddings` over the parts; a part's own key of the same layer goes before it."""
    shared = layer.get("embeddings")
    if not isinstance(shared, Mapping) or not shared:
        return dict(layer)
    parts = ("upstream", "downstream", "retrieval")
    return merge({part: {"embeddings": shared} for part in parts}, layer)


def _preset(name: str | None) -> dict[str, Any]:
    """The overrides of a named preset."""
    if plain(name) is None or name is None:
        return {}
    if name not in PRESETS:
        raise UserError(
            f"The preset '{name}' is unknown.{nearest(name, PRESETS)}",
            fix=f"use one of {', '.join(PRESETS)}",
        )
    return PRESETS[name]


def _parse_assignment(text: str) -> tuple[list[str], Any]:
    """Splits `a.b=value`."""
    path, separator, value = text.partition("=")
    steps = [s for s in path.strip().split(".") if s]
    if not separator or not steps:
        raise UserError(
            "--set needs the form key.path=value.", received=text, fix="--set embeddings.shards=4"
        )
    try:
        return steps, load(value)
    except yaml.YAMLError as error:
        raise UserError(f"The value of --set {path} is not YAML.", received=value) from error


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """`[a, b], v` -> `{a: {b: v}}`."""
    for step in reversed(path):
        value = {step: value}
    return dict(value)
