"""TransMiter's adapter of logits, how it is trained and how it is carried over (Park et al. 2025, arXiv 2508.08604).

Letters: B images, C task classes, K task classes and padding words together, N anchors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError

SPREAD_FLOOR = 1e-6  # keeps a row of equal logits finite
REACH = 0.5  # 1-norm up to which Taylor's series to degree 8 is exact to fp32: the next term is 0.5^9 / 9! = 5e-9


@dataclass(frozen=True)
class Config:
    """Published values; sources are files of mlvlab/TransMiter at commit f58085c.

    words         K, classes and padding words together (ket.sh: proj_dim, tot_logit_dim)
    widening      width of the MLP over K (ket.sh: mul_dim)
    epochs, batch, lr, weight_decay   of AdamW, cosine by step (ket.sh)
    warmup        part of all steps (src/knowledge_extraction.py)
    temperature   T of the teacher's softmax (ket.sh: teacher_temperature)
    noise         deviation of the noise on the zero-shot logits, over theirs (ket.sh: noise_alpha)
    noise_odds    of a batch having it (models/noise.py)
    prior         lambda, weight of "word k stands for word k" in the map (transfer.sh: reg_procrutes_coef). It is added
                  to a sum over pictures, so its strength falls with their number
    seed          of words, start and batches (the authors': 1, 2, 3)
    """

    words: int = 1024
    widening: int = 4
    epochs: int = 10
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 1e-3
    warmup: float = 0.05
    temperature: float = 0.5
    noise: float = 0.5
    noise_odds: float = 0.5
    prior: float = 500.0
    seed: int = 1

    def __post_init__(self):
        if min(self.words - 1, self.widening, self.epochs, self.batch) < 1:
            raise UserError(
                "expected words >= 2 and widening, epochs, batch >= 1; found "
                f"{self.words}, {self.widening}, {self.epochs}, {self.batch}"
            )
        if min(self.lr, self.temperature, self.prior) <= 0:
            raise UserError(
                "lr, temperature and prior are above 0 (without a prior, directions that no anchor shows would be "
                f"arbitrary); found {self.lr}, {self.temperature}, {self.prior}"
            )


def standardised(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, K) of mean 0 and deviation 1, and each row's own mean and deviation (B, 1)."""
    mean, deviation = logits.mean(-1, keepdim=True), logits.std(-1, keepdim=True)
    return (logits - mean) / (deviation + SPREAD_FLOOR), mean, deviation


class Adapter(nn.Module):
    """Zero-shot logits (B, K) -> adapted logits (B, K): ``u W^T``, one residual MLP, back by ``W``.

    basis (K, K)   W, orthogonal; in training it is turned, on a new backbone replaced (``transferred``)

    A new one gives back what it is given: the MLP's last layer starts at zero.
    """

    basis: Tensor

    def __init__(self, words: int, widening: int, generator: torch.Generator | None = None):
        super().__init__()
        wide = words * widening
        self.register_buffer("basis", random_rotation(words, generator))
        self.norm_weight = nn.Parameter(torch.ones(words))
        self.norm_bias = nn.Parameter(torch.zeros(words))
        bound = math.sqrt(6 / (words + wide))  # Glorot, uniform
        self.up_weight = nn.Parameter(uniform((wide, words), bound, generator))
        self.up_bias = nn.Parameter(uniform((wide,), 1 / math.sqrt(words), generator))  # torch's own for linear layers
        self.down_weight = nn.Parameter(torch.zeros(words, wide))
        self.down_bias = nn.Parameter(torch.zeros(words))

    def forward(self, logits: Tensor, basis: Tensor | None = None) -> Tensor:
        basis = self.basis if basis is None else basis
        rows, mean, deviation = standardised(logits)
        hidden = rows @ basis.T
        normed = F.layer_norm(hidden, hidden.shape[-1:], self.norm_weight, self.norm_bias)
        widened = F.gelu(F.linear(normed, self.up_weight, self.up_bias))
        hidden = hidden + F.linear(widened, self.down_weight, self.down_bias)
        return hidden @ basis * deviation + mean

    def turned(self, turn: Tensor) -> Tensor:
        """The basis (K, K) turned by the exponential of a skew matrix, the lower triangle of ``turn`` (K, K): every
        rotation is one, and plain gradient steps on ``turn`` keep the basis orthogonal."""
        lower = turn.tril(-1)
        return self.basis @ exponential(lower - lower.T)


def exponential(matrix: Tensor) -> Tensor:
    """exp (K, K) by scaling, Taylor's series to degree 8 and squaring. torch's own goes back through a matrix of 2K by
    2K, which took two thirds of the time of a fit; here the gradient is that of a few products."""
    size = float(matrix.detach().abs().sum(0).max())  # 1-norm
    halvings = max(0, math.ceil(math.log2(size / REACH))) if size else 0
    a = matrix / 2**halvings
    a2 = a @ a
    a3, a4 = a2 @ a, a2 @ a2
    one = torch.eye(len(a), dtype=a.dtype, device=a.device)
    power = one + a + a2 / 2 + a3 / 6 + a4 @ (one / 24 + a / 120 + a2 / 720 + a3 / 5040 + a4 / 40320)
    for _ in range(halvings):
        power = power @ power
    return power


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator | None) -> Tensor:
    return bound * (2 * torch.rand(shape, generator=generator) - 1)


def random_rotation(size: int, generator: torch.Generator | None) -> Tensor:
    """Drawn evenly from the rotations (Mezzadri 2007): QR of a normal matrix with the signs made unique."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.linalg.det(q).sign()
    return q.float()


def distillation(adapted: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T KL(softmax(teacher / T) || softmax(adapted))``, mean over images; both (B, C), the task's classes alone."""
    wanted = F.softmax(teacher / temperature, dim=-1)
    return temperature * F.kl_div(F.log_softmax(adapted, dim=-1), wanted, reduction="batchmean")


def disturbed(logits: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """A batch (B, K) as training sees it: at times with noise, whose deviation follows each row's."""
    if torch.rand((), generator=generator) >= config.noise_odds:
        return logits
    drawn = torch.randn(logits.shape, generator=generator).to(logits)
    return logits + config.noise * logits.std(-1, keepdim=True) * drawn


def rates(config: Config, steps: int) -> Iterator[float]:
    """Learning rate of each step: a linear warm-up, then a cosine to zero."""
    warm = config.warmup * steps
    for step in range(steps):
        if step < warm:
            yield config.lr * min(1.0, (step + 1) / warm)
        else:
            yield config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


@torch.enable_grad()
def train(
    adapter: Adapter, zero_shot: Tensor, teacher: Tensor, config: Config, generator: torch.Generator
) -> list[float]:
    """Teach the adapter to make the plug-in's logits (N, C) of the zero-shot logits (N, K), of which the first C are
    the task's. All on the old backbone. The losses by step; all chance comes from ``generator``, on the CPU."""
    count, device = len(zero_shot), zero_shot.device
    batches = math.ceil(count / config.batch)
    turn = torch.zeros_like(adapter.basis, requires_grad=True)
    optimiser = torch.optim.AdamW([turn, *adapter.parameters()], lr=config.lr, weight_decay=config.weight_decay)
    losses, order = [], torch.empty(0)
    for step, rate in enumerate(rates(config, config.epochs * batches)):
        if step % batches == 0:
            order = torch.randperm(count, generator=generator)
        start = step % batches * config.batch
        rows = order[start : start + config.batch].to(device)
        given = disturbed(zero_shot[rows], config, generator)
        adapted = adapter(given, adapter.turned(turn))
        loss = distillation(adapted[:, : teacher.shape[1]], teacher[rows], config.temperature)
        if not torch.isfinite(loss):
            raise UserError(
                f"TransMiter's loss is {loss.item()} at step {step + 1}: the plug-in's logits or the features "
                "of the anchors are not finite"
            )
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        adapter.basis.copy_(adapter.turned(turn))
    return losses


@torch.no_grad()
def transferred(basis: Tensor, old: Tensor, new: Tensor, prior: float) -> Tensor:
    """The basis for the new backbone: ``Q^T W`` with ``Q`` the orthogonal matrix that takes the latents of the new
    zero-shot logits nearest to those of the old, ``polar(H_new^T H_old + prior I)``, not centred.

    basis (K, K); old, new (N, K) zero-shot logits of the same pictures. Directions that the pictures do not show follow
    the prior: word k of the new backbone stands for word k of the old.
    """
    wide = basis.double().cpu()
    h_old, h_new = (standardised(logits.double().cpu())[0] @ wide.T for logits in (old, new))
    u, _, vh = torch.linalg.svd(h_new.T @ h_old + prior * torch.eye(len(wide), dtype=torch.float64))
    return ((u @ vh).T @ wide).to(basis)
