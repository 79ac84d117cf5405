"""Which processes a cluster has, and where they are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lfm4ads_tf.cluster.task import JOBS, Task
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.written import load, plain, text_of

ENVIRONMENT = "env"
"""The word that stands for TF_CONFIG where a file could be given."""
VARIABLE = "TF_CONFIG"
Mode = Literal["parameter_servers", "mirrored"]
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):([0-9]{1,6})", re.ASCII)
_PORTS = 65535
_EXAMPLE = "`chief: [host:port]`, `worker: [host:port, ...]`, `ps: [host:port, ...]`"


@dataclass(frozen=True)
class ClusterConfig:
    """The addresses of all processes, `host:port`.

    Attributes:
        chief: The process that runs the stages; None without parameter servers, where the first
            worker does.
        worker: Processes that learn batches.
        ps: Parameter servers, which hold the tables.
    """

    chief: str | None
    worker: tuple[str, ...]
    ps: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: str, task: str | None = None) -> tuple[ClusterConfig, Task]:
        """Reads what `--cluster` and `--task` mean.

        Args:
            given: A YAML file, or the word `env` for the variable TF_CONFIG.
            task: The own task as `worker:0`; TF_CONFIG's when absent.

        Returns:
            The cluster, and the task of this process in it.

        Raises:
            UserError: Something is missing, or wrong with an address, a job or the own task.
        """
        if given == ENVIRONMENT:
            source = f"The variable {VARIABLE}"
            document = _of_variable()
            if "cluster" not in document:
                raise UserError(
                    f"{source} has no key 'cluster'.",
                    received=", ".join(map(str, document)) or "no key",
                    fix='set it to {"cluster": {...}, "task": {"type": "worker", "index": 0}}',
                )
            config = cls.parse(document["cluster"], source)
        else:
            source = f"The file {given}"
            config = cls.parse(_of_file(Path(given)), source)
        own = Task.parse(task) if task is not None else _own_task(given)
        config.require(own)
        return config, own

    @classmethod
    def parse(cls, raw: Any, source: str) -> ClusterConfig:
        """Checks a document of jobs and their addresses.

        Args:
            raw: Job -> addresses.
            source: Where it comes from, for messages.

        Raises:
            UserError: It is no cluster that could train.
        """
        if not isinstance(raw, Mapping):
            raise UserError(
                f"{source} must give the addresses of each job.", received=raw, fix=_EXAMPLE
            )
        for key in raw:
            _refuse_unknown(str(key), source)
        found = {job: _addresses(job, raw.get(job), source) for job in JOBS}
        _refuse_twice(found, source)
        chief, worker, ps = (found[job] for job in JOBS)
        if len(chief) > 1:
            raise UserError(
                f"{source} has more than one chief.",
                received=", ".join(chief),
                fix="give one address under `chief`",
            )
        if not worker:
            raise UserError(
                f"{source} has no worker, so nobody would train.",
                received=", ".join(job for job in JOBS if found[job]) or "no address",
                fix="give the addresses of one or more workers under `worker`",
            )
        if ps and not chief:
            raise UserError(
                f"{source} has parameter servers but no chief.",
                received=", ".join(job for job in JOBS if found[job]),
                fix="give the address of the process that runs the stages under `chief`",
            )
        if chief and not ps:
            raise UserError(
                f"{source} has a chief but no parameter servers.",
                received=f"chief: {chief[0]}",
                fix="give servers under `ps`; or, for mirrored training, which has no chief, move "
                "its address to the front of `worker`",
            )
        return cls(chief[0] if chief else None, worker, ps)

    @property
    def mode(self) -> Mode:
        """`parameter_servers`, or `mirrored` where there are workers alone."""
        return "parameter_servers" if self.ps else "mirrored"

    @property
    def first(self) -> Task:
        """The task that runs the stages and writes the results: the chief, or worker 0."""
        return Task("worker", 0) if self.chief is None else Task("chief", 0)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks: servers, workers, chief."""
        jobs = reversed(JOBS)
        return tuple(Task(job, k) for job in jobs for k in range(len(self.addresses(job))))

    def addresses(self, job: str) -> tuple[str, ...]:
        """The addresses of a job; empty where there is none."""
        if job == "chief":
            return () if self.chief is None else (self.chief,)
        return self.worker if job == "worker" else self.ps

    def address(self, task: Task) -> str:
        """The address of a task of this cluster."""
        return self.addresses(task.job)[task.index]

    def require(self, task: Task) -> None:
        """Refuses a task that the cluster does not have.

        Raises:
            UserError: There is no such task.
        """
        if task not in self.tasks:
            raise UserError(
                f"The cluster has no task {task}.",
                received=f"tasks: {', '.join(map(str, self.tasks))}",
                fix="give one of them with --task, or another cluster",
            )

    def as_spec(self) -> dict[str, list[str]]:
        """Job -> addresses, as `tf.train.ClusterSpec` takes them; without jobs of no process."""
        return {job: list(self.addresses(job)) for job in JOBS if self.addresses(job)}

    def to_tf_config(self, task: Task) -> str:
        """The value of TF_CONFIG for one of the processes."""
        own = {"type": task.job, "index": task.index}
        return json.dumps({"cluster": self.as_spec(), "task": own})


def _of_file(path: Path) -> Any:
    """The document of a YAML file."""
    fix = f"give --cluster a YAML file with {_EXAMPLE}, or the word `{ENVIRONMENT}`"
    try:
        return load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read.", received=error.strerror, fix=fix
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The file {path} is not valid YAML.", received=error, fix=fix) from error


def _of_variable() -> Mapping[str, Any]:
    """The document of TF_CONFIG."""
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        raise UserError(
            f"The variable {VARIABLE} is not set.",
            fix="set it, or give --cluster a YAML file and --task",
        )
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"The variable {VARIABLE} is not JSON.", received=error) from error
    if not isinstance(document, Mapping):
        raise UserError(f"The variable {VARIABLE} must hold a JSON object.", received=text)
    return document


def _own_task(given: str) -> Task:
    """The task that TF_CONFIG gives this process."""
    if given != ENVIRONMENT and not os.environ.get(VARIABLE, "").strip():
        raise UserError(
            "It is not said which process of the cluster this one is.",
            fix=f"give --task, as in --task worker:0, or set {VARIABLE}",
        )
    document = _of_variable()
    task = document.get("task")
    if not isinstance(task, Mapping) or not {"type", "index"} <= set(task):
        raise UserError(
            f"The variable {VARIABLE} does not say which process this one is.",
            received=f"task: {json.dumps(task)}",
            fix='give --task, or set "task": {"type": "worker", "index": 0} in it',
        )
    _refuse_unknown(str(task["type"]), f"The task of {VARIABLE}")
    return Task.parse(f"{task['type']}:{task['index']}")


def _refuse_unknown(job: str, source: str) -> None:
    """Refuses what is no job."""
    if job == "master":
        raise UserError(
            f"{source} has a `master`, which is TensorFlow 1's name.",
            received=job,
            fix="call it `chief`",
        )
    if job not in JOBS:
        raise UserError(
            f"{source} has the unknown job '{job}'.{nearest(job, JOBS)}",
            received=job,
            fix=f"use {', '.join(JOBS)}",
        )


def _addresses(job: str, value: Any, source: str) -> tuple[str, ...]:
    """The addresses of a job, checked."""
    if plain(value) is None:
        return ()
    if not isinstance(value, list):
        raise UserError(
            f"{source} must give a list of addresses for '{job}'.",
            received=value,
            fix=f"write `{job}: [host:port]`",
        )
    return tuple(_address(job, text_of(each), source) for each in value)


def _address(job: str, value: Any, source: str) -> str:
    """One address, checked."""
    found = _ADDRESS.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise UserError(
            f"{source} has an address of '{job}' that is not host:port.",
            received=value,
            fix="write it as `10.0.0.5:2222`, `trainer-0.example:2222` or `[::1]:2222`",
        )
    port = int(found[2])
    if not 1 <= port <= _PORTS:
        raise UserError(
            f"{source} has an address of '{job}' whose port is out of range.",
            received=value,
            fix=f"use a port from 1 to {_PORTS}",
        )
    return f"{found[1]}:{port}"


def _refuse_twice(found: Mapping[str, tuple[str, ...]], source: str) -> None:
    """Refuses two tasks at one address."""
    seen: dict[str, Task] = {}
    for job, addresses in found.items():
        for index, address in enumerate(addresses):
            task = Task(job, index)
            other = seen.setdefault(address.lower(), task)
            if other != task:
                raise UserError(
                    f"{source} has one address twice.",
                    received=f"{address} for {other} and {task}",
                    fix="give every process an address of its own",
                )
