"""A gate of the field embeddings that starts open."""

from __future__ import annotations

from typing import ClassVar

from lfm4ads_tf.transfer.adapters.mlp_gate import MlpGateAdapter


class FieldGateAdapter(MlpGateAdapter):
    """[v_1; ...; v_F] * 2 sigmoid(sum_r W relu(V [LN(r) p; p] + c) + b), element by element.

    It acts on the field embeddings v, before towers and factorisation machine, instead of on the
    stream. Args as of `MlpGateAdapter`.

    Source: this project's, after the gate of the LFM4Ads public experiment (arXiv 2508.14948).
    """

    kind: ClassVar[str] = "gate_fields"
    gates_stream: ClassVar[bool] = False
    of_fields: ClassVar[bool] = True
