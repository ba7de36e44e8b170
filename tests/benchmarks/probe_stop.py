"""The linear probe beside the call that lpclip publishes, which the default tolerance stops early, on real features.

    python -m tests.benchmarks.probe_stop FILE    # caltech101_new50.npz, as for real_features

A line for each C of lpclip's grid, printed as it is found: the call's iterations, accuracy on the test pictures of the
same backbone in percent, and how many of them are predicted otherwise.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from carryover.methods.linear_probe import Config, logistic_regression
from tests.benchmarks.real_features import LENGTH


def main(path: str) -> None:
    file = np.load(path)
    x, test = (LENGTH * file[name].astype(float) for name in ("old_train_16shot", "old_test"))  # of unit length there
    names = np.unique(file["label"])
    y, true = (np.searchsorted(names, file[name]) for name in ("train_label", "label"))
    initial = None
    for c in Config().coarse:
        published = LogisticRegression(solver="lbfgs", max_iter=Config().max_iter, C=c).fit(x, y)
        theirs = published.predict(test)
        initial = logistic_regression(torch.tensor(x), torch.tensor(y), len(names), c, Config().max_iter, initial)
        weight, bias = (value.double().numpy() for value in initial)
        ours = (test @ weight.T + bias).argmax(1)
        right = [100 * (found == true).mean() for found in (theirs, ours)]
        print(
            f"C {c:g}: {published.n_iter_[0]} iterations, published {right[0]:.2f}, ours {right[1]:.2f}, "
            f"{(theirs != ours).sum()} of {len(true)} differ",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1])
