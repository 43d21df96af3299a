"""A small classifier of 28 x 28 gray images, whose last hidden layer measures generated ones."""

from torch import Tensor, nn


class Classifier(nn.Module):
    """Three stages of convolution, batch norm, ReLU and 2 x 2 max pooling, then a layer of 64 features and one of class scores.

    classifier(x) -> (N, 10) logits, classifier.features(x) -> (N, 64); x is (N, 1, 28, 28) in [-1, 1]. 60,986 parameters.

    >>> import torch
    >>> from diffusion_core.models.classifier import Classifier
    >>> classifier, x = Classifier().eval(), torch.zeros(3, 1, 28, 28)
    >>> classifier(x).shape, classifier.features(x).shape
    (torch.Size([3, 10]), torch.Size([3, 64]))
    >>> sum(p.numel() for p in classifier.parameters())
    60986
    """

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for inside, outside in ((1, 16), (16, 32), (32, 64)):
            convolution = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
            stages += [convolution, nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*stages, nn.Flatten(), nn.Linear(64 * 3 * 3, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (1, 28, 28):
            raise ValueError(f"Classifier: expected x of shape (N, 1, 28, 28), gray images in [-1, 1], got {tuple(x.shape)}")
        return self.head(self.features(x))
