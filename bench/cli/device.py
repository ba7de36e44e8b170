"""Where a call works, and in which precision: what --device and --precision come to on this machine."""

from __future__ import annotations

import argparse

import torch

from carryover.bench.cli.flag_values import ALL_CARDS
from carryover.bench.engine.options import Options
from carryover.bench.errors import UserError
from carryover.bench.host.device import device_name, precision_on
from carryover.bench.records.reading import counted

MANY = ("run", "doctor")  # commands that work on several cards


def device_of(args: argparse.Namespace, micro: bool = False) -> tuple[str, tuple[int, ...]]:
    """--device as torch names its kind, and the numbers of the cards that it names; none where it names no number.
    ``micro``: whether all that is asked is of the micro world, where a card gains nothing."""
    kind, _, numbers = args.device.partition(":")
    if kind == "auto" and micro:
        return "cpu", ()
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu", ()
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {args.device}: this machine or this build of torch has no CUDA device; use --device cpu"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: not available here; use --device cpu")
    if not numbers:
        return kind, ()
    there = torch.cuda.device_count()
    cards = tuple(range(there) if numbers == ALL_CARDS else map(int, numbers.split(",")))
    if wrong := [card for card in cards if card >= there]:
        found = f"{counted(there, 'card')}, cuda:0" + (f" to cuda:{there - 1}" if there > 1 else "")
        raise UserError(f"--device {args.device}: no card {wrong[0]}; found {found}")
    if len(cards) > 1 and args.command not in MANY:
        raise UserError(f"--device {args.device}: {args.command} works on one card; name one, e.g. cuda:{cards[0]}")
    return kind, cards


def placed(args: argparse.Namespace, micro: bool) -> tuple[str, tuple[int, ...], str]:
    """Where the process that plans works, as ``device_of`` gives it, and the precision of frozen towers: the one place
    that says what --precision auto is. Through Ray it only plans: its workers' device and precision are theirs
    (`cluster.engine`)."""
    plans = args.engine == "ray" and args.command in MANY and not args.dry_run
    device, cards = ("cpu", ()) if plans else device_of(args, micro)
    return device, cards, args.precision or precision_on(device, cards)


def precision_told(args: argparse.Namespace, options: Options) -> str:
    """The precision of the frozen towers, and why it is that."""
    if options.device != "cuda":
        return options.precision
    if args.precision:
        return f"{options.precision}, as --precision says; tf32 is off"
    if options.precision == "bf16":
        return "bf16, which the card has in hardware (--precision fp32 for single precision); tf32 is off"
    return "fp32, since the card has no bf16 in hardware; tf32 is off"


def device_told(args: argparse.Namespace, options: Options) -> str:
    """The device by name, and why it is the CPU beside a card."""
    passed = options.device == "cpu" and args.device == "auto" and torch.cuda.is_available()
    why = "; a card gains nothing for the micro world's small steps (--device cuda uses it)" if passed else ""
    return device_name(torch.device(options.device)) + why
