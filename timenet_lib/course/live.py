"""Live exploration: choose class, image, noise seed, t and method; the reconstruction and its maps follow.

The other viewers hold their frames. This one asks the kernel for each picture, one reconstruction at a time; without
a kernel its still picture is what there is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import traitlets

from timenet_lib.course.contours import FOUND, decision, rates
from timenet_lib.course.explore import map_panels
from timenet_lib.course.models import load_example
from timenet_lib.course.style import COLOURS, LABELS, to_display
from timenet_lib.course.viewer import Panel, Viewer
from timenet_lib.data.folder import FolderIndex, Sample
from timenet_lib.detector import TimeNet
from timenet_lib.errors import InputError
from timenet_lib.keyed import image_noise
from timenet_lib.path import interpolate
from timenet_lib.pictures import Number, outline
from timenet_lib.solvers import full_t

NAMES = ("class", "image", "noise seed", "t", "method")  # what there is to choose, in this order
T_VALUES = tuple(round(0.05 * i, 2) for i in range(6, 20))
SEEDS = 10


class LiveExplorer(Viewer):
    """A viewer of one image and one method, whose controls reach the model.

    `chosen` holds a number for each of NAMES, its place in its list. `start` is the (class, kind) to begin with, by
    default the first test image; the rest begins at noise seed `seed`, the working point and the last method.
    `prediction` is what the model says of the present choice.
    """

    chosen = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        model: TimeNet,
        index: FolderIndex,
        start: tuple[str, str] | None = None,
        seed: int = 0,
        ts: Sequence[Number] = T_VALUES,
    ) -> None:
        samples = {name: [s for s in index.test if s.class_name == name] for name in index.classes}
        self._model, self._samples = model, {name: each for name, each in samples.items() if each}
        self._seeds, self._ts = range(seed, seed + SEEDS), sorted({*ts, model.preset.t})
        first = [*self._place(start), 0, self._ts.index(model.preset.t), len(model.methods) - 1]
        alt = (
            "For one test image, one noise seed, one t and one method, each chosen by a control: the image, the noised "
            "image, the reconstruction, the T map, the score map and the contour of what is found."
        )
        super().__init__(self._predict(first), [self._ts[first[3]]], "t", alt=alt)
        self.content = self.content | {"controls": self._controls(first[0])}
        self.chosen = first
        self.observe(self._follow, "chosen")

    def page(self, title: str) -> NoReturn:
        """Refuse: a page has no kernel."""
        raise InputError("live exploration needs a kernel, so it makes no page: export a viewer that holds its frames")

    def _place(self, start: tuple[str, str] | None) -> tuple[int, int]:
        """Find a class, and the first image of a kind of it, in their lists."""
        for k, samples in enumerate(self._samples.values()):
            for i, sample in enumerate(samples):
                if start in (None, (sample.class_name, sample.kind)):
                    return k, i
        raise InputError(f"no test image of (class, kind) {start}: the classes are {', '.join(self._samples)}")

    def _options(self, class_number: int) -> list[list[str]]:
        classes = list(self._samples)
        images = image_names(self._samples[classes[class_number]])
        methods = [LABELS[method] for method in self._model.methods]
        return [classes, images, [str(seed) for seed in self._seeds], [f"{t:.2f}" for t in self._ts], methods]

    def _controls(self, class_number: int) -> list[dict[str, Any]]:
        named = zip(NAMES, self._options(class_number), strict=True)
        return [{"label": name, "options": each, "slider": name in ("noise seed", "t")} for name, each in named]

    @traitlets.validate("chosen")
    def _inside(self, proposal: Any) -> list[int]:
        """Refuse what is in no list; an image beyond the last of the class becomes that last one.

        So it comes from the page when the class is changed and, before the answer is there, something else too.
        """
        chosen = list(proposal["value"])
        if len(chosen) != len(NAMES):
            raise InputError(f"{len(chosen)} numbers, but there are {len(NAMES)} to choose: {', '.join(NAMES)}")
        options = self._options(chosen[0] if 0 <= chosen[0] < len(self._samples) else 0)
        chosen[1] = min(chosen[1], len(options[1]) - 1)
        for name, place, each in zip(NAMES, chosen, options, strict=True):
            if not 0 <= place < len(each):
                raise InputError(f"no {name} at place {place}: the places are 0 to {len(each) - 1}")
        return chosen

    def _follow(self, _: Any) -> None:
        panels = self._predict(self.chosen)
        now = {"steps": [f"{self._ts[self.chosen[3]]:.2f}"], "controls": self._controls(self.chosen[0])}
        self.content = self.content | self._encoded({"": panels}) | now

    def _predict(self, chosen: Sequence[int]) -> list[Panel]:
        """Ask the model, keep its prediction, and show it."""
        name = list(self._samples)[chosen[0]]
        example = load_example(self._samples[name][chosen[1]], self._model.preset.image_size)
        seed, t, method = self._seeds[chosen[2]], self._ts[chosen[3]], self._model.methods[chosen[4]]
        x1 = example.x1[None]
        self.prediction = p = self._model.predict(x1, name, method, t=t, seed=seed)
        assert p.mask is not None
        xt, found = interpolate(image_noise(x1, seed), x1, full_t(t, x1)), p.mask[0].numpy()
        *t_map, score = map_panels([p], 0, [decision(float(p.image_score[0]), p.threshold)])
        if p.timestep_map is None:
            t_map = [Panel("T map", np.full((*found.shape, 3), 230, np.uint8), "only TimeNet has one", readouts=[""])]
        else:
            t_map = [replace(t_map[0], readouts=[f"mean {float(p.timestep_map.mean()):.2f}"])]
        contour, says = outline(to_display(example.x1), found, FOUND, scale=3), rates(found, example.mask.numpy())
        return [
            Panel("input", example.outlined, readouts=[example.name], caption="true defect outlined"),
            Panel("noised", to_display(xt[0]), readouts=[f"t = {t:.2f}"]),
            Panel("rebuilt", to_display(p.reconstruction[0]), readouts=[LABELS[method]], colour=COLOURS[method]),
            *t_map,
            score,
            Panel("found", contour, "above the pixel threshold", readouts=[says]),
        ]

    def _state(self) -> str:
        options = self._options(self.chosen[0])
        words = [each[place] for each, place in zip(options, self.chosen, strict=True)]
        return "{}, {}, noise seed {}, t = {}, {}   (controls, where the notebook runs)".format(*words)


def image_names(samples: Sequence[Sample]) -> list[str]:
    """Name each image: its kind, and its number within the kind."""
    kinds = [s.kind.replace("_", " ") for s in samples]
    return [f"{kind} {kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]
