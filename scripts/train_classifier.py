"""Train the classifier that measures generated images, and keep its weights in the package.

    python scripts/train_classifier.py digits
    python scripts/train_classifier.py fashion --output /tmp/weights.safetensors

It sees the training split of one embedded image set and nothing else, moved, turned and stretched a little at random; the test split
says how good it became, and that figure is written into the file beside the weights. Prints the SHA-256 that
`diffusion_core/pretrained/__init__.py` records. About a minute on two CPU cores; the same number of threads gives the same weights.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from diffusion_core.data import images
from diffusion_core.models.classifier import Classifier
from diffusion_core.pretrained import FOLDER

EPOCHS, BATCH, RATE, SEED = 16, 100, 4e-3, 0
WARP = {"digits": 0.12, "fashion": 0.06}


def warped(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """x under random affine maps near the identity: the matrix changes by N(0, amount^2) an entry, the center by up to 1.5 pixels."""
    n, size = len(x), x.shape[-1]
    maps = torch.eye(2, 3).repeat(n, 1, 1)
    maps[:, :, :2] += amount * torch.randn(n, 2, 2, generator=generator)
    maps[:, :, 2] += 3 / size * (2 * torch.rand(n, 2, generator=generator) - 1)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def train(name: str) -> tuple[Classifier, float]:
    """The trained classifier in evaluation mode, and its accuracy on the test split."""
    x, labels = images(name)
    test_x, test_labels = images(name, "test")
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        classifier = Classifier()
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=RATE, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = F.cross_entropy(classifier(warped(x[batch], WARP[name], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / len(x):.4f}", flush=True)
    classifier.eval()
    with torch.no_grad():
        accuracy = (classifier(test_x).argmax(1) == test_labels).float().mean().item()
    return classifier, accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(WARP), help="the image set")
    parser.add_argument("--output", type=Path, help="where the weights go (default: into the package)")
    options = parser.parse_args()
    output = options.output or FOLDER / f"{options.name}_classifier.safetensors"
    classifier, accuracy = train(options.name)
    training = {
        "command": f"python scripts/train_classifier.py {options.name}",
        "data": f"{options.name}, training split",
        "test_accuracy": round(accuracy, 4),
        "epochs": EPOCHS,
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    save_file(classifier.state_dict(), output, metadata={"training": json.dumps(training)})
    raw = output.read_bytes()
    print(f"test accuracy {accuracy:.4f}; {output}: {len(raw) / 1e3:.0f} kB, SHA-256 {hashlib.sha256(raw).hexdigest()}")


if __name__ == "__main__":
    main()
