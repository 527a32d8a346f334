from collections.abc import Callable, Sequence
from typing import Any

kernel_functions: dict[str, int]

class Launcher:
    name: str
    cost: float
    serial: bool
    def __init__(
        self, name: str, signature: list[str], positions: list[int | tuple[int, ...]], cost: float, serial: bool
    ) -> None: ...
    def bind(self, grid_x: int, grid_y: int, grid_z: int, function: int, /) -> Launcher: ...
    def __call__(
        self,
        grid_x: int,
        grid_y: int,
        grid_z: int,
        stream: Any,
        function: int,
        packed_metadata: Any,
        launch_metadata: Any,
        enter_hook: Callable[[Any], Any] | None,
        exit_hook: Callable[[Any], Any] | None,
        /,
        *args: Any,
    ) -> None: ...

def configure(
    tensor_types: tuple[type, type],
    exchange_api: Any,
    get_num_threads: Callable[[], int],
    assertion_error: type[Exception],
    openmp: tuple[int, ...],
    address_of_tensor: int,
) -> None: ...
def inputs_changed(inputs: object, tensors: list[Any], /) -> list[int]: ...
def inputs_of(tensors: list[Any], constants: list[int], /) -> object | None: ...
def reserve_addresses(nbytes: int, /) -> int: ...
def sanitizer_address(capsule: object, /) -> int: ...
def sanitizer_begin(
    sites: list[tuple[int, int, int, tuple[int, ...]]],
    memory: list[tuple[int, int, int, int]],
    arguments: list[tuple[int, int, int]],
    checks: int,
    grid_x: int,
    grid_y: int,
    /,
) -> object: ...
def sanitizer_findings(
    capsule: object, /
) -> list[tuple[int, int, int, int, int, tuple[int, int, int], int, int, int]]: ...
def size_class(nbytes: int, /) -> int: ...
def storage_arena() -> object: ...
def storage_bytes(arena: object, /) -> tuple[int, int, int]: ...
def storage_reset_peak(arena: object, /) -> None: ...
def storage_offer(arena: object, address: int, nbytes: int, /) -> None: ...
def storage_take(
    arena: object, device: int, code: int, bits: int, sizes: Sequence[int], strides: Sequence[int], /
) -> object: ...
def storage_unused(arena: object, /) -> list[tuple[int, int]]: ...
def summarize(
    address: int, element: int, sizes: tuple[int, ...], strides: tuple[int, ...], detailed: bool, /
) -> tuple[str, int]: ...
def summarize_all(
    tensors: list[Any], plans: list[tuple[int, tuple[int, ...], tuple[int, ...]] | None], /
) -> tuple[str, int]: ...
def thread_count(nanoseconds: float, programs: int, limit: int) -> int: ...
