"""TimeNet as one ONNX file: the whole path from an image and its noise to the score, for runtimes without torch.

The graph is traced from the library's own functions, so it holds what predict computes in its calibrated scope.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from timenet_lib.console import needed
from timenet_lib.data.images import Picture
from timenet_lib.detector import TimeNet
from timenet_lib.errors import WeightsError
from timenet_lib.files import user_path, write_atomically
from timenet_lib.keyed import image_noise
from timenet_lib.path import interpolate
from timenet_lib.pooling import image_score
from timenet_lib.score import distances, score_map
from timenet_lib.solvers import full_t
from timenet_lib.tpn import TPN, SteeredFlow
from timenet_lib.unet import UNet

INPUTS = ("image", "noise", "class")
OPSET = 20
SMALL = 64  # tensors of up to so many numbers stay as they are: halving them saves nothing
TOLERANCE = 1e-3  # between onnxruntime and torch, in each output's own unit
LICENSE = "code: MIT; weights: MIT for those shipped with timenet_lib, for others ask who trained them"


class ExportedPath(nn.Module):
    """One step of a calibrated model from its working point, and the score, as a function of image, noise and class.

    Paper: eq. (3), eq. (5). It is computed on copies of the networks that check nothing: a graph holds no values.
    """

    def __init__(self, model: TimeNet, method: str):
        super().__init__()
        known = model.calibrated(method)
        self.t, self.scoring, self.ratios = model.preset.t, known.scoring, known.ratios
        self.v, self.features = (copy.deepcopy(net).cpu() for net in (model.models.velocity(method), model.features))
        for net in self.v.modules():
            if isinstance(net, UNet | TPN):
                net.checked = False

    def outputs(self) -> tuple[str, ...]:
        t_map = ("timestep_map",) if isinstance(self.v, SteeredFlow) else ()
        return ("reconstruction", *t_map, "score_map", "image_score")

    def forward(
        self, image: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b 3 h w"], c: Int[Tensor, " b"]
    ) -> tuple[Tensor, ...]:
        """Compute reconstruction, T map (if there is a TPN), score map and image score."""
        ts = full_t(self.t, image)
        xt = interpolate(noise, image, ts)
        t_maps: list[Tensor] = []
        self.v.on_map = t_maps.append  # type: ignore[assignment]  # only a SteeredFlow calls it
        x1_hat = (xt + (1 - self.t) * self.v(xt, ts, c)).clamp(-1, 1)
        maps = score_map(distances(self.features, image, x1_hat, pixel=self.scoring.pixel), self.scoring, self.ratios)
        return (x1_hat, *t_maps, maps, image_score(maps, self.scoring.padded))


def export_onnx(model: TimeNet, path: str | Path, method: str | None = None) -> Path:
    """Write a calibrated model's method, by default its last, as one ONNX file, and return its path.

    Inputs: `image` and `noise` (b, 3, h, w) float32, the image in [-1, 1], the noise from N(0, I); `class` (b) int64,
    the place in the list of classes. Outputs: `reconstruction` in [-1, 1], `timestep_map` (timenet only), `score_map`
    and `image_score`, as predict gives them. The file's metadata say classes, image size, method, t, thresholds and the
    SHA-256 of the weights. Weights that half precision holds exactly are stored so; the computation is float32.
    """
    method, path = method or model.methods[-1], user_path(path)
    net = ExportedPath(model, method).eval()
    onnx = needed("onnx", extra="onnx")
    needed("onnxscript", extra="onnx")
    proto = trace(net, model.preset.image_size)
    forget_origin(proto)
    store_as_half(proto)
    proto.producer_name, proto.domain = "timenet_lib", "timenet_lib"
    onnx.helper.set_model_props(proto, metadata(model, method))
    write_atomically(path, proto.SerializeToString(deterministic=True))
    return path


@torch.no_grad()
def trace(net: ExportedPath, size: int) -> Any:
    """Trace a network into an ONNX model that takes images of this size, in batches of any length."""
    example = (torch.zeros(2, 3, size, size), torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.long))
    batch = {0: torch.export.Dim("batch")}
    with WrittenOut():
        program = torch.export.export(net, example, dynamic_shapes=(batch, batch, batch))
    made = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=INPUTS, output_names=net.outputs(), verbose=False
    )
    assert made is not None
    return made.model_proto


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q kᵀ / √d) v."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


class WrittenOut(TorchFunctionMode):
    """Put attention in the place of the fused operation, which the exporter knows for four dimensions only."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return (attention if function is F.scaled_dot_product_attention else function)(*args, **(kwargs or {}))


def forget_origin(proto: Any) -> None:
    """Remove the exporter's notes on each node, which hold paths of this machine, and name the batch axis, in place."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def store_as_half(proto: Any) -> None:
    """Store every larger float32 constant that float16 holds exactly as such, with a cast back, in place."""
    onnx = needed("onnx", extra="onnx")
    casts = []
    for tensor in proto.graph.initializer:
        name, value = tensor.name, onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if value.dtype == np.float32 and value.size > SMALL and np.array_equal(half.astype(np.float32), value):
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def metadata(model: TimeNet, method: str) -> dict[str, str]:
    """Describe the model in the file's metadata; values that are not plain words are JSON."""
    known = model.calibrated(method)
    stages = {"flow_0": ("flow_0",), "flow_1": ("flow_1",), "timenet": ("flow_1", "tpn")}[method]
    hashes = {name: model.hashes.get(name) for name in stages} | {"extractor": model.extractor.get("sha256")}
    return {
        "classes": json.dumps(model.classes),
        "image_size": str(model.preset.image_size),
        "method": method,
        "t": str(model.preset.t),
        "threshold": str(known.threshold),
        "pixel_threshold": str(known.pixel_threshold),
        "sha256": json.dumps(hashes),
        "license": LICENSE,
    }


def check_onnx(
    model: TimeNet,
    path: str | Path,
    images: Picture | Iterable[Picture] | None = None,
    classes: str | Sequence[str] | None = None,
) -> dict[str, float]:
    """Compare a file, run by onnxruntime, with predict on some images; return each output's largest difference.

    Without images a random one of each class is taken, and classes play no part: the networks have to agree on those.
    Raises WeightsError for a file of other weights, and for differences above 1e-3.
    """
    runtime, path = needed("onnxruntime", extra="onnx"), user_path(path)
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common kind
        raise WeightsError(f"{path} cannot be read as ONNX: {error}") from error
    said = session.get_modelmeta().custom_metadata_map
    method = said.get("method", "")
    if method not in model.methods or said != metadata(model, method):
        raise WeightsError(f"{path} was not exported from this model: its metadata differ; export it again")
    if images is None:
        size, g = model.preset.image_size, torch.Generator().manual_seed(0)
        images, classes = torch.rand(len(model.classes), 3, size, size, generator=g) * 2 - 1, model.classes
    x1 = model.images(images)
    names = model.names(x1, classes)
    fed = (x1, image_noise(x1, seed=0), model.labels(names))
    results = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, fed, strict=True)})
    got = {output.name: value for output, value in zip(session.get_outputs(), results, strict=True)}
    wanted = model.predict(x1, names, method)._asdict()
    found = {name: float(np.abs(value - wanted[name].numpy()).max()) for name, value in got.items()}
    worst = max(found, key=found.__getitem__)
    if not found[worst] <= TOLERANCE:
        raise WeightsError(f"{path}: {worst} differs by {found[worst]:.2g} from torch's, {TOLERANCE} is allowed")
    return found
