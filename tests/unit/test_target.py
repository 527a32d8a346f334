"""Targets and the configuration from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

import torchport
from torchport.config import VARIABLES, Config, config
from torchport.errors import OptionError, TargetError
from torchport.target import Target


@pytest.mark.parametrize("text", ["cpu", "cpu:x86_64:avx2", "cuda:90", "hip:gfx942", "opencl:0"])
def test_text_form_round_trips(text: str) -> None:
    target = Target.parse(text)
    assert str(target) == text
    assert Target.parse(target) is target
    assert hash(target) == hash(Target.parse(text))


@pytest.mark.parametrize("text", ["", "CPU", "cpu:", ":cpu", "cpu::avx2", "cpu avx2", "9cpu"])
def test_bad_targets_are_refused(text: str) -> None:
    with pytest.raises(TargetError, match="'cpu:x86_64:avx2', 'cuda:90'"):
        Target.parse(text)


def test_a_target_is_text() -> None:
    with pytest.raises(TargetError, match="not int"):
        Target.parse(90)  # type: ignore[arg-type]


def test_defaults() -> None:
    settings = Config.from_environment({})
    assert (settings.debug, settings.cache_size, settings.target) == (0, 2**30, Target("cpu"))
    assert settings.cache_dir.name == "torchport"


def test_every_variable_is_read() -> None:
    settings = Config.from_environment(
        {
            "TORCHPORT_DEBUG": "3",
            "TORCHPORT_CACHE_DIR": "/c",
            "TORCHPORT_CACHE_SIZE": "2 GiB",
            "TORCHPORT_DUMP_DIR": "/d",
            "TORCHPORT_COMPILE_AHEAD": "0",
            "TORCHPORT_QUARANTINE": "/q.json",
            "TORCHPORT_TARGET": "cuda:90",
            "TORCHPORT_SANITIZE": "race, address",
            "TORCHPORT_DEVICE_CHECK": "version",
            "TORCHPORT_VALIDATE": "full",
            "TORCHPORT_RECORD_DIR": "/r",
        }
    )
    assert settings == Config(
        debug=3,
        cache_dir=Path("/c"),
        cache_size=2 * 2**30,
        dump_dir=Path("/d"),
        compile_ahead=False,
        quarantine=Path("/q.json"),
        target=Target("cuda", ("90",)),
        sanitize=("address", "race"),
        device_check="version",
        validate="full",
        record_dir=Path("/r"),
    )
    assert Config.from_environment({"TORCHPORT_CACHE_DIR": "/c"}).quarantine == Path("/c/quarantine.json")
    assert Config.from_environment({v.name: "" for v in VARIABLES}) == Config.from_environment({})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TORCHPORT_DEBUG", "6", "one of 0, 1, 2, 3, 4, 5"),
        ("TORCHPORT_DEBUG", "yes", "one of 0, 1, 2, 3, 4, 5"),
        ("TORCHPORT_CACHE_SIZE", "-1", "500M, 2G"),
        ("TORCHPORT_CACHE_SIZE", "2X", "500M, 2G"),
        ("TORCHPORT_TARGET", "A100", "'cuda:90'"),
        ("TORCHPORT_SANITIZE", "adress", "address, extent, uninitialized, race"),
    ],
)
def test_bad_values_name_the_variable_and_what_is_valid(name: str, value: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Config.from_environment({name: value})
    assert name in str(caught.value)
    assert value in str(caught.value)


def test_a_changed_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_DEBUG", "1")
    assert config().debug == 1
    assert config() is config()
    monkeypatch.setenv("TORCHPORT_DEBUG", "2")
    assert config().debug == 2


def test_unknown_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        torchport.nothing  # noqa: B018
