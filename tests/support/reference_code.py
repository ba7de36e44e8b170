"""Makes ``tests/data/reference_texts.csv`` and ``reference_settings.csv``: what the authors' code gives when it runs.

    python tests/support/reference_code.py FOLDER   # with a clone of each repository below, and yacs installed

Their shell scripts are run with a ``python`` that notes its arguments, their command files with these arguments up to
where a model would be built, and their models' constructors on a CLIP without weights that notes each text it encodes.
What they import of packages for training, data and downloads is replaced; nothing of theirs is copied.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import inspect
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock, patch

import torch
import torchvision  # noqa: F401  # which cannot be loaded twice
from torch import nn

DATA = Path(__file__).parent.parent / "data"
OWNERS = {
    "CoOp": "KaiyangZhou", "Dassl.pytorch": "KaiyangZhou", "KgCoOp": "htyao89", "CLIP-Adapter": "gaopengcuhk",
    "Tip-Adapter": "gaopengcuhk", "RAda": "khufia", "TaskRes": "geekyutao", "TPT": "azshue",
    "multimodal-prompt-learning": "muzairkhattak", "CLIP-LoRA": "MaxZanella", "ICLR24": "mrflogs",
    "FewShot-CLIP-Strong-Baseline": "FereshteShakeri", "CLAP": "jusiro",
    "Textual-based_Class-aware_prompt_tuning": "htyao89",
    "TDA": "kdiAAA", "rethinking_fewshot_vlms": "FarinaMatteo", "PromptSRC": "muzairkhattak", "CoPrompt": "ShuvenduRoy",
    "ProLIP": "astra-vision",
}  # fmt: skip
NAMES = ("tench", "St._Bernard's dog, old (XL)")
# Our id: (CoOp's dataset config and its name there, Tip-Adapter's and CLIP-LoRA's module)
DATASETS = {
    "imagenet": ("imagenet", "ImageNet", "imagenet"),
    "caltech101": ("caltech101", "Caltech101", "caltech101"),
    "oxford_pets": ("oxford_pets", "OxfordPets", "oxford_pets"),
    "stanford_cars": ("stanford_cars", "StanfordCars", "stanford_cars"),
    "flowers102": ("oxford_flowers", "OxfordFlowers", "oxford_flowers"),
    "food101": ("food101", "Food101", "food101"),
    "fgvc_aircraft": ("fgvc_aircraft", "FGVCAircraft", "fgvc"),
    "sun397": ("sun397", "SUN397", "sun397"),
    "dtd": ("dtd", "DescribableTextures", "dtd"),
    "eurosat": ("eurosat", "EuroSAT", "eurosat"),
    "ucf101": ("ucf101", "UCF101", "ucf101"),
    "imagenet_v2": ("imagenetv2", "ImageNetV2", None),
    "imagenet_sketch": ("imagenet_sketch", "ImageNetSketch", None),
    "imagenet_a": ("imagenet_a", "ImageNetA", None),
    "imagenet_r": ("imagenet_r", "ImageNetR", None),
}
TPT_SETS = {
    "imagenet": "I", "caltech101": "caltech101", "oxford_pets": "pets", "stanford_cars": "cars",
    "flowers102": "flower102", "food101": "food101", "fgvc_aircraft": "aircraft", "sun397": "sun397", "dtd": "dtd",
    "eurosat": "eurosat", "ucf101": "ucf101", "imagenet_v2": "V", "imagenet_sketch": "K", "imagenet_a": "A",
    "imagenet_r": "R",
}  # fmt: skip

THEIRS = (
    "clip",
    "clip_adapter",
    "data",
    "dassl",
    "datasets",
    "fs",
    "lora",
    "loralib",
    "run_utils",
    "trainers",
    "utils",
)


class Reached(Exception):
    """Raised where a model would be built, with what it would be built from."""


class Clip(nn.Module):
    """OpenAI's CLIP as far as the constructors ask: shapes, and ``seen``, the texts that it embeds and encodes."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Module()
        self.visual.input_resolution, self.visual.output_dim, self.visual.conv1 = 224, 512, nn.Conv2d(3, 1, 1)
        self.transformer, self.ln_final = nn.Identity(), nn.LayerNorm(512)
        self.positional_embedding, self.text_projection = nn.Parameter(torch.zeros(77, 512)), torch.eye(512)
        self.logit_scale, self.dtype = nn.Parameter(torch.ones(())), torch.float32
        self.texts, self.seen = {}, {"encoded": [], "embedded": []}

    def note(self, how, tokens):
        self.seen[how] += [self.texts[tuple(row)] for row in tokens.tolist()]

    def encode_text(self, tokens):
        self.note("encoded", tokens)
        return torch.ones(len(tokens), 512)

    def encode_image(self, pixels):
        return torch.ones(len(pixels), 512)

    def token_embedding(self, tokens):
        self.note("embedded", tokens)
        return torch.zeros(*tokens.shape, 512)


def recording(tokenize, clip):
    def noted(texts, *args, **kwargs):
        tokens = tokenize(texts, *args, **kwargs)
        for text, row in zip([texts] if isinstance(texts, str) else texts, tokens.tolist(), strict=True):
            clip.texts[tuple(row)] = text
        return tokens

    return noted


class Loose(ModuleType):
    """A module of which anything can be imported."""

    __path__: list[str] = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


def registry():
    return SimpleNamespace(register=lambda *_: lambda kind: kind)


@contextlib.contextmanager
def running(folder: Path, *more: Path, loose=()):
    """Inside ``folder`` with its modules importable, and afterwards none of them loaded."""
    before, here, path = dict(sys.modules), os.getcwd(), list(sys.path)
    stands = ["dassl", *(f"dassl.{part}" for part in ("engine", "metrics", "utils", "optim", "data"))]
    stands += ["dassl.data.datasets", "dassl.data.transforms", "fvcore", "fvcore.nn", "wandb", "gdown", "pkg_resources"]
    for name in [*stands, *loose]:
        sys.modules[name] = Loose(name)
    sys.modules["dassl.engine"].__dict__.update(TrainerX=object, TRAINER_REGISTRY=registry())
    sys.modules["dassl.data.datasets"].__dict__.update(
        DatasetBase=object, DATASET_REGISTRY=registry(), Datum=SimpleNamespace
    )
    sys.modules["pkg_resources"].packaging = importlib.import_module("packaging")
    importlib.import_module("packaging.version")
    sys.path[:0] = [str(folder), *map(str, more)]
    os.chdir(folder)
    stay = {"cuda": lambda self, *a, **k: self}
    with (
        patch.multiple(torch.Tensor, **stay),
        patch.multiple(nn.Module, **stay),
        patch.object(torch.Tensor, "to", away(torch.Tensor.to)),
        patch.object(nn.Module, "to", away(nn.Module.to)),
        patch.object(nn.Module, "half", lambda self: self),
    ):
        try:
            yield
        finally:
            os.chdir(here)
            sys.path[:] = path
            for name in list(sys.modules):
                if name.partition(".")[0] in THEIRS or isinstance(sys.modules[name], Loose):
                    del sys.modules[name]
            sys.modules.update(before)


def away(to):
    """``Tensor.to`` and ``Module.to`` without a GPU."""

    def moved(self, *args, **kwargs):
        return self if any(str(each).startswith("cuda") for each in args) else to(self, *args, **kwargs)

    return moved


# ---- their commands --------------------------------------------------------------------------------------------------


def calls(folder: Path, script: str, *args: str) -> list[list[str]]:
    """What a shell script hands to each ``python`` that it calls."""
    with tempfile.TemporaryDirectory() as made:
        fake, log = Path(made, "python"), Path(made, "log")
        note = f"open({str(log)!r}, 'a').write(json.dumps(sys.argv[1:]) + chr(10))"
        fake.write_text(f"#!{sys.executable}\nimport json, sys\n{note}\n")
        fake.chmod(0o755)
        env = {**os.environ, "PATH": f"{made}:{os.environ['PATH']}"}
        subprocess.run(["bash", script, *args], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        return [json.loads(line) for line in log.read_text().splitlines()]


def config_of(folder: Path, dassl: Path, argv: list[str]):
    """The configuration with which a ``train.py`` would build its trainer."""

    def build(cfg):
        raise Reached(cfg)

    files = [f"datasets.{p.stem}" for p in (folder / "datasets").glob("*.py")]
    files += [f"trainers.{p.stem}" for p in (folder / "trainers").glob("*.py")]
    with running(folder, dassl, loose=["datasets", "trainers", *files, "trainers.ivlp", "trainers.independentVL"]):
        sys.modules["dassl"].__path__ = [str(dassl / "dassl")]  # its config is the real one
        sys.modules["dassl.engine"].build_trainer = build
        with patch.object(sys, "argv", argv), contextlib.redirect_stdout(None):
            try:
                runpy.run_path("train.py", run_name="__main__")
            except Reached as reached:
                return reached.args[0]
    raise AssertionError("no trainer was built")


# ---- texts -----------------------------------------------------------------------------------------------------------


def built(folder: Path, module: str, make, *more: Path) -> dict[str, list[str]]:
    """Texts that a constructor of theirs sees: ``make(module, clip)``."""
    clip = Clip()
    with running(folder, *more), contextlib.redirect_stdout(None):
        theirs = importlib.import_module("clip")
        inner = importlib.import_module("clip.clip")
        theirs.tokenize = inner.tokenize = recording(inner.tokenize, clip)
        loaded = importlib.import_module(module)
        if getattr(loaded, "clip", inner) not in (theirs, inner):  # a copy of CLIP's code beside it
            loaded.clip.tokenize = recording(loaded.clip.tokenize, clip)
        for name in ("tokenize",):
            if hasattr(loaded, name):
                setattr(loaded, name, theirs.tokenize)
        for name, value in {"load_clip_to_cpu": lambda *_: clip, "load": lambda *a, **k: (clip, 512, None)}.items():
            if hasattr(loaded, name):
                setattr(loaded, name, value)
        make(loaded, clip)
    return clip.seen


def trainer(kind, cfg):
    """``build_model`` of a trainer that needs no more than its class names."""

    def make(loaded, clip):
        self = SimpleNamespace(cfg=cfg, dm=SimpleNamespace(dataset=SimpleNamespace(classnames=NAMES)), device="cpu")
        one = getattr(loaded, kind)
        self.templates = getattr(one, "templates", None)
        one.build_model(self)

    return make


def custom(cfg, **more):
    return lambda loaded, clip: loaded.CustomCLIP(cfg, NAMES, clip, **more)


def told_dataset(loaded):
    """The one dataset class of a Tip-Adapter module, made without files; its ``template`` is what it uses."""
    kinds = [k for k in vars(loaded).values() if isinstance(k, type) and k.__module__ == loaded.__name__]
    (kind,) = [k for k in kinds if hasattr(k, "dataset_dir") or k.__name__ == "ImageNet"]
    empty = MagicMock(return_value=([], [], []))
    base = kind.__mro__[1]
    with contextlib.ExitStack() as stack:
        if base is object:
            images = MagicMock(imgs=[], targets=[])
            for reader in ("ImageNet", "ImageFolder"):
                stack.enter_context(patch(f"torchvision.datasets.{reader}", return_value=images))
        else:
            told = dict.fromkeys(("_classnames", "_val_classnames", "_test_classnames"), ())  # of which one counts them
            stack.enter_context(patch.object(base, "__init__", lambda self, **_: vars(self).update(told)))
            few = {"create": True}  # one of them calls it otherwise
            stack.enter_context(patch.object(base, "generate_fewshot_dataset", lambda self, *a, **k: [], **few))
            for owner in (kind, getattr(loaded, "OxfordPets", kind)):
                stack.enter_context(patch.object(owner, "read_split", empty, create=True))
                for name in ("read_data", "read_and_split_data", "read_classnames", "load_preprocessed_jsonl"):
                    stack.enter_context(patch.object(owner, name, MagicMock(return_value=[]), create=True))
        stack.enter_context(patch("builtins.open", MagicMock(return_value=MagicMock())))
        given = {"cfg": {"subsample_classes": "all"}, "root": "root", "num_shots": 16, "preprocess": None}
        given |= {"setting": "standard", "seed": 1, "subsample": "all"}
        return kind(*[given[name] for name in inspect.signature(kind).parameters])


def tip_texts(loaded, clip):
    importlib.import_module("utils").clip_classifier(NAMES, told_dataset(loaded).template, clip)


def prolip_texts(loaded, clip):
    """As Tip-Adapter's, but its text tower also gives what it has before its projection."""
    own = clip.encode_text
    clip.encode_text = lambda tokens: (own(tokens),) * 2
    tip_texts(loaded, clip)


def lora_texts(loaded, clip):
    """``evaluate_lora`` words the classes as the training loop does."""
    dataset = SimpleNamespace(template=told_dataset(loaded).template, classnames=NAMES)
    pictures = [(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))]
    lora = importlib.import_module("lora")
    lora.cls_acc = lambda *_: 0.0  # made for an older numpy
    lora.evaluate_lora(None, clip, pictures, dataset)


def norm_texts(loaded, clip):
    pictures = [(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))]
    theirs = importlib.import_module("fs.utils.eval_utils")
    theirs.cls_acc = lambda *_: 0.0  # made for an older numpy
    theirs.evaluate(clip, pictures, told_dataset(loaded).template[0], NAMES)


def adapter_texts(cfg):
    return lambda loaded, clip: loaded.CustomCLIP(cfg, NAMES, clip).text_encoder()


def clap_texts(dataset):
    """As its command asks for CLAP, but with the name of the dataset alone in its configuration."""
    adapter = SimpleNamespace(INIT="ZS", CONSTRAINT="l2", ENHANCED_BASE="none")
    return custom(SimpleNamespace(DATASET=SimpleNamespace(NAME=dataset), TRAINER=SimpleNamespace(ADAPTER=adapter)))


def tpt_texts(argv):
    """``get_coop`` as the command calls it, every list of class names replaced by ours."""

    def make(loaded, clip):
        args = [argv[argv.index(flag) + 1] for flag in ("-a", "--test_sets")]
        init = argv[argv.index("--ctx_init") + 1]
        for name in [name for name in vars(loaded) if name.endswith("_classes")]:
            setattr(loaded, name, NAMES)
        loaded.get_coop(*args, "cpu", 4, init)

    return make


# ---- what is run for which method ------------------------------------------------------------------------------------


class Sources:
    """The clones in ``folder``, and what a method's command and constructor give for a dataset (our id)."""

    def __init__(self, folder: Path):
        self.at = {name: (folder / name).resolve() for name in OWNERS}
        self.at["KgCoOp"] /= "KgCoOp"
        self.at["RAda"] /= "eft"

    def config(self, repository: str, argv: list[str]):
        own = self.at["KgCoOp"].parent / "Dassl.ProGrad.pytorch"
        dassl = own if repository == "KgCoOp" else self.at["Dassl.pytorch"]
        return config_of(self.at[repository], dassl, argv)

    def coop(self, dataset, config="vit_b16", shots=16):
        script = ("scripts/coop/main.sh", DATASETS[dataset][0], config, "end", "16", str(shots), "False")
        return self.config("CoOp", calls(self.at["CoOp"], *script)[0])

    def named(self, repository, trainer, config, dataset, *more):
        """A command file with no more than names: all else by its own defaults."""
        files = [f"configs/datasets/{DATASETS[dataset][0]}.yaml", f"configs/trainers/{trainer}/{config}.yaml"]
        argv = ["train.py", "--trainer", trainer, "--dataset-config-file", files[0], "--config-file", files[1], *more]
        return self.config(repository, argv)

    def cocoop(self, dataset):
        where = self.at["CoOp"] / "scripts/cocoop"
        return self.config("CoOp", calls(where, "base2new_train.sh", DATASETS[dataset][0], "1")[0])

    def kgcoop(self, dataset):
        where = self.at["KgCoOp"] / "scripts"
        return self.config("KgCoOp", calls(where, "base2new_train.sh", DATASETS[dataset][0], "8.0")[0])

    def maple(self, dataset):
        where = self.at["multimodal-prompt-learning"]
        script = "scripts/maple/base2new_train_maple.sh"
        return self.config(where.name, calls(where, script, DATASETS[dataset][0], "1")[0])

    def tcp(self, dataset):
        """As its script asks for it; the script itself runs over datasets."""
        more = ("DATASET.NUM_SHOTS", "16", "TRAINER.COOP.N_CTX", "4")
        return self.named("Textual-based_Class-aware_prompt_tuning", "TCP", "vit_b16_ep100_ctxv1", dataset, *more)

    def promptsrc(self, dataset):
        script = ("scripts/promptsrc/few_shot.sh", DATASETS[dataset][0], "16")
        return self.config("PromptSRC", calls(self.at["PromptSRC"], *script)[0])

    def coprompt(self, dataset):
        script = ("scripts/base2new_train_coprompt.sh", DATASETS[dataset][0], "1", "base2new")
        return self.config("CoPrompt", calls(self.at["CoPrompt"], *script)[0])

    def rada(self, dataset):
        return self.named("RAda", "RAda", "lr_1e-3_layers_4_epochs_5_base2new", dataset)

    def taskres(self, dataset):
        return self.named("TaskRes", "TaskRes", "adam_lr2e-3_B256_ep200", dataset)

    def texts(self, dataset: str):
        """(method, part, repository, file, texts) for each that has code for the dataset. A part is what the class is
        told by ("prompt": with the words that a learned context replaces), or the teacher that a loss reads."""
        tip_module = DATASETS[dataset][2]
        at, coop = self.at, self.coop(dataset)
        whole = lambda seen: seen["encoded"]  # noqa: E731
        embedded = lambda seen: [text for text in seen["embedded"] if "." in text]  # noqa: E731  # not the words alone

        def of(method, part, repository, module, make, take, *more):
            seen = built(at[repository], module, make, *more)
            return method, part, repository, module.replace(".", "/") + ".py", take(seen)

        yield of("zs-clip", "one", "CoOp", "trainers.zsclip", trainer("ZeroshotCLIP", coop), whole)
        if dataset == "imagenet":
            yield of("zs-clip", "ensemble", "CoOp", "trainers.zsclip", trainer("ZeroshotCLIP2", coop), whole)
        yield of("clip-adapter", "prompt", "CLIP-Adapter", "clip_adapter", adapter_texts(coop), whole, at["CoOp"])
        yield of("coop", "prompt", "CoOp", "trainers.coop", custom(coop), embedded)
        yield of("cocoop", "prompt", "CoOp", "trainers.cocoop", custom(self.cocoop(dataset)), embedded)
        kgcoop = self.kgcoop(dataset)
        yield of("kgcoop", "prompt", "KgCoOp", "trainers.kgcoop", custom(kgcoop), embedded)
        yield of("kgcoop", "teacher", "KgCoOp", "trainers.kgcoop", custom(kgcoop), whole)
        where, tcp = "Textual-based_Class-aware_prompt_tuning", custom(self.tcp(dataset))
        yield of("tcp", "prompt", where, "trainers.tcp", tcp, lambda seen: seen["embedded"])
        yield of("tcp", "teacher", where, "trainers.tcp", tcp, whole)
        maple = custom(self.maple(dataset))
        yield of("maple", "prompt", "multimodal-prompt-learning", "trainers.maple", maple, embedded)
        promptsrc = custom(self.promptsrc(dataset))
        yield of("promptsrc", "prompt", "PromptSRC", "trainers.promptsrc", promptsrc, embedded)
        yield of("promptsrc", "teacher", "PromptSRC", "trainers.promptsrc", promptsrc, whole)
        if tip_module:  # its code ends with an error on the shifted sets
            coprompt = self.coprompt(dataset)
            learner = lambda loaded, clip: loaded.MultiModalPromptLearner(coprompt, NAMES, clip, clip)  # noqa: E731
            yield of("coprompt", "prompt", "CoPrompt", "trainers.coprompt", learner, embedded)
        yield of("rada", "prompt", "RAda", "trainers.rada", custom(self.rada(dataset)), whole)
        yield of("taskres", "prompt", "TaskRes", "trainers.taskres", custom(self.taskres(dataset)), embedded)
        yield of("clap", "prompt", "CLAP", "trainers.adapters", clap_texts(DATASETS[dataset][1]), embedded)
        (argv,) = calls(at["TPT"], "scripts/test_tpt.sh", TPT_SETS[dataset])
        yield of("tpt", "prompt", "TPT", "clip.custom_clip", tpt_texts(argv), embedded)
        if tip_module:
            module = f"datasets.{tip_module}"
            yield of("tip-adapter-f", "prompt", "Tip-Adapter", module, tip_texts, whole)
            yield of("clip-lora", "prompt", "CLIP-LoRA", module, lora_texts, whole)
            yield of("layer-norm", "prompt", "rethinking_fewshot_vlms", module, norm_texts, whole)
            yield of("2sfs", "prompt", "rethinking_fewshot_vlms", module, norm_texts, whole)
            yield of("gda", "prompt", "ICLR24", module, tip_texts, whole)
            yield of("tda", "prompt", "TDA", module, tip_texts, whole)
            yield of("lp-plus-plus", "prompt", "FewShot-CLIP-Strong-Baseline", module, tip_texts, whole)
            yield of("prolip", "prompt", "ProLIP", module, prolip_texts, whole)


def commit(folder: Path) -> str:
    return subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"], text=True).strip()


def texts_of_name(texts: list[str], index: int) -> list[str]:
    """Those of one class, in order: whatever runs over classes first or over templates first."""
    half = [text for text in texts if ("tench" in text) == (index == 0)]
    assert len(half) * len(NAMES) == len(texts), texts
    return half


def write_texts(sources: Sources) -> None:
    found: dict[tuple, list[str]] = {}
    for dataset in DATASETS:
        for method, part, repository, file, texts in sources.texts(dataset):
            for index, name in enumerate(NAMES):
                key = (method, part, name, " | ".join(texts_of_name(texts, index)), repository, file)
                found.setdefault(key[:5], []).append((dataset, file))
    with (DATA / "reference_texts.csv").open("w", newline="") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow(("method", "part", "name", "texts", "datasets", "repository", "commit"))
        for (method, part, name, texts, repository), places in sorted(found.items()):
            datasets = " ".join(dataset for dataset, _ in places)
            owner = f"{OWNERS[repository]}/{repository}"
            out.writerow((method, part, name, texts, datasets, owner, commit(sources.at[repository])))


if __name__ == "__main__":
    write_texts(Sources(Path(sys.argv[1])))
