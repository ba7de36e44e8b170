"""Seed streams and the registry."""

import pytest
import torch

from carryover.bench.errors import UserError
from carryover.bench.registry import Registry
from carryover.bench.seeds import derive
from carryover.bench.training.generators import generator


def test_a_seed_depends_on_each_axis_on_their_order_and_on_where_one_ends():
    seeds = {
        derive("fit", "dtd", "coop", 1),
        derive("fit", "dtd", "coop", 2),
        derive("fit", "dtd", "kgcoop", 1),
        derive("init", "dtd", "coop", 1),
        derive("dtd", "fit", "coop", 1),
        derive("fitd", "td", "coop", 1),
        derive("fit", "dtd", "coop", 1, 0),
    }
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive("fit", "dtd", "coop", 1) == derive("fit", "dtd", "coop", "1")


def test_generators_of_one_purpose_repeat_and_leave_the_global_stream_alone():
    before = torch.get_rng_state()
    one, same, other = (torch.rand(5, generator=generator("a", seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_registry_keeps_order_and_names_the_nearest_entry():
    things = Registry("thing")
    for name in ("coop", "kgcoop", "zs-clip"):
        things.register(name)(object())
    assert list(things) == ["coop", "kgcoop", "zs-clip"] and "coop" in things and "cop" not in things
    with pytest.raises(UserError, match="unknown thing 'kgcop'. Did you mean 'kgcoop'?"):
        things["kgcop"]


def test_registry_refuses_a_second_entry_and_a_foreign_class():
    numbers = Registry("number", int)
    numbers.register("bool")(bool)
    with pytest.raises(UserError, match="registered twice"):
        numbers.register("bool")(bool)
    for entry in (str, 3, lambda: 3):
        with pytest.raises(UserError, match="derived from int"):
            numbers.register("other")(entry)
    assert list(numbers) == ["bool"]
