"""fit: what it minimizes, that it repeats, what it averages, how it stops, and what it shows to whom."""

import math
import sys
import textwrap

import pytest
import torch
from torch import nn

from diffusion_core import targets
from diffusion_core.denoiser import Denoiser
from diffusion_core.losses import denoising_loss
from diffusion_core.models import MLP, UNet
from diffusion_core.progress import Progress, watched
from diffusion_core.schedules import LinearVP
from diffusion_core.training import Diverged, drop_labels, ema_decay, ema_update, fit, learning_rate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 200, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(n, 2, generator=seeded(5))


def at(time: float):
    return lambda schedule, n, generator: torch.full((n,), time, dtype=torch.float64)


class Scale(nn.Module):
    """y = w x, one weight; `seen` keeps what each call was given."""

    num_classes = 4

    def __init__(self, start: float = 0.3, poison_at: int = -1, poison: float = math.nan):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))
        self.seen: list[dict] = []
        self.poison_at, self.poison = poison_at, poison

    def forward(self, x, c, label=None):
        self.seen.append({"x": x.detach(), "w": self.w.item(), "label": label, "autocast": torch.is_autocast_enabled("cpu")})
        return self.w * x * (self.poison if len(self.seen) == self.poison_at else 1.0)


def scale_denoiser(**settings) -> Denoiser:
    return Denoiser(Scale(**settings), LinearVP(), targets.x0)


def test_the_loss_of_a_gaussian_falls_to_its_floor():
    """x0 ~ N(0, s^2): the best image is s^2 alpha x_t / (alpha^2 s^2 + sigma^2), its mean error the posterior variance s^2 sigma^2 / (alpha^2 s^2 + sigma^2)."""
    s, t = 0.7, 0.3
    denoiser = scale_denoiser(start=-1.0)
    x0 = s * torch.randn(100_000, 2, generator=seeded(1))
    average, losses = fit(denoiser, x0, 400, times=at(t), lr=0.05, batch_size=500, generator=seeded(2))
    alpha, sigma = (float(v) for v in denoiser.schedule(torch.tensor(t, dtype=torch.float64)))
    marginal = alpha**2 * s**2 + sigma**2
    assert average.net.w.item() == pytest.approx(alpha * s**2 / marginal, rel=0.02)
    tail = losses[-100:]
    assert abs(tail.mean().item() - s**2 * sigma**2 / marginal) < 5 * (tail.std() / 10).item()
    assert losses[:5].mean() > 1.5 * tail.mean()


def test_a_network_reaches_the_floor_at_every_time():
    torch.manual_seed(0)
    s = 0.7
    denoiser = Denoiser(MLP(2, width=64, depth=2), LinearVP(), targets.v)
    average, losses = fit(denoiser, s * torch.randn(20_000, 2, generator=seeded(1)), 400, batch_size=256, generator=seeded(2))
    x0 = s * torch.randn(50_000, 2, generator=seeded(3))
    for t in (0.05, 0.3, 0.7):
        alpha, sigma = (float(v) for v in denoiser.schedule(torch.tensor(t, dtype=torch.float64)))
        floor = s**2 / (alpha**2 * s**2 + sigma**2)  # of v: the image's floor times 1 / sigma^2
        with torch.no_grad():
            loss = denoising_loss(average, x0, t, generator=seeded(4))
        noise = 5 * loss.std().item() / math.sqrt(len(x0))
        assert floor - noise < loss.mean().item() < 1.03 * floor + noise
    assert losses.shape == (400,) and losses.isfinite().all()


def test_one_seed_repeats_bit_for_bit_and_another_differs():
    def run(seed):
        torch.manual_seed(0)
        denoiser = Denoiser(UNet(width=8, num_classes=3), LinearVP(), targets.v)
        x0 = torch.rand(32, 1, 8, 8, generator=seeded(1)) * 2 - 1
        return fit(denoiser, (x0, {"label": torch.arange(32) % 3}), 6, batch_size=8, label_dropout=0.2, generator=seeded(seed))

    (first, losses), (again, same), (other, _) = run(1), run(1), run(2)
    assert torch.equal(losses, same)
    pairs = list(zip(first.parameters(), again.parameters()))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


def test_the_given_generator_is_all_the_randomness():
    before = torch.get_rng_state()
    fit(scale_denoiser(), points(), 3, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_draws_its_own_batch():
    denoiser = scale_denoiser()
    fit(denoiser, points(), 3, batch_size=16, generator=seeded())
    batches = [seen["x"] for seen in denoiser.net.seen]
    assert len(batches) == 3 and not torch.equal(batches[0], batches[1])


@pytest.mark.parametrize("decay, steps", [(0.9999, 50), (0.9, 300), (0.0, 5)])
def test_the_average_of_a_scalar_has_its_closed_form(decay, steps):
    """The weight goes from 1 to 0 and stays: the average is what is left of the start."""
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.ones_(average.weight)
    nn.init.zeros_(model.weight)
    for step in range(steps):
        ema_update(average.double(), model.double(), ema_decay(step, decay))
    ramp = min(steps, max(0, math.ceil((10 * decay - 1) / (1 - decay))))  # steps whose (1 + n) / (10 + n) is below decay
    want = decay ** (steps - ramp) / math.comb(ramp + 9, 9)
    assert average.weight.item() == pytest.approx(want, rel=1e-9)


def test_buffers_follow_the_model():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model(points(50) + 3)
    ema_update(average, model, 0.9)
    assert torch.equal(average.running_mean, model.running_mean) and average.num_batches_tracked == 1


def test_fit_averages_every_step():
    denoiser = scale_denoiser()
    average, _ = fit(denoiser, points(), 20, lr=0.1, ema=0.7, generator=seeded())
    weights = [seen["w"] for seen in denoiser.net.seen[1:]] + [denoiser.net.w.item()]
    want = denoiser.net.seen[0]["w"]
    for n, w in enumerate(weights):
        d = min(0.7, (1 + n) / (10 + n))
        want = d * want + (1 - d) * w
    assert average.net.w.item() == pytest.approx(want, rel=1e-5)
    assert not average.training and not denoiser.training and not average.net.w.requires_grad


def test_the_rate_rises_then_falls_along_a_cosine_to_zero():
    rates = [learning_rate(n, 1000, 50) for n in range(1001)]
    assert rates[0] < 0.02 and max(rates) > 0.99 and rates.index(max(rates)) == 50
    assert rates[500] == pytest.approx(0.5) and rates[1000] == pytest.approx(0, abs=1e-12)
    assert all(b < a for a, b in zip(rates[50:], rates[51:]))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_it_does_harm(poison):
    denoiser = scale_denoiser(poison_at=6, poison=poison)
    with pytest.raises(Diverged, match="stopped at step 5 of 50: the loss is (nan|inf)") as caught:
        fit(denoiser, points(), 50, lr=0.1, generator=seeded())
    clean = scale_denoiser()
    with pytest.raises(ZeroDivisionError):
        fit(clean, points(), 50, lr=0.1, generator=seeded(), times=stop_after(5))
    assert denoiser.net.w.item() == clean.net.w.item() != 0.3
    assert caught.value.step == len(caught.value.losses) == 5
    assert math.isfinite(caught.value.denoiser.net.w.item())


def stop_after(steps: int):
    from diffusion_core.losses import uniform_times

    calls = iter(range(steps))

    def times(schedule, n, generator):
        if next(calls, None) is None:
            raise ZeroDivisionError
        return uniform_times(schedule, n, generator)

    return times


def test_a_gradient_that_is_not_finite_stops_too():
    class Edge(Scale):
        def forward(self, x, c, label=None):
            return super().forward(x, c) + torch.sqrt(self.w * 0)

    denoiser = Denoiser(Edge(), LinearVP(), targets.x0)
    with pytest.raises(Diverged, match="its gradient's length nan"):
        fit(denoiser, points(), 5, generator=seeded())
    assert denoiser.net.w.item() == pytest.approx(0.3)


def test_labels_are_dropped_one_by_one_at_the_rate():
    label = torch.arange(20_000) % 4
    dropped = drop_labels(label, 0.1, 4, seeded())
    lost = dropped == 4
    assert abs(lost.float().mean().item() - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 20_000)
    assert torch.equal(dropped[~lost], label[~lost])
    pairs = (lost[1:] & lost[:-1]).float().mean().item()
    assert abs(pairs - 0.01) < 5 * math.sqrt(0.01 / 20_000)


def test_fit_drops_labels_within_each_batch():
    denoiser = scale_denoiser()
    fit(denoiser, (points(), {"label": torch.arange(200) % 4}), 20, batch_size=100, label_dropout=0.3, generator=seeded())
    shares = torch.stack([(seen["label"] == 4).float().mean() for seen in denoiser.net.seen])
    assert (shares > 0.05).all() and (shares < 0.6).all()


def test_a_sample_keeps_its_label():
    denoiser = scale_denoiser()
    label = torch.arange(4).repeat(50)
    fit(denoiser, (label[:, None].float(), {"label": label}), 3, times=at(0.0), batch_size=32, generator=seeded())
    for seen in denoiser.net.seen:
        assert torch.equal(seen["x"][:, 0].round().long(), seen["label"])


@pytest.mark.parametrize("precision, data, want", [("bf16", points(), True), ("fp32", torch.rand(9, 1, 8, 8), False), ("auto", points(), False)])
def test_precision(precision, data, want):
    denoiser = scale_denoiser()
    fit(denoiser, data, 1, batch_size=2, precision=precision, generator=seeded())
    assert denoiser.net.seen[0]["autocast"] is want
    assert denoiser.net.w.dtype == torch.float32


@pytest.mark.parametrize(
    "data, settings, message",
    [
        (points().double(), {}, "float64 and the network is torch.float32"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), {}, "uint8"),
        (torch.zeros(0, 2), {}, r"at least one sample, got \(0, 2\)"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), {}, "1 of 2 samples hold a NaN"),
        ((points(), {"label": torch.zeros(7, dtype=torch.long)}), {}, "7 values of 'label' for 200 samples"),
        ((points(), {"label": torch.full((200,), 4)}), {}, r"labels must lie in 0\.\.3"),
        ((points(), {"label": [0] * 200}), {}, "values of 'label' must be a tensor .* got list"),
        (torch.tensor([0.0, math.nan, math.inf]), {}, "2 of 3 samples hold a NaN"),
        (points(), {"label_dropout": 0.1}, "needs labels"),
        (points(), {"batch_size": 0}, "batch_size=0 must be a positive integer$"),
        (points(), {"batch_size": 8.0}, "batch_size=8.0 must be a positive integer$"),
        (points(), {"batch_size": True}, "batch_size=True"),
        (points(), {"warmup": 0.5}, "warmup=0.5"),
        (points(), {"steps": 0}, "steps=0"),
        (points(), {"lr": -1.0}, "lr=-1.0"),
        (points(), {"ema": 1.0}, "ema=1.0"),
        (points(), {"precision": "fp16"}, "'auto', 'fp32' or 'bf16'"),
    ],
)
def test_what_cannot_be_meant_is_an_error(data, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(scale_denoiser(), data, **{"steps": 2, "generator": seeded(), **settings})


def test_what_fit_returns_is_frozen_and_trains_again_when_it_is_thawed():
    average, _ = fit(scale_denoiser(), points(), 2, generator=seeded())
    with pytest.raises(ValueError, match="requires_grad_"):
        fit(average, points(), 2, generator=seeded())
    before = average.net.w.item()
    fit(average.requires_grad_(True), points(), 2, generator=seeded())
    assert average.net.w.item() != before


def test_without_accelerate_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"diffusion-core\[train\]"):
        fit(scale_denoiser(), points(), 2)


class TestProgress:
    def test_nobody_watches_nothing_shows(self, capfd):
        fit(scale_denoiser(), points(), 3, generator=seeded())
        assert capfd.readouterr() == ("", "")

    def test_a_terminal_shows_rate_loss_and_time_left_and_is_cleaned(self, monkeypatch, capfd):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert watched() == "terminal"
        clock = iter(range(100))
        monkeypatch.setattr("diffusion_core.progress.time.perf_counter", lambda: float(next(clock)))
        with Progress(4) as line:
            for loss in (2.0, 1.0, 1.5):
                line.advance(loss)
        shown = capfd.readouterr().err
        assert "loss 1.5" in shown and "3/4" in shown and shown.endswith("\r\x1b[K")

    def test_steps_of_an_earlier_process_count_but_not_in_the_rate(self, monkeypatch, capfd):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        clock = iter(range(100))
        monkeypatch.setattr("diffusion_core.progress.time.perf_counter", lambda: float(next(clock)))
        with Progress(1000, done=900) as line:
            for loss in (3.0, 1.0):
                line.advance(loss)
        last = capfd.readouterr().err.split("\r")[-2]
        assert "902/1000" in last and "1.00it/s" in last and "loss 2" in last

    def test_the_environment_silences_it(self, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("DIFFUSION_CORE_PROGRESS", "0")
        assert watched() is None
        monkeypatch.setenv("DIFFUSION_CORE_PROGRESS", "perhaps")
        with pytest.raises(ValueError, match="perhaps"):
            watched()

    def test_a_live_notebook_shows_it_and_an_executed_one_holds_none(self):
        """The same cell, sent as a person's front end sends it and as nbclient and nbval do."""
        from jupyter_client.manager import start_new_kernel

        cell = textwrap.dedent("""
            import time
            from diffusion_core.progress import Progress
            with Progress(4) as line:
                for step in range(3):
                    time.sleep(0.21)
                    line.advance(1.5)
        """)
        manager, client = start_new_kernel(kernel_name="python3", startup_timeout=300)
        try:
            outputs: dict[bool, list[dict]] = {True: [], False: []}
            for live in (False, True):
                reply = client.execute_interactive(cell, allow_stdin=live, output_hook=outputs[live].append, stdin_hook=lambda message: None, timeout=120)
                assert reply["content"]["status"] == "ok"
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        kinds = ("stream", "display_data", "update_display_data", "error")
        shown = {live: [m["content"] for m in messages if m["msg_type"] in kinds] for live, messages in outputs.items()}
        assert shown[False] == []
        texts = [content["data"]["text/plain"] for content in shown[True]]
        assert any("loss 1.5" in text and "3/4" in text for text in texts)
        assert texts[-1] == ""
