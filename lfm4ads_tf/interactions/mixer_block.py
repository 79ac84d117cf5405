"""One block of a mixer of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.full_mixing import FullMixing
from lfm4ads_tf.interactions.token_attention import TokenAttention
from lfm4ads_tf.interactions.token_mixing import mix, unmix
from lfm4ads_tf.interactions.token_network import Network, TokenNetwork
from lfm4ads_tf.interactions.token_norm import TokenNorm
from lfm4ads_tf.rebuildable import Rebuildable

Norm = Literal["post", "pre", "revert"]
Mixing = Literal["transpose", "none", "attention", "full"]


class MixerBlock(Rebuildable, tf_keras.layers.Layer):
    """Mixes tokens, then runs each through a network of its own, both with a residual.

        post:    S = LN(X + Mix(X)),                   X' = LN(S + PFFN(S))
        pre:     Y = X + Mix(LN X),                    X' = Y + PFFN(LN Y)
        revert:  Y = X + Unmix(PFFN(Mix(LN X))),       X' = Y + PFFN(LN Y)

    Mix is `transpose` (`token_mixing.mix`), `none` (X itself), `attention` or `full`; `revert` is
    for `transpose`, whose residuals then lie between equal coordinates.

    Args:
        heads: H of `transpose` and `attention`; as many as there are tokens for `transpose` in
            `post` and `pre`, where the shape has to stay.
        norm: See above.
        mixing: See above.
        network: See `TokenNetwork`.
        expansion: k, see `TokenNetwork`.
        experts: e of every network, see `TokenNetwork`.
        seed: Seed of the initial weights.

    Source: RankMixer (arXiv 2507.15551) for `post`; RankUp (arXiv 2604.17878) for `pre`; `revert`
    after TokenMixer-Large, known at second hand.
    """

    def __init__(
        self,
        heads: int,
        *,
        norm: Norm = "post",
        mixing: Mixing = "transpose",
        network: Network = "gelu",
        expansion: float = 4,
        experts: int = 1,
        seed: int = 0,
        name: str = "mixer_block",
    ) -> None:
        super().__init__(name=name)
        self.heads = heads
        self.norm = norm
        self.mixing = mixing

        def own(kind: type[Any], part: str, *given: Any, **options: Any) -> Any:
            return kind(*given, **options, seed=seed, name=f"{name}_{part}")

        self.first_norm = TokenNorm(name=f"{name}_norm_1")
        self.second_norm = TokenNorm(name=f"{name}_norm_2")
        self.network = own(TokenNetwork, "network", network, expansion, experts=experts)
        if norm == "revert":
            self.mixed_network = own(
                TokenNetwork, "mixed_network", network, expansion, experts=experts
            )
        if mixing == "attention":
            self.mixer = own(TokenAttention, "attention", heads)
        elif mixing == "full":
            self.mixer = own(FullMixing, "full_mixing")

    def call(
        self,
        tokens: tf.Tensor,
        observe: Callable[[str, tf.Tensor], None] = lambda *_: None,
        training: bool = False,
        routed: Callable[[str, tf.Tensor], None] = lambda *_: None,
    ) -> tf.Tensor:
        """Runs the block.

        Args:
            tokens: X, token by token (N, B, D).
            observe: Given what stands behind the mixing, `mix`, and behind the networks,
                `network`, each (N, B, D).
            training: Whether compiled kernels may be used; an exported graph holds none.
            routed: Given the routes of the networks by whose they are, `network` (N, B, e) and with
                `revert` `mixed_network` (H, B, e), where there are several experts.

        Returns:
            X', (N, B, D).
        """

        def run(name: str, read: tf.Tensor) -> tf.Tensor:
            def of_network(routes: tf.Tensor) -> None:
                routed(name, routes)

            made: tf.Tensor = getattr(self, name)(read, training=training, routed=of_network)
            return made

        if self.norm == "post":
            mixed = self.first_norm(tokens + self._mix(tokens))
            observe("mix", mixed)
            made = self.second_norm(mixed + run("network", mixed))
        else:
            read = self.first_norm(tokens)
            if self.norm == "revert":
                inner = run("mixed_network", mix(read, self.heads))  # (H, B, N D/H)
                mixed = tokens + unmix(inner, int(tokens.shape[0]))
            else:
                mixed = tokens + self._mix(read)
            observe("mix", mixed)
            made = mixed + run("network", self.second_norm(mixed))
        observe("network", made)
        return made

    def _mix(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mix(X), (N, B, D)."""
        if self.mixing == "none":
            return tokens
        return mix(tokens, self.heads) if self.mixing == "transpose" else self.mixer(tokens)
