"""Signatures of certificates and reports: what is proven, what is refused, and by which sentence."""

from __future__ import annotations

import base64
import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import ArtifactError, OptionError
from torchport.signing import Signer, check, content_hash

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

DOCUMENT: dict[str, Any] = {"schema": "test/1", "figures": [1, 0.1, -0.0, 1e-300], "name": "ä \N{ROCKET}", "none": None}


def write_key(folder: Path, name: str, *, ssh: bool, password: bytes | None = None) -> tuple[Path, Path]:
    """A new private and public key in files, of ssh-keygen's form or openssl's."""
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    form = PrivateFormat.OpenSSH if ssh else PrivateFormat.PKCS8
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, form, encryption))
    if ssh:
        text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        public.write_bytes(text + f" {name}@lab\n".encode())
    else:
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize("ssh", [True, False], ids=["ssh-keygen", "openssl"])
def test_a_signature_says_whose_it_is(tmp_path: Path, ssh: bool) -> None:
    private, public = write_key(tmp_path, "ours", ssh=ssh)
    signed = Signer.load(private).signed(DOCUMENT)
    assert {**signed, "signature": 0, "sha256": 0} == {**DOCUMENT, "signature": 0, "sha256": 0}
    assert check(signed, "it", public).startswith(
        "signed by ours@lab (SHA256:" if ssh else "signed by the key (SHA256:"
    )
    assert "whose it is" in check(signed, "it")
    again = Signer.load(private).signed(signed)
    assert again == signed, "a document that is signed again has one signature"


def test_it_is_what_the_standard_says(tmp_path: Path) -> None:
    """RFC 8032, 7.1, test 1's key: signatures are those of any implementation, over the documented bytes."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    signed = Signer(key).signed({"b": 1.5, "a": ["x"]})
    bare = '{"a":["x"],"b":1.5,"sha256":"' + content_hash({"a": ["x"], "b": 1.5}) + '"}'
    expected = key.sign(b"torchport.signature/1\0" + bare.encode())
    assert base64.b64decode(signed["signature"]["value"]) == expected
    assert base64.b64decode(signed["signature"]["public_key"]).hex().startswith("d75a980182b10ab7")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["figures"].append(1), "was changed"),
        (lambda d: d.update(extra=1), "was changed"),
        (lambda d: d.pop("none"), "was changed"),
        (lambda d: d.pop("sha256"), "was changed"),
        (lambda d: d["signature"].update(algorithm="none"), "damaged"),
        (lambda d: d["signature"].update(value=""), "damaged: 0 bytes"),
        (lambda d: d["signature"].update(value="%%%"), "damaged"),
        (lambda d: d["signature"].update(public_key="AAAA"), "damaged: 3 bytes"),
        (lambda d: d["signature"].update(more=1), "nobody signed"),
        (lambda d: d.update(signature=None), "damaged"),
        (lambda d: d.update(signature=[1]), "damaged"),
        (lambda d: d.pop("signature"), "no signature"),
    ],
)
def test_what_was_changed_is_refused(tmp_path: Path, change: Callable[[Any], object], says: str) -> None:
    private, public = write_key(tmp_path, "ours", ssh=True)
    document = copy.deepcopy(Signer.load(private).signed(DOCUMENT))
    change(document)
    with pytest.raises(ArtifactError, match=says):
        check(document, "it", public)


def test_a_change_with_a_new_hash_is_refused(tmp_path: Path) -> None:
    private, public = write_key(tmp_path, "ours", ssh=True)
    signed = {**Signer.load(private).signed(DOCUMENT), "name": "better"}
    with pytest.raises(ArtifactError, match="not of this content"):
        check({**signed, "sha256": content_hash(signed)}, "it", public)


def test_another_s_signature_is_refused(tmp_path: Path) -> None:
    _, public = write_key(tmp_path, "ours", ssh=True)
    stranger, strange = write_key(tmp_path, "strange", ssh=True)
    signed = Signer.load(stranger).signed(DOCUMENT)
    with pytest.raises(ArtifactError, match="which is not in"):
        check(signed, "it", public)
    both = tmp_path / "both"
    both.write_text(f"# trusted\n\n{public.read_text()}{strange.read_text()}")
    assert "strange@lab" in check(signed, "it", both)


def test_encrypted_keys_ask(tmp_path: Path) -> None:
    for ssh in (True, False):
        private, public = write_key(tmp_path, f"secret{ssh}", ssh=ssh, password=b"pass")
        assert check(Signer.load(private, lambda: "pass").signed(DOCUMENT), "it", public)
        with pytest.raises(OptionError, match="passphrase may be wrong"):
            Signer.load(private, lambda: "other")
        with pytest.raises(OptionError, match="nobody to ask"):
            Signer.load(private)


def test_files_that_hold_no_key(tmp_path: Path) -> None:
    private, public = write_key(tmp_path, "ours", ssh=True)
    curve = tmp_path / "curve"
    curve.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    empty, text, large = (tmp_path / name for name in ("empty", "text", "large"))
    empty.write_bytes(b"")
    text.write_bytes(b"hello \xff\0")
    large.write_bytes(bytes((1 << 20) + 1))
    for file in (empty, text, large, public, tmp_path, tmp_path / "none", curve):
        with pytest.raises(OptionError):
            Signer.load(file)
    signed = Signer.load(private).signed(DOCUMENT)
    for file in (empty, text, large, private, tmp_path, tmp_path / "none"):
        with pytest.raises(OptionError):
            check(signed, "it", file)


def test_the_command_signs_and_verifies(tmp_path: Path) -> None:
    private, public = write_key(tmp_path, "ours", ssh=True)
    certificate = tmp_path / "cpu.json"
    one = ["conformance", "--only", "language/exp/fp32/*/special", "-o", str(certificate), "--sign"]
    refused = CliRunner().invoke(app, [*one, str(tmp_path / "none")])
    assert isinstance(refused.exception, OptionError) and not certificate.exists(), "before anything runs"
    assert CliRunner().invoke(app, [*one, str(private)]).exit_code == 0
    assert "Signed with the key SHA256:" in certificate.with_suffix(".md").read_text()
    verify = ["conformance", "--verify", str(certificate), "--public-key"]
    assert "signed by ours@lab" in CliRunner().invoke(app, [*verify, str(public)]).output
    _, other = write_key(tmp_path, "other", ssh=True)
    assert "which is not in" in str(CliRunner().invoke(app, [*verify, str(other)]).exception)


def test_keys_of_ssh_keygen(tmp_path: Path) -> None:
    tool = shutil.which("ssh-keygen")
    if tool is None:
        pytest.skip("there is no ssh-keygen")
    key = tmp_path / "signing-key"
    subprocess.run([tool, "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(key)], check=True)
    public = key.with_suffix(".pub")
    found = check(Signer.load(key).signed(DOCUMENT), "it", public)
    shown = subprocess.run([tool, "-l", "-f", str(public)], check=True, capture_output=True, text=True).stdout
    assert found == f"signed by me ({shown.split()[1]})"


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys, torchport.signing; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reports_of_eval_are_signed_and_verified(tmp_path: Path) -> None:
    private, public = write_key(tmp_path, "ours", ssh=True)
    factory, suite, out = tmp_path / "model.py", tmp_path / "suite.toml", tmp_path / "out"
    factory.write_text("import torch\n\ndef make():\n    return torch.nn.Linear(4, 3), (torch.ones(2, 4),)\n")
    suite.write_text('name = "one"\n[[model]]\nname = "linear"\nmake = "model.py:make"\n')
    command = ["eval", str(suite), "--targets", "cpu", "-o", str(out), "--sign", str(private)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    verify = ["eval", "--verify", str(out / "eval.json"), "--public-key"]
    assert "signed by ours@lab" in CliRunner().invoke(app, [*verify, str(public)]).output
    _, other = write_key(tmp_path, "other", ssh=True)
    assert "which is not in" in str(CliRunner().invoke(app, [*verify, str(other)]).exception)


def test_files_of_several_public_keys(tmp_path: Path) -> None:
    keys = [write_key(tmp_path, name, ssh=name < "c") for name in "abcd"]
    for first, second in ((keys[0], keys[1]), (keys[2], keys[3])):
        both = tmp_path / "both"
        both.write_text(f"  # ours\n {first[1].read_text()}\r\n{second[1].read_text()}")
        for private, _ in (first, second):
            assert check(Signer.load(private).signed(DOCUMENT), "it", both).startswith("signed by")


@pytest.mark.parametrize("command", ["eval", "conformance"])
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, command: str) -> None:
    private, public = write_key(tmp_path, "ours", ssh=True)
    other = tmp_path / "other.json"
    other.write_text('{"schema": "torchport.other/1"}')
    for options, says in (
        (["--verify", other, "--sign", private], "not both"),
        (["--public-key", public], "--public-key is for"),
        (["--verify", other], "of this torchport"),
    ):
        result = CliRunner().invoke(app, [command, *map(str, options)])
        assert result.exit_code and says in f"{result.output} {result.exception}"
    if command == "conformance":
        result = CliRunner().invoke(app, [command, "--sign", str(private)])
        assert result.exit_code and "-o" in result.output
