"""What follows formula (5): the smoothing of a score map, and the pooling that turns it into an image score."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

POOL, ROUNDS = 8, 8  # eight rounds of average pooling with kernel 8, meant for 256 px
POOL_SIGMA = (ROUNDS * (POOL**2 - 1) / 12) ** 0.5  # 6.48 px: the width of all eight together
POOL_REACH = ROUNDS * (POOL - 1) // 2  # 28 px: no pooled value is centred closer to a border


def smooth(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Smooth with a Gaussian of sigma pixels, cut off at four sigma, borders mirrored."""
    reach = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    if reach < 1:
        return maps
    x = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.softmax(-0.5 * (x / sigma).square(), dim=0)
    return blur(F.pad(maps[:, None], [reach] * 4, mode="reflect")[:, 0], kernel)


def blur(maps: Float[Tensor, "b h w"], kernel: Float[Tensor, " k"]) -> Float[Tensor, "b _ _"]:
    """Convolve with kernel along rows, then along columns; the margin where it does not fit drops out."""
    return F.conv2d(F.conv2d(maps[:, None], kernel[None, None, None, :]), kernel[None, None, :, None])[:, 0]


def pool_kernel(maps: Tensor) -> Float[Tensor, " k"]:
    """Compute what all rounds of average pooling do along one axis: a box convolved with itself, 57 taps."""
    kernel = box = torch.full((POOL,), 1 / POOL, dtype=maps.dtype, device=maps.device)
    for _ in range(ROUNDS - 1):
        kernel = F.conv1d(kernel[None, None], box[None, None], padding=POOL - 1)[0, 0]
    return kernel


def image_score(maps: Float[Tensor, "b h w"], padded: bool = False) -> Float[Tensor, " b"]:
    """Take the maximum of the map after eight rounds of average pooling (kernel 8, stride 1, no padding).

    Paper: section 3.1.3, read as in DiAD's code. At 256 px these are the eight poolings, in one pass along each axis.
    At other sizes a kernel of 8 scaled down would do nothing, so it is one Gaussian of the same width, the same margin
    left out: a pixel 10 px from the border of 256 counts 2 % of a central one. With padded the map is mirrored first,
    and every pixel counts.
    """
    size = min(maps.shape[-2:])
    margin = round(POOL_REACH * size / 256)
    if padded and margin:
        maps = F.pad(maps[:, None], [margin] * 4, mode="reflect")[:, 0]
    if size == 256:
        pooled = blur(maps, pool_kernel(maps))
    else:
        pooled = smooth(maps, POOL_SIGMA * size / 256)
        pooled = pooled[:, margin : pooled.shape[1] - margin, margin : pooled.shape[2] - margin]
    return pooled.flatten(1).amax(dim=1)
