"""What a step of a mixer of tokens costs beside its matrix products, and beside a loop over tokens.

    python -m benchmarks.mixer --json FILE [--batch 4096] [--tokens 16] [--dim 128] [--rounds 9]

Forward and gradients of all blocks, in turns of one process: `block` is ours; `products` are the
matrix products of its token networks alone, forward and both gradients; `network` is the token
network of one block, all tokens in one batched product, and `loop` the same by two dense layers for
each token from the same weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.measure import interleave, summary
from lfm4ads_tf.interactions.mixer_block import MixerBlock, Norm
from lfm4ads_tf.interactions.token_network import Network, TokenNetwork


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        batch, tokens, dim, depth, expansion: B, N, D, L and k.
        norm, network: See `MixerBlock`.
        rounds, warmup: Rounds that count, and those before them.
    """

    batch: int = 4096
    tokens: int = 16
    dim: int = 128
    depth: int = 2
    expansion: float = 4
    norm: Norm = "post"
    network: Network = "gelu"
    rounds: int = 9
    warmup: int = 2


def run(plan: Plan) -> dict[str, Any]:
    """Measures a plan.

    Returns:
        `seconds` and `spread` of each contender; `matmul_share`, the products' time of the
        block's; `loop_ratio`, the loop's time over the network's, medians of the rounds' ratios.
    """
    shape = (plan.tokens, plan.batch, plan.dim)
    tokens = tf.random.stateless_normal(shape, [0, 1])
    options: dict[str, Any] = {"network": plan.network, "expansion": plan.expansion}
    blocks = [MixerBlock(plan.tokens, norm=plan.norm, **options) for _ in range(plan.depth)]
    network = TokenNetwork(plan.network, plan.expansion)
    network(tokens)

    def through(read: tf.Tensor) -> tf.Tensor:
        for block in blocks:
            read = block(read, training=True)
        return read

    through(tokens)
    kernels = [(b.network.first, b.network.last) for b in blocks]
    if plan.norm == "revert":
        kernels += [(b.mixed_network.first, b.mixed_network.last) for b in blocks]
    half = int(kernels[0][1].shape[1])  # swiglu multiplies half of the first product

    def products(read: tf.Tensor) -> tf.Tensor:
        for first, last in kernels:
            read = tf.matmul(tf.matmul(read, first)[..., :half], last)
        return read

    layers = _loop(network)

    def loop(read: tf.Tensor) -> tf.Tensor:
        apart = tf.unstack(read)
        return tf.stack([last(first(x)) for x, (first, last) in zip(apart, layers, strict=True)])

    contenders: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], list[tf.Variable]]] = {
        "block": (through, [v for block in blocks for v in block.trainable_variables]),
        "products": (products, [k for pair in kernels for k in pair]),
        "network": (lambda read: network(read, training=True), network.trainable_variables),
    }
    if plan.network == "gelu":
        weights = [v for pair in layers for layer in pair for v in layer.trainable_variables]
        contenders["loop"] = (loop, weights)
    turns = {name: _turn(call, tokens, given) for name, (call, given) in contenders.items()}
    found = interleave(turns, rounds=plan.rounds, warmup=plan.warmup)

    def ratio(above: str, below: str) -> float:
        return float(np.median(np.array(found[above]) / np.array(found[below])))

    return {
        "plan": {"batch": plan.batch, "tokens": plan.tokens, "dim": plan.dim, "norm": plan.norm}
        | {"depth": plan.depth, "expansion": plan.expansion, "network": plan.network},
        "seconds": {name: summary(values).median for name, values in found.items()},
        "spread": {name: summary(values).spread for name, values in found.items()},
        "matmul_share": ratio("products", "block"),
        "loop_ratio": ratio("loop", "network") if "loop" in found else None,
    }


def _loop(network: TokenNetwork) -> list[tuple[Any, Any]]:
    """Two dense layers for each token with the weights of a gelu network; none of another."""
    if network.kind != "gelu":
        return []
    layers = []
    for n in range(int(network.first.shape[0])):
        pair = []
        for kernel, bias, activation in (
            (network.first, network.first_bias, "gelu"),
            (network.last, network.last_bias, None),
        ):
            layer = tf_keras.layers.Dense(int(kernel.shape[2]), activation=activation)
            layer.build((None, int(kernel.shape[1])))
            layer.set_weights([kernel.numpy()[n], bias.numpy()[n, 0]])
            pair.append(layer)
        layers.append((pair[0], pair[1]))
    return layers


def _turn(
    call: Callable[[tf.Tensor], tf.Tensor], tokens: tf.Tensor, weights: list[tf.Variable]
) -> Callable[[], float]:
    """Seconds of forward and gradients."""

    @tf.function
    def step(read: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(read)
            made = call(read)
        gradients = tape.gradient(made, [read, *weights], output_gradients=tf.ones_like(made))
        return [tf.reduce_sum(g[..., :1]) for g in gradients]

    def turn() -> float:
        start = time.perf_counter()
        for value in step(tokens):
            value.numpy()
        return time.perf_counter() - start

    return turn


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    for name in ("batch", "tokens", "dim", "depth", "rounds"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    parser.add_argument("--norm", choices=["post", "pre", "revert"], default=Plan.norm)
    parser.add_argument("--network", choices=["gelu", "swiglu"], default=Plan.network)
    options = vars(parser.parse_args(arguments))
    target = options.pop("json")
    tf.config.threading.set_intra_op_parallelism_threads(2)
    result = run(Plan(**options))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for name, seconds in result["seconds"].items():
        print(f"{name}: {1000 * seconds:.1f} ms, spread {result['spread'][name]:.1%}")
    print(f"products / block: {result['matmul_share']:.2f}")
    if result["loop_ratio"] is not None:
        print(f"loop / network: {result['loop_ratio']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
