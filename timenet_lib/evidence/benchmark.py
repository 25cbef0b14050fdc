"""The benchmark: tables 1 and 2 for TimeNet, the flows, real peers and trivial baselines, over noise seeds.

Paper: section 3.3. Every method is one model of all classes, trained on the same normal images, and is measured on
the same test images; reconstructions are all scored by formula (5) with the same extractor.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from timenet_lib.data.folder import FolderIndex
from timenet_lib.data.training_set import TrainingSet, load_training_set
from timenet_lib.detector import BATCH, TimeNet, WithDefects, with_defects
from timenet_lib.errors import InputError
from timenet_lib.evidence.ablations import TestSet
from timenet_lib.evidence.evaluate import KEYS, TS, choose_t, metrics_of, metrics_of_images, percent, validation_auroc
from timenet_lib.evidence.intervals import ends
from timenet_lib.evidence.peers import ddim_reconstruct, draem_scores, patchcore
from timenet_lib.evidence.peers_training import load_diffusion, load_draem
from timenet_lib.path import as_float
from timenet_lib.pooling import image_score
from timenet_lib.scopes import score_maps
from timenet_lib.score import Distances, Scoring

DDIM_STEPS = 10
DDIM_TS = (0.6, 0.75, 0.83, 0.92)  # among which the diffusion model's best noise level is chosen
WEIGHTS = (1.0, 7.0, 15.0)  # of w and of lambda, when TimeNet is tuned a class
SAYS = {
    "class_mean": "class mean", "nearest": "nearest image", "flow_0": "flow 0", "flow_1": "flow 1",
    "flow_0_best_t": "flow 0, best t", "flow_1_best_t": "flow 1, best t", "ddim": "DDIM, 10 steps",
    "patchcore": "PatchCore", "draem": "DRAEM", "timenet": "TimeNet", "timenet_tuned": "TimeNet, tuned a class",
}  # fmt: skip
PEERS = ("ddim", "patchcore", "draem")
Scored = tuple[Float[Tensor, "n h w"], Float[Tensor, " n"] | None]  # maps, and image scores of their own
Say = Callable[[str], None]


class Contest:
    """What all methods share: test set, training set, validation images, and the peers' folder."""

    def __init__(self, index: FolderIndex, train: FolderIndex, model: TimeNet, peers: Path | None, say: Say):
        self.index, self.model, self.peers, self.say = index, model, peers, say
        self.known: TrainingSet = load_training_set(train, model.preset.image_size)
        held_out = model.labels([train.classes[i] for i in self.known.held_out_labels])
        self.validation: WithDefects = with_defects(self.known.held_out, held_out)
        self.tests = TestSet(index, model, say=say)
        self.chosen: dict[str, Any] = {}  # on validation
        self.maps: dict[str, Tensor] = {}  # the score maps of each method's first seed

    @property
    def images(self) -> UInt8[Tensor, "n 3 h w"]:
        """The test images."""
        return self.tests.images

    @property
    def c(self) -> Int[Tensor, " n"]:
        """The classes of the test images."""
        return self.tests.c

    def scored(self, x1_hat: Float[Tensor, "n 3 h w"]) -> Scored:
        """Score reconstructions of the test images by formula (5)."""
        return score_maps(self.tests.parts(x1_hat), self.model.scoring), None

    def one_step(self, method: str, t: float | None, seed: int) -> Scored:
        """Score a method of the model's own."""
        return score_maps(self.model.parts(self.images, self.c, method, t=t, seed=seed), self.model.scoring), None

    def best_t(self, method: str) -> float:
        """Return a flow's best t on validation, found once."""
        if method not in self.chosen:
            self.say(f"{method}: its best t on {len(self.validation.images)} validation images")
            self.chosen[method] = choose_t(self.validation, self.model, method)
        return self.chosen[method]["best_t"]


def class_mean(contest: Contest, seed: int) -> Scored:
    """Rebuild every image as the mean training image of its class."""
    images, labels = contest.known.images, contest.known.labels
    means = {int(k): as_float(images[labels == k]).mean(dim=0) for k in labels.unique()}
    return contest.scored(torch.stack([means[int(k)] for k in contest.c]))


def nearest(contest: Contest, seed: int) -> Scored:
    """Rebuild every image as the training image of its class that is nearest in squared error."""
    images, labels = contest.known.images, contest.known.labels
    found = []
    for x, k in zip(as_float(contest.images), contest.c, strict=True):
        own = as_float(images[labels == k])
        found.append(own[(own - x).square().flatten(1).sum(dim=1).argmin()])
    return contest.scored(torch.stack(found))


def ddim(contest: Contest, seed: int) -> Scored:
    """Rebuild every image by a diffusion model of flow_0's shape in ten DDIM steps."""
    net = load_diffusion(peers_folder(contest), contest.model.device)

    def rebuilt(images: Tensor, labels: Tensor, t: float, seed: int) -> Iterator[Tensor]:
        for x, k in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            x1, c = as_float(x).to(contest.model.device), k.to(contest.model.device)
            yield ddim_reconstruct(net, x1, c, t=t, seed=seed, num_steps=DDIM_STEPS).cpu()

    if "ddim" not in contest.chosen:
        v, found = contest.validation, {}
        for t in DDIM_TS:
            contest.say(f"ddim: validation at t = {t}")
            batches = zip(v.images.split(BATCH), rebuilt(v.images, v.c, t, 0), strict=True)
            parts = [contest.model.distances(as_float(x), x1_hat) for x, x1_hat in batches]
            maps = score_maps(parts, contest.model.scoring)
            found[str(t)] = validation_auroc(v, image_score(maps, contest.model.scoring.padded))
        contest.chosen["ddim"] = {"best_t": max(DDIM_TS, key=lambda t: found[str(t)]), "i_auroc": found}
    t = contest.chosen["ddim"]["best_t"]
    return contest.scored(torch.cat(list(rebuilt(contest.images, contest.c, t, seed))))


def peers_folder(contest: Contest) -> Path:
    """Return where the trained peers lie."""
    if contest.peers is None:
        raise InputError("the peers are not trained: give the folder of train_peers")
    return contest.peers


def anomalib_patchcore(contest: Contest, seed: int) -> Scored:
    """Score by anomalib's PatchCore with the model's extractor; the seed is that of its random projection."""
    scores, maps = patchcore(contest.model, contest.known.images, contest.images, seed)
    return maps, scores


def draem(contest: Contest, seed: int) -> Scored:
    """Score by anomalib's DRAEM, which draws nothing at random once it is trained."""
    scores, maps = draem_scores(load_draem(peers_folder(contest), contest.model.device), contest.images)
    return maps, scores


def timenet_tuned(contest: Contest, seed: int) -> Scored:
    """Score by TimeNet with t, w and lambda chosen for each class, by the mean of the three metrics on validation.

    Paper: table 1, the column of the parameters that are tuned a class.
    """
    model, c = contest.model, contest.c
    if "timenet_tuned" not in contest.chosen:
        contest.chosen["timenet_tuned"] = tune(contest)
    settings = {name: tuple(s["setting"]) for name, s in contest.chosen["timenet_tuned"].items()}
    maps = torch.zeros(len(c), *contest.images.shape[2:])
    for t in sorted({s[0] for s in settings.values()}):
        parts = model.parts(contest.images, c, "timenet", t=t, seed=seed)
        for setting in {s for s in settings.values() if s[0] == t}:
            own = torch.tensor([settings[model.classes[k]] == setting for k in c])
            maps[own] = score_maps(parts, with_weights(model.scoring, setting))[own]
    return maps, None


def with_weights(scoring: Scoring, setting: tuple[float, float, float]) -> Scoring:
    """Return the scoring with the w and lambda of a setting (t, w, lambda)."""
    return replace(scoring, w=setting[1], lam=setting[2])


def tune(contest: Contest) -> dict[str, Any]:
    """Return for each class the (t, w, lambda) of the highest mean of the three metrics on validation images."""
    v, model = contest.validation, contest.model
    best: dict[str, Any] = {}
    for t in TS:
        contest.say(f"timenet_tuned: validation at t = {t}")
        parts: list[Distances] = model.parts(v.images, v.c, "timenet", t=t)
        for w in WEIGHTS:
            for lam in WEIGHTS:
                maps = score_maps(parts, with_weights(model.scoring, (t, w, lam)))
                scores = image_score(maps, model.scoring.padded).double().numpy()
                for k, name in enumerate(model.classes):
                    own = v.c.numpy() == k
                    each = metrics_of_images(
                        scores[own], maps[own].double().numpy(), v.defective.numpy()[own], v.masks[own].numpy()
                    )
                    have = [each[key] for key in KEYS if each[key] is not None]
                    value = float(np.mean(have)) if have else 0.0  # nothing to choose by: the first setting stays
                    if name not in best or value > best[name]["value"]:
                        best[name] = {"value": value, "setting": [t, w, lam]}
    return best


METHODS: dict[str, Callable[[Contest, int], Scored]] = {
    "class_mean": class_mean,
    "nearest": nearest,
    "flow_0": lambda contest, seed: contest.one_step("flow_0", None, seed),
    "flow_1": lambda contest, seed: contest.one_step("flow_1", None, seed),
    "flow_0_best_t": lambda contest, seed: contest.one_step("flow_0", contest.best_t("flow_0"), seed),
    "flow_1_best_t": lambda contest, seed: contest.one_step("flow_1", contest.best_t("flow_1"), seed),
    "ddim": ddim,
    "patchcore": anomalib_patchcore,
    "draem": draem,
    "timenet": lambda contest, seed: contest.one_step("timenet", None, seed),
    "timenet_tuned": timenet_tuned,
}
ONE_SEED = ("class_mean", "nearest", "draem", "patchcore")  # nothing random in three; PatchCore takes minutes to fill


def run_benchmark(
    index: FolderIndex,
    train: FolderIndex,
    model: TimeNet,
    peers: Path | None = None,
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0, 1, 2),
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Return {"methods": {NAME: {"mean", "seeds", "classes", "interval", "against_timenet"}}, ...}, as fractions.

    peers: the folder of train_peers, for ddim and draem. mean and classes are means over the noise seeds, seeds each
    seed's means over classes. The intervals are of the mean over seeds, by a bootstrap over the test images;
    against_timenet is TimeNet's lead, paired. The validation images are those held out from training and synthetic
    defects on them.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"no method {unknown[0]!r}: choose of {', '.join(METHODS)}")
    return measure_all(Contest(index, train, model, peers, say), methods, seeds)


def measure_all(contest: Contest, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return what run_benchmark returns; the score maps stay in contest.maps."""
    model = contest.model
    measured = {name: measure_method(contest, name, seeds) for name in methods}
    return {
        "methods": rows_of(measured),
        "preset": model.preset.name,
        "t": model.preset.t,
        "seeds": list(seeds),
        "images": len(contest.images),
        "chosen_on_validation": contest.chosen,
        "validation_images": len(contest.validation.images),
        "weights_sha256": model.hashes,
        "extractor": model.extractor,
        "data_sha256": contest.index.hash(),
    }


def measure_method(contest: Contest, name: str, seeds: Sequence[int]) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Return a method's metrics for each noise seed, and each metric's mean over seeds in every bootstrap draw."""
    runs, drawn = [], []
    for seed in seeds[:1] if name in ONE_SEED else seeds:
        contest.say(f"{name}, seed {seed}")
        maps, own = METHODS[name](contest, seed)
        contest.maps.setdefault(name, maps)
        scores = image_score(maps, contest.model.scoring.padded) if own is None else own
        runs.append(metrics_of(contest.index, maps, maps.shape[-1], kinds_too=False, scores=scores))
        drawn.append(contest.tests.bootstrap.draws_of(scores.double().numpy(), maps.double().numpy()))
    return runs, {key: np.mean([d[key] for d in drawn], axis=0) for key in drawn[0]}


def rows_of(measured: dict[str, tuple[list[dict], dict[str, np.ndarray]]]) -> dict[str, Any]:
    """Return every method's row, with TimeNet's lead over it where TimeNet was measured too."""
    rows = {}
    for name, (runs, draws) in measured.items():
        rows[name] = over_seeds(runs) | {"interval": {key: ends(d) for key, d in draws.items()}}
    if "timenet" in measured:
        own = measured["timenet"][1]
        for name, (_, draws) in measured.items():
            rows[name]["against_timenet"] = {
                key: [rows["timenet"]["mean"][key] - rows[name]["mean"][key], *ends(own[key] - d)]
                for key, d in draws.items()
            }
    return rows


def over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over seeds, of the mean over classes and of each class, and each seed's own mean."""

    def mean(values: Sequence[float | None]) -> float | None:
        have = [v for v in values if v is not None]
        return float(np.mean(have)) if have else None

    return {
        "mean": {key: mean([r["mean"][key] for r in runs]) for key in KEYS},
        "seeds": {key: [r["mean"][key] for r in runs] for key in KEYS},
        "classes": {
            name: {key: mean([r["classes"][name][key] for r in runs]) for key in KEYS} for name in runs[0]["classes"]
        },
    }


def format_benchmark(results: dict[str, Any]) -> str:
    """Return the means with their intervals, a row a method, in percent."""
    width = max(len(SAYS[name]) for name in results["methods"])
    lines = [f"{'':<{width}}" + "".join(f"{head:>25}" for head in ("I-AUROC", "P-AUROC", "PRO"))]
    for name, row in results["methods"].items():
        cells = []
        for key in KEYS:
            low, high = row["interval"].get(key, [None, None])
            cells.append(f"{percent(row['mean'][key])} ({percent(low).strip()} to {percent(high).strip()})")
        lines.append(f"{SAYS[name]:<{width}}" + "".join(f"{cell:>25}" for cell in cells))
    return "\n".join(lines)
