"""Measurements behind the claims in docs/results.md; nothing here is imported by the package."""
