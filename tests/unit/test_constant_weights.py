"""Every way to change a weight between two calls: seen by default, and which ones a frozen model does not see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch._inductor.config

ROWS, WIDE, OUT = 32, 48, 64


@dataclass(frozen=True)
class Compiled:
    """Two layers without bias, the first one's weight in a mapped file; compiled, and called once with ``x``."""

    model: torch.nn.Sequential
    call: Callable[[torch.Tensor], torch.Tensor]
    x: torch.Tensor
    first: torch.Tensor
    file: Path

    @property
    def weight(self) -> torch.nn.Parameter:
        found = self.model[1].weight
        assert isinstance(found, torch.nn.Parameter)
        return found

    def new(self) -> torch.Tensor:
        return random(OUT, WIDE)


_generator = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    """Never the same numbers twice: the global generator begins anew in each test."""
    return torch.randn(shape, generator=_generator)


def _compiled(file: Path, freezing: bool) -> Compiled:
    torch._dynamo.reset()
    model = torch.nn.Sequential(torch.nn.Linear(WIDE, WIDE, bias=False), torch.nn.Linear(WIDE, OUT, bias=False)).eval()
    file.write_bytes(random(WIDE, WIDE).numpy().tobytes())
    mapped = torch.from_file(str(file), shared=True, size=WIDE * WIDE, dtype=torch.float32)
    model[0].weight = torch.nn.Parameter(mapped.view(WIDE, WIDE))
    call = torch.compile(model, backend="torchport", options={"fallback": "error"})
    x = random(ROWS, WIDE)
    with torch.no_grad(), torch._inductor.config.patch(freezing=freezing):
        first = call(x)
        torch.testing.assert_close(first, model(x))
    return Compiled(model, call, x, first, file)


def in_place(it: Compiled) -> None:
    with torch.no_grad():
        it.weight.mul_(-2)


def optimizer(it: Compiled) -> None:
    it.weight.grad = it.new()
    torch.optim.SGD([it.weight], lr=1.0).step()
    it.weight.grad = None


def data(it: Compiled) -> None:
    it.weight.data.copy_(it.new())


def numpy_alias(it: Compiled) -> None:
    it.weight.detach().numpy()[:] += 1


def load_state_dict(it: Compiled) -> None:
    it.model.load_state_dict({"1.weight": it.new()}, strict=False)


def another_thread(it: Compiled) -> None:
    thread = threading.Thread(target=it.weight.data.copy_, args=(it.new(),))
    thread.start()
    thread.join()


def memory_map(it: Compiled) -> None:
    """Through the file: no tensor is written to."""
    it.file.write_bytes(random(WIDE, WIDE).numpy().tobytes())


def read_into(it: Compiled) -> None:
    """By the kernel: a file is read into the weight's memory."""
    other = it.file.with_suffix(".other")
    other.write_bytes(it.new().numpy().tobytes())
    with other.open("rb", buffering=0) as stream:
        assert stream.readinto(memoryview(it.weight.detach().numpy()).cast("B")) == it.weight.nbytes


def set_(it: Compiled) -> None:
    with torch.no_grad():
        it.weight.set_(it.new())


def swapped_data(it: Compiled) -> None:
    it.weight.data = it.new()


def resized(it: Compiled) -> None:
    """The storage is given up and comes back with other values, as FSDP does it."""
    storage = it.weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    it.weight.data.copy_(it.new())


def assigned(it: Compiled) -> None:
    it.model.load_state_dict({"0.weight": it.model[0].weight, "1.weight": it.new()}, assign=True)


def replaced(it: Compiled) -> None:
    it.model[1].weight = torch.nn.Parameter(it.new())


IN_MEMORY = (in_place, optimizer, data, numpy_alias, load_state_dict, another_thread, memory_map, read_into)
POINTERS = (set_, swapped_data, resized)
OBJECTS = (assigned, replaced)


@pytest.fixture(autouse=True)
def copied_parameters() -> Iterator[None]:
    """``load_state_dict`` copies into parameters, as it does where no test registered the torch device."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.mark.usefixtures("no_fallback")
@torch.no_grad()
def test_every_change_is_seen_by_the_next_call(tmp_path: Path) -> None:
    it = _compiled(tmp_path / "weight", freezing=False)
    seen = it.first
    for change in (*IN_MEMORY, *POINTERS, *OBJECTS):
        change(it)
        before, seen, exact = seen, it.call(it.x), it.model(it.x)
        assert not torch.allclose(before, exact), f"{change.__name__} changes nothing"
        assert (seen - exact).abs().max() <= 2.0**-20 * exact.abs().max(), change.__name__


@pytest.mark.usefixtures("no_fallback")
@torch.no_grad()
@torch._inductor.config.patch(freezing=True)
def test_a_frozen_model_sees_new_parameters_only(tmp_path: Path) -> None:
    """As docs/options.md says, which is why freezing is not the default."""
    it = _compiled(tmp_path / "weight", freezing=True)
    for change in (*IN_MEMORY, *POINTERS):
        change(it)
        assert not torch.allclose(it.model(it.x), it.first), f"{change.__name__} changes nothing"
        assert torch.equal(it.call(it.x), it.first), f"{change.__name__} is seen: say so in docs/options.md"
    for change in OBJECTS:
        change(it)
        torch.testing.assert_close(it.call(it.x), it.model(it.x), msg=change.__name__)
