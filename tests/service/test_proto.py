"""The contract and the code generated from it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

GENERATED = ("recognition_pb2.py", "recognition_pb2.pyi", "recognition_pb2_grpc.py")


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    (tmp_path / "service" / "pb").mkdir(parents=True)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iservice/pb=protos/sdcom/v1"]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *outputs, "service/pb/recognition.proto"], cwd=REPOSITORY, check=True)
    for name in GENERATED:
        fresh = (tmp_path / "service" / "pb" / name).read_text(encoding="utf-8")
        assert fresh == (REPOSITORY / "service" / "pb" / name).read_text(encoding="utf-8"), "run `make proto`"


def test_the_contract_is_linted() -> None:
    buf = shutil.which("buf") or str(Path(sys.executable).with_name("buf"))
    if not Path(buf).exists():
        pytest.skip("buf is absent: the dev extra installs it (buf-bin)")
    linted = subprocess.run([buf, "lint"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
