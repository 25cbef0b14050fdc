"""What a class is: how a sample is drawn at random, how it is painted, and which defects it can have."""

from collections.abc import Callable
from dataclasses import dataclass

from .canvas import Array, Canvas, Point, Rng, Spec
from .structural import alter


@dataclass(frozen=True)
class Part:
    """A class of the drawn data set.

    `sample(rng)` draws a spec; `paint(canvas, spec)` paints it; `colour(rng)` draws a colour from the class's palette.
    `altered` names the structural defects, which change the spec; `overlay` holds the defects painted on top, at
    centres within `reach` in (u, v); `edge` the points where a piece can break off, for the kind "chip".
    """

    sample: Callable[[Rng], Spec]
    paint: Callable[[Canvas, Spec], None]
    colour: Callable[[Rng], Array]
    reach: Point = (0.5, 0.5)
    altered: tuple[str, ...] = ()
    overlay: tuple[Callable[[Canvas, "Part", Rng], None], ...] = ()
    edge: tuple[Point, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """List the kinds of defect: structural ones, a chip where there is an edge, overlaid ones."""
        chip = ("chip",) if self.edge else ()
        return (*self.altered, *chip, *(paint.__name__ for paint in self.overlay))

    def spoil(self, kind: str | None, spec: Spec, canvas: Canvas, *, rng: Rng) -> None:
        """Prepare a structural defect, or a chip, before the part is painted."""
        if kind in self.altered:
            alter(kind, spec, rng)
        elif kind == "chip":
            u, v = self.edge[int(rng.integers(len(self.edge)))]
            radius, aside = rng.uniform(0.2, 0.28), rng.uniform(-0.15, 0.15, 2)
            canvas.bites = [((u, v), radius), ((u + aside[0], v + aside[1]), 0.7 * radius)]

    def cover(self, kind: str | None, canvas: Canvas, rng: Rng) -> None:
        """Paint an overlaid defect over the finished part."""
        for paint in self.overlay:
            if paint.__name__ == kind:
                paint(canvas, self, rng)
