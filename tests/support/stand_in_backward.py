"""Backward passes over the graph that autograd recorded, node by node.

torch's own engine asks a CUDA driver for the stream of every node, so a stand-in cannot use it. This one calls the same
nodes in the same order: of those that are ready the one recorded last.
"""

from __future__ import annotations

import heapq
import itertools
import sys

import torch
from torch.autograd.graph import get_gradient_edge

_pass, _passes = -1, itertools.count()


def current(torchs_own=torch._C._current_graph_task_id) -> int:
    """The number of the backward pass that is under way, -1: none. Checkpoints ask."""
    return torchs_own() if _pass < 0 else _pass


def run(outputs, grads, keep_graph, create_graph, inputs=(), allow_unreachable=True, accumulate_grad=True):
    """As ``torch.autograd.backward`` and ``torch.autograd.grad`` ask their engine: gradients of ``inputs``, and of
    leaves added to their ``grad`` where ``accumulate_grad``."""
    global _pass
    before, _pass = _pass, next(_passes)
    try:
        with torch.set_grad_enabled(bool(create_graph)):
            found = walk([edge(x) for x in outputs], grads, [edge(x) for x in inputs], accumulate_grad)
    finally:
        _pass = before
    if not allow_unreachable and any(x is None for x in found):
        raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph.")
    return tuple(found)


def edge(x) -> tuple:
    """(node, which of its inputs)"""
    return tuple(get_gradient_edge(x))[:2] if isinstance(x, torch.Tensor) else (x.node, x.output_nr)


def walk(roots, grads, wanted, accumulate_grad):
    nodes = reached([node for node, _ in roots])
    needed = needed_for({node for node, _ in wanted}, nodes) if wanted else set(nodes)
    waiting = dict.fromkeys(nodes, 0)
    for node in nodes:
        for child, _ in node.next_functions:
            if child is not None:
                waiting[child] += 1
    given = {node: [None] * len(node._input_metadata) for node in nodes}
    for (node, place), gradient in zip(roots, grads, strict=True):
        add(given[node], node, place, gradient)
    del grads
    found: dict = {}
    turn = itertools.count()
    ready = [(-node._sequence_nr(), next(turn), node) for node in {n: 0 for n, _ in roots} if not waiting[node]]
    heapq.heapify(ready)
    while ready:
        _, _, node = heapq.heappop(ready)
        own = given.pop(node)
        found.update({(n, place): own[place] for n, place in wanted if n is node})
        made = passed(node, own, needed, wanted, accumulate_grad)
        for (child, place), gradient in zip(node.next_functions, made, strict=False):
            if child is not None:
                add(given[child], child, place, gradient)
                waiting[child] -= 1
                if not waiting[child]:
                    heapq.heappush(ready, (-child._sequence_nr(), next(turn), child))
            del gradient
        del made
    return [found.get(one) for one in wanted]


def passed(node, own: list, needed: set, wanted, accumulate_grad: bool) -> tuple:
    """The gradients of what the node was computed from; None of all where it need not be asked."""
    none = (None,) * len(node.next_functions)
    if node not in needed or all(x is None for x in own):
        return none
    if not none:  # of a leaf
        if accumulate_grad:
            accumulate(node.variable, own)
        return none
    if wanted and not any(child in needed for child, _ in node.next_functions):
        return none  # a wanted gradient came in, and nothing behind it is wanted
    made = node(*own)
    return made if isinstance(made, tuple) else (made,)


def accumulate(leaf, own: list) -> None:
    """Takes a gradient that nobody else holds as it is."""
    alone = sys.getrefcount(own[0]) == 2 and own[0]._use_count() == 1 and own[0].stride() == leaf.stride()
    gradient = own.pop()
    if leaf.grad is None:
        leaf.grad = gradient.detach() if alone else torch.empty_like(leaf).copy_(gradient)
    elif torch.is_grad_enabled():
        leaf.grad = leaf.grad + gradient
    else:
        leaf.grad.add_(gradient)


def add(own: list, node, place: int, gradient) -> None:
    """Brought to the shape and type of what it is the gradient of, and summed."""
    if gradient is None:
        return
    like = node._input_metadata[place]
    if gradient.device != like.device and gradient.dim():
        raise RuntimeError(f"gradient on {gradient.device} of a tensor on {like.device} ({node.name()})")
    if tuple(gradient.shape) != tuple(like.shape):
        gradient = gradient.sum_to_size(*like.shape)
    if gradient.dtype != like.dtype:
        gradient = gradient.to(like.dtype)
    own[place] = gradient if own[place] is None else own[place] + gradient


def reached(roots) -> list:
    seen, todo = {}, list(roots)
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen[node] = True
            todo += [child for child, _ in node.next_functions]
    return list(seen)


def needed_for(wanted: set, nodes) -> set:
    """The nodes from which a wanted one is reached, and these."""
    parents: dict = {node: [] for node in nodes}
    for node in nodes:
        for child, _ in node.next_functions:
            if child is not None:
                parents[child].append(node)
    found, todo = set(), [node for node in wanted if node in parents]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += parents[node]
    return found
