"""Feature-level adapters by the name that methods give them: `feature/<name>/<sources>`."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.transfer.adapters"

ADAPTERS: Registry[Any] = Registry(
    "adapter",
    {
        "linear": f"{_HERE}.linear:LinearAdapter",
        "mlp": f"{_HERE}.mlp:MlpAdapter",
        "token": f"{_HERE}.token:TokenAdapter",
        "cross": f"{_HERE}.cross:CrossAdapter",
        "gate": f"{_HERE}.gate:GateAdapter",
        "gate_mlp": f"{_HERE}.mlp_gate:MlpGateAdapter",
        "gate_fields": f"{_HERE}.field_gate:FieldGateAdapter",
    },
)
"""Name -> a class that derives from `Adapter`."""
