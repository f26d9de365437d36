"""Names that the command line shows without PyTorch; the modules that do the work import them from here."""

DATA_FREE = ("fff", "gd-uap-none", "gd-uap-range")
METHODS = ("noise", "uap", *DATA_FREE, "gd-uap-data")
CHAPTER_MODEL = "resnet-mini"
