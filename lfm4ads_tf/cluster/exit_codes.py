"""Exit codes of the processes of a cluster beside those of every command, see docs/cli.md."""

from __future__ import annotations

TRY_AGAIN = 75
"""Nothing is wrong with the run: a process it needs was lost, and the same command goes on."""
ADDRESS_TAKEN = 76
"""The address of this process belongs to another one; for the launcher, which chooses again."""
