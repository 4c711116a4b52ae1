"""The parts of the speed benchmark: what is counted, what is compared, what is reported. No timings are asserted."""

from __future__ import annotations

import json
import mmap
import multiprocessing
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import typer
from rich.console import Console

from benchmarks import speed, speed_curves, speed_gains, speed_memory, speed_ours
from benchmarks.speed_memory import STATUS, PeakMemory, fields, resident, shared_bytes
from benchmarks.speed_models import Shape, tokenizer, write
from benchmarks.speed_report import Series, different_work, ratio, ratios_table, stage_table
from benchmarks.speed_roofline import STAGES, Rates, RatesWork, Sizes, operations, stage_tokens
from benchmarks.speed_work import COIN, Measured, Work
from rlzoo.engine import forked
from rlzoo.model.backbone import Backbone

SMALL = {"prompts_per_step": 2, "group_size": 2, "minibatches": 2, "max_new_tokens": 6, "steps": 2, "task": COIN}
SHAPE = Shape(hidden_size=64, layers=2, heads=2, kv_heads=1, mlp_size=128, vocabulary=300, context=64)
MEASURED = Measured(
    seconds=2.0,
    samples=8,
    tokens_sampled=24,
    tokens_trained=24,
    updates=4,
    adapter_parameters=10,
    prompt_tokens=2.0,
    loaded_bytes=100,
    peak_bytes=300,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(SHAPE, tmp_path_factory.mktemp("model"), mean_length=3)


def test_counts_of_a_measurement(folder: Path) -> None:
    """2 runs x 2 timed steps x 4 samples of 6 tokens, 2 updates per step and run; warm-up is not counted."""
    work = Work(model=str(folder), ends="never", runs=2, stages=True, prompt_tokens=5, **SMALL)
    measured = speed_ours.measure(work)
    assert (measured.samples, measured.tokens_sampled, measured.tokens_trained, measured.updates) == (16, 96, 96, 8)
    assert measured.prompt_tokens == 5
    assert measured.stages is not None and set(STAGES) < set(measured.stages)
    assert all(seconds > 0 for seconds in measured.stages.values())
    assert 0 < measured.loaded_bytes <= measured.peak_bytes


@pytest.mark.parametrize("name", speed_gains.PLAIN)
def test_without_a_fast_path_the_work_is_the_same(name: str, folder: Path) -> None:
    """Tokens sampled and trained are equal; drawing in blocks would draw others, but not from so small a vocabulary."""
    work = Work(model=str(folder), runs=2, prompt_tokens=5, **{**SMALL, "objective": "gspo"})
    fast, without = (speed_ours.measure(work.model_copy(update={"without": w})) for w in ("", name))
    assert (without.tokens_sampled, without.tokens_trained) == (fast.tokens_sampled, fast.tokens_trained)


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["never", "model"])
def test_trl_does_the_same_work(ends: str, folder: Path) -> None:
    pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed")
    from benchmarks import speed_trl

    work = Work(model=str(folder), ends=ends, prompt_tokens=5, **SMALL)
    theirs = speed_trl.measure(work.model_copy(update={"side": "trl"}))
    ours = speed_ours.measure(work)
    assert list(different_work(Series(work, [ours]), Series(work, [theirs]))) == []
    assert theirs.samples <= theirs.tokens_sampled == theirs.tokens_trained


def test_responses_of_a_random_model_end(folder: Path) -> None:
    """Every third token ends a response, so few reach the limit."""
    backbone = Backbone.load(Work(model=str(folder)).backbone)
    assert len(backbone.end_ids) == 1 + 100
    measured = speed_ours.measure(Work(model=str(folder), prompt_tokens=5, **SMALL))
    assert measured.samples <= measured.tokens_sampled < 6 * measured.samples


@pytest.mark.parametrize("vocabulary", [50, 300])
def test_the_tokenizer_has_a_character_for_each_token(vocabulary: int) -> None:
    made = tokenizer(vocabulary, 64)
    assert len(made) == vocabulary
    ids = list(range(3, vocabulary))
    assert made.encode(made.decode(ids)) == ids


def test_operations_are_those_of_the_model(folder: Path) -> None:
    """Against torch's own count of a forward and a backward pass, attention (which it counts in full squares) aside."""
    backbone = Backbone.load(Work(model=str(folder), precision="fp32").backbone)
    sizes = Sizes.of(backbone)
    assert sizes.attention == 2 * SHAPE.hidden_size
    assert sizes.adapters == backbone.layout.size - SHAPE.hidden_size - 1
    linear = [m.base for m in backbone.model.modules() if type(m).__name__ == "MultiLoraLinear"]
    assert sizes.base == sum(layer.weight.numel() for layer in linear)
    bare = sizes.model_copy(update={"attention": 0})
    # 3 tokens fed, 2 of them with logits
    assert bare.forward(0, 3, 2, adapted=False) == 2 * 3 * sizes.base + 2 * 2 * 300 * 64
    assert bare.forward(0, 3, 2) - bare.forward(0, 3, 2, adapted=False) == 2 * 3 * sizes.adapters
    assert bare.backward(0, 3, 2) == 2 * 3 * (sizes.base + 2 * sizes.adapters) + 2 * 2 * 300 * 64
    # attention: token t meets t keys, for scores and for values, two operations each: 4 a (1 + 2 + 3)
    assert sizes.forward(0, 3, 2) - bare.forward(0, 3, 2) == 4 * sizes.attention * 6
    # decoding token by token after a prefill needs what one pass over all needs
    assert sizes.forward(0, 2, 1) + sizes.forward(2, 5, 3) == sizes.forward(0, 5, 4)
    assert sizes.backward(0, 2, 1) + sizes.backward(2, 5, 3) == sizes.backward(0, 5, 4)


def test_operations_of_a_step() -> None:
    """8 samples of 3 tokens, 2 of them fed, to 4 prompts of 2, which are fed once; one layer 4 x 4, no adapters, no
    attention, head 10 x 4."""
    sizes = Sizes(linear=[(4, 4)], r=0, attention=0, hidden=4, vocabulary=10)
    needed = operations(sizes, Work(group_size=2), MEASURED)
    assert needed == {
        "prefill": 4 * (2 * 2 * 16 + 2 * 1 * 40),
        "decode": 8 * (2 * 2 * 16 + 2 * 2 * 40),
        "score": 4 * (2 * 2 * 16) + 8 * (2 * 2 * 16 + 2 * 3 * 40),
        "forward": 4 * (2 * 2 * 16) + 8 * (2 * 2 * 16 + 2 * 3 * 40),
        "backward": 4 * (2 * 2 * 16) + 8 * (2 * 2 * 16 + 2 * 3 * 40),
    }


def test_passes_of_the_stages() -> None:
    """64 rows of 3 - 1 tokens and 8 prompts of 2: 144 in a score of one run, a quarter in an update; the scores of 20
    runs fill the budget."""
    work = Work(micro_batch_tokens=1000)
    expected = {"prefill": 8 * 2, "decode": 64, "score": 144, "forward": 36, "backward": 36}
    assert stage_tokens(work, MEASURED) == expected
    twenty = stage_tokens(work.model_copy(update={"runs": 20}), MEASURED)
    assert twenty == {"prefill": 20 * 16, "decode": 20 * 64, "score": 1000, "forward": 720, "backward": 720}


def series(side: str, *seconds: float, runs: int = 1, **changes: object) -> Series:
    measured = [MEASURED.model_copy(update={"seconds": s, **changes}) for s in seconds]
    return Series(Work(side=side, runs=runs), measured)


def test_ratios_pair_what_was_measured_in_one_turn() -> None:
    ours, trl = series("rlzoo", 1.0, 2.0, 4.0), series("trl", 3.0, 4.0, 4.0)
    assert ratio(ours, trl, "samples_per_s") == "2.00x (1.00..3.00)"
    together = series("rlzoo", 2.0, 4.0, 8.0, runs=20, samples=160, peak_bytes=450)
    rows = ratios_table("", [ours, trl, together]).rows
    assert [row[0] for row in rows] == [
        "1 run / TRL",
        "20 runs together / 20 of TRL, one after the other",
        "20 runs together / 20 of ours, one after the other",
    ]
    assert rows[2][1] == "10.00x (10.00..10.00)"  # twenty times the samples in twice the time
    assert rows[2][3] == "1.50x (1.50..1.50)"


def test_different_work_is_noticed() -> None:
    """Two turns of 800 samples may differ by 4 / 40 = 10% in tokens that end by chance, and by nothing else."""
    many = {"samples": 800, "tokens_trained": 8000}
    ours = series("rlzoo", 1.0, 1.0, tokens_sampled=8000, **many)
    assert list(different_work(ours, series("trl", 9.0, 9.0, tokens_sampled=8700, **many))) == []
    found = list(different_work(ours, series("trl", 1.0, 1.0, tokens_sampled=9000, **many)))
    assert found == ["tokens_sampled 16000 against TRL's 18000"]
    found = list(different_work(ours, series("trl", 1.0, 1.0, tokens_sampled=8000, updates=5, **many)))
    assert found == ["updates 8 against TRL's 10"]
    ours.work = ours.work.model_copy(update={"ends": "never"})
    found = list(different_work(ours, series("trl", 1.0, 1.0, tokens_sampled=8001, **many)))
    assert found == ["tokens_sampled 16000 against TRL's 16002"]


def test_share_of_the_limit() -> None:
    """Scoring needs 2688 operations and takes a second, on a machine that makes 26880 in a large product and 5376 in
    the model's own. The step takes two seconds.
    """
    one = series("rlzoo", 2.0, stages={"score": 1.0, "rest": 1.0}, samples=8)
    one.work = Work(group_size=2, steps=2)
    sizes = Sizes(linear=[(4, 4)], r=0, attention=0, hidden=4, vocabulary=10)
    one.rates = Rates(sizes=sizes, dtype="float32", square=26880, own=dict.fromkeys(STAGES, 5376))
    rows = {row[0]: row[1:] for row in stage_table("", one).rows}
    assert rows["score"] == ["500", "50%", "0.0", "10.0%", "50.0%"]  # 2688 operations
    assert rows["rest"] == ["500", "50%", "-", "-", "-"]
    total = 3 * 2688 + 4 * 144 + 8 * 224
    assert rows["whole step"][3:] == [f"{total / 2 / 26880:.1%}", f"{total / 2 / 5376:.1%}"]


def touched(size: int) -> mmap.mmap:
    """Memory of its own that is resident until it is closed, not the C library's, which may keep it."""
    block = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        block[page] = 1
    return block


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_peak_memory_is_of_what_came_after() -> None:
    with touched(2**27):
        pass
    memory = PeakMemory(torch.device("cpu"))
    assert memory.peak() < memory.loaded + 2**25
    with touched(2**27):
        held = resident("VmRSS")
    assert memory.peak() > held - 2**23  # the kernel counts in batches: its two numbers may differ by a few pages
    assert held > memory.loaded + 2**26
    assert memory.gpu_peak() is None


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_peak_memory_counts_other_processes_and_what_they_share_once() -> None:
    """64 MiB are there before a process is forked, which then fills 128 MiB more and writes to half of the first."""
    mebi = 2**20
    block = torch.ones(64 * mebi // 4)
    memory = PeakMemory(torch.device("cpu"))
    filled, seen = multiprocessing.Event(), multiprocessing.Event()

    def fill() -> None:
        own = torch.ones(128 * mebi // 4)
        block[: len(block) // 2] += own[0]
        filled.set()
        seen.wait()

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    assert filled.wait(60)
    memory.look()
    seen.set()
    process.join()
    grown = memory.peak() - memory.loaded
    assert 160 * mebi - mebi < grown < 160 * mebi + 24 * mebi  # and what else Python writes to


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_pages_are_gone_through_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes tens of milliseconds of a core, and several processes would be timed with it, one would not."""
    read: list[str] = []
    monkeypatch.setattr(speed_memory, "BETWEEN_READINGS", 0.001)
    monkeypatch.setattr(speed_memory, "fields", lambda path: read.append(path.name) or fields(path))
    memory = PeakMemory(torch.device("cpu"))
    ended = multiprocessing.Event()
    process = multiprocessing.get_context("fork").Process(target=ended.wait, daemon=True)
    process.start()
    until = time.monotonic() + 60
    while process.pid not in memory.marks and time.monotonic() < until:
        time.sleep(0.001)
    assert process.pid in memory.marks and set(read) == {"status"}
    memory.look()
    ended.set()
    process.join()
    assert set(read) == {"status", "smaps_rollup"} and 2 in memory.shared and memory.peak() > memory.loaded


def test_shared_memory_of_processes() -> None:
    """100 anonymous in each, 60 of them shared by both: each proportionally holds 40 + 30. Files: 50 and 20."""
    one = {"Rss": 150, "Anonymous": 100, "Pss_Anon": 70}
    assert shared_bytes([one, one | {"Rss": 120}]) == 60 + 20


def test_a_measurement_begins_with_the_first_run_and_ends_with_the_last() -> None:
    """Warm-up ends at 3 (a) and 5 (b), the last step at 9 and 8: 6 seconds, however late it is heard. Memory is looked
    at when the first begins and ends, whose process may be gone when the last ends, and then."""
    memory = Mock(spec=PeakMemory)
    measuring = speed_ours.Measuring(Work(runs=2, warmup=1, steps=2), memory)

    def hear(step: int, made_s: float, kind: str = "train") -> None:
        measuring("", {"kind": kind, "step": step, "updates": 2 * step, speed_ours.MADE: made_s})

    for step, made_s, looks in ((1, 5.0, 1), (2, 6.0, 1), (3, 8.0, 2), (1, 3.0, 2)):
        hear(step, made_s)
        assert memory.look.call_count == looks
    hear(3, 8.5, kind="eval")
    with pytest.raises(speed_ours.Ended):
        hear(3, 9.0)
    assert measuring.seconds == 6 and measuring.count("updates") == 2 * (6 - 2) and memory.look.call_count == 3


def test_processes_are_measured_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one process is: same samples, same tokens."""
    work = Work(model=str(folder), ends="never", runs=3, prompt_tokens=5, **SMALL)
    alone = speed_ours.measure(work)
    monkeypatch.setattr(forked, "cores", lambda: 2)
    divided = speed_ours.measure(work)
    for count in ("samples", *speed_ours.COUNTS):
        assert getattr(divided, count) == getattr(alone, count)
    assert divided.seconds > 0 and divided.peak_bytes > divided.loaded_bytes
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("axis", speed_curves.AXES, ids=lambda axis: axis.name)
def test_every_point_of_a_curve_is_work_that_can_be_made(axis: speed_curves.Axis) -> None:
    made = [(Work(**axis.works(value)), axis.shapes(value)) for value in axis.values]
    assert len(set(made)) == len(axis.values)
    for work, shape in made:
        assert work.max_new_tokens + work.prompt_tokens <= shape.context
        assert all(size % 64 == 0 for size in (shape.hidden_size, shape.mlp_size))  # NF4 shares a scale over 64


def test_curves_are_drawn_and_tabulated(tmp_path: Path) -> None:
    axis = speed_curves.AXES[-1]
    points = [speed_curves.Point(name, x, MEASURED) for name, x in (("small", 1e5), ("large", 1e6))]
    speed_curves.draw({axis: points}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert [row[:3] for row in speed_curves.table(axis, points).rows] == [
        ["small", "2.00", "4.0"],
        ["large", "2.00", "4.0"],
    ]


def test_parameters_of_a_shape(folder: Path) -> None:
    sizes = Sizes.of(Backbone.load(Work(model=str(folder)).backbone))
    assert speed_curves.parameters(SHAPE) == sizes.base


def test_the_whole_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up measurements: what is asked for is measured in turn, with fresh seeds, and written."""
    asked: list[Work] = []

    def made_up(work: Work | RatesWork, result: type) -> Measured | Rates:
        if isinstance(work, RatesWork):
            sizes = Sizes(linear=[(4, 4)], r=0, attention=0, hidden=4, vocabulary=10)
            return Rates(sizes=sizes, dtype="float32", square=100.0, own=dict.fromkeys(STAGES, 50.0))
        asked.append(work)
        return MEASURED.model_copy(update={"stages": {"decode": 1.0, "rest": 0.5} if work.stages else None})

    monkeypatch.setattr(speed, "probe", made_up)
    monkeypatch.setattr(speed_curves, "probe", made_up)
    monkeypatch.setattr(speed_curves, "write", lambda shape, folder: folder)
    speed.main(runs="3", repeats=2, curves=True, threads=1, out=tmp_path / "out", write_to=tmp_path / "speed.md")
    turns = [(work.ends, work.runs, work.seed, work.stages) for work in asked[:8]]
    assert turns == [(ends, runs, seed, not seed) for ends in ("model", "never") for seed in (0, 3) for runs in (1, 3)]
    text = (tmp_path / "speed.md").read_text()
    assert "3 runs together / 3 of ours, one after the other" in text and "![Cost curves](speed.png)" in text
    assert (tmp_path / "speed.png").exists()
    assert len(json.loads((tmp_path / "out" / "measured.json").read_text())) == 4


@pytest.mark.parametrize("options", [{}, {"gains": True, "peer": "trl"}])
def test_nothing_to_measure_is_refused(options: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    if "peer" in options:
        pytest.importorskip("trl")
    with pytest.raises(typer.Exit):
        speed.main(loads=False, **options)
    assert "--no-loads measures curves or gains alone" in capsys.readouterr().err


def test_gains_are_measured_in_as_many_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two turns each path is measured with and without, with seeds of its own."""
    asked: list[Work] = []

    def made_up(work: Work, result: type) -> Measured:
        asked.append(work)
        return MEASURED

    monkeypatch.setattr(speed_gains, "probe", made_up)
    monkeypatch.setattr(speed_gains, "write", lambda shape, folder: folder)
    speed.main(runs="3", repeats=2, loads=False, gains=True, threads=1, out=tmp_path)
    turns = {name: [work.seed for work in asked if work.without == name] for name in speed_gains.PLAIN if name}
    assert turns == {name: [0, 3] for name in speed_gains.PLAIN if name}
    for without, fast in zip(asked[::2], asked[1::2], strict=True):  # side by side, as machines change their pace
        assert without.without and fast == without.model_copy(update={"without": ""})
    made = speed_gains.measure(asked[-1], 3, 1, Console(quiet=True))
    loads = {row[0]: row[1] for row in made.rows}
    assert (
        loads["silent groups left out"] == "3 runs, gspo" and loads["micro-batches of whole runs"] == "3 runs, grpo@trl"
    )
    assert loads["head in chunks"] == "1 run, vocabulary 150,000"
