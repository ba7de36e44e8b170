"""The stand-in for a CUDA device keeps a device's rules: what CUDA refuses it refuses, and it counts every wait."""

import copy
from unittest import mock

import pytest
import stand_in_backward
import torch
import torch.nn.functional as F
from stand_in_cuda import DeviceFault, DeviceTensor, stand_in_cuda
from torch import nn
from torch.utils.checkpoint import checkpoint

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1, 0])


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.LayerNorm(4), nn.Linear(4, 2))


def trained(device, steps=3, **options):
    model = network().to(device)
    solver = torch.optim.AdamW(model.parameters(), 0.1, **options)
    x, y = X.to(device), Y.to(device)
    for _ in range(steps):
        solver.zero_grad()
        F.cross_entropy(model(x), y).backward()
        solver.step()
    return [value.detach().cpu() for value in model.parameters()]


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_training_gives_what_it_gives_on_the_cpu():
    expected = trained("cpu")
    with stand_in_cuda():
        found = trained("cuda")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def several_uses(x, y):
    """Broadcasts, a tensor used twice, one that is not, a checkpoint, a view and another type."""
    z = checkpoint(lambda a: (a * y).tanh() @ a.T, x, use_reentrant=False)
    return (z + x.sum(1)[:, None]).double().square().mean() + (x[1:] * 2.0).relu().sum() + x[0].unbind()[0]


@pytest.mark.parametrize("of", ["both", "first", "inner", "its own gradient"])
def test_the_backward_pass_has_the_bits_of_torchs_own(of):
    def found():
        x, y = X.clone().requires_grad_(), X[:1].clone().requires_grad_()
        inner = x * 3
        if of == "both":
            several_uses(inner, y).backward()
            several_uses(x, y).backward()
            return [x.grad, y.grad]
        if of == "its own gradient":
            (first,) = torch.autograd.grad(several_uses(x, y), [x], create_graph=True)
            return torch.autograd.grad(first.square().sum(), [x, y])
        made = torch.autograd.grad(several_uses(inner, y), [inner] if of == "inner" else [x])
        assert x.grad is None and y.grad is None
        return made

    expected = found()
    with (
        mock.patch.object(torch.autograd, "_engine_run_backward", stand_in_backward.run),
        mock.patch.object(torch._C, "_current_graph_task_id", stand_in_backward.current),
    ):
        for one, other in zip(found(), expected, strict=True):
            assert torch.equal(one, other)


def test_a_gradient_that_goes_to_two_leaves_is_not_shared():
    with stand_in_cuda():
        a, b = (torch.ones(2, device="cuda", requires_grad=True) for _ in range(2))
        (a + b).sum().backward()
        a.grad.zero_()
        assert b.grad.tolist() == [1, 1]


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_devices_do_not_mix():
    with stand_in_cuda():
        x = X.to("cuda")
        for mixed in (
            lambda: x @ torch.ones(3, 2),
            lambda: x + torch.ones(3),
            lambda: torch.cat([x, X]),
            lambda: F.embedding(Y.to("cuda"), X),
            lambda: X[Y.to("cuda")],
            lambda: F.cross_entropy(x, Y),
            lambda: x.gather(1, torch.zeros(6, 1, dtype=torch.long)),
        ):
            with pytest.raises(DeviceFault, match="same device|device of the indexed"):
                mixed()
        assert torch.equal((x * torch.tensor(2.0)).cpu(), X * 2)  # a number may stand on the CPU
        with pytest.raises(TypeError, match="convert cuda"):
            x.numpy()
        with pytest.raises(DeviceFault, match="generator"):
            torch.randn(3, device="cuda", generator=torch.Generator())


def test_random_numbers_of_the_device_are_not_those_of_the_cpu():
    torch.manual_seed(0)
    expected = torch.rand(4)
    with stand_in_cuda():
        torch.manual_seed(0)
        assert not torch.equal(torch.rand(4, device="cuda").cpu(), expected)
        assert torch.equal(torch.rand(4), expected)


def test_modules_that_move_keep_their_parameters_and_go_back():
    with stand_in_cuda():
        model = network()
        weight = model[0].weight
        model.to("cuda")
        assert model[0].weight is weight and type(weight) is DeviceTensor and isinstance(weight, nn.Parameter)
        other = copy.deepcopy(model)
        other[0].weight.data.zero_()
        assert weight.abs().sum() > 0
        model.to("cpu")
        assert model[0].weight is weight and type(weight) is nn.Parameter


# ---- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, asks",
    [
        ("item", lambda x: float(x.sum())),
        ("item", lambda x: bool((x > 0).any())),
        ("d2h", lambda x: x.tolist()),
        ("d2h", lambda x: x.cpu()),
        ("h2d blocking", lambda x: torch.tensor([1, 2], device="cuda")),
        ("h2d blocking", lambda x: x.copy_(X)),
        ("h2d blocking", lambda x: x[Y]),
        ("boolean index", lambda x: x[x > 0]),
        ("nonzero", lambda x: x.nonzero()),
        ("equal", lambda x: torch.equal(x, x)),
        ("linalg", lambda x: torch.linalg.svd(x)),
        ("synchronize", lambda x: torch.cuda.synchronize()),
    ],
)
def test_every_wait_of_the_host_is_counted(kind, asks):
    with stand_in_cuda() as ledger:
        x = X.to("cuda")
        ledger.events.clear()
        asks(x)
        assert set(ledger.events) >= {(kind, "elsewhere")} and ledger.syncs == ledger.count(kind) >= 1


def test_what_the_host_does_not_wait_for_is_no_wait():
    with stand_in_cuda() as ledger:
        x = X.pin_memory().to("cuda", non_blocking=True)
        x.masked_fill_(x > 0, 0)
        x[x > 0] = 0.0
        X.to("cuda", non_blocking=True)
        assert x.shape == X.shape and len(x) == 6
        assert ledger.syncs == 0 and ledger.h2d == 2 and ledger.count("h2d unpinned") == 1 and ledger.kernels > 0


def test_a_copy_to_the_host_is_there_once_the_host_has_waited():
    with stand_in_cuda():
        x = X.to("cuda").to("cpu", non_blocking=True)
        assert x.isnan().all()
        torch.cuda.synchronize()
        assert torch.equal(x, X)


# ---- graphs ----------------------------------------------------------------------------------------------------------


def captured_steps(steps):
    """Training as ``trained`` does it, each step but the first a replay."""
    model = network().to("cuda")
    solver = torch.optim.AdamW(model.parameters(), 0.1, capturable=True)
    x, y = X.to("cuda"), Y.to("cuda")

    def step():
        solver.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        solver.step()
        return loss

    with torch.cuda.stream(torch.cuda.Stream()):
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    assert torch.isnan(loss.cpu()), "a capture computes nothing"
    for _ in range(steps - 1):
        graph.replay()
    return [value.detach().cpu() for value in model.parameters()], loss.cpu()


def test_a_captured_step_trains_as_the_step_does():
    with stand_in_cuda() as ledger:
        expected = trained("cuda", 4, capturable=True)
        ledger.events.clear()
        found, loss = captured_steps(4)
        assert ledger.count("replay") == 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.isfinite(loss)


def test_a_graph_reads_its_inputs_where_they_lie_and_numbers_as_they_were():
    with stand_in_cuda():
        x, factor, graph = torch.ones(2, device="cuda"), torch.tensor(2.0), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = x * factor
            x.add_(1)
        assert x.tolist() == [1, 1]
        x.fill_(5)
        factor.fill_(100)
        graph.replay()
        assert (y.tolist(), x.tolist()) == ([10, 10], [6, 6])


def test_what_a_capture_cannot_do_is_refused():
    def captures(asks):
        x = torch.ones(2, device="cuda")
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            asks(x)

    with stand_in_cuda():
        for asks in (
            lambda x: x.sum().item(),
            lambda x: x.cpu(),
            lambda x: x.copy_(torch.zeros(2)),
            lambda x: torch.tensor([1.0], device="cuda"),
            lambda x: x[x > 0],
            lambda x: torch.cuda.synchronize(),
        ):
            with pytest.raises(DeviceFault, match="captur"):
                captures(asks)
        assert torch.ones(1, device="cuda").item() == 1  # and nothing is captured any more


def test_a_graph_whose_input_was_freed_is_refused():
    with stand_in_cuda():
        graph = torch.cuda.CUDAGraph()
        x = torch.ones(2, device="cuda")
        with torch.cuda.graph(graph):
            y = x[:1] + 1
        view = x[1:]
        del x
        graph.replay()
        assert y.tolist() == [2] and len(view) == 1
        del view
        with pytest.raises(DeviceFault, match="freed"):
            graph.replay()
