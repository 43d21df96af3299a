"""The page "Equation, code, literature": what it names exists, its links are fixed, and what it says of diffusers is so in the release that is installed."""

import importlib
import inspect
import pathlib
import re

import api_links
import diffusers
import literature
import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    ScoreSdeVeScheduler,
)
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr
from literature import Place, Result
from paths import f64, generator, one_thread  # noqa: F401
from result_map import plain

from diffusion_core import (
    DDPM,
    EDM,
    Denoiser,
    Shifted,
    Straight,
    ZeroTerminalSNR,
    cosine_betas,
    ddim_inversion,
    langevin,
    last,
    linear_betas,
    targets,
    uniform,
)

N = 1000
RESULTS = [result for theme in literature.themes().values() for result in theme]
PLACES = [place for result in RESULTS for place in result.elsewhere]
PAGE = (literature.DATA.parent / "literature.md").read_text(encoding="utf-8")
by_label = pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.label)


@by_label
def test_the_label_is_one_of_a_chapter_and_has_a_title(result: Result) -> None:
    _, title = literature.chapters_of_labels().get(result.label, ("", ""))
    assert result.label in literature.chapters_of_labels(), f"no chapter defines {result.label}"
    assert bool(title) != bool(result.title), "a box has its own title, an equation takes the one of the data"


@by_label
def test_our_names_are_public_names(result: Result) -> None:
    codes = literature.our_names(result.here)
    assert codes and not list(api_links.unknown(codes)), f"diffusion_core has no {list(api_links.unknown(codes))}"
    assert any(api_links.in_column(code, codes) for code in codes), "none of them leads to an entry"


@by_label
def test_the_paper_is_in_the_bibliography(result: Result) -> None:
    known = set(re.findall(r"^@\w+\{([^,\s]+),", (literature.ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M))
    keys = re.findall(r"\{cite(?::\w)?\}`([^`]+)`", result.paper)
    assert keys and set(keys) <= known


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.repository.key} {place.name} {place.line}")
def test_a_link_stays_where_it_is(place: Place) -> None:
    fixed = r"v\d+\.\d+\.\d+" if place.repository.key == "diffusers" else r"[0-9a-f]{40}"
    assert re.fullmatch(rf"https://github\.com/{re.escape(place.repository.name)}/blob/{fixed}/[\w./-]+\.py#L[1-9]\d*", place.url)


def test_every_chapter_every_theme_and_every_repository_has_its_share() -> None:
    labels = [result.label for result in RESULTS]
    assert len(set(labels)) == len(labels)
    assert {literature.chapters_of_labels()[label][0] for label in labels} == set(api_links.chapters(literature.ROOT))
    assert re.findall(r"\{literature\} (\w+)", PAGE) == list(literature.themes())
    assert {place.repository.key for place in PLACES} == set(literature.repositories())
    names = "pytorch-diffusion diffusion guided-diffusion score_sde_pytorch edm diffusers"
    assert " ".join(repository.name.partition("/")[2] for repository in literature.repositories().values()) == names


def test_the_index_leads_to_every_entry() -> None:
    index = literature.index_text(PAGE)
    assert re.findall(r"<literature-([\w-]+)>", index) == [result.label for result in RESULTS]
    headings = [heading for heading in re.findall(r"^## (.+)$", PAGE, re.M) if heading != "The repositories"]
    assert re.findall(r"^- \*(.+?)\*: ", index, re.M) == headings
    for result in RESULTS:
        assert f"{{ref}}`{plain(literature.title_of(result))} <literature-{result.label}>`" in index
        assert f"(literature-{result.label})=\n\n**{literature.title_of(result)}.**" in literature.result_text(result)


def test_a_broken_entry_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above, on entries that are wrong in one way each."""
    good = next(result for result in RESULTS if result.label == "thm-vlb")
    place = good.elsewhere[0]
    with pytest.raises(AssertionError):
        test_the_label_is_one_of_a_chapter_and_has_a_title(Result(**vars(good) | {"label": "thm-vbl"}))
    for here in ("`vbl`", "a function", "`vlb`, `losses.vbl`"):
        with pytest.raises(AssertionError):
            test_our_names_are_public_names(Result(**vars(good) | {"here": here}))
    for paper in ("{cite:t}`ho2021ddpm`", "Ho et al., eq. 5"):
        with pytest.raises(AssertionError):
            test_the_paper_is_in_the_bibliography(Result(**vars(good) | {"paper": paper}))
    for change in ({"at": "master"}, {"at": place.at[:12]}, {"line": 0}, {"path": "diffusion_utils_2"}):
        with pytest.raises(AssertionError):
            test_a_link_stays_where_it_is(Place(**vars(place) | change))


def pinned() -> str:
    found = re.search(r"^diffusers==(\S+)", (literature.ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)
    assert found
    return found[1]


def test_the_links_to_diffusers_are_those_of_the_release_in_use() -> None:
    assert literature.repositories()["diffusers"].at == f"v{pinned()}", "requirements.txt pins another release: move the links and read their lines again"


@pytest.mark.skipif(diffusers.__version__ != pinned(), reason="the lines are those of the release that requirements.txt pins")
@pytest.mark.parametrize("place", [place for place in PLACES if place.repository.key == "diffusers"], ids=lambda place: f"{place.name} {place.line}")
def test_the_line_in_diffusers_begins_what_the_link_names(place: Place) -> None:
    lines = (pathlib.Path(diffusers.__file__).parent / place.path).read_text(encoding="utf-8").splitlines()
    assert re.match(rf" *(?:def|class) {place.name.split('.')[-1]}\b", lines[place.line - 1])
    owner = importlib.import_module("diffusers." + place.path.removesuffix(".py").replace("/", "."))
    for word in place.name.split("."):
        owner = getattr(owner, word)
    assert inspect.getsourcelines(owner)[1] <= place.line < inspect.getsourcelines(owner)[1] + 3  # decorators come before


def pair(seed: int = 0, shape: tuple[int, ...] = (4, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64), torch.randn(shape, generator=g, dtype=torch.float64)


def test_snr_by_index() -> None:
    peer, index = DDPMScheduler(N), torch.tensor([0, 10, 500, 999])
    ours = DDPM(linear_betas()).log_snr((index + 1).double() / N).exp()
    torch.testing.assert_close(compute_snr(peer, index).double(), ours, rtol=2e-3, atol=0)


def test_half_log_snr() -> None:
    sigma = f64([0.01, 1.0, 80.0])
    alpha, noise = DPMSolverMultistepScheduler()._sigma_to_alpha_sigma_t(sigma)
    torch.testing.assert_close(2 * (alpha.log() - noise.log()), EDM(80.0).log_snr(sigma / 80), rtol=1e-12, atol=1e-12)


def test_betas_whose_ends_do_not_move() -> None:
    peer = DDPMScheduler(200, beta_schedule="linear")
    assert peer.betas[-1].item() == pytest.approx(0.02) and linear_betas(200)[-1].item() == pytest.approx(0.1)
    assert peer.alphas_cumprod[-1].item() == pytest.approx(0.13, abs=0.005)
    torch.testing.assert_close(DDPMScheduler(50, beta_schedule="squaredcos_cap_v2").betas.double(), cosine_betas(50), rtol=1e-5, atol=1e-6)


def test_zero_terminal_snr_keeps_the_first_knot() -> None:
    betas = linear_betas()
    ours, plain = ZeroTerminalSNR(DDPM(betas)), DDPM(betas)
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0).sqrt()
    first, end = plain(1 / N)[0], plain(1.0)[0]
    assert theirs[0].item() == pytest.approx(first.item(), abs=1e-12) and ours(1 / N)[0] < first - 1e-8
    assert theirs[-1].item() == ours(1.0)[0].item() == 0 and ours(0.0)[0].item() == 1
    t = torch.arange(1, N + 1, dtype=torch.float64) / N
    torch.testing.assert_close(ours(t)[0] * (1 - end) * first / (first - end), theirs, rtol=1e-9, atol=1e-9)


def test_the_shift_and_the_clock_of_flow_matching() -> None:
    peer, t = FlowMatchEulerDiscreteScheduler(N, shift=3.0), torch.arange(N, 0, -1, dtype=torch.float64) / N
    torch.testing.assert_close(peer.sigmas.double(), Shifted(Straight(), 3.0)(t)[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(peer.timesteps, N * peer.sigmas)
    x0, eps = pair()
    alpha, sigma = Straight()(peer.sigmas[300].double())
    torch.testing.assert_close(peer.scale_noise(x0, peer.timesteps[300:301], eps), alpha * x0 + sigma * eps, rtol=1e-6, atol=1e-6)


def test_flow_matching_with_noise_draws_all_of_it() -> None:
    peer, (x, velocity) = FlowMatchEulerDiscreteScheduler(N, stochastic_sampling=True), pair()
    peer.set_timesteps(10)
    t, s = peer.sigmas[:2]
    theirs = peer.step(velocity, peer.timesteps[0], x, generator=generator(1)).prev_sample
    z = torch.randn(x.shape, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(theirs, (1 - s) * (x - t * velocity) + s * z, rtol=1e-5, atol=1e-5)


def test_the_name_of_edms_output() -> None:
    x, raw = pair()
    theirs = {kind: EDMEulerScheduler(prediction_type=kind).precondition_outputs(x, raw, f64(2.0)) for kind in ("epsilon", "v_prediction")}
    c_x, c_y = targets.solution(EDM(80.0), targets.edm(0.5), 2.0 / 80)
    torch.testing.assert_close(c_x * x + c_y * raw, theirs["epsilon"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(c_x * x - c_y * raw, theirs["v_prediction"], rtol=1e-12, atol=1e-12)
    assert EDMEulerScheduler().precondition_noise(f64(2.0)).item() == pytest.approx(-EDM(80.0).log_snr(2.0 / 80).item() / 8)


def test_noise_predicted_at_the_start_of_a_step_toward_noise() -> None:
    peer, (x, _) = DDIMInverseScheduler(N, clip_sample=False, timestep_spacing="trailing"), pair()
    peer.alphas_cumprod = torch.cumprod(1 - peer.betas.double(), 0)
    peer.set_timesteps(10)

    class Wave(torch.nn.Module):
        def forward(self, y: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return torch.sin(y)

    theirs = peer.step(torch.sin(x), int(peer.timesteps[4]), x).prev_sample
    index = int(peer.timesteps[4])
    schedule = DDPM(peer.betas)
    grid = f64([index + 1, index + 1 - N // 10]) / N
    start = schedule(grid[1])
    denoise = Denoiser(Wave(), schedule, targets.eps)
    alpha, sigma = schedule(grid[0])
    image = denoise(x, grid[1])
    torch.testing.assert_close(theirs, alpha * image + sigma * (x - start[0] * image) / start[1], rtol=1e-6, atol=1e-6)
    ours = list(ddim_inversion(denoise, schedule, x, torch.cat([grid, f64([0.0])])))
    image = denoise(ours[1], grid[1])
    torch.testing.assert_close(ours[2], alpha * image + sigma * (ours[1] - start[0] * image) / start[1], rtol=1e-9, atol=1e-9)


def test_their_langevin_step_is_half_of_ours() -> None:
    x, score = pair(shape=(1, 5))
    peer = ScoreSdeVeScheduler(snr=0.16)
    theirs = peer.step_correct(score, x.float(), generator=generator(2)).prev_sample
    z = torch.randn((1, 5), generator=generator(2))
    delta = 2 * (0.16 * z.norm() / score.norm()) ** 2
    ours = last(langevin(lambda y: score.float(), x.float(), step=2 * delta, n=1, generator=generator(2)))
    torch.testing.assert_close(theirs.float(), ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("peer", "option", "value"),
    [
        (DDPMScheduler, "timestep_spacing", "leading"),
        (DDPMScheduler, "variance_type", "fixed_small"),
        (DDPMScheduler, "prediction_type", "epsilon"),
        (DDPMScheduler, "rescale_betas_zero_snr", False),
        (DDIMScheduler, "set_alpha_to_one", True),
        (DDIMScheduler, "clip_sample", True),
        (DPMSolverMultistepScheduler, "solver_type", "midpoint"),
        (FlowMatchEulerDiscreteScheduler, "stochastic_sampling", False),
    ],
)
def test_defaults(peer: type, option: str, value: object) -> None:
    assert peer().config[option] == value
    assert uniform(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]  # what "trailing" is compared with in test_peer_diffusers.py


@pytest.mark.parametrize("spacing, noisy", [("leading", False), ("trailing", True)])
def test_which_steps_of_theirs_are_noisy(spacing: str, noisy: bool) -> None:
    """Noise is left out at index 0 only: with "leading" spacing the chain ends there, with "trailing" it need not."""
    x, _ = pair()
    peer = DDPMScheduler(N, timestep_spacing=spacing, variance_type="fixed_large", clip_sample=False)
    peer.set_timesteps(10)
    final = int(peer.timesteps[-1])
    draws = [peer.step(0 * x, final, x, generator=generator(seed)).prev_sample for seed in (0, 1)]
    assert (final > 0) == noisy and (not torch.equal(*draws)) == noisy
