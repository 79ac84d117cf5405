"""Python functions that a graph calls in the process that runs it, wherever it was traced.

`tf.numpy_function` always runs in the process that traced it: input of a worker's step would pass
through the chief. TensorFlow's op behind it finds its function by a token in the registry of the
process that runs the op; here the tokens are fixed, and every process registers its own functions
before its server starts. The registry is no public part of TensorFlow, so it is looked for first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import script_ops

from lfm4ads_tf.errors import UserError

_PREFIX = "lfm4ads/"
_BEGIN, _END = "<user-error>", "</user-error>"
_HELD: dict[str, Callable[..., Any]] = {}  # TensorFlow's registry holds its functions weakly


def register(name: str, function: Callable[..., Any]) -> None:
    """Makes a function callable by graphs that this process runs.

    Args:
        name: By which `call` finds it; an earlier function of the name is replaced.
        function: Arrays -> array or list of arrays. Its `UserError`s reach the chief, see
            `user_error_in`.

    Raises:
        UserError: This TensorFlow has no such registry.
    """

    def told(*arrays: Any) -> Any:
        try:
            return function(*arrays)
        except UserError as error:
            # the message of the op is all that reaches the process that waits for it
            raise RuntimeError(f"{_BEGIN}{json.dumps(str(error))}{_END}") from error

    _HELD[name] = told
    _registry()[_PREFIX + name] = told


def call(
    name: str, inputs: Sequence[tf.Tensor], dtypes: Sequence[tf.DType], *, stateful: bool = False
) -> list[tf.Tensor]:
    """What a registered function returns in the process that runs the graph.

    Args:
        name: The function's.
        inputs: Its arguments.
        dtypes: Types of what it returns.
        stateful: Whether it does more than return values, so that no call may be left out.
    """
    op = tf.raw_ops.PyFunc if stateful else tf.raw_ops.PyFuncStateless
    returned: list[tf.Tensor] = op(input=list(inputs), token=_PREFIX + name, Tout=list(dtypes))
    return returned


def user_error_in(error: BaseException) -> UserError | None:
    """The `UserError` of a host function that made a graph fail, None if it was something else."""
    text = str(error)
    if _BEGIN not in text or _END not in text:
        return None
    # TensorFlow may quote the message in another one; the first is the innermost
    message = text.partition(_BEGIN)[2].partition(_END)[0]
    try:
        return UserError(json.loads(message))
    except ValueError:
        return UserError(message)


def _registry() -> Any:
    functions = getattr(getattr(script_ops, "_py_funcs", None), "_funcs", None)
    if functions is None:
        raise UserError(
            "This TensorFlow keeps its Python functions in another way, so that the workers of a "
            "cluster could not read their rows.",
            received=f"TensorFlow {tf.__version__}",
            fix="use the version of constraints.txt, or train without --cluster",
        )
    return functions
