"""What pre-training feeds on: fresh pictures, attribute labels and tokenised captions, from a second process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from . import words
from .attributes import attribute_labels
from .captions import captions
from .hashing import stream, uniforms
from .render import render
from .world import SIZE, Scenes, sample

START, END = 49406, 49407  # CLIP's start and end of text
LONGEST = 40  # tokens a caption may have


def surveyed(survey: int = 200_000) -> list[str]:
    """Every word that captions use, and marks."""
    starts = range(0, survey, 20_000)
    return sorted({w for start in starts for c in captions(sample(stream(0, start, 20_000))) for w in split_words(c)})


class Lexicon:
    """CLIP's tokens of every word that captions use, and a compact renumbering of them."""

    def __init__(self, words: list[str]):
        tokenizer = open_clip.get_tokenizer("ViT-B-16")
        self.words = {w: tokenizer.encode(w) for w in words}
        self.tokens = sorted({t for ids in self.words.values() for t in ids} | {START, END})
        rank = {t: i for i, t in enumerate(self.tokens)}
        self.compact = {w: [rank[t] for t in ids] for w, ids in self.words.items()}
        self.start, self.end = rank[START], rank[END]

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Compact ids (B, L), cut at the longest text, and each text's place of END (B,)."""
        rows = [
            [self.start, *(t for w in split_words(text) for t in self.compact.get(w, ()))][:LONGEST] + [self.end]
            for text in texts
        ]
        ends = np.array([len(r) - 1 for r in rows])
        ids = np.full((len(rows), ends.max() + 1), self.end)
        for row, line in zip(ids, rows, strict=True):
            row[: len(line)] = line
        return ids, ends


class OwnLexicon:
    """As ``Lexicon``, of the model whose vocabulary is small enough to be trained whole."""

    def __init__(self):
        self.tokens = list(range(words.size()))

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids (B, L), padding included, for the tower reads it; and the row that it gives (B,)."""
        ids = words.Words()(texts).numpy()
        return ids, np.full(len(ids), ids.shape[1] - 1)


def split_words(caption: str) -> list[str]:
    return caption.replace(",", " ,").replace(".", " .").split()


def lesson(keys: np.ndarray, easy: float) -> Scenes:
    """Scenes of which a share ``easy`` shows one large object on a plain backdrop: from these, shapes are learned."""
    hard = sample(keys)
    if easy <= 0:
        return hard
    simple = sample(keys, style=0, backdrop=0, present=1, relation=0, count=1, size=2)
    chosen = uniforms(keys, "lesson") < easy
    return Scenes(*(np.where(chosen, a, b) for a, b in zip(vars(simple).values(), vars(hard).values(), strict=True)))


def supply(queue, config, lexicon: Lexicon | OwnLexicon, steps: int, told: bool) -> None:
    """Fill ``queue`` with ``steps`` batches: pictures, attribute labels and, where told, captions."""
    torch.set_num_threads(1)
    count = config.align_batch if told else config.attribute_batch
    for step in range(steps):
        scenes = lesson(
            stream(config.seed * 2 + told, step * count, count), 0.0 if told else 1 - step / (config.easy_part * steps)
        )
        queue.put((render(scenes), attribute_labels(scenes), *(lexicon(captions(scenes)) if told else (None, None))))


def batches(config, lexicon: Lexicon | OwnLexicon, steps: int, told: bool) -> Iterator[tuple]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(2)
    worker = context.Process(target=supply, args=(queue, config, lexicon, steps, told), daemon=True)
    worker.start()
    for _ in range(steps):
        yield queue.get()
    worker.join()


def prepare(pictures: np.ndarray, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) normalised; half of the pictures are cropped (70 % of the side at least) and half mirrored."""
    x = torch.from_numpy(pictures).float()
    n = len(x)
    u = torch.rand(5, n, generator=generator)
    zoom = torch.where(u[0] < 0.5, 1 - 0.3 * u[1], torch.ones(n))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = zoom * torch.where(u[4] < 0.5, 1.0, -1.0)
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = (1 - zoom)[:, None] * (u[2:4].T * 2 - 1)
    x = F.grid_sample(
        x, F.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False), align_corners=False, padding_mode="border"
    )
    mean, std = (
        255 * torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)
