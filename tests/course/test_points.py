"""The flows on points: the exact v against brute force, training against the exact v, and what is drawn of them."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from scipy.ndimage import minimum_filter

from timenet_lib.course import points, points_figures
from timenet_lib.course.style import COLOURS
from timenet_lib.losses import flow_loss
from timenet_lib.path import interpolate
from timenet_lib.solvers import full_t, rk45
from timenet_lib.train import count_steps, train


def fit(v, draw, num_steps):
    steps = train(v, flow_loss, draw, schedule=count_steps(num_steps), peak_rate=1e-2)
    return [float(losses.mean()) for _, losses in steps]


@pytest.fixture(scope="module")
def trained():
    v = points.PointFlow(width=64)
    return v, fit(v, partial(points.independent_points, size=512, seed=0), 400)


@pytest.fixture(scope="module")
def paths():
    c = torch.arange(24) % 2
    times, path = points.trajectories(points.exact_velocity, points.noise_points(24, 0, "paths"), c, num_steps=40)
    return times, path, c


def by_brute_force(xt, t, c):
    """Return E[x1 - x0 | xt, t, c] by weighing many x1 with the density of the noise that would lead to xt."""
    x1 = points.sample_points(torch.full((400_000,), c), "brute force").double()
    x0 = (xt.double() - t * x1) / (1 - t)
    weight = (-x0.square().sum(dim=1) / 2).softmax(dim=0)
    return (weight[:, None] * (x1 - x0)).sum(dim=0).float()


def test_points_lie_in_the_blobs_of_their_class():
    c = torch.arange(4000) % 2
    x1 = points.sample_points(c, 0, "x1")
    distance = torch.cdist(x1[:, None], points.CENTRES[c]).squeeze(1).min(dim=1).values
    assert (distance < 2 * points.STD).float().mean() == pytest.approx(1 - np.exp(-2), abs=0.02)
    assert x1.abs().max() < 3
    counts = [torch.cdist(x1[c == k], points.CENTRES[k].unique(dim=0)).argmin(dim=1).bincount() for k in (0, 1)]
    assert [len(n) for n in counts] == [4, 8]
    assert all(n.min() > 0.8 * n.float().mean() for n in counts)


def test_the_key_alone_decides_what_is_drawn():
    c = torch.arange(5) % 2
    assert torch.equal(points.sample_points(c, 3, "a"), points.sample_points(c, 3, "a"))
    assert not torch.equal(points.sample_points(c, 3, "a"), points.sample_points(c, 4, "a"))
    assert not torch.equal(points.noise_points(5, 3), points.noise_points(5, 4))
    first, again = (points.independent_points(7, size=6, seed=1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[2], points.independent_points(8, size=6, seed=1)[2])


@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.parametrize("t", [0.2, 0.5, 0.75])
def test_the_exact_velocity_is_the_posterior_mean(c, t):
    xt = torch.tensor([[0.0, 0.0], [0.6, 0.9], [-0.7, -0.4]])
    v = points.exact_velocity(xt, torch.full((3,), t), torch.full((3,), c))
    for mine, point in zip(v, xt, strict=True):
        torch.testing.assert_close(mine, by_brute_force(point, t, c), atol=0.06, rtol=0.02)


def test_the_exact_velocity_at_both_ends():
    x, c = 2 * points.noise_points(8, 0), torch.arange(8) % 2
    mean = torch.tensor([[0.7, 0.7], [-0.6, -0.6]])[c]
    torch.testing.assert_close(points.exact_velocity(x, torch.zeros(8), c), mean - x)
    torch.testing.assert_close(points.exact_velocity(x, torch.ones(8), c), x, atol=1e-5, rtol=1e-5)
    far = points.exact_velocity(1e4 * x, torch.full((8,), 0.99), c)
    assert torch.isfinite(far).all()


def test_the_levels_are_the_losses_of_their_velocities():
    levels = points.loss_levels(0)
    pairs = points.independent_points(5, size=2**18, seed=9)
    means = torch.tensor([[0.7, 0.7], [-0.6, -0.6]])
    zero, constant = (float(flow_loss(v, pairs).mean()) for v in (lambda xt, t, c: 0 * xt, lambda xt, t, c: means[c]))
    assert list(levels.values())[:2] == pytest.approx([zero, constant], abs=0.02)
    x0, x1, t, c = pairs
    explained = points.exact_velocity(interpolate(x0, x1, t), t, c).square().mean()
    assert levels["exact v"] == pytest.approx(zero - float(explained), abs=0.02)


def test_an_untrained_flow_is_zero_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    v, other = points.PointFlow(seed=0), points.PointFlow(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not v(points.noise_points(6, 0), torch.rand(6), torch.arange(6) % 2).any()
    assert torch.equal(v.first.weight, points.PointFlow(seed=0).first.weight)
    assert not torch.equal(v.first.weight, other.first.weight)


def test_training_comes_near_the_exact_velocity(trained):
    v, losses = trained
    assert losses[0] == pytest.approx(points.loss_levels(0)["v = 0"], abs=0.3)
    assert np.mean(losses[-50:]) == pytest.approx(points.loss_levels(0)["exact v"], abs=0.06)
    assert points.relative_error(v, seed=1) < 0.04
    assert points.relative_error(points.PointFlow(), seed=1) == 1
    assert points.relative_error(points.exact_velocity, seed=1) == 0


def test_couplings_stay_together_under_fresh_t():
    x0, c = points.noise_points(50, 0), torch.arange(50) % 2
    pairs = partial(points.coupled_points, (x0, x0 + c[:, None] + 1, c), size=64, seed=0)
    a, b = pairs(0), pairs(1)
    torch.testing.assert_close(a[1] - a[0], (a[3][:, None] + 1).expand(-1, 2).float())
    assert a[2].min() >= 0
    assert a[2].max() <= 1
    assert not torch.equal(a[2], b[2])
    assert not torch.equal(a[0], b[0])
    assert all(torch.equal(x, y) for x, y in zip(a, pairs(0), strict=True))


def test_couplings_can_be_learnt_to_less_than_the_floor(trained):
    x0, c = points.noise_points(1000, 0), torch.arange(1000) % 2
    x1 = rk45(points.exact_velocity, x0, full_t(0.0, x0), c).x1
    losses = fit(copy.deepcopy(trained[0]), partial(points.coupled_points, (x0, x1, c), size=256, seed=0), 150)
    assert np.mean(losses[-20:]) < 0.02 < 0.2 < losses[0]


def test_trajectories_end_where_the_ode_ends(paths):
    times, path, c = paths
    assert len(times) == len(path) == 41
    torch.testing.assert_close(times, torch.linspace(0, 1, 41))
    assert torch.equal(path[0], points.noise_points(24, 0, "paths"))
    end = rk45(points.exact_velocity, path[0], full_t(0.0, path[0]), c, tol=1e-5).x1
    near = (path[-1] - end).norm(dim=1)
    assert near.median() < 0.03
    assert near.max() < 0.3


def test_trajectories_of_a_constant_velocity_are_straight():
    x0, c = torch.zeros(2, 2), torch.tensor([0, 1])
    times, path = points.trajectories(lambda xt, t, c: torch.ones_like(xt), x0, c, num_steps=4)
    torch.testing.assert_close(path, times[:, None, None].expand(-1, 2, 2))


def test_solver_errors_fall_and_rk45_needs_fewer_evaluations():
    x0, c = points.noise_points(200, 0), torch.arange(200) % 2
    errors = points.solver_errors(points.exact_velocity, x0, c, steps=(1, 16, 128), tols=(1e-3,))
    nfes, euler_errors = zip(*errors["Euler"], strict=True)
    assert nfes == (1, 16, 128)
    assert euler_errors[0] > 3 * euler_errors[1] > 9 * euler_errors[2]
    [(nfe, error)] = errors["RK45"]
    assert nfe < 128
    assert error < euler_errors[2]


def line_collections(ax):
    return [each for each in ax.collections if isinstance(each, LineCollection)]


def shown_points(ax):
    return sum(len(each.get_offsets()) for each in ax.collections if (each.get_label() or "").startswith("$x_1$"))


def test_pairs_are_joined_by_lines(paths):
    _, path, c = paths
    figure = points_figures.pairs_figure(
        {"independent": (path[0], path[-1], c), "flow_0, couplings": (path[0], path[-1], c)}, count=10
    )
    assert [ax.get_title() for ax in figure.axes] == ["independent", "flow 0, couplings"]
    for ax in figure.axes:
        [lines] = line_collections(ax)
        expected = torch.stack([path[0], path[-1]], dim=1)[:10]
        np.testing.assert_allclose(np.array(lines.get_segments()), expected)
        assert ax.get_aspect() == 1
        assert shown_points(ax) == 10
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["noise $x_0$", "$x_1$, square", "$x_1$, ring"]
    assert min(text.get_fontsize() for text in figure.legends[0].get_texts()) >= 9


def test_trajectories_are_drawn_in_their_methods_colour(paths):
    _, path, c = paths
    figure = points_figures.trajectories_figure({"flow_0": (path, c), "flow_1": (path, c)}, count=10)
    assert [ax.get_title() for ax in figure.axes] == ["flow 0", "flow 1 (reflow)"]
    for ax, method in zip(figure.axes, ("flow_0", "flow_1"), strict=True):
        [lines] = line_collections(ax)
        np.testing.assert_allclose(np.array(lines.get_segments()), path[:, :10].transpose(0, 1))
        assert to_hex(lines.get_color()[0]).upper() == COLOURS[method]
        assert len(ax.patches) == 12


def test_end_points_lie_on_the_blobs_of_their_class(paths):
    _, path, c = paths
    of_one_class = (path[-1][c == 1], c[c == 1])
    figure = points_figures.points_figure({"both": (path[-1], c), "ring": of_one_class})
    assert [len(ax.patches) for ax in figure.axes] == [12, 8]
    assert [shown_points(ax) for ax in figure.axes] == [24, 12]
    centres = [patch.center for patch in figure.axes[1].patches]
    np.testing.assert_allclose(sorted(centres), sorted(points.CENTRES[1].tolist()), atol=1e-6)


def test_errors_are_lines_for_euler_and_marks_for_rk45():
    rows = {"flow_0, Euler": [(1, 1.0), (8, 0.1)], "flow_0, RK45": [(26, 0.01)]}
    ax = points_figures.error_figure(rows, ["0.01"]).axes[0]
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("0.01", (26, 0.01))]
    assert [line.get_linestyle() for line in ax.lines] == ["-", "None"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["flow 0, Euler", "flow 0, RK45"]
    assert {line.get_color() for line in ax.lines} == {COLOURS["flow_0"]}


def test_the_viewer_moves_the_points(paths):
    times, path, c = paths
    viewer = points_figures.points_viewer(
        {"exact v": (path, c), "flow_0": (path, c)}, times, alt="Points move.", frames=5
    )
    assert viewer.content["steps"] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    titles = [(p["title"], p["count"], p["colour"]) for p in viewer.content["items"][0]["panels"]]
    assert titles == [("exact v", 5, ""), ("flow 0", 5, COLOURS["flow_0"])]
    assert len(viewer.page("Points")) < 600_000


def test_frames_show_the_points_where_they_are(paths):
    _, path, c = paths
    frames = points_figures.draw_frames(path, c, COLOURS["flow_0"], steps=[0, 20, 40])
    assert {frame.shape for frame in frames} == {(288, 288, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert len({frame.tobytes() for frame in frames}) == 3
    [alone] = points_figures.draw_frames(path, c, COLOURS["flow_0"], steps=[40])
    assert np.array_equal(frames[2], alone)
    for frame, at in zip(frames, path[[0, 20, 40]], strict=True):
        pixel = ((at[c == 1] + 3) / 6 * 288).clamp(0, 287).long()
        inside = at[c == 1].abs().max(dim=1).values < 2.9
        darkest = minimum_filter(frame.min(axis=2), 3)[287 - pixel[inside, 1], pixel[inside, 0]]
        assert (darkest < 80).all()


def test_frames_show_how_the_points_came(paths):
    _, path, c = paths
    frames = points_figures.draw_frames(path, c, "#00FF00", steps=[0, 20, 40])
    green = [int(((frame[..., 1].astype(int) - frame[..., 0]) > 30).sum()) for frame in frames]
    assert green[0] == 0
    assert 0 < green[1] < green[2]
