"""Tensors of the stand-in for a CUDA device (``stand_in_cuda``), and what becomes of an operation on them."""

from __future__ import annotations

import contextlib
import re
import weakref

import torch
from stand_in_ledger import DeviceFault, Ledger, place
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
COPIES = {aten._to_copy.default, aten.copy_.default}
# Operations beside the pointwise ones that take a number on the CPU next to tensors on the device.
TAKE_NUMBERS = re.compile(r"_foreach_|masked_fill|fill_|index_put|_index_put_impl_")
FACTORISATION = re.compile(r"_?linalg_(svd|eig|lstsq|solve|inv|cholesky|lu|det)")  # whose errors the host asks for
INDEXED = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
NO_KERNEL = {"empty", "empty_strided", "new_empty", "new_empty_strided", "empty_like", "lift_fresh", "detach"}
RANDOM_SEED = 20202  # the device's own stream of random numbers is not the CPU's, whatever the seed


class Block:
    """Memory of the device: tensors that share it share this. A graph asks whether it is still there."""


class Device:
    """What lasts as long as one ``stand_in_cuda``."""

    def __init__(self):
        self.ledger = Ledger()
        self.capture = None  # the graph that records (``stand_in_graphs``)
        self.blocks: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self.pinned: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
        self.later: list[tuple[torch.Tensor, torch.Tensor]] = []  # copies to the host that are under way
        self.stream: object = None  # the present one; None: the device's own
        self.random = torch.Generator().manual_seed(RANDOM_SEED)

    def sync(self, kind: str) -> None:
        """The host waits; what was under way arrives."""
        if self.capture is not None:
            raise DeviceFault(f"{kind}: operation not permitted when stream is capturing, at {place()}")
        self.ledger.note(kind)
        for target, value in self.later:
            target.copy_(value)
        self.later.clear()

    def block(self, held: torch.Tensor) -> Block:
        address = held.untyped_storage().data_ptr()
        found = self.blocks.get(address)
        if found is None:
            found = Block()
            if address:
                self.blocks[address] = found
        return found

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        made = tensor.clone()
        self.pinned[made.untyped_storage().data_ptr()] = made.untyped_storage()
        return made

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, DeviceTensor) and tensor.untyped_storage().data_ptr() in self.pinned


DEVICE: Device | None = None


class DeviceTensor(torch.Tensor):
    """``held``: the values, on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, requires_grad: bool = False):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CUDA,
            requires_grad=requires_grad,
        )
        made.held, made.block = held, DEVICE.block(held)
        return made

    def __repr__(self, **_):
        return f"DeviceTensor({self.held!r})"

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *, force=False):
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        return self.detach().cpu().numpy()

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        grad, self.grad, needs = self.grad, None, self.requires_grad
        made = torch.nn.Parameter(value, needs) if is_parameter(self) else value.detach().requires_grad_(needs)
        torch.utils.swap_tensors(self, made)
        self.grad = None if grad is None else grad.to(value.device)

    def __deepcopy__(self, memo):
        made = self.detach().clone().requires_grad_(self.requires_grad)
        if is_parameter(self):
            made._is_param = True
        memo[id(self)] = made
        return made

    def __tensor_flatten__(self):  # modules that move to the device then keep their Parameter objects, as on a real one
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(parts, *_):
        return DeviceTensor(parts["held"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if DEVICE is None:
            raise DeviceFault(f"{func}: the stand-in that this tensor is of has ended")
        return perform(DEVICE, func, args, kwargs or {})


class Mode(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):  # True would load all of torch.compile
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return perform(DEVICE, func, args, kwargs or {})


def held(x):
    return x.held if isinstance(x, DeviceTensor) else x


def each(given, change):
    """What an operation is given or gives, each value changed; lists and tuples are all that nests."""
    if isinstance(given, (list, tuple)):
        return type(given)([each(one, change) for one in given])
    if isinstance(given, dict):
        return {name: each(one, change) for name, one in given.items()}
    return change(given)


def leaves_of(given) -> list:
    found: list = []
    each(given, found.append)
    return found


def is_parameter(x: torch.Tensor) -> bool:
    return getattr(x, "_is_param", False)


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def perform(device: Device, func, args, kwargs):
    """One operation, as the device would take it."""
    leaves = leaves_of((args, kwargs))
    there = [x for x in leaves if isinstance(x, DeviceTensor)]
    name, target = func.overloadpacket.__name__, kwargs.get("device")
    if name == "is_pinned":
        return device.is_pinned(args[0])
    if name == "_pin_memory":
        if there:
            raise DeviceFault("cannot pin a tensor that is on the device; only dense CPU tensors can be pinned")
        return device.pin(args[0])
    if not there and not is_cuda(target):
        return func(*args, **kwargs)
    if func in COPIES:
        return copied(device, func, args, kwargs, there)
    check(func, name, args, leaves, there)
    note_waits(device, func, name, args)
    if torch.Tag.inplace_view in func.tags:
        raise DeviceFault(f"{func}: the stand-in does not know tensors that change their shape in place, at {place()}")
    onto_host = bool(there) and target is not None and not is_cuda(target)
    if onto_host:  # such as x.new_zeros(3, device="cpu"): no value crosses
        return func(*each(args, held), **each(kwargs, held))
    return run(device, func, args, kwargs)


def run(device: Device, func, args, kwargs):
    """The operation on the values; what comes out is on the device again."""
    given, named = each(args, held), each(kwargs, held)
    if named.get("device") is not None:
        named["device"] = CPU
    if torch.Tag.nondeterministic_seeded in func.tags and named.get("generator") is None:
        named, func = drawn(device, func, named)
    name = func.overloadpacket.__name__
    if device.capture is not None:
        device.capture.before(func, given, named)
    made = func(*given, **named)
    if not func.is_view and name not in NO_KERNEL and "_local_scalar" not in name:
        device.ledger.note("kernel")
        device.ledger.operations[name] += 1
    if device.capture is not None:
        device.capture.after(func, given, named, made)
    known = {id(x.held): x for x in leaves_of((args, kwargs)) if isinstance(x, DeviceTensor)}
    return each(made, lambda x: known[id(x)] if id(x) in known else on_device(x))


def on_device(x):
    return DeviceTensor(x) if isinstance(x, torch.Tensor) else x


def drawn(device: Device, func, named: dict):
    """Numbers without a generator come from the device's own stream, which a seed does not make the CPU's."""
    takes = {argument.name for argument in func._schema.arguments}
    if "generator" not in takes and hasattr(func.overloadpacket, "generator"):
        func, takes = func.overloadpacket.generator, {"generator"}
    return ({**named, "generator": device.random} if "generator" in takes else named), func


# ---- what is refused -------------------------------------------------------------------------------------------------


def check(func, name: str, args, leaves, there) -> None:
    """Raises DeviceFault where operands or the generator are elsewhere."""
    for x in leaves:
        if isinstance(x, torch.Generator) and x.device.type != "cuda":
            raise DeviceFault(f"{func}: expected a 'cuda' device type for generator but found 'cpu', at {place()}")
    host = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, DeviceTensor)]
    if name in INDEXED and there:
        if not isinstance(args[0], DeviceTensor):
            raise DeviceFault(f"{func}: indices should be on the device of the indexed tensor (cpu), at {place()}")
        host = [args[2]] if len(args) > 2 and not isinstance(args[2], DeviceTensor) else []  # indices may cross
    takes = torch.Tag.pointwise in func.tags or TAKE_NUMBERS.match(name)
    wrong = [tuple(x.shape) for x in host if there and (x.dim() or not takes)]
    if wrong:
        raise DeviceFault(
            f"{func}: expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu "
            f"(of shapes {wrong}), at {place()}"
        )


# ---- what the host waits for -----------------------------------------------------------------------------------------


def note_waits(device: Device, func, name: str, args) -> None:
    if name in INDEXED:
        indices = [x for x in args[1] if x is not None]
        if any(not isinstance(x, DeviceTensor) for x in indices):
            device.sync("h2d blocking")
        by_mask = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
        one_number = len(args) > 2 and not isinstance(args[2], DeviceTensor)  # then it is a masked fill
        if by_mask and not one_number:
            device.sync("boolean index")
    elif name == "_local_scalar_dense":
        device.sync("item")
    elif {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        device.sync(name)
    elif FACTORISATION.match(name):
        device.sync("linalg")


def copied(device: Device, func, args, kwargs, there):
    """Copies are the only way across."""
    if func is aten.copy_.default:
        target, source = args[:2]
        waits, to_device = (
            not (kwargs.get("non_blocking") or len(args) > 2 and args[2]),
            isinstance(target, DeviceTensor),
        )
    else:
        source, where = args[0], kwargs.get("device")
        waits, to_device = not kwargs.get("non_blocking"), is_cuda(where) or where is None and bool(there)
    if to_device and isinstance(source, DeviceTensor):
        return run(device, func, args, kwargs)
    if to_device:
        if device.capture is not None:
            raise DeviceFault(f"h2d: a copy from the host while a graph is captured, at {place()}")
        if waits:
            device.sync("h2d blocking")
        else:
            device.ledger.note("h2d" if device.is_pinned(source) else "h2d unpinned")
    elif waits:
        device.sync("d2h")
    else:
        device.ledger.note("d2h later")
    given, named = each(args, held), {**kwargs, "device": CPU} if func is aten._to_copy.default else kwargs
    made = func(*given, **named)
    if not to_device and not waits:  # it is not there before the host has waited for it
        device.later.append((made, made.clone()))
        made.fill_(float("nan") if made.is_floating_point() else 0)
    if func is aten.copy_.default:
        return args[0]
    return DeviceTensor(made) if to_device else made


@contextlib.contextmanager
def unseen():
    """Operations on held values, which are nobody's business."""
    with _disable_current_modes(), torch.no_grad():
        yield
