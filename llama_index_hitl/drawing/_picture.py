"""What all drawing comes to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing that notebooks show and pages can embed.

    Attributes:
        svg: The drawing, one `<svg>` element.
        title: What it shows, as one line; it stands in the drawing for those who cannot see it.

    Example:
        >>> from llama_index_hitl.drawing import draw_changes
        >>> picture = draw_changes("Tea is hot.", "Tea is warm.")
        >>> picture
        Picture('What has changed: 1 line')
        >>> picture.svg.startswith("<svg ")
        True
    """

    svg: str = field(repr=False)
    title: str

    def __repr__(self) -> str:
        return f"Picture({self.title!r})"

    def _repr_svg_(self) -> str:
        """Return what a notebook shows."""
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawing into a file, in place of what was there.

        Args:
            path: Where to; a name that ends in `.svg` opens in any browser.

        Raises:
            OSError: It cannot be written.
        """
        Path(path).write_text(self.svg, encoding="utf-8")
