"""Certificates and reports as documents: a hash of their content, and a signature that says whose they are.

Signatures are Ed25519 (RFC 8032), by the package cryptography, which is imported when one is made or checked. Keys are
files of ssh-keygen or openssl.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from torchport.errors import ArtifactError, OptionError
from torchport.files import read_bytes, read_json
from torchport.schema import Mismatch, conform

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["EXAMPLE_KEY", "Signer", "check", "content_hash", "fingerprint", "read_document"]

EXAMPLE_KEY = "ssh-keygen -t ed25519 -f signing-key"
"""The command that makes a key: the private one in ``signing-key``, the public one in ``signing-key.pub``."""

_PURPOSE = b"torchport.signature/1\0"  # a key that signs other things, too, signs nothing that means this there
_PEM = re.compile(rb"-----BEGIN .*?-----END [^\n]*-----", re.DOTALL)
_MOST_BYTES = 1 << 20  # of a file of keys


class _Signature(TypedDict):
    algorithm: Literal["ed25519"]
    public_key: str
    value: str


def content_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 over the content as JSON with sorted keys and no spaces, without the hash itself and the signature."""
    return hashlib.sha256(_canonical(document, without=("sha256", "signature"))).hexdigest()


class Signer:
    """Signs documents with a private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def load(cls, path: Path, passphrase: Callable[[], str] | None = None) -> Signer:
        """The key in a file, whose ``passphrase`` is asked for if it is encrypted.

        Raises OptionError for a file that holds no Ed25519 key, or a wrong passphrase.
        """
        return cls(_private_key(path, passphrase))

    def signed(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document with its hash and a signature, in place of those it has."""
        bare = {name: value for name, value in document.items() if name not in ("sha256", "signature")}
        hashed = {**bare, "sha256": content_hash(bare)}
        value = self._private.sign(_PURPOSE + _canonical(hashed))
        public = self._private.public_key().public_bytes_raw()
        return {**hashed, "signature": {"algorithm": "ed25519", "public_key": _text(public), "value": _text(value)}}


def read_document(
    path: Path, schema: str, type_: type[Any], what: str, keys: Path | None = None
) -> tuple[dict[str, Any], str]:
    """The document in a JSON file, and what ``check`` says of it.

    schema: that it states. type_: what it has, for ``conform``. what: it should be, as messages say.

    Raises ArtifactError if it is damaged, foreign, or changed since it was written; and as ``check`` with ``keys``.
    """
    content = read_json(path, dict[str, Any])
    if content.get("schema") != schema:
        raise ArtifactError(f"{path} is no {what} (schema {schema})")
    try:
        conform(content, type_)
    except Mismatch as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    return content, check(content, str(path), keys)


def check(document: Mapping[str, Any], name: str, keys: Path | None = None) -> str:
    """Check a document's hash, and its signature if it has one. Returns a sentence that says what is known.

    name: what messages call it. keys: public keys that are trusted, one of ssh's to a line, or PEMs; with them the
    signature must be there and be of one of them.

    Raises ArtifactError if the content is not what the hash or signature says, or its key is not among ``keys``;
    OptionError for a file that holds no keys.
    """
    if document.get("sha256") != content_hash(document):
        raise ArtifactError(f"{name} was changed since it was written: its content does not have the hash it states")
    trusted = dict(_public_keys(keys)) if keys is not None else {}
    if "signature" not in document:
        if keys is not None:
            raise ArtifactError(f"{name} has no signature, so it is not known who made it")
        return "it has its hash and no signature: anybody can have made it"
    public = _checked(document, name)
    mark = fingerprint(_text(public))
    if keys is None:
        return f"signed with the key {mark}; give its owner's public key to check whose it is"
    if public not in trusted:
        raise ArtifactError(f"{name} is signed with the key {mark}, which is not in {keys}")
    return f"signed by {trusted[public] or 'the key'} ({mark})"


def fingerprint(public_key: str) -> str:
    """How ssh-keygen -l shows a public key, which is base 64 of 32 bytes: SHA-256 over its encoding of RFC 8709."""
    parts = (b"ssh-ed25519", _bytes(public_key, 32))
    encoded = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return "SHA256:" + _text(hashlib.sha256(encoded).digest()).rstrip("=")


def _checked(document: Mapping[str, Any], name: str) -> bytes:
    """The public key that signed the document. Raises ArtifactError if it did not."""
    _require()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signature: _Signature = conform(document["signature"], _Signature, "its signature")
        if more := sorted(signature.keys() - _Signature.__annotations__.keys()):
            raise ValueError(f"it has {more[0]!r}, which nobody signed")
        public = _bytes(signature["public_key"], 32)
        value = _bytes(signature["value"], 64)
        signed = _canonical(document, without=("signature",))
        Ed25519PublicKey.from_public_bytes(public).verify(value, _PURPOSE + signed)
    except InvalidSignature as error:
        raise ArtifactError(f"the signature of {name} is not of this content") from error
    except (Mismatch, ValueError) as error:
        raise ArtifactError(f"the signature of {name} is damaged: {error}") from error
    return public


def _canonical(document: Mapping[str, Any], without: tuple[str, ...] = ()) -> bytes:
    bare = {key: value for key, value in document.items() if key not in without}
    return json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, length: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:20]!r} is not base 64") from error
    if len(data) != length:
        raise ValueError(f"{len(data)} bytes, not {length}")
    return data


def _private_key(path: Path, passphrase: Callable[[], str] | None) -> Ed25519PrivateKey:
    data = _read(path)
    try:
        return _loaded(data, None, path)
    except TypeError as error:  # encrypted, says cryptography
        if passphrase is None:
            raise OptionError(
                f"the key in {path} is encrypted and there is nobody to ask for its passphrase"
            ) from error
    return _loaded(data, passphrase().encode(), path)


def _loaded(data: bytes, password: bytes | None, path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, password)
    except (ValueError, UnsupportedAlgorithm) as error:
        wrong = "its passphrase may be wrong" if password is not None else f"`{EXAMPLE_KEY}` makes one"
        raise OptionError(f"{path} holds no private key that can be read: {wrong}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise OptionError(f"the key in {path} is not an Ed25519 key; `{EXAMPLE_KEY}` makes one")
    return key


def _public_keys(path: Path) -> Iterator[tuple[bytes, str]]:
    """The keys in a file with their comments. Raises OptionError if there are none, or one is of another kind."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    data = _read(path)
    pem = b"-----BEGIN" in data
    lines = [line.strip() for line in data.splitlines()]
    lines = _PEM.findall(data) if pem else [line for line in lines if line and not line.startswith(b"#")]
    if not lines:
        raise OptionError(f"{path} holds no public key")
    for line in lines:
        key: Any
        try:
            key = load_pem_public_key(line) if pem else load_ssh_public_key(line)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise OptionError(f"{path} holds something else than public keys of ssh-keygen or openssl") from error
        if not isinstance(key, Ed25519PublicKey):
            raise OptionError(f"a key in {path} is not an Ed25519 key")
        comment = "" if pem else b" ".join(line.split()[2:]).decode(errors="replace")
        yield key.public_bytes_raw(), comment if comment.isprintable() else ""


def _read(path: Path) -> bytes:
    """A file of keys. Raises OptionError for one that cannot be read, or is too large, or without cryptography."""
    _require()
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MOST_BYTES:
        raise OptionError(f"{path} is too large for a file of keys")
    return data


def _require() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise OptionError("signatures need the package cryptography: pip install 'torchport[sign]'")
