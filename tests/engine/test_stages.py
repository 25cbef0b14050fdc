"""The whole chain at preset ci: flow_0, reflow, TPN, calibration, detector, evaluation."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from timenet_lib.data.textures import drawn_textures
from timenet_lib.data.training_set import load_training_set
from timenet_lib.detector import TimeNet
from timenet_lib.engine import stages
from timenet_lib.engine.stages import Run, reflow, train_all, train_flow_0, train_tpn
from timenet_lib.errors import DataError, InputError, WeightsError
from timenet_lib.models import load_network
from timenet_lib.presets import CI
from timenet_lib.train import independent_pairs, repairs
from timenet_lib.weights import load_stage, read_record, save_stage

STAGES = ("flow_0", "flow_1", "tpn")


@pytest.fixture(scope="module")
def data(drawn_ci):
    return load_training_set(drawn_ci, CI.image_size)


@pytest.fixture(scope="module")
def make_run(data):
    textures = drawn_textures(CI.image_size, 12)
    return lambda out, **options: Run(out=out, preset=CI, data=data, textures=textures, progress=False, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_run):
    out = tmp_path_factory.mktemp("trained")
    train_all(make_run(out))
    return out


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def weights(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}


def test_the_stages_lie_in_their_files_with_records_that_name_their_parents(trained):
    records = {name: read_record(trained, name) for name in STAGES}
    assert records["flow_1"]["parents"] == {"flow_0": records["flow_0"]["sha256"]}
    assert records["tpn"]["parents"] == {"flow_1": records["flow_1"]["sha256"]}
    assert records["flow_0"]["training"]["steps"] == CI.flow_steps
    assert records["flow_1"]["couplings"]["count"] == CI.num_couplings
    assert records["flow_0"]["preset"]["name"] == "ci"
    by_t = [records[name]["training"]["loss_by_t"] for name in STAGES]
    assert list(map(len, by_t)) == [10, 10, 10]
    assert by_t[2][:5] == [None] * 5  # the TPN is trained on t from 0.5 on
    losses = records["flow_0"]["training"]["loss"]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_reflow_goes_on_to_any_k(copy, make_run):
    before = weights(copy)
    reflow(make_run(copy), k=2)
    record = read_record(copy, "flow_2")
    assert record["parents"] == {"flow_1": read_record(copy, "flow_1")["sha256"]}
    assert record["couplings"]["k"] == 2
    assert record["couplings"]["flow_sha256"] == record["parents"]["flow_1"]
    assert load_network(copy, "flow_2")[0].config == load_network(copy, "flow_1")[0].config
    assert before.items() <= weights(copy).items()


def test_no_later_stage_changes_an_earlier_one(copy, make_run):
    before = weights(copy)
    for name in ("flow_1", "tpn"):
        (copy / f"{name}.json").unlink()
    reflow(make_run(copy, resume=True, workers=1))
    train_tpn(make_run(copy, resume=True, workers=4))
    assert weights(copy) == before  # flow_1 and the TPN the same again, bit for bit, whoever draws their batches


def test_finished_stages_are_kept_on_resume_and_refused_without(copy, make_run):
    before = weights(copy)
    left = copy / "checkpoints" / "flow_0.safetensors"  # as by a run that was killed when flow_0 had just been written
    left.parent.mkdir()
    left.touch()
    train_all(make_run(copy, resume=True))
    assert not left.exists()
    assert weights(copy) == before
    with pytest.raises(InputError, match="already holds flow_0"):
        train_all(make_run(copy))
    with pytest.raises(InputError, match="another seed"):
        train_all(make_run(copy, resume=True, seed=1))


def test_a_training_starts_from_other_weights_with_new_class_embeddings(trained, make_run, tmp_path):
    still = replace(CI, learning_rate=0.0, tpn_learning_rate=0.0)
    options = {"preset": still, "start": trained, "steps": 2}
    train_all(replace(make_run(tmp_path), **options))
    for stage in ("flow_0", "tpn"):
        before, record = load_stage(trained, stage)
        after, made = load_stage(tmp_path, stage)
        moved = {k for k, v in after.items() if not torch.equal(v, before[k])}
        assert moved == {"classes.weight"}
        assert made["parents"]["start"] == record["sha256"]
    with pytest.raises(InputError, match=r"flow_0\.json was made with another start"):
        train_all(replace(make_run(tmp_path), **{**options, "start": None, "resume": True}))


def test_a_started_training_resumes_to_the_same_weights(trained, make_run, tmp_path, monkeypatch):
    def stopped(*args, step, **options):
        if step == 2:
            raise KeyboardInterrupt
        return independent_pairs(*args, step=step, **options)

    options = {"start": trained, "steps": 4, "workers": 0}
    train_flow_0(make_run(tmp_path / "whole", **options))
    monkeypatch.setattr(stages, "independent_pairs", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_flow_0(make_run(tmp_path / "halves", **options))
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="it was made with another start"):
        train_flow_0(make_run(tmp_path / "halves", **{**options, "start": None, "resume": True}))
    train_flow_0(make_run(tmp_path / "halves", **options, resume=True))
    assert weights(tmp_path / "halves") == weights(tmp_path / "whole")


AGAIN = "budget, 4 steps: ask for that again"
BUDGETS = [({"steps": 5}, AGAIN), ({"minutes": 1.0}, AGAIN), ({"seed": 1}, "seed")]


@pytest.mark.parametrize(("other", "words"), BUDGETS)
def test_a_resume_says_where_it_goes_on_and_refuses_another_budget(make_run, tmp_path, monkeypatch, other, words):
    def stopped(*args, step, **options):
        if step == 2:
            raise KeyboardInterrupt
        return independent_pairs(*args, step=step, **options)

    said = []
    monkeypatch.setattr(stages, "independent_pairs", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_flow_0(make_run(tmp_path, steps=4, workers=0, resume=True, say=said.append))
    monkeypatch.undo()
    with pytest.raises(WeightsError, match=f"it was made with another {words}"):
        train_flow_0(make_run(tmp_path, **{"steps": 4, "resume": True, **other}))
    train_flow_0(make_run(tmp_path, steps=4, resume=True, say=said.append))
    train_flow_0(make_run(tmp_path, steps=3, resume=True, say=said.append))
    assert said == [
        "flow_0 goes on from step 2, in float32",
        "flow_0 is finished already, in 4 steps: nothing is trained",
    ]
    with pytest.raises(InputError, match=r"flow_0\.json is finished, in 4 steps, and does not go on to 5"):
        train_flow_0(make_run(tmp_path, steps=5, resume=True))


def test_a_tpn_begun_with_other_textures_does_not_go_on(copy, make_run, monkeypatch):
    def stopped(*args, step, **options):
        if step == 1:
            raise KeyboardInterrupt
        return repairs(*args, step=step, **options)

    (copy / "tpn.json").unlink()
    run = make_run(copy, resume=True, workers=0)
    monkeypatch.setattr(stages, "repairs", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_tpn(run)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="another set of textures"):
        train_tpn(replace(run, textures=drawn_textures(CI.image_size, 11)))


def test_fewer_couplings_than_there_are_do_not_go_on(copy, make_run):
    (copy / "flow_1.json").unlink()
    with pytest.raises(DataError, match=r"000000-000031\.safetensors is of another number of couplings than 8: delete"):
        reflow(replace(make_run(copy, resume=True), preset=replace(CI, num_couplings=8)))


def test_a_run_in_the_home_lies_in_the_home(make_run):
    assert make_run(Path("~/run")).out == Path.home() / "run"


def test_each_stage_records_the_precision_it_was_trained_in(make_run, tmp_path):
    train_flow_0(make_run(tmp_path, steps=1, precision="bfloat16"))
    train_all(make_run(tmp_path, steps=1, resume=True))
    found = [read_record(tmp_path, s)["training"]["precision"] for s in STAGES]
    assert found == ["bfloat16", "float32", "float32"]


def test_a_tpn_of_another_flow_1_is_refused(copy):
    flow, record = load_network(copy, "flow_1")
    flow.backbone.stem.bias.data += 1
    save_stage(copy, "flow_1", flow, record={k: v for k, v in record.items() if k not in ("sha256", "stage")})
    with pytest.raises(WeightsError, match="another flow_1"):
        TimeNet.from_pretrained(copy)


def test_held_out_images_are_not_trained_on(data, drawn_ci):
    assert len(data.images) + len(data.held_out) == len(drawn_ci.train)
    seen = {image.numpy().tobytes() for image in data.images}
    assert not any(image.numpy().tobytes() in seen for image in data.held_out)
    assert set(data.held_out_labels.tolist()) == set(range(len(data.classes)))


def test_batches_depend_on_seed_and_step_alone(data):
    a, b = (independent_pairs(data.images, data.labels, step=3, samples=range(4), seed=0) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    longer = independent_pairs(data.images, data.labels, step=3, samples=range(6), seed=0)
    assert torch.equal(a.x0, longer.x0[:4])
    assert not torch.equal(a.x0, independent_pairs(data.images, data.labels, step=4, samples=range(4), seed=0).x0)


@pytest.fixture(scope="module")
def model(trained, data):
    model = TimeNet.from_pretrained(trained)
    names = [data.classes[i] for i in data.held_out_labels]
    model.calibrate(data.held_out.float() / 127.5 - 1, names, textures=drawn_textures(CI.image_size, 12))
    model.save_calibration(trained)
    return TimeNet.from_pretrained(trained)


def test_calibration_comes_back_and_belongs_to_its_weights(model, copy):
    assert set(TimeNet.from_pretrained(copy).calibration) == set(model.methods)
    text = (copy / "calibration.json").read_text().replace(model.hashes["tpn"], "0" * 64)
    (copy / "calibration.json").write_text(text)
    with pytest.raises(WeightsError, match="other weights"):
        TimeNet.from_pretrained(copy)


def test_without_textures_no_tpn(copy, data):
    (copy / "tpn.json").unlink()
    with pytest.raises(InputError, match="needs textures"):
        train_tpn(replace(Run(out=copy, preset=CI, data=data), resume=True))


def test_another_tpn_goes_with_the_same_flows(copy, make_run):
    """What takes no part in a stage may differ; what does is named."""
    run = replace(make_run(copy, resume=True), preset=replace(CI, anomalous_share=0.9, lam=1.0))
    with pytest.raises(InputError, match=r"tpn\.json was made with another anomalous_share: choose another --out"):
        train_all(run)
    (copy / "tpn.json").unlink()
    before = weights(copy)
    train_all(run)
    assert [name for name, content in weights(copy).items() if content != before[name]] == ["tpn.safetensors"]
    record = read_record(copy, "tpn")
    assert record["preset"]["anomalous_share"] == 0.9
    assert record["lpips_weight"] > 0


def test_without_a_share_the_two_losses_are_added_as_the_paper_prints_them(copy, make_run):
    (copy / "tpn.json").unlink()
    train_tpn(replace(make_run(copy), preset=replace(CI, lpips_share=None, tpn_steps=2)))
    assert read_record(copy, "tpn")["lpips_weight"] == 1.0


def test_each_stage_trains_at_its_own_rate_and_reflow_at_half_of_the_flows(make_run, tmp_path, monkeypatch):
    rates, run_job = {}, stages.run_job

    def watched(*job, checkpoint, peak_rate, **options):
        rates[checkpoint.stem] = peak_rate
        return run_job(*job, checkpoint=checkpoint, peak_rate=peak_rate, **options)

    monkeypatch.setattr(stages, "run_job", watched)
    preset = replace(CI, learning_rate=4e-3, tpn_learning_rate=5e-4, num_couplings=32)
    train_all(replace(make_run(tmp_path, steps=1), preset=preset))
    assert rates == {"flow_0": 4e-3, "flow_1": 2e-3, "tpn": 5e-4}


@pytest.mark.parametrize("empty", [{"steps": 0}, {"minutes": 0.0}])
def test_an_empty_budget_is_refused_and_not_taken_for_none(make_run, tmp_path, empty):
    with pytest.raises(InputError, match=r"at least one is needed|more than 0 are needed"):
        train_flow_0(make_run(tmp_path, **empty))
