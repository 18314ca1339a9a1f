"""Settings: read from the environment, refused by name when wrong."""

import pytest
from pydantic import ValidationError

from sdcom.errors import SettingsError
from sdcom.video import DecodeLimits
from service.settings import PREFIX, Settings, load_settings


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCOM_QUEUE_SIZE", "7")
    monkeypatch.setenv("sdcom_http_port", "9000")
    settings = load_settings()
    assert settings.queue_size == 7
    assert settings.http_port == 9000


def test_the_command_line_wins_and_what_it_leaves_out_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCOM_HTTP_PORT", "9000")
    monkeypatch.setenv("SDCOM_HOST", "0.0.0.0")
    settings = load_settings(http_port=9001, host=None)
    assert (settings.http_port, settings.host) == (9001, "0.0.0.0")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SDCOM_QUEUE_SZIE", "SDCOM_QUEUE_SIZE"),
        ("SDCOM_PORT", "SDCOM_HTTP_PORT"),
        ("sdcom_max_video_byte", "SDCOM_MAX_VIDEO_BYTES"),
        ("SDCOM_XYZZY", "docs/operations.md"),
        ("SDCOM_SERVICE_HOST", "SDCOM_HOST"),  # what Kubernetes injects for a Service named sdcom
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE_SIZE", "0"),
        ("NETWORK_WORKERS", "0"),
        ("HTTP_PORT", "70000"),
        ("REQUEST_TIMEOUT_S", "inf"),
        ("LOG_FORMAT", "xml"),
        ("SAMPLING", "random"),
        ("MAX_MESSAGE_BYTES", "67108865"),
        ("GOVERNOR_MIN_BUDGET", "1"),  # which would limit nobody
    ],
)
def test_a_value_that_cannot_be_used_names_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=f"SDCOM_{name}: .*{value}"):
        load_settings()


@pytest.mark.parametrize("name", ["SDCOM_GOVERNOR_MIN_BUDGET", "SDCOM_GOVERNOR_TARGET_WAIT_S"])
def test_tuning_a_governor_that_is_not_on_is_refused_unless_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "0.5")
    with pytest.raises(SettingsError, match=f"{name} changes nothing without SDCOM_GOVERNOR: "):
        load_settings()
    for switch in ("true", "false"):
        monkeypatch.setenv("SDCOM_GOVERNOR", switch)
        assert load_settings().governor is (switch == "true")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().queue_size = 3  # type: ignore[misc]  # what is tested


def test_the_defaults_are_the_decoders_own_limits() -> None:
    assert Settings().decode_limits() == DecodeLimits()


def test_a_short_decode_timeout_leaves_less_cpu_than_wall_clock() -> None:
    limits = Settings(decode_timeout_s=2).decode_limits()
    assert limits.cpu_s < limits.wall_clock_s == 2


@pytest.mark.parametrize(
    ("max_message_bytes", "queue_size", "num_calls"),
    [(4 << 20, 64, 64 + 2 + 1 + 16 + 32), (4 << 20, 10_000, 128), (64 << 20, 64, 8), (50_000, 2, 53)],
)
def test_the_messages_of_all_calls_that_grpc_holds_stay_within_512_mib(
    max_message_bytes: int, queue_size: int, num_calls: int
) -> None:
    settings = Settings(max_message_bytes=max_message_bytes, queue_size=queue_size, decode_workers=2)
    assert settings.max_concurrent_rpcs == num_calls
    assert num_calls * max_message_bytes <= 512 << 20


def test_every_setting_is_described() -> None:
    described = Settings.__doc__ or ""
    for name in Settings.model_fields:
        assert f"        {name}: " in described
