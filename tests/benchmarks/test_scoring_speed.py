"""How long a score map with its image score takes beside DDAD's heat map: same features, same size."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur_image

from timenet_lib.pooling import image_score
from timenet_lib.score import Ratios, Scoring, distances, score_map

# the levels that the paper takes of WideResNet101 at 256 px
SHAPES = ((256, 64), (512, 32), (1024, 16))
BATCH, SIZE, ROUNDS = 4, 256, 15


def patchify(feature):
    """Average each feature vector with its neighbours as DDAD does: unfold 3 x 3 patches, then take their mean."""
    b, c, h, w = feature.shape
    patches = F.unfold(feature, 3, padding=1).reshape(b, c, 9, h * w)
    return patches.mean(dim=2).reshape(b, c, h, w)


def heat_map_of_ddad(features, x1, x1_hat, v=7.0):
    """DDAD's heat map as published: 3 x 3 patches, cosine, pixels scaled to the features' maximum, Gaussian."""
    feature_distance = torch.zeros(len(x1), SIZE, SIZE)
    for a, b in zip(features(x1), features(x1_hat), strict=True):
        level = 1 - F.cosine_similarity(patchify(a), patchify(b), dim=1)
        feature_distance += F.interpolate(level[:, None], size=(SIZE, SIZE), mode="bilinear")[:, 0]
    pixel_distance = (x1 - x1_hat).abs().mean(dim=1)
    total = feature_distance + v * feature_distance.max() / pixel_distance.max() * pixel_distance
    return gaussian_blur_image(total[:, None], [33, 33], [4.0, 4.0])[:, 0]


def seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure():
    """The best seconds of a score with its map, and of DDAD's heat map; other work can only add to them."""
    g = torch.Generator().manual_seed(0)
    x1, x1_hat = torch.rand(2, BATCH, 3, SIZE, SIZE, generator=g) * 2 - 1
    made = {id(x): [torch.rand(BATCH, c, n, n, generator=g) for c, n in SHAPES] for x in (x1, x1_hat)}
    features = lambda x: made[id(x)]  # noqa: E731
    ratios = Ratios((0.1, 0.1, 0.1), 0.1)
    pairs = []
    for _ in range(ROUNDS):
        a = seconds(lambda: image_score(score_map(distances(features, x1, x1_hat), Scoring(), ratios)))
        b = seconds(lambda: heat_map_of_ddad(features, x1, x1_hat))
        pairs.append((a, b))
    return map(min, zip(*pairs, strict=True))


@pytest.mark.timed
def test_a_score_takes_at_most_015_of_the_time_of_ddads_heat_map(record_property):
    """In its own process: where the allocator keeps its memory, DDAD's is faster and the ratio 0.51."""
    code = "from test_scoring_speed import measure; print(*measure())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    ours, theirs = map(float, done.stdout.split())
    record_property("ratio", ours / theirs)
    print(f"score {1000 * ours / BATCH:.1f} ms an image, DDAD's heat map {1000 * theirs / BATCH:.1f} ms")
    assert ours <= 0.15 * theirs
