"""python -m diffusion_core.training: what it trains is what the package trains, a killed run goes on, and every wrong line is one readable line."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from diffusion_core import losses, models, schedules, targets, toy
from diffusion_core.data import CLASS_NAMES
from diffusion_core.denoiser import Denoiser
from diffusion_core.progress import Progress
from diffusion_core.training import fit, load_run, vocabulary
from diffusion_core.training.command import main
from diffusion_core.training.gallery import draw_samples
from diffusion_core.training.run import Run
from diffusion_core.training.words import phrase

TINY = ["--quiet", "--points", "64", "--batch", "16", "--network", "MLP(width=8, depth=2)"]
SPELLED = {"Shifted": "Shifted(CosineVP, shift=2)", "ZeroTerminalSNR": "ZeroTerminalSNR(DDPM)"}


def train(folder, *options, data="moons"):
    status = main([data, "--output", str(folder), *TINY, *options])
    assert status == 0
    return load_run(folder)


def predictions(denoiser, shape=(5, 2)):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return denoiser(x, torch.linspace(0.1, 0.9, len(x), dtype=torch.float64))


@pytest.mark.parametrize("target", vocabulary.TARGETS)
@pytest.mark.parametrize("schedule", vocabulary.SCHEDULES)
def test_every_schedule_trains_with_every_target(tmp_path, schedule, target):
    denoiser = train(tmp_path, "--steps", "2", "--schedule", SPELLED.get(schedule, schedule), "--target", target)
    assert type(denoiser.schedule).__name__ == schedule
    plain = getattr(targets, target)
    assert denoiser.target == (targets.edm(1.0) if target == "edm" else plain)
    assert predictions(denoiser).isfinite().all()


@pytest.mark.parametrize("option, words", [("--times", vocabulary.TIMES), ("--weight", vocabulary.WEIGHTS), ("--loss", vocabulary.LOSSES)])
def test_every_other_word_trains(tmp_path, option, words):
    spelled = {"discrete": "discrete(10)", "LossSecondMoment": "LossSecondMoment(10)", "hybrid_loss": "hybrid_loss(10, levels=None)"}
    for word in words:
        also = ["--times", "discrete(10)", "--network", "MLP(width=8, learned_variance=True)"] if word == "hybrid_loss" else []
        denoiser = train(tmp_path / word, "--steps", "2", option, spelled.get(word, word), *also)
        assert denoiser.net.learned_variance is bool(also)


@pytest.mark.parametrize("network", ["UNet(width=8, mult=(1,), patch=4)", "DiT(patch=7, width=16, depth=1)"])
def test_image_networks_get_channels_and_classes_from_the_data(tmp_path, network):
    assert main(["digits", "--output", str(tmp_path), "--quiet", "--steps", "2", "--batch", "4", "--network", network]) == 0
    denoiser = load_run(tmp_path)
    assert (denoiser.net.channels, denoiser.net.num_classes, denoiser.sigma_data) == (1, 10, 0.62)
    assert main(["digits", "--output", str(tmp_path / "free"), "--quiet", "--steps", "1", "--batch", "4", "--network", network, "--unconditional"]) == 0
    assert load_run(tmp_path / "free").net.num_classes is None


def test_it_trains_what_the_same_call_of_fit_trains(tmp_path):
    loaded = train(
        tmp_path, "--steps", "5", "--schedule", "EDM(sigma_max=40)", "--target", "edm", "--times", "lognormal(-1, 1)", "--weight", "min_snr(3)",
        "--lr", "0.01", "--ema", "0.2", "--seed", "3", "--sigma-data", "0.5",
    )  # fmt: skip
    torch.manual_seed(3)
    denoiser = Denoiser(models.MLP(2, width=8, depth=2), schedules.EDM(40.0), targets.edm(0.5), sigma_data=0.5)
    data = toy("moons", 64, torch.Generator().manual_seed(3))
    average, _ = fit(
        denoiser, data, 5, batch_size=16, lr=0.01, ema=0.2, times=losses.lognormal_times(-1.0, 1.0), weight=losses.min_snr(3.0),
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert torch.equal(predictions(loaded), predictions(average))
    assert torch.equal(predictions(load_run(tmp_path, average=False)), predictions(denoiser))
    assert not torch.equal(predictions(average), predictions(denoiser))


def test_labels_are_dropped_as_asked(tmp_path):
    line = ["digits", "--quiet", "--steps", "3", "--batch", "8", "--network", "UNet(width=8, mult=(1,), patch=4)"]
    for share in ("0", "0.9"):
        assert main([*line, "--output", str(tmp_path / share), "--label-dropout", share]) == 0
    null = [load_run(tmp_path / share).net.labels.weight[10] for share in ("0", "0.9")]
    assert not torch.equal(*null)


def test_the_global_random_numbers_are_left_alone(tmp_path):
    before = torch.get_rng_state()
    train(tmp_path, "--steps", "2")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_command_goes_on_after_a_kill(tmp_path):
    options = ["--steps", "4000", "--checkpoint-every", "20"]
    line = [sys.executable, "-m", "diffusion_core.training", "moons", "--output", str(tmp_path / "killed"), *TINY, *options]
    process = subprocess.Popen(line)
    file, deadline = tmp_path / "killed" / "checkpoint.safetensors", time.monotonic() + 120
    begun = None
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists():
            begun = begun or file.read_bytes()
            if file.read_bytes() != begun:
                break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    early = predictions(load_run(tmp_path / "killed"))
    resumed = train(tmp_path / "killed", *options)
    whole = train(tmp_path / "whole", *options)
    assert torch.equal(predictions(resumed), predictions(whole)) and not torch.equal(early, predictions(whole))


def test_a_complete_run_is_not_run_again(tmp_path, capsys):
    train(tmp_path, "--steps", "3")
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert main(["moons", "--output", str(tmp_path), *TINY[1:], "--steps", "3"]) == 0
    assert "from step 3 of 3" in capsys.readouterr().out
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_two_processes_train_what_one_trains(tmp_path):
    options = ["--steps", "30", "--lr", "0.01"]
    one = train(tmp_path / "one", *options)
    line = ["moons", "--output", str(tmp_path / "two"), *TINY[1:], *options, "--samples", "70"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "diffusion_core.training", *line]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("network   MLP") == 1 and "2 processes" in done.stdout
    torch.testing.assert_close(predictions(load_run(tmp_path / "two")), predictions(one), rtol=0, atol=1e-5)
    assert main([*line, "--quiet"]) == 0  # the run is complete: one process draws the samples again
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["checkpoint.safetensors", "run.json", "samples.png", "samples.safetensors"]


def test_samples_are_written_and_are_the_denoisers(tmp_path):
    from safetensors.torch import load_file

    denoiser = train(tmp_path, "--steps", "2", "--samples", "70", "--sampling-steps", "4")
    x = load_file(tmp_path / "samples.safetensors")["x"]
    assert x.shape == (70, 2) and x.isfinite().all() and x.unique(dim=0).shape == x.shape
    seen = []
    denoiser.net.register_forward_hook(lambda net, inputs, y: seen.append(len(y)))
    assert torch.equal(draw_samples(denoiser, (2,), None, 70, 4, seed=0), x)
    assert seen == [64] * 4 + [6] * 4
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_sampled_images_are_clipped_and_asked_for_by_class():
    class Bright(torch.nn.Module):
        seen: list[list[int]] = []

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(7.0))

        def forward(self, x, c, label):
            self.seen.append(label.tolist())
            return self.weight * torch.ones_like(x)

    denoiser = Denoiser(Bright(), schedules.CosineVP(), targets.x0)
    x = draw_samples(denoiser, (1, 4, 4), 3, n=5, steps=2, seed=0, batch_size=4)
    assert torch.equal(x, torch.ones(5, 1, 4, 4))
    assert Bright.seen == [[0, 1, 2, 0]] * 2 + [[1]] * 2


def test_help_lists_everything(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert done.value.code == 0
    words = [*vocabulary.SCHEDULES, *vocabulary.TARGETS, *vocabulary.NETWORKS, *vocabulary.TIMES, *vocabulary.WEIGHTS, *vocabulary.LOSSES]
    for name in (*words, *CLASS_NAMES, "moons", "spiral", "checkerboard", "swiss_roll"):
        assert re.search(rf"\b{name}\b", shown), name


def test_the_vocabulary_lacks_nothing_that_the_package_has():
    concrete = {name for name, value in vars(schedules).items() if isinstance(value, type) and issubclass(value, schedules.Schedule)} - {"Schedule"}
    assert set(vocabulary.SCHEDULES) == concrete
    assert set(vocabulary.PARTS_OF_SCHEDULES) == {name for name in vars(schedules) if name.endswith("_betas")} | {"MonotoneLogSNR"}
    assert set(vocabulary.TARGETS) == set(targets.__all__) - {"determinant", "solution"}
    of_losses = set(losses.__all__)
    assert set(vocabulary.TIMES) == {name.removesuffix("_times") for name in of_losses if name.endswith("_times")} | {"LossSecondMoment"}
    assert set(vocabulary.LOSSES) == {name for name in of_losses if name.endswith("_loss")}
    assert set(vocabulary.WEIGHTS) == {name for name in of_losses if not name.endswith(("_times", "_loss"))} | {"plain"}
    forwards = {name: inspect.signature(getattr(models, name).forward) for name in models.__all__ if hasattr(getattr(models, name), "forward")}
    assert set(vocabulary.NETWORKS) == {name for name, forward in forwards.items() if list(forward.parameters) == ["self", "x", "c", "label"]}


WRONG = {
    "": "required: DATA",
    "mnits": "invalid choice: 'mnits'",
    "moons extra": "unrecognized arguments: extra",
    "moons --steps x": "--steps: invalid int value: 'x'",
    "moons --steps 0": "steps=0",
    "moons --steps -5": "steps=-5",
    "moons --batch 0": "batch_size=0",
    "moons --lr 0": "lr=0.0",
    "moons --lr fast": "--lr: invalid float value: 'fast'",
    "moons --ema 1": "ema=1.0",
    "moons --precision fp16": "--precision: invalid choice: 'fp16'",
    "moons --points 0": "--points 0",
    "moons --label-dropout 0.1": "a toy has no labels",
    "moons --unconditional": "a toy has no labels",
    "digits --label-dropout 1": "label_dropout=1.0",
    "digits --unconditional --label-dropout .1": "needs labels",
    "moons --schedule Quadratic": "--schedule Quadratic: unknown name 'Quadratic': there are LinearVP, CosineVP",
    "moons --schedule linear_betas": "unknown name 'linear_betas'",
    "moons --schedule EDM(80": "'EDM(80' is neither a name nor a call",
    "moons --schedule EDM(sigma=80)": "unexpected keyword argument 'sigma'; expected EDM(sigma_max)",
    "moons --schedule EDM(1,2)": "too many positional arguments",
    "moons --schedule EDM(1,sigma_max=2)": "multiple values for argument 'sigma_max'",
    "moons --schedule EDM(sigma_max=1,sigma_max=2)": "argument",
    "moons --schedule EDM(-1)": "sigma_max must be positive, got -1",
    "moons --schedule EDM('a')": "--schedule EDM('a'): EDM(sigma_max='a')",
    "moons --schedule EDM(40*2)": "'40 * 2' is no number, text, list or name",
    "moons --schedule Shifted": "missing a required argument: 'schedule'",
    "moons --schedule Shifted(SubVP,2)": "SubVP keeps neither",
    "moons --schedule Learned(EDM)": "--schedule Learned(EDM)",
    "moons --schedule DDPM([0.1,2])": "every beta must lie inside (0, 1)",
    "moons --schedule __import__('os').getcwd()": "is neither a name nor a call",
    "moons --schedule EDM(open('x'))": "unknown name 'open'",
    "moons --target noise": "--target noise: unknown name 'noise': there are x0, eps, v",
    "moons --target v(1)": "too many positional arguments; expected v()",
    "moons --target edm(0.5)": "made for sigma_data = 0.5",
    "moons --sigma-data 0": "sigma_data, the standard deviation of the data, must be positive",
    "moons --network UNet": "expected x of shape",
    "moons --network UNet(width=9)": "width a multiple of 8",
    "moons --network MLP(width=0)": "--network MLP(width=0): MLP(dim=2, width=0",
    "moons --network ResNet": "unknown name 'ResNet': there are MLP, UNet, DiT",
    "digits --network MLP": "missing a required argument: 'dim'",
    "digits --network UNet(patch=3) --steps 1": "pad the image or use fewer levels",
    "moons --times late": "unknown name 'late': there are uniform, lognormal",
    "moons --times lognormal(std=0)": "std must be positive",
    "moons --times discrete": "missing a required argument: 'steps'",
    "moons --weight snr(5)": "too many positional arguments; expected snr()",
    "moons --weight min_snr(0)": "gamma must be positive",
    "moons --loss hybrid_loss(10) --times discrete(10)": "MLP has no output for the variance",
    "moons --checkpoint-every 0": "checkpoint_every=0",
    "moons --samples -1": "--samples",
    "moons --samples 4 --sampling-steps 0": "--sampling-steps",
    "moons --device tpu": "--device: invalid choice: 'tpu'",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_answered_in_one_line(line, tmp_path, capsys):
    words = line.split()
    assert main([*words, *(["--output", str(tmp_path / "run")] if words else [])]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("python -m diffusion_core.training: ") and WRONG[line] in error


def test_a_device_that_is_not_there_and_the_environment_after_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for before in (None, "cpu"):
        monkeypatch.delenv("DIFFUSION_CORE_DEVICE", raising=False)
        if before:
            monkeypatch.setenv("DIFFUSION_CORE_DEVICE", before)
        assert main(["moons", "--output", str(tmp_path), "--device", "cuda"]) == 2
        assert "no such device here" in capsys.readouterr().err
        assert os.environ.get("DIFFUSION_CORE_DEVICE") == before


@pytest.mark.parametrize(
    "options, message",
    [
        (["--lr", "0.5"], "holds another run (lr: 0.002, now 0.5)"),
        (["--schedule", "Straight", "--seed", "1"], "schedule: CosineVP(s=0.008), now Straight; seed: 0, now 1"),
        (["--network", "MLP(width=9, depth=2)"], "network: MLP(dim=2, width=8"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, capsys, options, message):
    train(tmp_path, "--steps", "2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["moons", "--output", str(tmp_path), *TINY, "--steps", "2", *options]) == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_line_that_was_wrong_leaves_nothing_in_the_way_of_the_right_one(tmp_path, capsys):
    line = ["moons", "--output", str(tmp_path), *TINY, "--steps"]
    assert main([*line, "0"]) == 2 and list(tmp_path.iterdir()) == []
    assert main([*line, "2", "--loss", "hybrid_loss(10)", "--times", "discrete(10)"]) == 2  # which the first step finds
    assert main([*line, "2"]) == 0
    assert load_run(tmp_path)


def test_a_lost_run_file_is_written_anew_for_the_same_run_only(tmp_path, capsys):
    before = predictions(train(tmp_path, "--steps", "2"))
    (tmp_path / "run.json").unlink()
    assert main(["moons", "--output", str(tmp_path), *TINY, "--steps", "2", "--lr", "1"]) == 2
    assert "another run: lr is 0.002 there and 1.0 here" in capsys.readouterr().err
    assert torch.equal(predictions(train(tmp_path, "--steps", "2")), before)


def test_two_spellings_are_one_run(tmp_path):
    train(tmp_path, "--steps", "2", "--schedule", "geometric_ve(0.01, sigma_max=50)")
    train(tmp_path, "--steps", "2", "--schedule", "GeometricVE()")


def test_a_file_in_the_way_and_a_damaged_checkpoint(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["moons", "--output", str(tmp_path / "file"), *TINY]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    assert main(["moons", "--output", str(tmp_path / "file" / "run"), *TINY]) == 2
    assert "Not a directory" in capsys.readouterr().err
    train(tmp_path / "run", "--steps", "2")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert main(["moons", "--output", str(tmp_path / "run"), *TINY, "--steps", "2"]) == 2
    assert "checkpoint.safetensors is damaged" in capsys.readouterr().err


def test_a_run_that_diverges_says_so(tmp_path, capsys):
    assert main(["moons", "--output", str(tmp_path), *TINY, "--steps", "50", "--lr", "1e30"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Lower lr" in error


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion_core.training.command.fit", interrupted)
    assert main(["moons", "--output", str(tmp_path), *TINY]) == 130
    assert "the same command goes on" in capsys.readouterr().err


class TestRunFile:
    @pytest.fixture
    def folder(self, tmp_path):
        train(tmp_path, "--steps", "2")
        return tmp_path

    def edit(self, folder, **fields):
        path = folder / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no run\.json in .*--output"):
            load_run(tmp_path / "nothing")

    def test_without_weights(self, folder):
        (folder / "checkpoint.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            load_run(folder)

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x80\x04\x95", '{"format": "other"}', "{}"])
    def test_foreign(self, folder, text):
        (folder / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json .*(damaged or not a run|of another program)"):
            load_run(folder)

    @pytest.mark.parametrize(
        "fields, message",
        [
            ({"network": "Resnet(dim=2)"}, r"unknown name 'Resnet': there are MLP"),
            ({"schedule": "os.system('true')"}, "neither a name nor a call"),
            ({"schedule": "Custom()"}, r"run\.json does not say how to build a denoiser: unknown name 'Custom'"),
            ({"target": None}, "does not say how to build"),
            ({"shape": "x"}, "does not say how to build"),
            ({"sigma_data": [1]}, "does not say how to build"),
        ],
    )
    def test_a_name_that_the_package_lacks_is_refused_by_name(self, folder, fields, message):
        self.edit(folder, **fields)
        with pytest.raises(ValueError, match=message):
            load_run(folder)

    @pytest.mark.parametrize("fields", [{"schedule": "LinearVP()"}, {"target": "eps"}, {"sigma_data": 0.9}, {"data": "spiral"}, {"extra": 1}])
    def test_an_edit_is_noticed_although_the_weights_would_fit(self, folder, fields):
        self.edit(folder, **fields)
        with pytest.raises(ValueError, match="was changed after it was written"):
            load_run(folder)

    def test_what_is_written_is_read_again(self, folder):
        run = Run.read(folder)
        run.write(folder / "copy")
        assert Run.read(folder / "copy") == run and [path.name for path in (folder / "copy").iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["v.__class__", "v if v else v", "[v]", "(lambda: v)()", "v; v", "f'{v}'", "v[0]", "3", "'v'", "v(*[])", "v(**{})", "(" * 500 + "v" + ")" * 500, "v\0", ""])
def test_nothing_but_names_and_calls_is_a_phrase(text):
    with pytest.raises(ValueError):
        phrase(text, vocabulary.TARGETS)


def test_progress_in_a_log_is_lines_that_stay(capfd, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("diffusion_core.progress.time.perf_counter", lambda: float(next(clock)))
    with Progress(5, show=True) as line:
        for _ in range(5):
            line.advance(1.5)
    shown = capfd.readouterr().err
    assert len(shown.splitlines()) == 2 and "2/5" in shown and "4/5" in shown and "\r" not in shown and "\x1b" not in shown
