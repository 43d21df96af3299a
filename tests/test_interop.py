"""Networks of diffusers as denoisers of ours and back, with the adapters of the page "To diffusers and back": its tagged cells are run, not copied.

The weights are random and small: what two programs do with them is the same or it is not. `in_float64` lets a scheduler of theirs compute in double
precision, so that a step can be compared to 1e-10; whole runs are compared in float32, relative to the largest value, since an untrained noise prediction
is divided by alpha. Steps fed with given outputs are in test_peer_diffusers.py and test_peer_solvers.py; here a network is asked at every step.
"""

import ast
import itertools
import pathlib
from functools import partial
from types import SimpleNamespace

import nbformat
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DModel,
)
from paths import f64, generator, one_thread  # noqa: F401
from torch import nn

from diffusion_core import (
    MLP,
    CosineVP,
    Denoiser,
    LearnedVariance,
    ancestral,
    ddim,
    dpmpp_2m,
    fit,
    last,
    log_snr_grid,
    ode_decode,
    ode_encode,
    posterior_variance,
    ring,
    targets,
    transition_variance,
    transport,
    two_peaks,
    uniform,
)

PAGE = pathlib.Path(__file__).resolve().parent.parent / "book" / "package" / "diffusers.ipynb"
N = 1000
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
PLAIN = {"clip_sample": False, "timestep_spacing": "trailing"}
every = pytest.mark.parametrize(("betas", "prediction"), list(itertools.product(BETAS, PREDICTIONS)))


def adapters() -> SimpleNamespace:
    """What the page's imports and its cells tagged `adapter` define."""
    names: dict = {}
    for i, cell in enumerate(nbformat.read(PAGE, as_version=4).cells):
        if cell.cell_type == "code" and (cell.source.startswith("import ") or "adapter" in cell.metadata.get("tags", [])):
            exec(compile(cell.source, f"{PAGE.name}, cell {i}", "exec"), names)
    return SimpleNamespace(**names)


page = adapters()


def small(out_channels=1, dtype=torch.float32, **how):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=out_channels, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **how,
    ).eval().requires_grad_(False)._apply(lambda w: w.to(dtype))


def in_float64(scheduler, steps):
    """The scheduler, about to take steps in double precision from the products that it has."""
    for name in ("alphas_cumprod", "final_alpha_cumprod", "one"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    scheduler.set_timesteps(steps)
    return scheduler


def start(shape=(2, 1, 8, 8), dtype=torch.float32, seed=1):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def theirs(scheduler, model, x, seed=5, **how):
    """Each state of their loop."""
    g, states = generator(seed), [x]
    for i in scheduler.timesteps:
        states.append(scheduler.step(model(states[-1], i).sample, i, states[-1], generator=g, **how).prev_sample)
    return states


def near(ours, other, atol):
    assert ours.shape == other.shape and ours.dtype == other.dtype
    scale = max(1.0, float(other.abs().max()))
    assert float((ours - other).abs().max()) <= atol * scale


def test_the_adapters_have_as_many_lines_as_the_page_says():
    for name, lines in (("FromDiffusers", 10), ("ToDiffusers", 10)):
        source = next(cell.source for cell in nbformat.read(PAGE, as_version=4).cells if f"class {name}" in cell.source)
        (tree,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
        body = source.splitlines()[tree.lineno - 1 : tree.end_lineno]
        assert len([line for line in body if line.strip() and not line.strip().startswith(('"""', "#"))]) == lines


@every
def test_the_path_is_the_schedulers(betas, prediction):
    scheduler = DDPMScheduler(N, beta_schedule=betas, prediction_type=prediction)
    path, index = page.path_of(scheduler), torch.arange(N)
    alpha, sigma = path((index.double() + 1) / N)
    torch.testing.assert_close(alpha**2, scheduler.alphas_cumprod.double(), rtol=1e-11, atol=0)
    torch.testing.assert_close(sigma**2, 1 - scheduler.alphas_cumprod.double(), rtol=1e-9, atol=0)
    assert tuple(map(float, path(0.0))) == (1.0, 0.0)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_is_asked_at_their_index(betas, dtype):
    """At every knot it is a whole number, to the last digit; off the knots a fraction; before the first knot, 0."""
    path, asked = page.path_of(DDPMScheduler(N, beta_schedule=betas)), {}
    unet = nn.Module()
    unet.config, unet.dtype = SimpleNamespace(in_channels=1, out_channels=1), dtype
    unet.forward = lambda x, index, class_labels: asked.update(index=index) or SimpleNamespace(sample=x)
    denoiser = Denoiser(page.FromDiffusers(unet, path), path, targets.v)
    denoiser.predict(torch.zeros(N, 1, 2, 2, dtype=dtype), torch.arange(1, N + 1, dtype=torch.float64) / N)
    assert torch.equal(asked["index"], torch.arange(N).to(dtype))
    for t, index in ((0.2505, 249.5), (0.0004, 0.0)):
        denoiser.predict(torch.zeros(1, 1, 2, 2, dtype=dtype), t)
        assert float(asked["index"]) == pytest.approx(index, abs=0.02)


@every
@pytest.mark.parametrize("number", [0, 7, 19])
def test_one_ddim_step_in_float64(betas, prediction, number):
    scheduler = in_float64(DDIMScheduler(N, beta_schedule=betas, prediction_type=prediction, **PLAIN), 20)
    unet, x = small(dtype=torch.float64), start(dtype=torch.float64)
    denoiser, i = page.from_diffusers(unet, scheduler), scheduler.timesteps[number]
    times = page.times_of(scheduler)[number : number + 2]
    for eta in (0.0, 0.7):
        step = scheduler.step(unet(x, i).sample, i, x, eta, generator=generator(5))
        near(last(ddim(denoiser, denoiser.schedule, x, times, eta, generator(5))), step.prev_sample, 1e-10)
        near(denoiser(x, times[0]), step.pred_original_sample, 1e-10)


@every
@pytest.mark.parametrize("number", [0, 7, 19])
@pytest.mark.parametrize(("kind", "variance"), [("fixed_small", posterior_variance), ("fixed_large", transition_variance)])
def test_one_ddpm_step_in_float64(betas, prediction, number, kind, variance):
    scheduler = in_float64(DDPMScheduler(N, beta_schedule=betas, prediction_type=prediction, variance_type=kind, **PLAIN), 20)
    unet, x = small(dtype=torch.float64), start(dtype=torch.float64)
    denoiser, i = page.from_diffusers(unet, scheduler), scheduler.timesteps[number]
    want = scheduler.step(unet(x, i).sample, i, x, generator=generator(5)).prev_sample
    if number == 19:  # there the scheduler adds noise, ours never does
        want = want - scheduler._get_variance(i, variance_type=kind).sqrt() * start(dtype=torch.float64, seed=5)
    near(last(ancestral(denoiser, denoiser.schedule, x, page.times_of(scheduler)[number : number + 2], variance, generator(5))), want, 1e-9)


@every
def test_two_dpmpp_steps_in_float64(betas, prediction):
    """Their `step` computes in float32, its parts do not: the first step, then the second with what the first left."""
    scheduler = DPMSolverMultistepScheduler(N, beta_schedule=betas, prediction_type=prediction, timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    unet, x = small(dtype=torch.float64), start(dtype=torch.float64)
    denoiser, times = page.from_diffusers(unet, scheduler), page.times_of(scheduler)[4:7]
    alpha, sigma = denoiser.schedule(times)
    scheduler.sigmas, images = sigma / alpha, []
    state, ours = x, list(dpmpp_2m(denoiser, denoiser.schedule, x, times))
    for k, i in enumerate(scheduler.timesteps[4:6]):
        scheduler._step_index = k
        images.append(scheduler.convert_model_output(unet(state, i).sample, sample=state))
        if k == 0:
            state = scheduler.dpm_solver_first_order_update(images[0], sample=state)
        else:
            state = scheduler.multistep_dpm_solver_second_order_update(images, sample=state)
        near(ours[k + 1], state, 1e-10)


SAMPLERS = {
    "ddim": (DDIMScheduler, ddim, PLAIN, {}),
    "ddim_eta": (DDIMScheduler, partial(ddim, eta=0.6), PLAIN, {"eta": 0.6}),
    "ddim_leading": (DDIMScheduler, ddim, PLAIN | {"timestep_spacing": "leading", "steps_offset": 1}, {}),
    "ddpm": (DDPMScheduler, ancestral, PLAIN, {}),
    "ddpm_linspace": (DDPMScheduler, ancestral, PLAIN | {"timestep_spacing": "linspace"}, {}),
    "dpmpp": (DPMSolverMultistepScheduler, dpmpp_2m, {"timestep_spacing": "linspace"}, {}),
    "dpmpp_trailing": (DPMSolverMultistepScheduler, dpmpp_2m, {"timestep_spacing": "trailing"}, {}),
}


@every
@pytest.mark.parametrize("name", SAMPLERS)
def test_whole_runs_in_float32(betas, prediction, name):
    """Theirs with its network, ours with the same network adapted, and theirs with ours adapted back: three runs, one result."""
    kind, sampler, how, extra = SAMPLERS[name]
    scheduler = kind(N, beta_schedule=betas, prediction_type=prediction, **how)
    unet, x = small(), start()
    denoiser = page.from_diffusers(unet, scheduler)
    noisy = {} if sampler is dpmpp_2m else {"generator": generator(5)}
    scheduler.set_timesteps(10)
    states = theirs(scheduler, unet, x, **extra)
    near(last(sampler(denoiser, denoiser.schedule, x, page.times_of(scheduler), **noisy)), states[-1], 2e-5)
    back = page.ToDiffusers(denoiser, scheduler)
    scheduler.set_timesteps(10)
    near(theirs(scheduler, back, x, **extra)[-1], states[-1], 2e-5)


@every
def test_the_way_back_gives_their_output_to_rounding(betas, prediction):
    """x0 of a denoiser of ours, turned into what the scheduler asks for: its own conversion returns the image."""
    scheduler = in_float64(DDIMScheduler(N, beta_schedule=betas, prediction_type=prediction, **PLAIN), N)
    path, x = page.path_of(scheduler), start((5, 2), torch.float64)
    model = page.ToDiffusers(ring().denoiser(path), scheduler)
    for i in (0, 1, 499, 998, 999):
        got = scheduler.step(model(x, i).sample, i, x)
        want = ring().posterior_mean(x, *path(f64(i + 1) / N))
        near(got.pred_original_sample, want, 1e-9)
        near(got.prev_sample, last(ddim(ring().denoiser(path), path, x, f64([i + 1, i]) / N)), 1e-9)
    index = torch.tensor([3, 77, 500, 998, 999])
    rows = torch.cat([model(x[k : k + 1], int(i)).sample for k, i in enumerate(index)])
    near(model(x, index).sample, rows, 1e-12)


def test_an_exact_denoiser_draws_its_law_in_their_loop():
    """The 1-D mixture, carried from the cosine path onto theirs, in DDIM of 1000 steps: the share of the left peak is .3."""
    scheduler = DDIMScheduler(N, prediction_type="sample", **PLAIN)
    path = page.path_of(scheduler)
    model = page.ToDiffusers(transport(two_peaks().denoiser(CosineVP()), CosineVP(), path), scheduler)
    scheduler.set_timesteps(N)
    x = theirs(scheduler, model, start((4000,), torch.float64))[-1]
    world = two_peaks()
    assert float(x.mean()) == pytest.approx(0.3 * -1.5 + 0.7, abs=5 * 1.25 / 4000**0.5)
    assert float((x < -0.5).double().mean()) == pytest.approx(0.3, abs=5 * (0.21 / 4000) ** 0.5)
    assert bool(world.log_prob(x).isfinite().all())


@pytest.mark.parametrize(("pipeline", "kind", "sampler"), [(DDIMPipeline, DDIMScheduler, ddim), (DDPMPipeline, DDPMScheduler, ancestral)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_pipelines(pipeline, kind, sampler, prediction):
    """A small network of ours with labels in their pipelines, and our sampler from the same noise."""
    scheduler = kind(N, prediction_type=prediction, **PLAIN)
    path = page.path_of(scheduler)
    torch.manual_seed(3)
    net = MLP(16, width=32, num_classes=3)
    nn.init.normal_(net.last.weight, std=0.1)
    denoiser = Denoiser(Flat(net), path, page.PREDICTED[prediction]).requires_grad_(False)
    labelled = partial(denoiser, label=torch.tensor([0, 1, 2]))
    pipe = pipeline(unet=page.ForPipeline(labelled, scheduler, (1, 4, 4)), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    got = pipe(batch_size=3, num_inference_steps=10, generator=generator(0), output_type="pt").images
    g = generator(0)
    x = torch.randn(3, 1, 4, 4, generator=g)
    want = (last(sampler(labelled, path, x, uniform(10), generator=g)) / 2 + 0.5).clamp(0, 1)
    assert got.shape == (3, 1, 4, 4) and float(got.std()) > 0.05
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


class Flat(nn.Module):
    """A network of vectors, for images."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, c, label=None):
        return self.net(x.flatten(1), c, label).reshape(x.shape)


@pytest.mark.parametrize("betas", BETAS)
def test_labels(betas):
    scheduler = DDIMScheduler(N, beta_schedule=betas, prediction_type="v_prediction", **PLAIN)
    scheduler.set_timesteps(20)
    unet, x, labels = small(num_class_embeds=10), start((3, 1, 8, 8)), torch.tensor([7, 0, 9])
    denoiser = page.from_diffusers(unet, scheduler)
    want = theirs(scheduler, partial(unet, class_labels=labels), x)[-1]
    near(last(ddim(partial(denoiser, label=labels), denoiser.schedule, x, uniform(20))), want, 1e-5)
    back = page.ToDiffusers(denoiser, scheduler)
    near(theirs(scheduler, partial(back, class_labels=labels), x)[-1], want, 1e-5)
    assert float((want - theirs(scheduler, partial(unet, class_labels=labels.flip(0)), x)[-1])[0].abs().max()) > 1e-4


def test_one_class_more_is_no_class():
    """Classifier-free guidance: v is a line in the image, so that mixing the images of a denoiser is mixing the outputs of their network."""
    scheduler = DDIMScheduler(N, prediction_type="v_prediction", **PLAIN)
    scheduler.set_timesteps(20)
    unet, x, labels, none = small(num_class_embeds=4), start((3, 1, 8, 8)), torch.tensor([2, 0, 1]), torch.full((3,), 3)
    denoiser = page.from_diffusers(unet, scheduler)

    def mixed(with_class, without):
        return without + 2.5 * (with_class - without)

    def guided(x, t):
        return mixed(denoiser(x, t, label=labels), denoiser(x, t, label=none))

    def network(x, i):
        return SimpleNamespace(sample=mixed(unet(x, i, class_labels=labels).sample, unet(x, i, class_labels=none).sample))

    want = theirs(scheduler, network, x)[-1]
    near(last(ddim(guided, denoiser.schedule, x, uniform(20))), want, 1e-5)
    near(theirs(scheduler, page.ToDiffusers(guided, scheduler), x)[-1], want, 1e-5)
    assert float((want - theirs(scheduler, partial(unet, class_labels=labels), x)[-1]).abs().max()) > 1e-3


def test_labels_are_dropped_to_the_last_class_where_the_network_has_a_number_of_classes():
    denoiser, seen = page.from_diffusers(small(num_class_embeds=4).requires_grad_(True), DDPMScheduler(N, **PLAIN)), set()
    denoiser.net.unet.register_forward_pre_hook(lambda unet, args, named: seen.update(named["class_labels"].tolist()), with_kwargs=True)
    data = start((32, 1, 8, 8)), {"label": torch.arange(32) % 3}
    with pytest.raises(ValueError, match="num_classes"):
        fit(denoiser, data, 1, batch_size=32, label_dropout=0.5)
    denoiser.net.num_classes = 3
    fit(denoiser, data, 1, batch_size=32, label_dropout=0.5, generator=generator(0))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", [20, 1000])
def test_learned_variance(betas, steps):
    """Every state but the last: theirs draws noise in a strided chain's last step too, with a variance between beta and 1e-20."""
    scheduler = in_float64(DDPMScheduler(N, beta_schedule=betas, prediction_type="v_prediction", variance_type="learned_range", **PLAIN), steps)
    unet, x = small(out_channels=2, dtype=torch.float64), start((2, 1, 8, 8), torch.float64)
    denoiser, first = page.from_diffusers(unet, scheduler), scheduler.timesteps[: min(steps - 1, 30)]
    variance, grid = LearnedVariance(denoiser), uniform(steps)[: len(first) + 1]
    want = theirs(SimpleNamespace(timesteps=first, step=scheduler.step), unet, x)
    ours = list(ancestral(variance.denoise, denoiser.schedule, x, grid, variance, generator(5)))
    near(torch.stack(ours), torch.stack(want), 1e-9)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_zero_terminal_snr_with_a_trace_of_signal(betas):
    scheduler = DDIMScheduler(N, beta_schedule=betas, prediction_type="v_prediction", rescale_betas_zero_snr=True, **PLAIN)
    with pytest.raises(ValueError, match="inside"):
        page.path_of(scheduler)
    scheduler.alphas_cumprod[-1] = scheduler.alphas_cumprod[-2] / 2
    scheduler.set_timesteps(20)
    unet, x = small(), start()
    denoiser = page.from_diffusers(unet, scheduler)
    near(last(ddim(denoiser, denoiser.schedule, x, uniform(20))), theirs(scheduler, unet, x)[-1], 1e-5)


def test_a_network_in_half_precision_is_asked_at_the_same_index():
    scheduler = DDIMScheduler(N, prediction_type="v_prediction", **PLAIN)
    unet, x = small(dtype=torch.bfloat16), start((N, 1, 8, 8))[:1].expand(N, -1, -1, -1)
    denoiser, index = page.from_diffusers(unet, scheduler), torch.arange(0, N, 37)
    want = unet(x[index].bfloat16(), index).sample.float()
    got = denoiser.predict(x[index], (index.double() + 1) / N)
    assert got.dtype == torch.float32 and torch.equal(got, want)


def test_between_the_knots_the_network_interpolates():
    """The flow by two solvers on grids of their own, fine enough to agree: halving the step of the first-order one halves the gap."""
    scheduler = DDIMScheduler(N, prediction_type="sample", **PLAIN)
    denoiser = page.from_diffusers(small(dtype=torch.float64), scheduler)
    path, x = denoiser.schedule, start(dtype=torch.float64)
    fine = last(dpmpp_2m(denoiser, path, x, log_snr_grid(path, 150)))
    gaps = [float((last(ddim(denoiser, path, x, log_snr_grid(path, n))) - fine).abs().max()) for n in (50, 100)]
    assert gaps[1] < 0.6 * gaps[0] < 0.1
    t_min = float(path.time(4.0))
    code = ode_encode(denoiser, path, fine, t_min, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ode_decode(denoiser, path, code, t_min, atol=1e-4, rtol=1e-4), fine, rtol=0, atol=2e-2)


def test_saved_and_loaded(tmp_path):
    scheduler = DDPMScheduler(N, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", **PLAIN)
    unet, x = small(), start()
    DDPMPipeline(unet=page.from_diffusers(unet, scheduler).net.unet, scheduler=scheduler).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["config.json", "diffusion_pytorch_model.safetensors", "model_index.json", "scheduler_config.json"]
    again = page.from_diffusers(UNet2DModel.from_pretrained(tmp_path / "unet"), DDPMScheduler.from_pretrained(tmp_path / "scheduler"))
    before = page.from_diffusers(unet, scheduler)
    assert again.schedule.same(before.schedule) and again.target is targets.v
    assert torch.equal(again.eval()(x, 0.437), before(x, 0.437))
