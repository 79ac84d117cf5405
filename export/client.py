"""Scores of raw rows from a model server: `lfm4ads-client --server ADDRESS ...`."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from lfm4ads_tf.quiet import native_stderr_hidden

with native_stderr_hidden():  # TensorFlow's start-up banner
    import tensorflow  # noqa: F401

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.export.spec_check import read_spec
from lfm4ads_tf.export.wire.model_target import ModelTarget
from lfm4ads_tf.export.wire.raw_rows import Rows, with_excluded
from lfm4ads_tf.export.wire.request_builder import RequestBuilder
from lfm4ads_tf.export.wire.retry_policy import Deadline, RetryPolicy
from lfm4ads_tf.export.wire.scored_rows import read_rows, write_scores
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.export.wire.transport import open_transport
from lfm4ads_tf.features.spec import FeatureSpec

T = TypeVar("T")

Form = Literal["examples", "tensors"]
_SIGNATURES = {"examples": "serving_default", "tensors": "predict"}


class ServingClient:
    """One model of a TensorFlow Serving (or `lfm4ads_tf.export.local_server`), asked with raw rows.

    What the model reads is asked from the server with the first request, and again when another
    version answers. Threads may share a client. Use it as a context manager, or call `close`.

    Args:
        server: `grpc://host:port` or `host:port`; `http://host:port`; `grpcs://`, `https://` with
            TLS.
        model: Name of the model.
        spec: The feature spec that the model was trained with, or the path of its YAML; the
            `config.yaml` of a run folder will do.
        version, label: Which version; the newest when both are absent.
        deadline: Seconds that a call may take, all attempts and pauses included.
        retries: Further attempts after UNAVAILABLE; no other code is tried again.
        headers: Sent with every request, such as a proxy's `Authorization`.

    Raises:
        UserError: The address, the spec or the target cannot be used.
    """

    def __init__(
        self,
        server: str,
        model: str,
        spec: FeatureSpec | str | Path,
        *,
        version: int | None = None,
        label: str | None = None,
        deadline: float = 1.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.target = ModelTarget(model, version, label)
        self.spec = spec if isinstance(spec, FeatureSpec) else read_spec(Path(spec))
        self._transport = open_transport(server, headers)
        self._deadline = deadline
        self._policy = RetryPolicy(retries)
        self._lock = threading.Lock()
        self._asked: tuple[RequestBuilder, dict[str, Any], int | None] | None = None
        self._closed = False

    def __enter__(self) -> ServingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client cannot be used any more."""
        self._closed = True
        self._transport.close()

    def predict(
        self, rows: Rows, form: Form = "examples", *, deadline: float | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs of the model for N rows.

        Args:
            rows: A list of rows (column -> value), a mapping column -> N values, or an Arrow table.
                A row holds the raw columns that the model reads; a statistic, an event sequence
                and a representation are columns like any other. None is a missing value. Further
                columns that the spec names are passed over.
            form: `examples` sends `tf.Example`s to `serving_default`, `tensors` a tensor per
                column to `predict`. With batching in the server use `examples`.
            deadline: Seconds, instead of the client's.

        Returns:
            Task -> (N,) float32; of a tower `representation` (N, D); of a retrieval model `ids`
            text (N, k) and `scores` (N, k). In the order of their names: a server's has none.

        Raises:
            ServingError: The rows do not fit, or the server did not answer.
        """
        if form not in _SIGNATURES:
            raise UserError(
                f"There is no form '{form}' of a request.{nearest(form, _SIGNATURES)}",
                fix=f"use {' or '.join(_SIGNATURES)}",
            )

        def attempt(builder: RequestBuilder) -> dict[str, np.ndarray]:
            if form == "tensors":
                return builder.tensors(rows)
            return {"examples": _objects(builder.examples(rows))}

        return self._predict(_SIGNATURES[form], attempt, deadline)

    def rank(
        self, user_row: Rows, candidates: Rows, *, deadline: float | None = None
    ) -> dict[str, np.ndarray]:
        """Scores of one user's N candidates; the model encodes the user once.

        Args:
            user_row: One row with the columns and representations of the user and of the context.
            candidates: N rows with those of the items. A column of the context that differs from
                candidate to candidate is given here instead.
            deadline: Seconds, instead of the client's.

        Returns:
            Task -> (N,) float32.

        Raises:
            ServingError: As `predict`; a column on the wrong side is refused.
        """
        return self._predict("rank", lambda b: b.rank_tensors(user_row, candidates), deadline)

    def embed(
        self, rows: Rows, form: Form = "examples", *, deadline: float | None = None
    ) -> np.ndarray:
        """Representations of N rows by a tower, (N, D) float32; arguments as in `predict`."""
        outputs = self.predict(rows, form, deadline=deadline)
        if "representation" not in outputs:
            raise ServingError(
                "FAILED_PRECONDITION",
                f"The {self.target} gives no representation.",
                received=f"outputs {', '.join(outputs)}",
                fix="name user_tower or item_tower, or use `predict`",
            )
        return outputs["representation"]

    def retrieve(
        self,
        rows: Rows,
        exclude: Sequence[Sequence[str]] | None = None,
        form: Form = "examples",
        *,
        deadline: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Best items of N users by a retrieval model.

        Args:
            rows: Columns of the users, as in `predict`.
            exclude: Per row the item keys that it must not get.
            form, deadline: As in `predict`.

        Returns:
            `ids` text (N, k) and `scores` float32 (N, k), best first.
        """
        if exclude is not None:
            rows = with_excluded(rows, exclude)
        return self.predict(rows, form, deadline=deadline)

    def classify(self, rows: Rows, *, deadline: float | None = None) -> dict[str, np.ndarray]:
        """Scores by the Classify API, task -> (N,) float32; rows as in `predict`."""
        return self._run(
            "classify",
            lambda b: b.examples(rows),
            lambda examples, end: _by_class(
                self._transport.classify(self.target, "classify", examples, end)
            ),
            deadline,
        )

    def regress(
        self, rows: Rows, task: str | None = None, *, deadline: float | None = None
    ) -> np.ndarray:
        """Scores of one task by the Regress API, (N,) float32; the first task when not named."""
        signature = "regress" if task is None else f"regress_{task}"
        return self._run(
            signature,
            lambda b: b.examples(rows),
            lambda examples, end: np.array(
                self._transport.regress(self.target, signature, examples, end), np.float32
            ),
            deadline,
        )

    def multi_inference(
        self,
        rows: Rows,
        signatures: Sequence[str] = ("classify", "regress"),
        *,
        deadline: float | None = None,
    ) -> dict[str, Any]:
        """Several Classify and Regress signatures in one request, over gRPC only.

        Returns:
            Signature -> what `classify` or `regress` returns.
        """

        def ask(examples: list[bytes], end: Deadline) -> dict[str, Any]:
            known = self._model(end)[1]
            methods = {s: str(known[s]["method"]) for s in signatures}
            answers = self._transport.multi_inference(self.target, methods, examples, end)
            return {
                s: _by_class(a) if a and isinstance(a[0], list) else np.array(a, np.float32)
                for s, a in answers.items()
            }

        return self._run(tuple(signatures), lambda b: b.examples(rows), ask, deadline)

    def send(
        self, signature: str, examples: Sequence[bytes], *, deadline: float | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs of a Predict signature, such as `encode`, for serialized `tf.Example`s."""
        return self._predict(signature, lambda _: {"examples": _objects(examples)}, deadline)

    def metadata(self, *, deadline: float | None = None) -> dict[str, Any]:
        """Signature -> `method`, `inputs` and `outputs`: name -> `dtype` and `shape`."""
        end = self._start(deadline)
        signatures, _ = self._policy.run(
            lambda left: self._transport.metadata(self.target, left), end
        )
        return signatures

    def status(self, *, deadline: float | None = None) -> list[dict[str, Any]]:
        """The model's versions: `version`, `state` (`AVAILABLE` when it serves) and `error`."""
        end = self._start(deadline)
        return self._policy.run(lambda left: self._transport.status(self.target, left), end)

    def builder(self, *, deadline: float | None = None) -> RequestBuilder:
        """How rows become requests to this model, for callers that send them by other means."""
        return self._model(self._start(deadline))[0]

    def _start(self, deadline: float | None) -> Deadline:
        if self._closed:
            raise UserError("The client is closed.", fix="make another one")
        return Deadline(self._deadline if deadline is None else deadline)

    def _model(self, end: Deadline) -> tuple[RequestBuilder, dict[str, Any], int | None]:
        """What the server says of the model; asked once, by whichever thread comes first."""
        asked = self._asked
        if asked is not None:
            return asked
        with self._lock:
            if self._asked is None:
                signatures, version = self._policy.run(
                    lambda left: self._transport.metadata(self.target, left), end
                )
                builder = RequestBuilder(self.spec, signatures, f"the {self.target}")
                self._asked = (builder, signatures, version)
            return self._asked

    def _predict(
        self,
        signature: str,
        build: Callable[[RequestBuilder], dict[str, np.ndarray]],
        deadline: float | None,
    ) -> dict[str, np.ndarray]:
        def ask(inputs: dict[str, np.ndarray], end: Deadline) -> dict[str, np.ndarray]:
            _, signatures, version = self._model(end)
            outputs, answered = self._transport.predict(
                self.target, signature, inputs, signatures[signature]["outputs"], end
            )
            if answered != version and None not in (answered, version):
                self._asked = None  # a new version may read other columns
            return {name: outputs[name] for name in sorted(outputs)}  # a map has no order

        return self._run(signature, build, ask, deadline)

    def _run(
        self,
        wanted: str | tuple[str, ...],
        build: Callable[[RequestBuilder], Any],
        ask: Callable[[Any, Deadline], T],
        deadline: float | None,
    ) -> T:
        """Builds a request once and sends it until it is answered."""
        end = self._start(deadline)
        builder, signatures, _ = self._model(end)
        for signature in [wanted] if isinstance(wanted, str) else wanted:
            if signature not in signatures:
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"The {self.target} has no signature '{signature}'."
                    + nearest(signature, signatures),
                    received=f"signatures {', '.join(sorted(signatures))}",
                    fix="only rankers have `rank`; the foundation and the rankers have `classify`, "
                    "`regress` and `regress_<task>`",
                )
        request = build(builder)
        try:
            return self._policy.run(lambda left: ask(request, left), end)
        except ServingError as error:
            if error.code in ("INVALID_ARGUMENT", "NOT_FOUND"):
                self._asked = None  # perhaps of a version that is gone
            raise


def _objects(texts: Sequence[bytes]) -> np.ndarray:
    out = np.empty(len(texts), object)
    out[:] = texts
    return out


def _by_class(results: list[list[tuple[str, float]]]) -> dict[str, np.ndarray]:
    """Label -> score of every example."""
    labels = [label for label, _ in results[0]] if results else []
    scores = [dict(row) for row in results]
    return {label: np.array([row[label] for row in scores], np.float32) for label in labels}


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores the rows of a file.

    Returns:
        0 on success; 2 for what the user can mend, with the reason on stderr.
    """
    parser = argparse.ArgumentParser(prog="lfm4ads-client", description=__doc__)
    parser.add_argument("--server", required=True, help="grpc://host:port or http://host:port")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--spec", required=True, type=Path, help="feature spec, or a config.yaml")
    parser.add_argument("--input", required=True, type=Path, help="rows: CSV, Parquet or TFRecord")
    parser.add_argument("--output", type=Path, help="CSV or Parquet file; printed when left out")
    parser.add_argument("--form", choices=sorted(_SIGNATURES), default="examples")
    parser.add_argument("--version", type=int, help="version of the model")
    parser.add_argument("--label", help="version label, such as stable")
    parser.add_argument("--deadline", type=float, default=10.0, help="seconds a request [10]")
    parser.add_argument("--batch", type=int, default=512, help="rows a request [512]")
    given = parser.parse_args(arguments)
    try:
        if given.batch < 1 or given.deadline <= 0:
            raise UserError("--batch and --deadline are positive.")
        with ServingClient(
            given.server,
            given.model,
            given.spec,
            version=given.version,
            label=given.label,
            deadline=given.deadline,
        ) as client:
            table = read_rows(given.input, client.spec, client.builder().schema)
            answers = [
                client.predict(table.slice(start, given.batch), given.form)
                for start in range(0, len(table), given.batch)
            ]
        outputs = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}
        write_scores(outputs, given.output)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
