"""The only place of defaults; the command line, the audit and the leaderboard read them here."""

ARCH = "micro"
SEEDS = (1, 2, 3)
SHOTS = 16
PRECISION = "auto"  # of the frozen towers: bf16 on CUDA cards that have it in hardware, elsewhere the next
PLAIN_PRECISION = "fp32"
PUBLISHED_VIEWS, MICRO_VIEWS = 16, 4
TEXT_MEMORY = 4.0  # GB that a text pass keeps on a CPU
TEXT_SHARE, TEXT_BESIDE = 0.6, 2.0  # of a GPU's free memory, less so many GB for towers, features and what is learned
LIST_DEFAULTS = {
    **{name: [] for name in ("suite", "methods", "datasets", "overrides", "sweep", "plugin_dir")},
    "seeds": list(SEEDS),
}


def views(protocol: str) -> int:
    """Augmented views kept of each training image."""
    return MICRO_VIEWS if protocol == "micro" else PUBLISHED_VIEWS
