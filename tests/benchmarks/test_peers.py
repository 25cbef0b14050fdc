import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from timenet_lib.data.drawn import write_drawn
from timenet_lib.data.folder import index_folder
from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import TimeNet
from timenet_lib.engine.stages import Run, seeded
from timenet_lib.errors import InputError, WeightsError
from timenet_lib.evidence import peers
from timenet_lib.evidence.benchmark import DDIM_TS, METHODS, SAYS, Rivals, format_benchmark, run_benchmark
from timenet_lib.evidence.experiment import scored
from timenet_lib.evidence.peers import draem_network
from timenet_lib.evidence.testset import KEYS, TestSet, metrics
from timenet_lib.features import build_extractor
from timenet_lib.models import Models
from timenet_lib.path import as_float
from timenet_lib.presets import CI
from timenet_lib.synthesis import Synthesiser
from timenet_lib.unet import UNet
from timenet_lib.weights import load_stage, read_record

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
X1 = IMAGES[:2].float() / 127.5 - 1


class Oracle(torch.nn.Module):
    """The velocity of diffusion for images that are known; keeps the timesteps at which it was asked."""

    def forward(self, x, t, c):
        k = ((1 - t) * (peers.DIFFUSION_STEPS - 1)).round().long()
        self.asked.append(int(k[0]))
        a = self.scheduler.alphas_cumprod[k].sqrt()[:, None, None, None]
        s = (1 - a**2).sqrt()
        return (a * (x - a * X1) / s) - s * X1


def test_ddim_with_the_true_velocity_gives_the_image_back():
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[peers]'")
    net = Oracle()
    net.scheduler = peers.diffusion_scheduler()
    for t in (0.5, 0.83, 0.95):
        net.asked = []
        x1_hat = peers.ddim_reconstruct(net, X1, torch.zeros(2, dtype=torch.long), t=t)
        assert torch.allclose(x1_hat, X1, atol=1e-3)
        stride = peers.stride_for(net.scheduler, t, 10)
        assert net.asked == [stride * i - 1 for i in range(10, 0, -1)]
        kept = net.scheduler.alphas_cumprod[net.asked[0]]
        assert abs(kept.sqrt() / (kept.sqrt() + (1 - kept).sqrt()) - t) < 0.01
    assert peers.stride_for(net.scheduler, 0.6, 10) > peers.stride_for(net.scheduler, 0.83, 10)


def test_the_diffusion_loss_does_not_depend_on_the_batch():
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[peers]'")
    net, draw = UNet(CI.unet_config(2)), partial(peers.diffused, IMAGES, torch.arange(6) % 2, step=3, seed=0)
    with torch.no_grad():
        both, one = (peers.diffusion_loss(net, draw(samples=some)) for some in (range(4), range(2, 3)))
    assert torch.allclose(both[2], one[0], rtol=1e-4)


def test_patchcore_finds_what_it_has_not_seen_and_repeats_itself():
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")
    features = build_extractor("embedded", "random", CI.levels)
    model = TimeNet(CI, ("a", "b"), Models(UNet(CI.unet_config(2))), features=features)
    flat = torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)
    test = flat[:2].clone()
    test[1, :, 8:16, 8:16] = 255
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    c = torch.zeros(2, dtype=torch.long)
    found = peers.patchcore(model, flat)(test, c, 1)
    scores, maps = found.scores, found.maps
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert scores.shape == (2,)
    assert maps.shape == (2, 32, 32)
    assert scores[1] > 10 * scores[0]
    assert maps[1, 12, 12] > maps[1, 28, 28]
    assert not features.training
    first = peers.patchcore(model, IMAGES)(test, c, 1)
    np.random.random(5)  # noqa: NPY002
    torch.rand(5)  # both global generators have moved on
    again = peers.patchcore(model, IMAGES)(test, c, 1)
    assert torch.equal(first.scores, again.scores)


def both_libraries():
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[peers]'")
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")


@pytest.fixture(scope="module")
def textures():
    return drawn_textures(32, 6)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    return index_folder(write_drawn(folder, size=32, train=22, good=3, defective=4, classes=("button", "die")))


@pytest.fixture(scope="module")
def make_run(index, textures):
    data = load_training_set(index, 32)
    return lambda out, **options: Run(
        out=out, preset=CI, data=data, **{"textures": textures, "progress": False, "steps": 2, **options}
    )


@pytest.fixture(scope="module")
def narrow():
    """DRAEM with an eighth of its channels, for the sake of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "draem_network", partial(draem_network, 8))
        yield


@pytest.fixture(scope="module")
def trained(make_run, narrow, tmp_path_factory):
    both_libraries()
    out = tmp_path_factory.mktemp("peers")
    peers.train_peers(make_run(out))
    return out


@pytest.fixture(scope="module")
def model(index):
    flow = UNet(CI.unet_config(2))
    return TimeNet(CI, index.classes, Models(flow), features=build_extractor("embedded", "random", CI.levels))


@pytest.fixture(scope="module")
def tests(index, model):
    return TestSet.load(index, model)


@pytest.fixture
def rivals(index, model, trained):
    return Rivals(model, index, trained)


def test_warnings_are_kept_from_the_reader_inside_only():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with peers.quiet_libraries():
            warnings.warn("theirs", stacklevel=1)
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", stacklevel=1)


def test_trained_peers_come_back_frozen_as_they_were_left(trained, make_run, tmp_path):
    diffusion, draem = peers.load_diffusion(trained), peers.load_draem(trained)
    for name, net in (("diffusion", diffusion), ("draem", draem)):
        record = read_record(trained, name)
        assert (record["training"]["steps"], record["classes"], record["parents"]) == (2, ["button", "die"], {})
        state, _ = load_stage(trained, name)
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
    assert diffusion.config == CI.unet_config(2)
    start = seeded(lambda: UNet(diffusion.config), 0, "diffusion")
    assert not torch.equal(diffusion.backbone.head[2].weight, start.backbone.head[2].weight)  # it has learnt
    again = tmp_path / "again"
    peers.train_peers(make_run(again))
    for name in ("diffusion", "draem"):
        assert (again / f"{name}.safetensors").read_bytes() == (trained / f"{name}.safetensors").read_bytes()
    before = {p.name: p.stat().st_mtime_ns for p in again.glob("*.safetensors")}
    assert len(before) == 2
    peers.train_peers(make_run(again, resume=True))
    assert {p.name: p.stat().st_mtime_ns for p in again.glob("*.safetensors")} == before
    with pytest.raises(InputError, match="already holds diffusion"):
        peers.train_peers(make_run(again))


def test_the_budgets_are_those_of_both_flows(make_run, monkeypatch, tmp_path, narrow):
    both_libraries()
    asked = {}

    def train(self, stage, module, loss, *, draw, steps, rate):
        asked[stage] = (steps, rate)

    monkeypatch.setattr(Run, "train", train)
    peers.train_peers(make_run(tmp_path, steps=None))
    steps = CI.flow_steps + CI.reflow_steps
    assert asked == {"diffusion": (steps, CI.learning_rate), "draem": (steps, 1e-3)}


def test_draem_is_not_trained_without_textures(make_run, tmp_path):
    both_libraries()
    with pytest.raises(InputError, match="draem needs textures"):
        peers.train_draem(make_run(tmp_path, textures=None))


def test_draem_has_a_sixteenth_of_anomalibs_weights_at_a_quarter_of_its_width():
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")
    with torch.device("meta"):
        own, theirs = draem_network(), draem_network(128)
        usual = peers.peer("anomalib.models.image.draem.torch_model").DraemModel()
    sizes = [sum(p.numel() for p in net.parameters()) for net in (own, theirs, usual)]
    assert sizes[1] == sizes[2]
    assert sizes[0] == pytest.approx(sizes[2] / 16, rel=0.01)


def test_draems_loss_wants_the_clean_image_and_the_mask(textures):
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")
    synthesiser = Synthesiser(IMAGES, torch.arange(6) % 2, textures, anomalous_share=1.0, seed=0)
    x_a, x1, masks, _ = synthesiser.batch(3, range(4))
    assert masks.any()

    class Known(torch.nn.Module):
        """Gives what it was told to; keeps what it was asked."""

        def __init__(self, rebuilt, mask):
            super().__init__()
            self.unused, self.rebuilt, self.mask = torch.nn.Parameter(torch.zeros(1)), rebuilt, mask

        def forward(self, x):
            self.asked = x
            return self.rebuilt, 30 * torch.stack([1.0 - 2 * self.mask.float(), 2 * self.mask.float() - 1], dim=1)

    def loss(rebuilt, mask):
        net = Known(rebuilt, mask)
        values = peers.draem_loss(net, synthesiser.batch(3, range(4)))
        assert torch.allclose(net.asked, (x_a + 1) / 2)
        assert 0 <= net.asked.min() < 0.2 < 0.8 < net.asked.max() <= 1
        assert len(values) == 4
        assert len(set(values.tolist())) == 1
        return float(values[0])

    perfect = loss((x1 + 1) / 2, masks)
    assert perfect == pytest.approx(0, abs=1e-4)
    assert loss((x_a + 1) / 2, masks) > perfect + 0.01
    assert loss((x1 + 1) / 2, ~masks) > perfect + 1


def test_draem_scores_an_image_by_the_maximum_of_its_map_whatever_stands_beside_it():
    pytest.importorskip("anomalib", reason="anomalib is not installed: pip install -e '.[peers]'")
    net = seeded(lambda: draem_network(8), 0, "test").train()
    images = IMAGES.repeat(6, 1, 1, 1)  # more than one batch
    maps, scores, _ = peers.draem_scores(net, images)
    assert maps.shape == (36, 32, 32)
    assert torch.equal(scores, maps.amax(dim=(1, 2)))
    assert 0 <= maps.min() < maps.max() <= 1
    assert torch.allclose(maps[30:], maps[:6], atol=1e-5)
    alone = peers.draem_scores(net, images[4:5]).scores
    assert torch.allclose(alone, scores[4:5], atol=1e-5)
    rebuilt = net.reconstructive_subnetwork((as_float(images[:1]) + 1) / 2)  # images go in as [0, 1]
    both = torch.cat([(as_float(images[:1]) + 1) / 2, rebuilt], dim=1)
    assert torch.allclose(maps[:1], net.discriminative_subnetwork(both).softmax(dim=1)[:, 1], atol=1e-5)


def test_ddim_is_rebuilt_from_its_best_level_on_validation(model, tests, rivals, index, trained):
    net, v = peers.load_diffusion(trained), rivals.held_out

    def by_hand(images, c, t, seed):
        x1 = as_float(images)
        return scored(model, [model.distances(x1, peers.ddim_reconstruct(net, x1, c, t=t, seed=seed))])

    found = METHODS["ddim"](rivals)(tests.images, tests.c, 2)
    chosen = found.about["chosen"]["ddim"]
    assert torch.allclose(found.maps, by_hand(tests.images, tests.c, chosen["best_t"], seed=2).maps)
    assert list(chosen["i_auroc"]) == [str(t) for t in DDIM_TS]
    assert chosen["i_auroc"][str(chosen["best_t"])] == max(chosen["i_auroc"].values())
    for t in DDIM_TS[1:3]:
        expected = metrics(v, by_hand(v.images, v.c, t, seed=0), pixels=False)["mean"]["i_auroc"]
        assert chosen["i_auroc"][str(t)] == pytest.approx(expected)
    other = Rivals(model, index, trained)
    METHODS["ddim"](other)(255 - tests.images.flip(2), tests.c, 2)
    assert other.chosen == rivals.chosen  # no test image takes part


def test_the_peers_take_part_in_the_benchmark(model, tests, rivals, trained):
    names = ("ddim", "patchcore", "draem")
    results, again = (run_benchmark(tests, rivals, methods=names, seeds=(0, 1), draws=10) for _ in range(2))
    assert results == again
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    rows = results["methods"]
    assert {name: len(row["seeds"]["pro"]) for name, row in rows.items()} == {"ddim": 2, "patchcore": 1, "draem": 1}
    assert rows["ddim"]["seeds"]["pro"][0] != rows["ddim"]["seeds"]["pro"][1]
    found = {
        "draem": peers.draem_scores(peers.load_draem(trained), tests.images),
        "patchcore": peers.patchcore(model, rivals.known.images)(tests.images, tests.c, 0),
    }
    for name, each in found.items():
        mean = metrics(tests, each)["mean"]
        assert {key: values[0] for key, values in rows[name]["seeds"].items()} == {key: mean[key] for key in KEYS}
    text = format_benchmark(results)
    assert all(SAYS[name] in text for name in names)


def test_a_folder_without_peers_says_what_is_missing(model, tests, index, tmp_path):
    rivals = Rivals(model, index, tmp_path)
    for name, stage in (("ddim", "diffusion"), ("draem", "draem")):
        with pytest.raises(WeightsError, match=f"holds no record {stage}.json"):
            METHODS[name](rivals)(tests.images, tests.c, 0)


def test_a_missing_library_is_said_with_its_cure():
    with pytest.raises(InputError, match=r"nowhere is not installed: pip install '.\[peers\]'"):
        peers.peer("nowhere.at_all")


def test_the_networks_t_is_1_at_the_image():
    assert peers.as_t(torch.tensor([0, 999])).tolist() == [1.0, 0.0]
