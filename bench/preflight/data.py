"""What `doctor` says of a dataset: its lists, its counts, a sample decoded."""

from __future__ import annotations

from carryover.bench.engine.session import Session
from carryover.bench.preflight.findings import Page
from carryover.bench.records.printed import PAPER_TABLES
from carryover.datasets.base import Dataset
from carryover.datasets.layouts import LAYOUTS, count_notes
from carryover.datasets.splits import NOTE as MADE

SAMPLE = 4  # pictures of each split that are decoded
NOT_COMPARABLE = "the paper's numbers would stand beside those of other data; get the published files again"


def show_data(page: Page, session: Session, id: str, trial: bool, prompts: bool) -> bool:
    """Whether runs on this dataset can be done. A wrong count is bad where the paper's numbers stand beside ours.
    prompts: the base is there, whose tokens tell which classes have one prompt."""
    with page.guard(id):
        data = look_at(session, id)
        counts = " / ".join(str(len(split)) for split in (data.train, data.val, data.test))
        text = f"{len(data.classnames)} classes, {counts} images (train / val / test), a sample decoded"
        splits = {"train": data.train, "val": data.val, "test": data.test}
        wrong = count_notes(LAYOUTS[id], len(data.classnames), splits) if id in LAYOUTS else []
        compared = session.options.arch.id in PAPER_TABLES and MADE not in data.notes and not trial
        if wrong and compared:
            page.bad(id, f"{text}; {'; '.join(data.notes)}: {NOT_COMPARABLE}")
        elif notes := (*data.notes, *(session.same_prompts(id, "base") if prompts else ())):
            page.note(id, f"{text}; {'; '.join(notes)}")
        else:
            page.ok(id, text)
        return True
    return False


def look_at(session: Session, id: str) -> Dataset:
    """Open a dataset and decode a few pictures of each split. Raises UserError with what is wrong."""
    data = session.data(id)
    for split in (data.train, data.val, data.test):
        if len(split):
            split.read(sorted({round(i * (len(split) - 1) / (SAMPLE - 1)) for i in range(SAMPLE)}))
    return data
