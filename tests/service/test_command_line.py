"""The `sdcom` command as a user types it, without a server."""

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sdcom.__main__ import _line, _table, app
from sdcom.checkpoint import INFO_FILE, load_info, write_info
from sdcom.errors import InvalidParameterError
from sdcom.recognizer import Recognizer
from tests.sdcom.video.test_damage import cut_off, damaged
from tests.sdcom.video.videos import encode


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clips") / "clip.mp4"
    file.write_bytes(encode(num_frames=12))
    return file


def run(*arguments: str | Path | float, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdcom", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )


def test_many_files_are_lines_of_json_and_a_bad_one_does_not_stop_the_others(
    tiny_model_dir: Path, clip: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    missing = tmp_path / "missing.mp4"
    ended = run("recognize", "--model", tiny_model_dir, "--top-k", 1, clip, text, missing, clip)
    assert ended.returncode == 1
    assert ended.stderr == ""
    first, second, third, fourth = (json.loads(line) for line in ended.stdout.splitlines())
    assert first["file"] == str(clip)
    assert len(first["predictions"]) == 1
    assert second["error"]["type"] == "UnsupportedContainerError"
    assert third["error"]["detail"].endswith("No such file or directory")
    for one in (first, fourth):
        del one["timing_ms"]
    assert first == fourth


def test_a_confidence_ends_videos_early(tiny_model_dir: Path, clip: Path) -> None:
    ended = run("recognize", "--model", tiny_model_dir, "--min-confidence", 0, clip)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["compute"]["num_frames"] == 1


def test_recognising_keeps_to_the_services_settings(tiny_model_dir: Path, clip: Path) -> None:
    for setting, complaint in (
        ({"SDCOM_DEVCE": "cpu"}, "unknown setting SDCOM_DEVCE; did you mean SDCOM_DEVICE?"),
        ({"SDCOM_DEVICE": "cuda"}, "cannot compute on cuda"),
    ):
        ended = run("recognize", "--model", tiny_model_dir, clip, **setting)
        assert ended.returncode == 2
        assert complaint in ended.stderr
    ended = run("recognize", "--model", tiny_model_dir, clip, SDCOM_MAX_DIMENSION="64")
    assert ended.returncode == 1
    assert "the limits are 64 pixels a side" in json.loads(ended.stdout)["error"]["detail"]


def test_a_terminal_gets_a_table(tiny_model_dir: Path, clip: Path) -> None:
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "sdcom",
        "recognize",
        "--model",
        str(tiny_model_dir),
        "--budget",
        "1",
        str(clip),
    ]
    process = subprocess.Popen(
        command,
        stdout=follower,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200", "TERM": "xterm"},
    )
    assert process.wait(60) == 0
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    os.close(follower)
    assert "clip.mp4" in shown
    assert "GFLOPs" in shown
    assert "{" not in shown


def test_brackets_in_a_files_name_are_shown_as_they_are() -> None:
    file, shown = Path("clip[red][/take 2].mp4"), io.StringIO()
    Console(file=shown, width=200).print(_table([(file, InvalidParameterError(f"cannot read {file}"))]))
    assert shown.getvalue().count(file.name) == 2


def test_a_damaged_file_is_told_in_json_and_on_a_terminal(tiny_model_dir: Path, tmp_path: Path) -> None:
    files = [tmp_path / "sound.mp4", tmp_path / "damaged.mp4", tmp_path / "cut.mp4"]
    data = encode(num_frames=40, options={"g": "1", "bf": "0"})
    files[0].write_bytes(data)
    files[1].write_bytes(damaged(data, 0, 12))
    files[2].write_bytes(cut_off(40, 30))
    with Recognizer.load(tiny_model_dir, num_decode_workers=1) as recognizer:
        whole = [recognizer.recognize(file) for file in files]
        early = [recognizer.recognize(file, min_confidence=1.0) for file in files]
    for answers in (whole, early):
        sound, hurt, cut = (_line(files[0], answer)["video"] for answer in answers)
        assert (
            sound["num_unreadable_frames"] == sound["num_missing_frames"] == hurt["num_missing_frames"] == 0
        )
        assert hurt["num_unreadable_frames"] > 0
        assert cut["num_missing_frames"] == 10
    shown = io.StringIO()
    Console(file=shown, width=200).print(_table(list(zip(files, whole, strict=True))))
    assert f"damaged: {hurt['num_unreadable_frames']} of the sampled frames unreadable" in shown.getvalue()
    assert f"cut off: the last {cut['num_missing_frames']} frames missing" in shown.getvalue()
    assert shown.getvalue().count("damaged:") == shown.getvalue().count("cut off:") == 1


def test_budgets_that_cannot_be_kept_are_one_line(tiny_model_dir: Path, clip: Path) -> None:
    both = run("recognize", "--model", tiny_model_dir, "--budget", 0.5, "--max-gflops", 3, clip)
    assert both.returncode == 1
    assert both.stderr.startswith("sdcom: give a budget")
    floor = run("recognize", "--model", tiny_model_dir, "--budget", 0.01, clip)
    assert floor.returncode == 1
    assert "floor" in json.loads(floor.stdout)["error"]["detail"]


def test_info_prints_networks_costs_and_calibration(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["info", str(tiny_model_dir)])
    assert shown.exit_code == 0
    for word in (
        "mobilenet_v2 at 32 px",
        "dynamic at 0.25",
        "floor",
        "baseline",
        "Calibration",
        "Early exits",
        "2.5",
        "clap, jump, wave",
    ):
        assert word in shown.output


def test_the_floor_that_info_prints_is_enough_as_a_budget(tiny_model_dir: Path, clip: Path) -> None:
    info = load_info(tiny_model_dir)
    floor = info.macs.floor(info.config.clip.num_frames)
    assert round(floor / 1e9, 4) < floor / 1e9, "rounded to the nearest it would not be"
    shown = CliRunner().invoke(app, ["info", str(tiny_model_dir)], env={"COLUMNS": "200"}).output
    printed = re.search(r"floor: every frame at width 0 +([\d.]+) +([\d.]+)", shown)
    assert printed is not None
    for option, figure in (("--max-gflops", printed[1]), ("--budget", printed[2])):
        ended = run("recognize", "--model", tiny_model_dir, option, figure, clip)
        assert ended.returncode == 0, ended.stdout
        assert json.loads(ended.stdout)["compute"]["gflops"] == floor / 1e9


def test_evaluation_and_provenance_are_tables_and_anything_else_in_them_is_listed(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy = {"top1": 0.4486, "top1_interval": [0.392, 0.506]}
    scores = [{"name": "SDCOM, default budget", **accuracy, "gflops": 0.96106, "share": 0.401}]
    info = load_info(tiny_model_dir).model_copy(
        update={
            "evaluation": {
                "split1": {"command": "sdcom evaluate [tiny]", "scores": scores},
                "by hand": {"top1": {"morning": 0.5}},
            },
            "provenance": {
                "num_training_clips": 716,
                "held_out_groups": ["jhmdb/g009", "jhmdb/g062"],
                "recipe": {"model": None, "policy": {"num_views": 5}},
            },
        }
    )
    write_info(tmp_path, info)
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["info", str(tmp_path)]).output
    assert re.search(r"Evaluation, split1\s+top-1\s+95 % interval\s+GFLOPs a video\s+of the baseline", shown)
    assert re.search(r"SDCOM, default budget +44\.9% +39\.2% to 50\.6% +0\.9611 +40\.1%", shown)
    assert re.search(r"command +sdcom evaluate \[tiny\]", shown)
    assert re.search(r"top1\.morning +0\.5", shown)
    assert re.search(r"held_out_groups +jhmdb/g009, jhmdb/g062", shown)
    assert re.search(r"Recipe\s+policy\.num_views +5", shown)
    assert "{" not in shown


def test_info_gives_scripts_the_whole_record(tiny_model_dir: Path) -> None:
    shown = CliRunner().invoke(app, ["info", str(tiny_model_dir), "--json"])
    assert json.loads(shown.stdout) == json.loads((tiny_model_dir / INFO_FILE).read_text())


def test_the_model_is_that_of_the_services_variable_unless_it_is_named(
    tiny_model_dir: Path, clip: Path, tmp_path: Path
) -> None:
    shown = run("recognize", clip, SDCOM_MODEL_DIR=str(tiny_model_dir))
    assert json.loads(shown.stdout)["model"] == "tiny@0"
    info = CliRunner().invoke(app, ["info", "--json"], env={"SDCOM_MODEL_DIR": str(tiny_model_dir)})
    assert json.loads(info.stdout)["name"] == "tiny"
    elsewhere = {"SDCOM_MODEL_DIR": str(tmp_path / "gone")}
    assert CliRunner().invoke(app, ["info", str(tiny_model_dir)], env=elsewhere).exit_code == 0
    assert "gone is not a model directory" in str(CliRunner().invoke(app, ["info"], env=elsewhere).exception)


TORCHLESS = "import sys; sys.modules['torch'] = None; from sdcom.__main__ import main; main()"


def test_the_hardware_is_measured_without_torch_and_then_milliseconds_are_a_budget(
    tiny_model_dir: Path, clip: Path, tmp_path: Path
) -> None:
    model = tmp_path / "[tiny]"
    shutil.copytree(tiny_model_dir, model)
    unmeasured = run("recognize", "--model", model, "--max-ms", 1000, clip)
    assert "sdcom calibrate --hardware" in json.loads(unmeasured.stdout)["error"]["detail"]

    command = [sys.executable, "-c", TORCHLESS, "calibrate", str(model), "--hardware", "--repeats", "1"]
    measured = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"COLUMNS": "200"}
    )
    assert measured.returncode == 0, measured.stderr
    assert re.search(r"part +µs a frame +MACs, of full width +time, of full width", measured.stdout)
    assert re.search(r"dynamic at 1 +[\d,]+ +100\.0% +100\.0%", measured.stdout)
    assert measured.stdout.endswith(f"written to {model / 'hardware.json'}\n")

    answer = json.loads(run("recognize", "--model", model, "--max-ms", 1e6, clip).stdout)
    assert answer["compute"]["lam"] == 0
    floor = json.loads(run("recognize", "--model", model, "--max-ms", 0, clip).stdout)
    assert floor["error"]["type"] == "TimeBelowFloorError"
    shown = CliRunner().invoke(app, ["info", str(model)], env={"COLUMNS": "200"}).output
    assert re.search(r"Time on .*\nonnxruntime-cpu [\d.]+, \d+ threads?", shown)
    scripts = json.loads(CliRunner().invoke(app, ["info", str(model), "--json"]).stdout)
    assert [record["provider"] for record in scripts["hardware"]] == ["onnxruntime-cpu"]


def test_the_help_of_measuring_the_hardware_is_its_own() -> None:
    ended = run("calibrate", "--hardware", "--help", COLUMNS="200")
    assert ended.returncode == 0
    assert "budgets in milliseconds" in ended.stdout
    assert "--repeats" in ended.stdout


@pytest.mark.parametrize("command", [["calibrate", "--hardware"], ["bench"], ["bench", "decode"]])
def test_only_sdcom_itself_offers_to_complete_what_is_typed(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app([*command, "--help"])
    assert ended.value.code == 0
    shown = capfd.readouterr().out
    assert "--help" in shown
    assert "completion" not in shown


@pytest.mark.parametrize("command", ["recognize", "info"])
def test_the_help_names_the_variable(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "SDCOM_MODEL_DIR" in CliRunner().invoke(app, [command, "--help"]).output


def test_the_help_sets_the_commands_apart_that_need_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    serving, training = CliRunner().invoke(app, ["--help"]).output.split("needs torch")
    for command in ("train", "evaluate", "results", "data"):
        assert re.search(rf"^\W+{command}  ", training, re.MULTILINE)
        assert not re.search(rf"^\W+{command}  ", serving, re.MULTILINE)
    for command in ("serve", "calibrate"):
        assert re.search(rf"^\W+{command}  ", serving, re.MULTILINE)


def test_a_misspelt_command_is_told_the_nearest() -> None:
    ended = CliRunner().invoke(app, ["recgnize"])
    assert ended.exit_code == 2
    assert "recognize" in ended.output


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.startswith("sdcom 0.")
