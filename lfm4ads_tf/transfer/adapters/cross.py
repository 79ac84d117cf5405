"""The product of a user's and an item's representation as a further field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import tensorflow as tf
import tf_keras
from pydantic import Field, model_validator

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.dot_product_upstream import DotProductUpstream
from lfm4ads_tf.transfer.config import AdapterConfig


class CrossOptions(StrictModel):
    """Options of `cross`, below `downstream.adapter_options.cross`.

    Attributes:
        width: c, which both sides are projected to; the first of `adapter_units` when absent.
        direct: Whether a and b are multiplied as they are, without projections.
    """

    width: int | None = Field(default=None, ge=1)
    direct: bool = False

    @model_validator(mode="after")
    def _without_width(self) -> Self:
        if self.direct and self.width is not None:
            raise ValueError("direct: nothing is projected to a width; leave one of the two out")
        return self


class CrossAdapter(Adapter):
    """fields = [v_1; ...; v_F; e] and x_0 = [E; e; p], e = W_o ((A a) * (B b)) p.

    p = p_a p_b: 1 where both sides are there, else 0 and so is e. A is (d_a, c), B (d_b, c) and W_o
    (c, w), all without a bias. With `width` None e = W_o (a * b) p. No gradient reaches a or b.

    Args:
        sources: Two representations, a and b, one of each side.
        dim: w, the width of e.
        width: c; None to multiply a and b as they are, where both are trained as one dot-product
            space.
        zero_init: Whether e starts at zero.
        seed: Seed of the initial weights.

    Raises:
        UserError: There are not two sources; or, at the first call, a and b have unequal widths and
            are to be multiplied as they are.

    Source: RankUp (arXiv 2604.17878), the cross token e = W_o (a * b) of pre-trained vectors;
    A and B, the flag and the sources are this project's.
    """

    Config: ClassVar[type[StrictModel]] = CrossOptions
    widens: ClassVar[bool] = True
    as_fields: ClassVar[bool] = True

    def __init__(
        self,
        sources: Sequence[str],
        *,
        dim: int,
        width: int | None,
        zero_init: bool = False,
        seed: int = 0,
    ) -> None:
        if len(sources) != 2:
            raise _no_pair(sources)
        super().__init__(sources, name="cross")
        label = "cross/" + "+".join(self.sources)
        self.projections = [
            tf_keras.layers.Dense(
                width,
                use_bias=False,
                kernel_initializer=glorot(seed, f"{label}/{source}"),
                name=f"project_{k}",
            )
            for k, source in enumerate(self.sources)
            if width is not None
        ]
        self.token = tf_keras.layers.Dense(
            dim,
            use_bias=False,
            kernel_initializer="zeros" if zero_init else glorot(seed, f"{label}/token"),
            name="token",
        )

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`; reads `adapter_units`, `token_dim` and `adapter_zero_init`."""
        return cls(
            sources,
            dim=config.token_width,
            width=None if options.direct else options.width or config.adapter_units[0],
            zero_init=config.adapter_zero_init,
            seed=seed,
        )

    @classmethod
    def check(cls, sources: Mapping[str, str], options: Any, upstream: UpstreamConfig) -> None:
        """See `Adapter.check`: one source of each side; `direct` for one space alone."""
        if sorted(sources.values()) != ["item", "user"]:
            raise _no_pair(sources)
        model = upstream.model_class
        trained = model.dot_product_pairs(upstream) if isinstance(model, DotProductUpstream) else []
        if options.direct and {*sources} not in [{*pair} for pair in trained]:
            known = ", ".join("+".join(pair) for pair in trained) or "none"
            raise UserError(
                "The sources of a direct cross are not trained as one dot-product space.",
                received=f"feature/cross/{'+'.join(sources)} with direct: true",
                fix="leave downstream.adapter_options.cross.direct out; pairs that "
                f"'{upstream.model}' trains as one space: {known}",
            )

    @classmethod
    def joined(cls, sources: Sequence[str]) -> int:
        """See `Adapter.joined`; one, of both sources."""
        return 1

    def check_widths(self, widths: Mapping[str, int]) -> None:
        """See `Adapter.check_widths`: equal ones where nothing projects them to one width."""
        read = {source: widths[source] for source in self.sources}
        if not self.projections and len({*read.values()}) > 1:
            raise UserError(
                "A direct cross multiplies representations of one width.",
                received=", ".join(f"{source} of width {d}" for source, d in read.items()),
                fix="leave downstream.adapter_options.cross.direct out",
            )

    def build(self, input_shape: Mapping[str, tf.TensorShape]) -> None:
        """Checks the widths of representations that are given to it alone."""
        self.check_widths({source: int(input_shape[source][-1]) - 1 for source in self.sources})
        super().build(input_shape)

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`; of one row of a user's and many of items' each is projected once."""
        stored = [tf.stop_gradient(representations[s]) for s in self.sources]  # (B, d + 1) each
        a, b = (values[:, :-1] for values in stored)  # (B, d_a), (B, d_b)
        present = stored[0][:, -1:] * stored[1][:, -1:]  # (B, 1)
        if self.projections:
            a, b = (project(x) for project, x in zip(self.projections, (a, b), strict=True))
        token = self.token(a * b * present)  # (B, w)
        return Adapted(extra=[token, present], tokens=[token])


def _no_pair(sources: Iterable[str]) -> UserError:
    return UserError(
        "The adapter 'cross' multiplies two representations, one of the user and one of the item.",
        received="+".join(sources),
        fix="name two, such as feature/cross/UR+IR; in a sweep, --sides both",
    )
