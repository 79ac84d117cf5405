"""Which models to serve: `ModelServerConfig` from flags, a folder or a file, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.local_server.status_error import invalid
from lfm4ads_tf.export.version_folders import version_folders


def single_model_config(name: str, base_path: Path) -> Any:
    """A `ModelServerConfig` of one model, newest version."""
    config = model_server_config_pb2.ModelServerConfig()
    _add(config, name, base_path)
    return config


def folder_config(exports: Path) -> Any:
    """A `ModelServerConfig` of every folder in `exports` that has an integer version folder."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.SetInParent()
    for folder in sorted(exports.iterdir()):
        if folder.is_dir() and version_folders(folder):
            _add(config, folder.name, folder)
    return config


def _add(config: Any, name: str, base_path: Path) -> None:
    config.model_config_list.config.add(
        name=name, base_path=str(base_path.resolve()), model_platform="tensorflow"
    )


def read_text_proto(path: Path, message: Message, flag: str) -> Any:
    """Fills `message` from a text file.

    Raises:
        UserError: The file cannot be read or is no such message.
    """
    try:
        return text_format.Parse(path.read_text("utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UserError(
            f"--{flag} cannot be read as a {message.DESCRIPTOR.name} text proto.",
            received=f"{path}: {error}",
            fix="give a file in protobuf's text format",
        ) from error


def check_config(config: Any) -> None:
    """Refuses what the real server refuses.

    Raises:
        StatusError: INVALID_ARGUMENT: no list of models, a model twice, no or another platform,
            or a relative base path.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    names = set()
    for model in config.model_config_list.config:
        if model.name in names:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        if not Path(model.base_path).is_absolute():
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
        platform = model.model_platform
        if not platform and not model.model_type:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) "
                "nor ModelServerConfig::model_platform."
            )
        if platform and platform != "tensorflow":
            raise invalid(f"Model {model.name} requests unsupported platform {platform}")


def wanted_versions(model: Any, found: Mapping[int, Path]) -> set[int]:
    """The versions that a `ModelConfig`'s policy wants served, of those found.

    `latest` (the default) with `num_versions` (1), `all`, or `specific`.
    """
    policy = model.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(found)
    if choice == "specific":
        return set(policy.specific.versions) & set(found)
    return set(sorted(found)[-max(policy.latest.num_versions, 1) :])
