"""Writing stays in the folder that was named and replaces regular files only; reading waits for nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlzoo.errors import UserError
from rlzoo.store import files
from rlzoo.store.run_folder import METRICS, SAMPLES, RunFolder

CONFIG = {"objective": {"name": "x"}, "task": {"name": "sort"}, "train": {"steps": 3}, "seed": 0}
LINE = {"kind": "train", "step": 1}


def test_a_link_is_neither_followed_nor_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "link").symlink_to(precious)
    for write in (
        lambda path: files.append(path, b"x"),
        lambda path: files.replace(path, lambda file: file.write(b"x")),
    ):
        with pytest.raises(UserError, match="link is a symbolic link"):
            write(tmp_path / "link")
    assert precious.read_text() == "kept" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_not_replaced(device: str) -> None:
    with pytest.raises(UserError, match="no regular file"):
        files.replace(Path(device), lambda file: file.write(b"x"))
    assert not Path(device).is_file()


def test_a_trap_where_the_file_aside_goes_is_not_opened(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "a.json.partial").symlink_to(precious)
    files.replace(tmp_path / "a.json", lambda file: file.write(b"{}"))
    assert precious.read_text() == "kept" and (tmp_path / "a.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "precious"]


def test_a_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "out" / "grpo").symlink_to(tmp_path / "away")
    (tmp_path / "here").symlink_to(tmp_path / "out")
    for names in (("grpo", "seed0"), ("..", "x"), ("/etc",)):
        with pytest.raises(UserError, match="leads out of"):
            files.inside(tmp_path / "out", *names)
    assert files.inside(tmp_path / "here", "dapo/seed0") == tmp_path / "here" / "dapo" / "seed0"


def test_reading_a_pipe_does_not_wait(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    os.mkfifo(folder.path / SAMPLES)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match="no regular file"):
        files.read_json(tmp_path / "pipe.json")
    with pytest.raises(UserError, match="no regular file"):
        folder.log_samples([])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Expecting value"),
        (b'{"a": ', "not JSON"),
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_what_is_no_json_is_said_with_its_file(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=rf"a\.json.*{why}"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"objective": {"name": 5}, "seed": 0}', '"x"'])
def test_a_configuration_that_is_none_is_said_with_its_file(tmp_path: Path, text: str) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    (folder.path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        folder.read_json("config.json")


def test_a_number_out_of_its_range_is_said_with_its_line(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(LINE)
    with open(folder.path / METRICS, "a") as file:
        file.write('{"kind": "eval", "step": 1, "accuracy": 7.5}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2.*accuracy: .*less than or equal to 1, not 7\.5"):
        folder.read_metrics()


def test_what_a_kill_leaves_is_removed_at_the_next_start(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    (folder.path / "state.pt.partial").write_bytes(b"half")
    (folder.path / "adapter" / "tmpabc").mkdir(parents=True)
    (folder.path / "adapter" / "tmpabc" / "half.safetensors").write_bytes(b"half")
    (folder.path / "adapter" / "adapter_config.json").write_text("{}")
    RunFolder.create(tmp_path / "run", CONFIG)
    found = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*"))
    assert found == [".lock", "adapter", "adapter/adapter_config.json", "config.json", "environment.json"]
