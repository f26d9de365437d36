"""Data sets, one module each. Images are float32 tensors (N, C, H, W), RGB or grey, in [0, 1]."""

from uaplib.data import camvid, depth_folders, fashion_mnist, pictures, scenes

DATASETS = {
    "fashion-mnist": fashion_mnist,
    "imagenet-samples": pictures,
    "camvid": camvid,
    "scenes": scenes,
    "depth-folders": depth_folders,
}
