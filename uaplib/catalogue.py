"""Names that the command line shows without PyTorch; the modules that do the work import them from here."""

DATA_FREE = ("fff", "gd-uap-none", "gd-uap-range")
METHODS = ("noise", "uap", *DATA_FREE, "gd-uap-data")
CHAPTER_MODEL = "resnet-mini"
EFFICIENTNET_LITE = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}  # input sizes
MIDAS = "midas-small"
TIMM = "timm:"
