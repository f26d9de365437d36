"""Data sets, one module each. Images are float32 tensors (N, C, H, W), RGB or grey, in [0, 1]."""

from uaplib.data import fashion_mnist, pictures

DATASETS = {"fashion-mnist": fashion_mnist, "imagenet-samples": pictures}
