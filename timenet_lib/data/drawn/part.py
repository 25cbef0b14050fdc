"""Say what a class is: how a sample is drawn by lot, how it is painted, and which defects it can have."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .canvas import Array, Canvas, Point, Rng

Spec = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Bundle what makes a class.

    `sample(rng)` draws a spec, always with a "pose"; `paint(canvas, spec)` paints it; `colour(rng)` names a colour of
    the class's own palette. `alter` maps structural defects to functions that change the spec; `overlay` holds the
    defects that are painted on top, under their function's name, at centres within `reach` in (u, v); `edge` holds the
    points where a piece can break off, for "chip".
    """

    sample: Callable[[Rng], Spec]
    paint: Callable[[Canvas, Spec], None]
    colour: Callable[[Rng], Array]
    reach: Point
    alter: dict[str, Callable[[Spec, Rng], None]] = field(default_factory=dict)
    overlay: tuple[Callable[[Canvas, "Part", Rng], None], ...] = ()
    edge: tuple[Point, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """List the kinds of defect: structural ones, a chip where there is an edge, overlaid ones."""
        return (*self.alter, *(("chip",) if self.edge else ()), *(paint.__name__ for paint in self.overlay))

    def spoil(self, kind: str | None, spec: Spec, canvas: Canvas, rng: Rng) -> None:
        """Prepare a structural defect, or a chip, before the part is painted."""
        if kind in self.alter:
            self.alter[kind](spec, rng)
        elif kind == "chip":
            u, v = self.edge[int(rng.integers(len(self.edge)))]
            radius, aside = rng.uniform(0.2, 0.28), rng.uniform(-0.15, 0.15, 2)
            canvas.bites = [((u, v), radius), ((u + aside[0], v + aside[1]), 0.7 * radius)]

    def cover(self, kind: str | None, canvas: Canvas, rng: Rng) -> None:
        """Paint an overlaid defect over the finished part."""
        for paint in self.overlay:
            if paint.__name__ == kind:
                paint(canvas, self, rng)
