"""The report's style sheet."""

from __future__ import annotations

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import page
from lfm4ads_tf.analysis.palette import Palette


def stylesheet() -> Markup:
    """The CSS of the page, for light and dark mode."""
    return Markup(page("page.css", palette=Palette))
