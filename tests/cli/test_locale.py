"""Text that ASCII cannot hold, in a process whose locale is ASCII: a container without a UTF-8 locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.store.run_folder import RunFolder
from tests.cli.test_app import ENVIRONMENT, small

ASCII = {**ENVIRONMENT, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
ASCII.pop("LANG", None)
ASCII.pop("PYTHONIOENCODING", None)


def ascii_rlzoo(code: str, *arguments: object) -> str:
    """Run Python code, or with "" the command line, under an ASCII locale; return both streams."""
    line = ["-c", code] if code else ["-m", "rlzoo"]
    command = [sys.executable, *line, *map(os.fsencode, map(str, arguments))]
    done = subprocess.run(command, env=ASCII, capture_output=True, timeout=280)
    output = (done.stdout + done.stderr).decode("ascii")  # what it prints, such a terminal can show
    assert done.returncode == 0 and "Traceback" not in output, output
    return output


def rows(folder: Path) -> Path:
    """A file of problems whose text is not ASCII."""
    file = folder / "rows.jsonl"
    lines = (json.dumps({"prompt": f"Größe {n}?", "answer": "é"}, ensure_ascii=False) for n in range(40))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_folder_with_umlauts_is_read_and_taken_up_again(tmp_path: Path) -> None:
    """Settings, samples, data, and the folder's own name; the locale is ASCII, which the process says itself.

    A path in a file of settings has characters that this system's file names cannot have: that is a sentence.
    """
    folder, task = tmp_path / "Läufe", {"name": f"jsonl:{rows(tmp_path)}", "system": "Réponds"}
    config = validate(RunConfig, {"objective": "grpo", "task": task}, "x")
    made = RunFolder.create(folder, config.stored())
    made.log({"kind": "train", "step": 1})
    sample = {"kind": "train", "step": 1, "prompt": "Größe?", "completion": "ü", "answer": "é", "accuracy": 1.0}
    made.log_samples([sample | {"reward": 1.0, "length": 1, "finished": True}])
    assert made.lock is not None
    made.lock.release()
    code = (
        "import locale, sys\nfrom pathlib import Path\n"
        "from rlzoo.config.sources import read_file\nfrom rlzoo.store.run_folder import RunFolder, read_lines\n"
        "from rlzoo.experiments.doctor import examine\n"
        "from rlzoo.config.run import RunConfig\nfrom rlzoo.tasks import load_task\n"
        "assert locale.getpreferredencoding(False) in ('ANSI_X3.4-1968', 'US-ASCII'), locale.getpreferredencoding()\n"
        "folder = Path(sys.argv[1])\nconfig = RunConfig.model_validate(read_file(folder / 'config.json'))\n"
        "task = load_task(config.task)\nassert task.problem('train', 0).prompt[0]['content'] == 'R\\xe9ponds'\n"
        "assert read_lines(folder / 'samples.jsonl')[0]['completion'] == '\\xfc'\n"
        "assert not examine([folder])[0].damage, examine([folder])\n"
        "RunFolder.create(folder, config.stored(), resume=True)\n"
        "from rlzoo.errors import UserError\n"
        "try: load_task(config.task.model_copy(update={'name': 'jsonl:\\xdcbung.jsonl'}))\n"
        "except UserError as error: print('read', 'cannot read' in str(error), 'ascii' in str(error))"
    )
    assert ascii_rlzoo(code, folder).endswith("read True True\n")


@pytest.mark.slow
def test_a_run_with_umlauts_trains_resumes_and_is_reported(qwen_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Läufe"
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'objective = "grpo"\n[task]\nname = "jsonl:{rows(tmp_path)}"\nsuffix = " — très bien"\n', "utf-8"
    )
    ascii_rlzoo("", "train", "--config", settings, *small(qwen_folder), "--out", folder)
    ascii_rlzoo("", "train", "--config", folder / "config.json", "--out", folder, "--resume")
    ascii_rlzoo("", "report", folder)
    assert "très bien" in json.loads((folder / "config.json").read_text(encoding="utf-8"))["task"]["suffix"]
