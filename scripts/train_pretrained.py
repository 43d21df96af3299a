"""Train the small denoiser of digits that the package carries: class-conditional, with label dropout, on the path of DDPM.

    python scripts/train_pretrained.py
    python scripts/train_pretrained.py --steps 200 --output /tmp/digits.safetensors

The book's own `fit` on the training split and nothing else. Then it draws digits without guidance and says how often the classifier reads
the class that was asked for, and how far their features are from those of the test split, beside the same figures of real digits.
The weights are kept in half precision, below 1 MB; the figures are those of the rounded weights. Prints the SHA-256 that
`diffusion_core/pretrained/__init__.py` records. About an hour on one CPU core; the same machine and number of threads give the same weights.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from diffusion_core import Denoiser, ancestral, clipped, fit, images, last, lognormal_times, pretrained, uniform
from diffusion_core.metrics import class_accuracy, floor, frechet_feature_distance
from diffusion_core.pretrained import FOLDER, digits_denoiser

STEPS, BATCH, RATE, EMA, DROPOUT, SEED = 36_000, 64, 3e-3, 0.9998, 0.1, 0
TIMES = lognormal_times(-0.2, 1.3)


def train(steps: int) -> Denoiser:
    """The averaged denoiser, its weights rounded to half precision."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        denoiser = digits_denoiser()
    x, labels = images("digits")
    generator = torch.Generator().manual_seed(SEED)
    denoiser, losses = fit(
        denoiser, (x, {"label": labels}), steps, batch_size=BATCH, lr=RATE, times=TIMES, ema=EMA, label_dropout=DROPOUT, generator=generator,
    )
    print(f"loss over the last tenth: {losses[-max(1, steps // 10):].mean():.4f}")
    return denoiser.half().float()


def measure(denoiser: Denoiser, n: int, steps: int) -> dict[str, float]:
    """What n digits drawn by ancestral sampling in `steps` steps without guidance are worth, beside real ones."""
    classifier = pretrained("digits_classifier")
    test_x, test_labels = images("digits", "test")
    labels = torch.arange(n) % 10
    generator = torch.Generator().manual_seed(SEED + 1)
    drawn = []
    for label in labels.split(100):
        start = denoiser.schedule.noise((len(label), 1, 28, 28), generator=generator)
        asked = clipped(lambda x, t, label=label: denoiser(x, t, label=label))
        drawn.append(last(ancestral(asked, denoiser.schedule, start, uniform(steps), generator=generator)))
    drawn = torch.cat(drawn).clamp(-1, 1)
    rest = len(test_x) - n
    distance = lambda x, y: frechet_feature_distance(x, y, classifier)
    real, spread = floor(distance, test_x, n, rest, labels=test_labels)
    return {
        "images": n,
        "steps": steps,
        "class_accuracy": round(class_accuracy(drawn, labels, classifier), 4),
        "class_accuracy_of_real": round(class_accuracy(test_x, test_labels, classifier), 4),
        "feature_distance": round(distance(drawn, test_x[:rest]), 2),
        "feature_distance_of_real": round(real, 2),
        "spread_of_real": round(spread, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates of the weights (default: {STEPS:,})")
    parser.add_argument("--output", type=Path, default=FOLDER / "digits.safetensors", help="where the weights go (default: into the package)")
    options = parser.parse_args()
    denoiser = train(options.steps)
    figures = measure(denoiser, 500, 200)
    training = {
        "command": "python scripts/train_pretrained.py" + (f" --steps {options.steps}" if options.steps != STEPS else ""),
        "data": "digits, training split",
        "optimizer_steps": options.steps,
        "batch": BATCH,
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **figures,
    }
    save_file({name: value.half() for name, value in denoiser.state_dict().items()}, options.output, metadata={"training": json.dumps(training)})
    raw = options.output.read_bytes()
    print(json.dumps(figures, indent=1))
    print(f"{options.output}: {len(raw) / 1e3:.0f} kB, SHA-256 {hashlib.sha256(raw).hexdigest()}")


if __name__ == "__main__":
    main()
