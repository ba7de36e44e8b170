"""What tests of layer drift share: rows of what was measured of two backbones, and CKA by Song's formula."""

import numpy as np

from carryover.bench.records.reading import AVERAGE


def rows(measured, tower, what, **fixed):
    return [row for row in measured[tower][what] if all(row[k] == v for k, v in fixed.items())]


def by_layer(measured, value, dataset=AVERAGE, tower="text"):
    return {row["layer"]: row[value] for row in rows(measured, tower, "features", dataset=dataset)}


def song_cka(x, y):
    """From HSIC_1 of Song et al. 2012, equation 5, of the kernel matrices without their diagonals."""

    def hsic(k, m):
        n, ones = len(k), np.ones(len(k))
        product, totals = np.trace(k @ m), (ones @ k @ ones) * (ones @ m @ ones)
        return (product + totals / ((n - 1) * (n - 2)) - 2 * (ones @ k @ m @ ones) / (n - 2)) / (n * (n - 3))

    k, m = (kernel - np.diag(np.diag(kernel)) for kernel in (x @ x.T, y @ y.T))
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
