"""Records the public signatures as they are: `python -m tests.api.record_signatures`."""

from __future__ import annotations

from tests.api.signatures import RECORDED, signatures

if __name__ == "__main__":
    RECORDED.write_text("\n".join(signatures()) + "\n", encoding="utf-8")
