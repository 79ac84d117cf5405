"""A run: its folder, resolved configuration and encoded data."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lfm4ads_tf.config import Chosen, DownstreamConfig, Resolved, RunConfig
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.data.packed import PackedCache
from lfm4ads_tf.data.vectors import settled_by
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import read_yaml
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.files import write_text
from lfm4ads_tf.strict import parse
from lfm4ads_tf.written import plain

_CONFIG_FILE = "config.yaml"
_LOG_FILE = "log.txt"
_CLUSTER_FOLDER = "cluster"  # logs of processes that may be running, see `cluster.local`
_TRAINED = ("upstream", "downstream", "retrieval")
# What selects a part of a run rather than making another one.
_SELECTION = (
    ("config", "seed"),
    ("config", "seeds"),
    ("config", "scenarios"),
    ("config", "downstream", "methods"),
    ("config", "downstream", "full"),
    ("config", "export"),
    ("config", "baseline"),
    ("config", "packed_cache"),
    ("config", "cluster"),
    # Where the rows of tables lie, see `embeddings.storage`: of `embeddings`, the short form, too.
    ("config", "embeddings", "shards"),
    ("config", "upstream", "embeddings", "shards"),
    ("config", "downstream", "embeddings", "shards"),
    ("config", "retrieval", "embeddings", "shards"),
    *(("config", part, "training", "keep_checkpoints") for part in _TRAINED),
    ("config", "retrieval", "projection", "keep_checkpoints"),
    ("config", "plugins"),  # what they register is compared where it is named
    ("spec", "skew"),
)


class Run:
    """One output folder.

    Args:
        out: `OUT`.
        resolved: Feature spec and run configuration.
        overwrite: Whether an OUT made from another configuration is emptied.
        quiet: Whether progress is hidden.
        execution: Where its models are trained; this process when absent.
        resume_from: Number of the checkpoint that the first unfinished training goes on from; None
            takes the latest.

    Raises:
        UserError: OUT was made from another configuration or cannot be written.
    """

    def __init__(
        self,
        out: Path,
        resolved: Resolved,
        *,
        overwrite: bool = False,
        quiet: bool = False,
        execution: Execution | None = None,
        resume_from: int | None = None,
    ) -> None:
        self.out = out
        self.execution = execution or Execution()
        self.resolved = resolved
        self.quiet = quiet
        self.resume_from = resume_from
        self._overwrite = overwrite
        self._settled: FeatureSpec | None = None
        self._refuse_another()
        self.take_choices()

    @property
    def spec(self) -> FeatureSpec:
        """The feature spec; once there are encoded data, with the columns of its vectors."""
        if self._settled is None:
            self._settled = settled_by(self.resolved.spec, self.out / "data")
        return self._settled or self.resolved.spec

    @property
    def config(self) -> RunConfig:
        """The run configuration; of the upstream with what the search chose."""
        config = self.resolved.config
        return config.model_copy(update={"upstream": self.resolved.upstream()})

    def downstream_config(self, scenario: str) -> DownstreamConfig:
        """The downstream's configuration in a scenario, with what the search chose."""
        return self.resolved.downstream(scenario)

    def choose(self, chosen: Chosen) -> None:
        """Takes what a search chose and writes it to `config.yaml`."""
        self.resolved = self.resolved.model_copy(update={"chosen": chosen})
        write_text(self.out / _CONFIG_FILE, self.resolved.to_yaml())

    @cached_property
    def cache(self) -> EncodedCache:
        """The encoded data; `prepare` makes it."""
        if not (self.out / "data" / "manifest.json").exists():
            raise UserError(
                "The run folder holds no encoded data.",
                received=str(self.out),
                fix="run the stage `prepare` first, or `run` for all stages",
            )
        encoded = EncodedCache(self.out / "data")
        if self.config.packed_cache is None:
            return encoded
        packed = PackedCache(self.config.packed_cache)
        if {k: v for k, v in packed.manifest.items() if k != "packed"} != encoded.manifest:
            raise UserError(
                "The packed cache was made from other encoded data than this run's.",
                received=self.config.packed_cache,
                fix=f"pack it anew: python -m lfm4ads_tf.data.pack {self.out / 'data'} FOLDER",
            )
        return packed

    def take_resume_from(self) -> int | None:
        """`resume_from`, for the training that asks first; None for the others."""
        number, self.resume_from = self.resume_from, None
        return number

    @property
    def version(self) -> int:
        """Number of the version in this folder: 1, or what `refresh` counted."""
        return int(self.cache.manifest.get("version", 1))

    @property
    def held_out_from(self) -> int:
        """First period of the validation rows."""
        return int(self.cache.period[self.cache.rows_of("valid")].min())

    @property
    def exports(self) -> Path:
        """Folder of the exports; those of all versions are numbered in one place."""
        return (self.out if self.version == 1 else self.out.parent.parent) / "exports"

    def upstream(self, seed: int) -> Path:
        """Folder of one upstream."""
        return self.out / "upstream" / f"seed_{seed}"

    def representations(self, seed: int) -> Path:
        """Folder of one version of the representations."""
        return self.out / "representations" / f"seed_{seed}"

    def downstream(self, scenario: str, method: str, seed: int) -> Path:
        """Folder of one downstream model."""
        return _of_method(self.out / "downstream" / file_name(scenario), method) / f"seed_{seed}"

    def retrieval(self, scenario: str, method: str, seed: int) -> Path:
        """Folder of one retrieval model."""
        return _of_method(self.out / "retrieval" / file_name(scenario), method) / f"seed_{seed}"

    def baseline(self, name: str, seed: int) -> Path:
        """Folder of one baseline."""
        return self.out / "baseline" / name / f"seed_{seed}"

    def tensorboard(self, folder: Path) -> Path:
        """Where the TensorBoard logs of a training folder go."""
        return self.out / "tensorboard" / folder.relative_to(self.out)

    def begin(self) -> None:
        """Takes the folder: writes `config.yaml` and starts `log.txt`; the first process does.

        Raises:
            UserError: The folder cannot be written.
        """
        if not self.execution.first:
            return
        if self._difference() is not None:
            for path in self.out.iterdir():
                if path.name == _CLUSTER_FOLDER:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            self.resolved = self.resolved.model_copy(update={"chosen": Chosen()})
        write_text(self.out / _CONFIG_FILE, self.resolved.to_yaml())
        log = logging.getLogger()
        # The log of another run of this process must not go on here.
        for earlier in [h for h in log.handlers if h.get_name() == _LOG_FILE]:
            log.removeHandler(earlier)
            earlier.close()
        handler = logging.FileHandler(self.out / _LOG_FILE, encoding="utf-8")
        handler.set_name(_LOG_FILE)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)

    def _refuse_another(self) -> None:
        """Refuses a folder that another configuration made, unless it may be emptied."""
        difference = self._difference()
        # A folder in which nothing was made yet belongs to no configuration.
        unmade = {_CONFIG_FILE, _LOG_FILE, _CLUSTER_FOLDER}
        made = difference and {p.name for p in self.out.iterdir()} - unmade
        if made and not self._overwrite:
            raise UserError(
                f"The folder '{self.out}' was made from another configuration.",
                received=difference,
                fix="choose another --out, or empty it with --overwrite",
            )

    def take_choices(self) -> None:
        """Takes what earlier searches of this folder chose."""
        path = self.out / _CONFIG_FILE
        if path.exists() and self._difference() is None:
            chosen = parse(Chosen, read_yaml(path).get("chosen") or {}, source=str(path))
            self.resolved = self.resolved.model_copy(update={"chosen": chosen})

    def _difference(self) -> str | None:
        """What differs from the configuration that made the folder, None if nothing does."""
        path = self.out / _CONFIG_FILE
        if not path.exists():
            return None
        written = read_yaml(path)
        # Those of this command are imported; a file that the folder names may have moved.
        written.get("config", {}).pop("plugins", None)
        theirs = plain(written)
        with suppress(ValidationError):
            # A key that is newer than the run has its default there.
            theirs = Resolved.model_validate(written).model_dump(mode="json")
        ours = self.resolved.model_dump(mode="json")
        if "given" not in written:  # a run from before there were searches
            ours["given"] = theirs.get("given")
            _with_earlier_defaults(ours, theirs)
        theirs, ours = _identity(theirs), _identity(ours)
        before, now = set(theirs.pop("given", None) or ()), set(ours.pop("given", None) or ())
        difference = first_difference(theirs, ours)
        if difference is None and before != now:
            key = sorted(before ^ now)[0]
            difference = (
                f"{key} {'was' if key in before else 'is now'} given, so that no search moves it"
            )
        return difference


def open_run(out: Path) -> Run:
    """The run behind an existing run folder.

    Raises:
        UserError: The folder holds no run.
    """
    path = out / _CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"'{out}' is no run folder.",
            received="no config.yaml in it",
            fix="give the --out of an earlier `train.py run`",
        )
    return Run(out, parse(Resolved, read_yaml(path), source=str(path)))


def _of_method(parent: Path, method: str) -> Path:
    """Folder of a method's models.

    Earlier versions wrote every special character as `_`; such a folder goes on being used. It is
    the new folder of no other method: those whose names need no escape are `none` and `full`.
    """
    folder = parent / file_name(method)
    earlier = parent / re.sub(r"[^\w.@+-]", "_", method)
    return earlier if earlier.is_dir() and not folder.exists() else folder


def fingerprint(value: Any) -> str:
    """A short digest of plain values."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_earlier_defaults(ours: Any, theirs: Any) -> None:
    """Takes over how long downstream models trained by default before there were searches."""
    key = "config", "downstream", "training"
    mine, earlier = ours, theirs
    for step in key:
        mine, earlier = mine[step], earlier.get(step, {})
    new, old = {"epochs": 15, "patience": 2}, {"epochs": 10, "patience": 1}
    for name in new:
        if mine[name] == new[name] and earlier.get(name) == old[name]:
            mine[name] = old[name]


def _identity(document: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved document without what merely selects a part of the run."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for *path, last in _SELECTION:
        node: Any = copy
        for step in path:
            node = node.get(step, {})
        node.pop(last, None)
    copy.pop("chosen", None)
    return copy


def first_difference(theirs: Any, ours: Any, path: str = "") -> str | None:
    """The first key in which two documents differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *[k for k in ours if k not in theirs]]:
            difference = first_difference(
                theirs.get(key), ours.get(key), f"{path}.{key}" if path else str(key)
            )
            if difference:
                return difference
        return None
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        if all(isinstance(entry, dict) for entry in (*theirs, *ours)):
            return first_difference(dict(enumerate(theirs)), dict(enumerate(ours)), path)
    return None if theirs == ours else f"{path} was {theirs!r:.80}, is now {ours!r:.80}"
