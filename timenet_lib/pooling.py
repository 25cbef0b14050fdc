"""What follows formula (5): the smoothing of a score map, and the pooling that turns it into an image score."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

POOL, ROUNDS = 8, 8  # eight rounds of average pooling with kernel 8, meant for 256 px
POOL_SIGMA = (ROUNDS * (POOL**2 - 1) / 12) ** 0.5  # 6.48 px: the width of all eight together
POOL_REACH = ROUNDS * (POOL - 1) // 2  # 28 px: no pooled value is centred closer to a border


def smooth(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Smooth with a Gaussian of sigma pixels, cut off at four sigma, borders mirrored: rows first, then columns."""
    reach = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    if reach < 1:
        return maps
    x = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.softmax(-0.5 * (x / sigma).square(), dim=0)
    padded = F.pad(maps[:, None], [reach] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None, :]), kernel[None, None, :, None])[:, 0]


def image_score(maps: Float[Tensor, "b h w"], padded: bool = False) -> Float[Tensor, " b"]:
    """Take the maximum of the map after eight rounds of average pooling (kernel 8, stride 1, no padding).

    Paper: section 3.1.3, read as in DiAD's code. At 256 px these are the eight poolings. At other sizes a kernel of 8
    scaled down would do nothing, so it is one Gaussian of the same width, the same margin left out: a pixel 10 px
    from the border of 256 counts 2 % of a central one. With padded the map is mirrored first, and every pixel counts.
    """
    size = min(maps.shape[-2:])
    margin = round(POOL_REACH * size / 256)
    if padded and margin:
        maps = F.pad(maps[:, None], [margin] * 4, mode="reflect")[:, 0]
    if size == 256:
        pooled = maps[:, None]
        for _ in range(ROUNDS):
            pooled = F.avg_pool2d(pooled, POOL, stride=1)
    else:
        pooled = smooth(maps, POOL_SIGMA * size / 256)
        pooled = pooled[:, margin : pooled.shape[1] - margin, margin : pooled.shape[2] - margin]
    return pooled.flatten(1).amax(dim=1)
