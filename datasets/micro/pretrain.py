"""Train the micro models from nothing: ``python -m carryover.datasets.micro.pretrain --out datasets/micro/weights``.

Each model is trained in two stages, as EVA-CLIP starts from a vision tower trained otherwise (Sun et al. 2023): first
the vision tower learns what is in a picture (one linear head per attribute), then both towers learn from captions by
CLIP's contrastive loss, the heads staying on at a lower weight. The update follows EVA-CLIP's recipe: a new and larger
vision tower; text tower started from the trained base's, its learning rate a tenth of the vision tower's and decayed
0.75 a layer; ``text_projection`` and ``logit_scale`` re-initialised, so that the new joint space shares nothing with
the old one; GELU for QuickGELU. A third model, ``unrelated``, repeats the base's recipe from other initial values on
other pictures: what a backbone looks like that shares nothing with the base but its training. Two further updates,
``second`` (of the update) and ``larger`` (of the base, with a larger vision tower), follow the update's recipe. Two are
other models altogether, trained from nothing: ``wider`` has other text and joint widths, ``siglip`` is of SigLIP's kind
(Zhai et al. 2023): a vocabulary of its own, a text tower without a causal mask that is read at the last position, and a
sigmoid loss with a bias.

Pictures are never repeated: they are rendered as they are needed, in a second process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attributes import AttributeHeads
from .checkpoint import WEIGHTS, initial_rows, metadata, read, save
from .feed import Lexicon, OwnLexicon, batches, prepare, surveyed
from .world import WORLD_VERSION


@dataclass(frozen=True)
class PretrainConfig:
    """One model's training. Learning rates are peaks of a cosine after ``warmup`` steps."""

    name: str
    seed: int
    attribute_steps: int
    align_steps: int
    text_from: str | None = None  # the model whose text tower this one starts from
    attribute_batch: int = 128
    align_batch: int = 256
    warmup: int = 100
    easy_part: float = 0.6  # of the attribute stage, over which easy pictures give way to the whole world
    vision_lr: float = 2e-3
    align_lr: float = 1e-3
    text_lr_scale: float = 1.0  # text lr = align_lr * this; a tenth in EVA-CLIP
    layer_decay: float = 1.0  # text lr decay a layer; 0.75 in EVA-CLIP
    weight_decay: float = 0.05
    attribute_weight: float = 0.5  # of the attribute loss while aligning
    sigmoid: bool = False  # SigLIP's loss, its scale and bias at ten times the rate; else CLIP's
    salt: int = 0  # of the initial token embeddings; the base and its update share theirs


CONFIGS = {
    "base": PretrainConfig("micro-base", seed=1, attribute_steps=2000, align_steps=700),
    "update": PretrainConfig(
        "micro-update",
        seed=2,
        attribute_steps=2600,
        align_steps=1000,
        text_from="micro-base",
        text_lr_scale=0.1,
        layer_decay=0.75,
    ),
    "unrelated": PretrainConfig("micro-unrelated", seed=3, attribute_steps=2000, align_steps=700, salt=1),
    "wider": PretrainConfig("micro-wider", seed=6, attribute_steps=2000, align_steps=700, salt=2),
    "siglip": PretrainConfig("micro-siglip", seed=7, attribute_steps=2000, align_steps=700, sigmoid=True, salt=3),
}
# the update's recipe twice more: upon the update itself, and upon the base with a larger vision tower
CONFIGS["second"] = replace(CONFIGS["update"], name="micro-second", seed=4, text_from="micro-update")
CONFIGS["larger"] = replace(CONFIGS["update"], name="micro-larger", seed=5)


def build(name: str, salt: int = 0) -> nn.Module:
    """The open_clip model of a config shipped here, its token embedding at the hashed start."""
    open_clip.add_model_config(WEIGHTS / f"{name}.json")
    model = open_clip.create_model(name, force_custom_text=True)
    rows = model.text.token_embedding.weight
    rows.data.copy_(initial_rows(range(len(rows)), rows.shape[1], salt))
    return model


def encode_text(text: nn.Module, embedding: Tensor, ids: Tensor, ends: Tensor, parts: int = 4) -> Tensor:
    """(B, D): open_clip's text tower on B texts, sorted and cut at their longest end, which is exact where it is causal
    (else every text ends at the last position)."""
    order, made = ends.argsort(), []
    for rows in order.chunk(parts):
        length = int(ends[rows].max()) + 1
        x = F.embedding(ids[rows, :length], embedding) + text.positional_embedding[:length]
        x = text.transformer(x, attn_mask=None if text.attn_mask is None else text.attn_mask[:length, :length])
        x, projection = text.ln_final(x[torch.arange(len(rows)), ends[rows]]), text.text_projection
        made.append(projection(x) if isinstance(projection, nn.Linear) else x @ projection)
    return torch.cat(made)[order.argsort()]


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss on (B, D) features."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pairwise(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's sigmoid loss on (B, D) features (Zhai et al. 2023, algorithm 1)."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T + bias
    return -F.logsigmoid(logits * (2 * torch.eye(len(logits)) - 1)).sum() / len(logits)


def parameter_groups(model: nn.Module, heads: nn.Module, embedding: Tensor, config: PretrainConfig) -> list[dict]:
    """AdamW groups for aligning: no decay on vectors and embeddings, layer-wise learning rates in the text tower."""
    layers = model.text.transformer.layers
    groups: dict[tuple[float, float], list] = {}

    def add(tensor, scale, decay):
        groups.setdefault((scale, decay if tensor.ndim > 1 else 0.0), []).append(tensor)

    for tensor in [*model.visual.parameters(), *heads.parameters()]:
        add(tensor, 1.0, config.weight_decay)
    for name, tensor in model.text.named_parameters():
        if name == "token_embedding.weight":
            continue
        depth = 0 if name.startswith("positional") else layers + 1
        if name.startswith("transformer.resblocks."):
            depth = int(name.split(".")[2]) + 1
        decay = 0.0 if name.startswith("positional") else config.weight_decay
        scale = config.text_lr_scale * config.layer_decay ** (layers + 1 - depth)
        # the projection starts anew in the update too, like the vision tower it has to meet
        add(tensor, 1.0 if name.startswith("text_projection") else scale, decay)
    add(embedding, config.text_lr_scale * config.layer_decay ** (layers + 1), 0.0)
    add(model.logit_scale, 10.0 if config.sigmoid else 1.0, 0.0)
    if config.sigmoid:
        add(model.logit_bias, 10.0, 0.0)
    return [{"params": tensors, "weight_decay": decay, "scale": scale} for (scale, decay), tensors in groups.items()]


def cosine(step: int, steps: int, warmup: int) -> float:
    return min((step + 1) / warmup, 1.0) * 0.5 * (1 + np.cos(np.pi * step / steps))


def run_stage(model, heads, embedding, lexicon, config: PretrainConfig, told: bool, precision: str, checkpoint) -> None:
    """One stage: attributes alone, or (``told``) captions as well."""
    steps = config.align_steps if told else config.attribute_steps
    torch.set_num_threads(1)  # two models, or two towers, run side by side: faster than sharing every operation
    other_core = ThreadPoolExecutor(1)
    seers = [*model.visual.parameters(), *heads.parameters()]
    groups = [{"params": seers, "weight_decay": config.weight_decay, "scale": 1.0}]
    if told:
        groups = parameter_groups(model, heads, embedding, config)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    peak = config.align_lr if told else config.vision_lr
    generator = torch.Generator().manual_seed(config.seed + 10 * told)
    begun = saved = time.time()
    model.train()
    for step, (pictures, labels, ids, ends) in enumerate(batches(config, lexicon, steps, told)):
        for group in optimizer.param_groups:
            group["lr"] = peak * group["scale"] * cosine(step, steps, config.warmup)
        optimizer.zero_grad()
        if told:  # the two towers run side by side, a core each
            pending = other_core.submit(
                encode_text, model.text, embedding, torch.from_numpy(ids), torch.from_numpy(ends)
            )
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            images = model.visual(prepare(pictures, generator)).float()
        seen = images.detach().requires_grad_()
        attribute_loss, accuracy = heads(seen, labels)
        loss = attribute_loss
        if told:
            texts = pending.result()
            told_text = texts.detach().requires_grad_()
            scale = model.logit_scale.exp()
            caption_loss = (
                pairwise(seen, told_text, scale, model.logit_bias)
                if config.sigmoid
                else contrastive(seen, told_text, scale)
            )
            loss = caption_loss + config.attribute_weight * attribute_loss
        loss.backward()
        if told:
            pending = other_core.submit(texts.backward, told_text.grad)
        images.backward(seen.grad)
        if told:
            pending.result()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0, np.log(100))
        if step % 50 == 0 or step == steps - 1:
            line = dict(
                model=config.name,
                stage="align" if told else "attributes",
                step=step,
                seconds=round(time.time() - begun, 1),
                attributes=round(float(attribute_loss.detach()), 3),
                scale=round(float(model.logit_scale.detach().exp()), 2),
            )
            if told:
                line["captions"] = round(float(caption_loss.detach()), 3)
                if config.sigmoid:
                    line["bias"] = round(float(model.logit_bias.detach()), 2)
            if step % 250 == 0 or step == steps - 1:
                line.update({k: round(float(v), 2) for k, v in accuracy.items()})
            print(json.dumps(line), flush=True)
        if time.time() - saved > 180 or step == steps - 1:
            checkpoint("align" if told else "attributes")
            saved = time.time()


def pretrain(config: PretrainConfig, out: Path, precision: str, lexicon: Lexicon | OwnLexicon) -> None:
    """Train one model and write ``out/<name>.safetensors``, every few minutes and at the end."""
    begun = time.time()
    torch.manual_seed(config.seed)
    model = build(config.name, config.salt)
    model.visual.to(memory_format=torch.channels_last)
    heads = AttributeHeads(open_clip.get_model_config(config.name)["embed_dim"])
    header = {
        "world": WORLD_VERSION,
        "architecture": config.name,
        "recipe": json.dumps(asdict(config)),
        "precision": precision,
    }

    def checkpoint(stage: str) -> None:
        model.text.token_embedding.weight.data[lexicon.tokens] = embedding.data
        save(
            model,
            out / f"{config.name}.safetensors",
            lexicon.tokens,
            {**header, "seconds": str(round(time.time() - begun)), "stage": stage},
            config.salt,
        )

    embedding = nn.Parameter(model.text.token_embedding.weight.detach()[lexicon.tokens].clone())
    checkpoint("attributes")
    run_stage(model, heads, embedding, lexicon, config, False, precision, checkpoint)
    if config.text_from:
        inherit_text(model, wait_for(out / f"{config.text_from}.safetensors"))
        embedding = nn.Parameter(model.text.token_embedding.weight.detach()[lexicon.tokens].clone())
    run_stage(model, heads, embedding, lexicon, config, True, precision, checkpoint)
    checkpoint("done")


def inherit_text(model: nn.Module, path: Path) -> None:
    """Start the text tower from a trained model's, all but its projection into the joint space."""
    fresh = model.text.text_projection.detach().clone()
    model.text.load_state_dict({k.removeprefix("text."): v for k, v in read(path).items() if k.startswith("text.")})
    model.text.text_projection.data.copy_(fresh)


def wait_for(path: Path) -> Path:
    """The path, once the model in it is finished."""
    while not path.exists() or metadata(path).get("stage") != "done":
        time.sleep(2)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--model", choices=(*CONFIGS, "all"), default="all")
    parser.add_argument("--attribute-steps", type=int, help="instead of the recipe's")
    parser.add_argument("--align-steps", type=int, help="instead of the recipe's")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="of the vision tower's arithmetic"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs, lexicon = [], Lexicon(surveyed())  # one survey of the captions for all of them
    for model in CONFIGS if options.model == "all" else (options.model,):
        steps = {k: v for k in ("attribute_steps", "align_steps") if (v := getattr(options, k)) is not None}
        config = PretrainConfig(**{**asdict(CONFIGS[model]), **steps})
        (options.out / f"{config.name}.safetensors").unlink(missing_ok=True)
        given = config, options.out, options.precision, OwnLexicon() if config.sigmoid else lexicon
        jobs.append(multiprocessing.get_context("spawn").Process(target=pretrain, args=given))
        jobs[-1].start()
    for job in jobs:  # the base first: if it fails, the update would wait for ever
        job.join()
        if job.exitcode:
            for other in jobs:
                other.terminate()
            raise SystemExit(1)


if __name__ == "__main__":
    main()
