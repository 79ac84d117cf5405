"""The versions being served: finds, loads, swaps and retires them, and lends them to requests."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.export.local_server.model_configs import check_config, wanted_versions
from lfm4ads_tf.export.local_server.model_version import ModelVersion, VersionState
from lfm4ads_tf.export.local_server.servable import Servable
from lfm4ads_tf.export.local_server.status_error import StatusError, invalid
from lfm4ads_tf.export.version_folders import version_folders


class ModelStore:
    """Keeps what the configuration wants served, and never less than before while it changes.

    A new version is loaded and warmed up completely before an old one is retired; requests that
    run on the old one finish. A version that fails to load ends with its error, and what was
    served stays.

    Args:
        allow_labels_for_unavailable: A new label may name a version that is not available yet.
    """

    def __init__(self, allow_labels_for_unavailable: bool = False) -> None:
        self._allow_labels = allow_labels_for_unavailable
        self._config = model_server_config_pb2.ModelServerConfig()
        self._labels: dict[str, dict[str, int]] = {}
        self._versions: dict[str, dict[int, ModelVersion]] = {}
        self._changing = threading.RLock()  # held by the one thread that loads and retires
        self._state = threading.Condition()  # guards the fields above but for `_changing`
        self._closed = False

    def reload(self, config: Any) -> None:
        """Serves another list of models; returns when its new models are available.

        Args:
            config: A `ModelServerConfig` with a `model_config_list`.

        Raises:
            StatusError: The list is not valid (nothing changes), a label names a version that is
                not available, or a new model cannot be loaded.
        """
        with self._changing:
            check_config(config)
            before = {model.name for model in self._config.model_config_list.config}
            labels = self._checked_labels(config)
            with self._state:
                self._config = config
                self._labels = labels
            self.poll()
            models = {model.name: model for model in config.model_config_list.config}
            failed = [
                self._why_unavailable(models[name])
                for name in sorted(models.keys() - before)
                if not self._available(name)
            ]
        if failed:
            raise StatusError(
                grpc.StatusCode.UNKNOWN,
                "Some models did not become available: {" + "; ".join(failed) + "}",
            )

    def poll(self) -> None:
        """Looks at the version folders once and makes what is served match them."""
        with self._changing:
            if self._closed:
                return
            models = {model.name: model for model in self._config.model_config_list.config}
            for name, model in models.items():
                base_path = Path(model.base_path)
                if base_path.is_dir():  # else it is away for a moment: keep what is served
                    folders = version_folders(base_path)
                    self._match(name, {n: folders[n] for n in wanted_versions(model, folders)})
            for name in [name for name in self._versions if name not in models]:
                self._match(name, {})

    def close(self) -> None:
        """Retires everything; a request that comes later is answered with NOT_FOUND."""
        with self._changing:
            self._closed = True
            for name in list(self._versions):
                self._match(name, {})

    @contextmanager
    def lease(self, model_spec: Any) -> Iterator[tuple[int, Servable]]:
        """Lends the version that a `ModelSpec` asks for; it is not freed before it is given back.

        Returns:
            A context manager of the version's number and its servable.

        Raises:
            StatusError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND when
                the version is not available.
        """
        version, servable = self._acquire(model_spec)
        try:
            yield version.number, servable
        finally:
            with self._state:
                version.leases -= 1
                if not version.leases:
                    self._state.notify_all()

    def status(self, model_spec: Any) -> list[ModelVersion]:
        """The versions that a `ModelSpec` speaks of: one, or all that the server has seen.

        Raises:
            StatusError: NOT_FOUND when there is none, INVALID_ARGUMENT for an unknown label.
        """
        with self._state:
            number = self._number(model_spec)
            versions = self._versions.get(model_spec.name, {})
            if number is not None:
                if number not in versions:
                    raise StatusError(
                        grpc.StatusCode.NOT_FOUND,
                        f"Could not find version {number} of model {model_spec.name}",
                    )
                return [versions[number]]
            if not versions:
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Could not find any versions of model {model_spec.name}",
                )
            return [versions[number] for number in sorted(versions, reverse=True)]

    def available(self) -> dict[str, list[int]]:
        """Model -> its versions that take requests."""
        with self._state:
            return {name: sorted(self._available(name)) for name in sorted(self._versions)}

    # requests

    def _acquire(self, model_spec: Any) -> tuple[ModelVersion, Servable]:
        name = model_spec.name
        if not name:
            raise invalid("ModelSpec has no name specified.")
        with self._state:
            number = self._number(model_spec)
            available = self._available(name)
            if number is None and available:
                number = max(available)
            version = available.get(number) if number is not None else None
            if version is None or version.servable is None:
                wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}"
                )
            version.leases += 1
            return version, version.servable

    def _number(self, model_spec: Any) -> int | None:
        choice = model_spec.WhichOneof("version_choice")
        if choice == "version":
            return int(model_spec.version.value)
        if choice == "version_label":
            label = model_spec.version_label
            number = self._labels.get(model_spec.name, {}).get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
            return number
        return None

    # changes

    def _available(self, name: str) -> dict[int, ModelVersion]:
        versions = self._versions.get(name, {})
        return {n: v for n, v in versions.items() if v.state == VersionState.AVAILABLE}

    def _checked_labels(self, config: Any) -> dict[str, dict[str, int]]:
        labels: dict[str, dict[str, int]] = {}
        for model in config.model_config_list.config:
            for label, number in model.version_labels.items():
                known = self._labels.get(model.name, {}).get(label)
                moved = known is not None and known != number
                may_wait = self._allow_labels and not moved
                if not may_wait and number not in self._available(model.name):
                    raise StatusError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = number
        return labels

    def _match(self, name: str, wanted: dict[int, Path]) -> None:
        with self._state:
            versions = self._versions.setdefault(name, {})
            if not versions and not wanted:
                del self._versions[name]
                return
        for number in sorted(wanted):
            self._load(name, number, wanted[number])
        available = self._available(name)
        if wanted and not any(number in available for number in wanted):
            return  # nothing new to take over
        for number in sorted(available.keys() - wanted.keys()):
            self._retire(available[number])

    def _load(self, name: str, number: int, path: Path) -> None:
        known = self._versions[name].get(number)
        files = _files(path)
        if known is not None:
            failed_before = known.state == VersionState.END and known.error is not None
            if known.state == VersionState.AVAILABLE or (failed_before and known.files == files):
                return
        version = ModelVersion(name, number, path, state=VersionState.LOADING)
        with self._state:
            self._versions[name][number] = version
        servable: Servable | None = None
        try:
            servable = Servable(path)
            servable.warm_up()
        except Exception as error:  # whatever is wrong with it, the server goes on
            if servable is not None:
                servable.close()
            failure = StatusError.of(error)
            with self._state:
                version.files, version.error, version.state = files, failure, VersionState.END
            print(f"{name}/{number} did not load: {failure.message}", file=sys.stderr, flush=True)
            return
        with self._state:
            version.servable, version.state = servable, VersionState.AVAILABLE

    def _retire(self, version: ModelVersion) -> None:
        with self._state:
            version.state = VersionState.UNLOADING
            self._state.wait_for(lambda: not version.leases)
            servable, version.servable = version.servable, None
        if servable is not None:
            servable.close()
        with self._state:
            version.state = VersionState.END
        del servable
        gc.collect()  # a graph refers to itself: its memory would wait for the collector

    def _why_unavailable(self, model: Any) -> str:
        versions = self._versions.get(model.name, {})
        errors = [f"version {n}: {v.error.message}" for n, v in versions.items() if v.error]
        if not errors:
            errors = [f"no wanted version folder in '{model.base_path}'"]
        return f"{model.name}: {', '.join(errors)}"


def _files(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Path, size and time of change of every file."""
    files = set()
    try:
        for path in folder.rglob("*"):
            stat = path.stat()
            files.add((str(path), stat.st_size, stat.st_mtime_ns))
    except OSError:
        pass  # it is being removed
    return frozenset(files)
