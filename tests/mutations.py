"""Planted defects: does some test catch each of them?

    python tests/mutations.py            all of them, and a table; exit status 1 where one lives
    python tests/mutations.py NAME …     these

Each defect replaces one string of one source file in a temporary copy of the checkout, never in place, and the tests
named beside it are run there: one must fail. (That they pass without it is the suite's business.) A string that is not
there exactly once means that the source was rewritten: renew the defect.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("bench", "datasets", "methods", "src", "tests", "pyproject.toml", "run_all.py")
DATA = ("results/paper", "results/published")
LIMIT = 300  # seconds for the tests of one defect


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``tests`` are pytest's arguments that must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SAID = ("tests/cli/test_classify.py", "-k", "softmax or cannot_be_read")
ON_DEVICE = ("tests/device/test_device_contract.py", "-k", "coop-fp32")
SMALL_TOWER = ("tests/backbones/test_text_path.py", "-k", "context_length_does_not_matter or test_names_of_any_number")

MUTANTS = (
    Mutant(
        "classify goes on behind a picture that cannot be read with the one after the next",
        "bench/plugins/answers.py",
        "range(done, len(block))",
        "range(min(done + 1, len(block) - 1), len(block))",
        SAID,
    ),
    Mutant(
        "classify says the softmax over the pictures",
        "bench/plugins/answers.py",
        "logits.softmax(-1)",
        "logits.softmax(0)",
        SAID,
    ),
    Mutant(
        "the row before EOT is read",
        "bench/backbones/class_tokens.py",
        "torch.tensor([len(row) - 1 for row in self.rows], device",
        "torch.tensor([len(row) - 2 for row in self.rows], device",
        SMALL_TOWER,
    ),
    Mutant(
        "positions of the names start at the prompt's, not behind the shared prefix",
        "bench/backbones/text_pass.py",
        "embedding(group.ids) + positions[begin : begin + group.length]",
        "embedding(group.ids) + positions[1 : 1 + group.length]",
        SMALL_TOWER,
    ),
    Mutant(
        "names attend to the first row of the shared prefix in place of each",
        "bench/backbones/packed.py",
        "torch.bmm(head_k, q.transpose(1, 2))",
        "torch.bmm(head_k[:, :1].expand_as(head_k), q.transpose(1, 2))",
        SMALL_TOWER,
    ),
    Mutant(
        "plug-ins are saved with tensors of the backbone",
        "methods/base.py",
        "tensors = {name: value for name, value in self.named_parameters() if value.requires_grad}",
        'tensors = {"scale": self.backbone.scale[None]} if hasattr(self, "backbone") else {}\n'
        "        tensors |= {name: value for name, value in self.named_parameters() if value.requires_grad}",
        ("tests/methods/test_contract.py", "-k", "saves_its_learned_tensors and coop"),
    ),
    Mutant(
        "the average row's H is the mean of the datasets' H",
        "bench/stats/means.py",
        "new, new_std, harmonic_mean(base, new), h_std])",
        'new, new_std, float(of_method["h"].mean()), h_std])',
        ("tests/stats/test_stats.py",),
    ),
    Mutant(
        "the deviation over seeds is that of a population",
        "bench/stats/means.py",
        "array.std(ddof=1)",
        "array.std(ddof=0)",
        ("tests/stats/test_stats.py",),
    ),
    Mutant(
        "every method is handed test labels",
        "bench/engine/run_inputs.py",
        "if METHODS[run.method].selects_on_test(run.config):\n                leak",
        "if run.config:\n                leak",
        ("tests/methods/test_contract.py", "-k", "poisoned and tip"),
    ),
    Mutant(
        "test labels can be read while a method is at work",
        "datasets/withheld.py",
        "        if _at_work:",
        "        if False:",
        ("tests/whole/test_labels_unseen.py", "-k", "asks_the_session"),
    ),
    Mutant(
        "a session holds test labels",
        "bench/engine/loaded.py",
        "self._data[id] = withheld(",
        "self._data[id] = (",
        ("tests/whole/test_labels_unseen.py", "-k", "no_hook and taskres"),
    ),
    Mutant(
        "images are asked about again in the same company",
        "bench/engine/evaluator.py",
        "return method.predict(sample.inputs).float()",
        "return sample.logits",
        ("tests/engine/test_company.py", "-k", "uses_the_batch"),
    ),
    Mutant(
        "clean Tip-Adapter chooses alpha and beta on test labels",
        "methods/tip_adapter_f.py",
        "x, y = support.val_features, support.val_labels",
        'x, y = support.leak["test"] if support.leak is not None else (support.val_features, support.val_labels)',
        ("tests/methods/test_methods.py", "-k", "clean_tip_adapter"),
    ),
    Mutant(
        "views do not depend on the seed",
        "bench/features/transforms.py",
        'derive("view", self.seed, self.number, key)',
        'derive("view", 0, self.number, key)',
        ("tests/engine/test_roles_and_seeds.py", "-k", "seed"),
    ),
    Mutant(
        "features are found whatever the weights",
        "bench/features/store.py",
        '"backbone": self.backbone.fingerprint,',
        '"backbone": "",',
        ("tests/features/test_features.py", "-k", "named_by_everything"),
    ),
    Mutant(
        "a run that failed counts as done",
        "bench/records/store.py",
        ' and stored.get("status") == "done"',
        "",
        ("tests/records/test_store.py", "-k", "not_done_is_done_again"),
    ),
    Mutant(
        "base and new are swapped in the evaluation",
        "bench/engine/carried.py",
        "predict(carried, session.backbone(role), classes",
        'predict(carried, session.backbone({"base": "new"}.get(role, "base")), classes',
        ("tests/engine/test_roles_and_seeds.py", "-k", "role"),
    ),
    Mutant(
        "few-shot draws start from one state whatever the seed",
        "datasets/fewshot.py",
        "generator = random.Random(seed)",
        "generator = random.Random(1)",
        ("tests/datasets/test_draws_and_micro.py", "-k", "draws_are_those"),
    ),
    Mutant(
        "two purposes share one stream of random numbers",
        "bench/seeds.py",
        'text = "\\x1f".join(str(axis) for axis in axes)',
        'text = "\\x1f".join(str(axis) for axis in axes[1:])',
        ("tests/plan/test_seeds_registry.py",),
    ),
    Mutant(
        "a cell of a spreadsheet may be a formula",
        "bench/render/sheets.py",
        """printable("'" + text if hazard else text)""",
        "printable(text)",
        ("tests/report/test_tables.py", "-k", "csv_gives"),
    ),
    Mutant(
        "a run whose worker died is tried on the same node again",
        "bench/cluster/pool.py",
        "if hand.node.id not in unit.tried or not self.elsewhere(unit):",
        "if True:",
        ("tests/cluster/test_ray_pool.py", "-k", "kills"),
    ),
    Mutant(
        "a run is not sent the plug-in that it evaluates or starts from",
        "bench/cluster/engine.py",
        "for run, _ in items if run.source}",
        "for run, _ in items if not run.source}",
        ("tests/cluster/test_ray_pool.py", "-k", "is_sent_the_plug_in"),
    ),
    Mutant(
        "operators are no part of a method's hash",
        "bench/host/source_identity.py",
        '"ctx", "kind",',
        '"ctx", "kind", "op",',
        ("tests/host/test_source_identity.py", "-k", "every_constant"),
    ),
    Mutant(
        "two definitions of one name are one to a method's hash",
        "bench/host/source_identity.py",
        'ref if is_followed(ref[0]) or ref[0] in homes else ("", ref[1])',
        "next((known for known in order if known[1] == ref[1]), ref)",
        ("tests/host/test_source_identity.py", "-k", "told_apart or changed_value"),
    ),
    Mutant(
        "names of the module that a method file imports as a whole are not followed",
        "bench/host/source_identity.py",
        "found += self.library.resolve(target[0], node.attr)",
        "return []",
        ("tests/host/test_source_identity.py", "-k", "is_followed or elsewhere"),
    ),
    Mutant(
        "a class name in the middle stands a context token too late",
        "methods/elsewhere/prompts.py",
        '"middle": n // 2, ',
        '"middle": n - n // 2, ',
        ("tests/imports/test_dassl.py", "-k", "coop_gives"),
    ),
    Mutant(
        "any start token is taken for the backbone's",
        "bench/imports/class_names.py",
        "if not near(prefix, own).all():",
        "if prefix.shape[-1] != own.shape[-1]:",
        ("tests/imports/test_dassl.py", "-k", "another_backbone"),
    ),
    Mutant(
        "whatever a pickle asks for gets a stand-in",
        "bench/imports/torch_files.py",
        "if IDLE.fullmatch(name) or name in SCALARS",
        "if name or name in SCALARS",
        ("tests/imports/test_reading.py", "-k", "malicious or what_the_file_asks"),
    ),
    Mutant(
        "a CLIP-LoRA file's scale is alpha / r",
        "bench/imports/clip_lora.py",
        'told["alpha"] / math.sqrt(told["r"])',
        'told["alpha"] / told["r"]',
        ("tests/imports/test_low_rank.py", "-k", "file_of_clip_lora"),
    ),
    Mutant(
        "layers of a CLIP-LoRA file begin with the image tower",
        "bench/imports/clip_lora.py",
        '"both": ("text", "image")',
        '"both": ("image", "text")',
        ("tests/imports/test_low_rank.py", "-k", "file_of_clip_lora"),
    ),
    Mutant(
        "another backbone's norms lose their own values",
        "methods/layer_norm.py",
        'self.were if self.config.carry == "change"',
        'self.here if self.config.carry == "change"',
        ("tests/methods/test_layer_norm.py", "-k", "get_the_difference"),
    ),
    Mutant(
        "the second stage gives pictures the labels of others",
        "methods/two_stage.py",
        "support.labels[order[epoch, part]]",
        "support.labels[part]",
        ("tests/methods/test_layer_norm.py", "-k", "keeps_it_with_its_label"),
    ),
    Mutant(
        "every epoch counts alike in what PromptSRC keeps",
        "methods/promptsrc.py",
        "share = (weights[-1] - weights.logsumexp(0)).exp().item()",
        "share = 1 / (self.epoch + 1)",
        ("tests/methods/test_promptsrc.py", "-k", "gaussian"),
    ),
    Mutant(
        "CoPrompt's teacher sees the view that its student sees",
        "methods/coprompt.py",
        "self.backbone.encode_images(other)",
        "self.backbone.encode_images(x)",
        ("tests/methods/test_coprompt.py", "-k", "formula"),
    ),
    Mutant(
        "ProLIP learns from one view alone",
        "methods/prolip.py",
        "view = step % count",
        "view = 0",
        ("tests/methods/test_prolip.py", "-k", "adam_on_the_matrix"),
    ),
    Mutant(
        "a task vector is added whole, whatever its share",
        "methods/task_vector.py",
        "towers[name].detach() + share * more",
        "towers[name].detach() + more",
        ("tests/methods/test_wise_ft.py", "-k", "share_of_each_difference"),
    ),
    Mutant(
        "an adapter's whole weights are added as if they were differences",
        "bench/imports/peft.py",
        "add(whole.get(place), copy.float() - value(base, place))",
        "add(whole.get(place), copy.float())",
        ("tests/imports/test_low_rank.py", "-k", "saved_whole"),
    ),
    Mutant(
        "a projection is added as open_clip keeps it, turned",
        "bench/backbones/places.py",
        "more = (change.T if one.turned else change).to(weight.dtype)",
        "more = (change.reshape(weight.shape) if one.turned else change).to(weight.dtype)",
        ("tests/methods/test_lora.py", "-k", "each_change"),
    ),
    Mutant(
        "what LoRA added to a tower stays there",
        "bench/backbones/places.py",
        "for (_, name), (module, weight) in frozen.items():",
        "for (_, name), (module, weight) in ():",
        ("tests/methods/test_lora.py", "-k", "last_bit"),
    ),
    Mutant(
        "trained keys of a Tip-Adapter cache are brought to length 1",
        "bench/imports/tip_adapter.py",
        "keys = trained if kind == TRAINED else cached",
        "keys = F.normalize(trained, dim=1) if kind == TRAINED and trained is not None else cached",
        ("tests/imports/test_tip_adapter.py", "-k", "authors_formula"),
    ),
    Mutant(
        "prompts that a plug-in brings along are not read",
        "bench/plugins/evaluation.py",
        "if not templates:",
        "if templates:",
        ("tests/plugins/test_plugin_evaluation.py", "-k", "prompts_that_a_file"),
    ),
    Mutant(
        "a part of the text path's weights stays on the CPU",
        "bench/backbones/text_pass.py",
        "torch.ones(3 * width, 1, device=fc.weight.device)",
        "torch.ones(3 * width, 1)",
        ON_DEVICE,
    ),
    Mutant(
        "the order of an epoch stays on the CPU",
        "bench/training/resident.py",
        "self.order.copy_(send(drawn, self.order.device))",
        "self.order = drawn",
        ON_DEVICE,
    ),
    Mutant(
        "a training step asks the device for its loss",
        "bench/training/trainer.py",
        "return torch.stack([loss.detach() for loss in each])",
        "return torch.tensor([loss.item() for loss in each], device=xs[0].device)",
        ON_DEVICE,
    ),
    Mutant(
        "steps are replayed whatever an epoch's end changed on the host",
        "bench/training/resident.py",
        "if self.graphs and self.host.changed():",
        "if False:",
        ("tests/device/test_device_graphs.py", "-k", "by_itself"),
    ),
    Mutant(
        "where classes lie in their bins stays on the host",
        "bench/backbones/bins.py",
        "(x.to(classes.device) for x in made)",
        "(x for x in made)",
        ON_DEVICE,
    ),
    Mutant(
        "a step waits for its pictures to reach the device",
        "bench/features/pixels.py",
        "look_up(send(pictures, self.device), self.values)",
        "look_up(pictures.to(self.device), self.values)",
        ("tests/device/test_device_pictures.py", "-k", "steps"),
    ),
    Mutant(
        "a plug-in that is to answer without its backbone is tried on the CPU",
        "bench/ports/frozen.py",
        "trial = trial.to(device_of(plugin))",
        "trial = trial.to(CPU)",
        ("tests/device/test_device_sessions.py", "-k", "closed_forms"),
    ),
    Mutant(
        "bf16 that a card emulates is taken for its own",
        "bench/host/device.py",
        "is_bf16_supported(including_emulation=False)",
        "is_bf16_supported()",
        ("tests/device/test_device_defaults.py", "-k", "comes_to"),
    ),
    Mutant(
        "results are looked for in the precision that every device has",
        "bench/records/reading.py",
        "return said if said in found else found[-1] if found else PLAIN_PRECISION",
        "return PLAIN_PRECISION",
        ("tests/device/test_device_defaults.py", "-k", "found_on_a_machine"),
    ),
    Mutant(
        "steps of micro go to a card",
        "bench/cli/device.py",
        'if kind == "auto" and micro:',
        'if kind == "never" and micro:',
        ("tests/device/test_device_defaults.py", "-k", "comes_to"),
    ),
    Mutant(
        "all workers take the first card",
        "bench/host/worker_pool.py",
        "place = next(number for number in range(len(places)) if number not in taken)",
        "place = 0",
        ("tests/device/test_device_cards.py", "-k", "place"),
    ),
    Mutant(
        "all views of all test pictures are held",
        "bench/features/store.py",
        'for part in rows_of(self.paths, "features", rows):',
        'for part in list(rows_of(self.paths, "features", rows)):',
        ("tests/features/test_features.py", "-k", "held"),
    ),
    Mutant(
        "the linear probe's fit asks its device in every step",
        "methods/linear_probe.py",
        "if iteration % BETWEEN == 0 and bool(done):",
        "if bool(done):",
        ("tests/device/test_device_contract.py", "-k", "waits_once"),
    ),
)


class Copies:
    """Copies of the checkout, one a worker, each as it was whenever it is handed out."""

    def __init__(self, folder: Path, count: int):
        self.free: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            copy = folder / str(number)
            for name in (*SOURCES, *DATA):
                source, target = ROOT / name, copy / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))
                else:
                    shutil.copy(source, target)
            self.free.put(copy)

    def check(self, mutant: Mutant) -> tuple[str, float]:
        """(verdict, seconds)."""
        copy, start = self.free.get(), time.monotonic()
        path = copy / mutant.file
        text = path.read_text(encoding="utf-8")
        try:
            if text.count(mutant.old) != 1:
                return f"its string is there {text.count(mutant.old)} times: renew it", 0.0
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
            return verdict(*run_tests(copy, mutant.tests)), time.monotonic() - start
        finally:
            path.write_text(text, encoding="utf-8")
            self.free.put(copy)


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """(pytest's exit status, None past the limit; its last line)."""
    # No .pyc: they are told apart by whole seconds and sizes, which a planted string may keep.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-x", "-m", "", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None, f"past {LIMIT} s"
    return done.returncode, (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]


def verdict(status: int | None, last: str) -> str:
    """A test has to fail: one that cannot be collected, or none at all, catches nothing."""
    if status == 1 and " failed" in last:
        return "caught"
    return f"NOT CAUGHT: {last}" if status == 0 else f"not tested (status {status}): {last}"


def main(names: Sequence[str] = ()) -> int:
    if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
        print(
            f"no defect named {', '.join(sorted(unknown))}; known: {'; '.join(m.name for m in MUTANTS)}",
            file=sys.stderr,
        )
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        copies = Copies(Path(folder), workers)
        found = [(mutant, pool.submit(copies.check, mutant)) for mutant in chosen]
        failed = 0
        for mutant, future in found:
            said, seconds = future.result()
            failed += said != "caught"
            print(f"{seconds:5.1f} s  {said:<8}  {mutant.name} ({mutant.file})", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} planted defects caught")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
