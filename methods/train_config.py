"""Options that every trained method has; plans and tables read them, so that no torch is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from carryover.bench.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """How the shared trainer optimises a method; the defaults are CoOp's (Zhou et al. 2022; KaiyangZhou/CoOp configs).

    epochs         0 = nothing for the trainer to do (``start`` does it all)
    steps          instead of epochs: as many epochs as make at least so many steps (0 = go by epochs)
    schedule       "epoch": cosine stepped once an epoch after ``warmup_epochs`` at ``warmup_lr`` (Dassl);
                   "iteration": cosine stepped at each batch, no warm-up (Tip-Adapter)
    drop_last      leave out an epoch's incomplete last batch (never the only one)
    crop           area range of RandomResizedCrop in the augmented views; (1, 1) trains on test-transform features only
    """

    optimizer: str = "sgd"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    eps: float = 1e-8
    batch: int = 32
    epochs: int = 200
    steps: int = 0
    warmup_epochs: int = 1
    warmup_lr: float = 1e-5
    schedule: str = "epoch"
    drop_last: bool = True
    crop: tuple[float, float] = (0.08, 1.0)

    def __post_init__(self):
        if self.optimizer not in ("sgd", "adam", "adamw") or self.schedule not in ("epoch", "iteration"):
            raise UserError(
                f"optimizer is 'sgd', 'adam' or 'adamw', schedule is 'epoch' or 'iteration'; found '{self.optimizer}' "
                f"and '{self.schedule}'"
            )
        area = len(self.crop) == 2 and 0 < self.crop[0] <= self.crop[1] <= 1
        if self.lr < 0 or self.momentum < 0 or self.weight_decay < 0 or self.eps < 0 or self.warmup_epochs < 0:
            raise UserError(
                f"lr, momentum, weight_decay, eps and warmup_epochs are not negative; found {self.lr}, "
                f"{self.momentum}, {self.weight_decay}, {self.eps}, {self.warmup_epochs}"
            )
        if self.batch < 1 or self.epochs < 0 or self.steps < 0 or not area:
            raise UserError(
                f"expected batch >= 1, epochs and steps >= 0, crop between 0 and 1; found batch {self.batch}, "
                f"epochs {self.epochs}, steps {self.steps}, crop {self.crop}"
            )
