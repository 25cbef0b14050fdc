"""The three stages together: loaded from a folder, and rebuilding images as flow_0, flow_1 or TimeNet."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor, nn

from timenet_lib.errors import InputError, WeightsError
from timenet_lib.files import check_name, convert, user_path
from timenet_lib.keyed import image_noise
from timenet_lib.path import interpolate
from timenet_lib.presets import Preset, preset_from_dict
from timenet_lib.solvers import euler, full_t
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.unet import UNet, UNetConfig
from timenet_lib.weights import Device, check_device, load_into, load_stage

METHODS = ("flow_0", "flow_1", "timenet")


class Models(NamedTuple):
    """The three stages; flow_1 and tpn may be missing while they are not trained yet."""

    flow_0: UNet
    flow_1: UNet | None = None
    tpn: TPN | None = None

    def methods(self) -> tuple[str, ...]:
        """Name the methods that these stages allow."""
        have = {"flow_0": True, "flow_1": self.flow_1 is not None, "timenet": None not in (self.flow_1, self.tpn)}
        return tuple(name for name in METHODS if have[name])

    def velocity(self, method: str, on_map: Callable[[Tensor], None] | None = None) -> nn.Module:
        """Get a method's velocity v(xt, t, c); on_map receives TimeNet's T at each evaluation.

        Raises InputError if these stages do not allow the method.
        """
        if method not in self.methods():
            raise InputError(f"no method {method!r}: these weights allow {', '.join(self.methods())}")
        if method != "timenet":
            return getattr(self, method)
        assert self.flow_1 is not None
        assert self.tpn is not None
        return SteeredFlow(self.flow_1, self.tpn, on_map)


class Reconstruction(NamedTuple):
    """What a method makes of an image x1: the noised xt, the rebuilt x1_hat, and the map T where there is one."""

    xt: Float[Tensor, "b 3 h w"]
    x1_hat: Float[Tensor, "b 3 h w"]
    t_map: Float[Tensor, "b h w"] | None


@torch.no_grad()
def reconstruct(
    models: Models,
    method: str,
    x1: Float[Tensor, "b 3 h w"],
    *,
    c: Int[Tensor, " b"],
    t: float,
    seed: int = 0,
    num_steps: int = 1,
) -> Reconstruction:
    """Noise x1 to xt and rebuild it in num_steps equal steps; t_map is the first step's T.

    Paper: eq. (3) for one step, eq. (2) for more, section 2.2 for TimeNet. The noise comes from (seed, image), not
    from the batch. Raises InputError for a method that these stages do not allow, a t outside [0, 1], or no steps.
    """
    maps: list[Tensor] = []
    v, ts = models.velocity(method, maps.append), full_t(t, x1)
    xt = interpolate(image_noise(x1, seed), x1, ts)
    x1_hat = euler(v, xt, ts, c, num_steps=num_steps).x1
    return Reconstruction(xt, x1_hat.clamp(-1, 1), maps[0] if maps else None)


def load_network(folder: Path, name: str, device: Device = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load a flow of a folder, or its tpn, frozen, and its record; channels last: convolutions run a third faster."""
    state, record = load_stage(folder, name)
    path = user_path(folder) / f"{name}.safetensors"
    preset, config, _ = recorded_network(record, path)
    with torch.device("meta"):  # no memory before the weights are known to fit
        net = TPN(config, preset.t) if name == "tpn" else UNet(config)
    load_into(net, state, path)
    return net.to(check_device(device)).to(memory_format=torch.channels_last).eval().requires_grad_(False), record


Classes = Annotated[tuple[str, ...], Meta(min_length=1, max_length=10_000)]


def recorded_network(record: Mapping[str, Any], path: Path) -> tuple[Preset, UNetConfig, tuple[str, ...]]:
    """Get a record's preset, the shape of its network, and its classes. Raises WeightsError if they do not fit."""
    try:
        preset, classes = preset_from_dict(record.get("preset")), convert("classes", record.get("classes"), Classes)
        for name in classes:
            check_name("a class", name)
        if len(set(classes)) < len(classes):
            raise InputError("a class is named twice")
        return preset, preset.unet_config(len(classes)), classes
    except InputError as error:
        raise WeightsError(f"the record of {path} does not fit: {error}; train with this version, or fix it") from error


def recorded_family(folder: Path, records: Mapping[str, Mapping[str, Any]]) -> tuple[Preset, tuple[str, ...]]:
    """Get the preset and the classes of the stages of a folder.

    Raises WeightsError for unlike networks or classes, and for a tpn that was trained on another flow_1.
    """
    said = {name: recorded_network(record, folder / f"{name}.safetensors") for name, record in records.items()}
    preset, *first = next(iter(said.values()))
    odd = [name for name, (_, *others) in said.items() if others != first]
    if odd:
        raise WeightsError(f"{folder} is a mixture: {odd[0]} has another network, image size or classes than flow_0")
    if "tpn" in records and records["tpn"].get("parents", {}).get("flow_1") != records["flow_1"]["sha256"]:
        raise WeightsError(f"{folder / 'tpn.safetensors'} was trained on another flow_1 than the one beside it")
    return preset, said["flow_0"][2]
