"""One WebGPU device: what its adapter has, as reported and as measured."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from torchport_simt.wgsl.program import Adapter

from torchport.capabilities import Capabilities
from torchport_webgpu.adapters import version
from torchport_webgpu.probe import Measured, measure

__all__ = ["WebGPUDevice"]

_PROMOTED = ("fp16", "bf16", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16")
"""Types that are stored unchanged and computed with in fp32: every adapter has the integers for it."""
# The accuracy of WGSL's division and square root (section 15.7.4), where no better was measured.
_ULP = {"div": 2.5, "sqrt": 3.0}
_ATOMIC64 = "shader-int64-atomic-all-ops"


class WebGPUDevice:
    """An adapter with its device.

    adapter: what WebGPU reports.
    device: wgpu's device, with all limits and the features in use.
    measured: what its arithmetic was found to do.
    atomic64: whether it has 64-bit atomics.
    language: what its programs are written for.
    capabilities: what follows for kernels.
    version: changes with the driver.
    """

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        self.version = version(adapter)
        features = set(adapter.features)
        int64 = "shader-int64" in features
        float64 = int64 and "shader-f64" in features
        self.atomic64 = int64 and _ATOMIC64 in features
        extra = (("shader-int64", int64), ("shader-f64", float64), (_ATOMIC64, self.atomic64))
        wanted = [name for name, has in extra if has]
        self.device = adapter.request_device_sync(required_features=wanted, required_limits=dict(adapter.limits))
        self.limits = self.device.limits
        self.measured: Measured = measure(self.device)
        self.language = Adapter(float64, self.measured.fused, int64)
        self.capabilities = self._capabilities()

    @property
    def name(self) -> str:
        """The adapter's name."""
        return str(self.adapter.info["device"])

    def _capabilities(self) -> Capabilities:
        limits, measured = self.limits, self.measured
        # Software runs a work-group's lanes in one thread, eight in a vector: few lanes with much to do each, not
        # so much that compiling takes minutes. A GPU hides latency by many lanes.
        software = self.adapter.info["adapter_type"] == "CPU"
        width = 8 if software else max(8, min(64, int(self.adapter.info["stackgroup_max_size"])))
        allowed = min(limits["max-compute-invocations-per-workgroup"], limits["max-compute-workgroup-size-x"])
        most = min(256, allowed)
        groups = limits["max-compute-workgroups-per-dimension"]
        exact = {"div": 0.5, "sqrt": 0.5} if measured.exact else _ULP
        float64 = {"fp64"} if self.language.float64 else set()
        atomic64 = {"int64", *float64} if self.atomic64 else set()
        return Capabilities(
            simd_width=width,
            simd_groups=tuple(1 << i for i in range(9) if width << i <= most),
            lane_elements=16 if software else 4,
            block_elements=1024 if software else most * 8,
            grid=(2**31 - 1, groups, groups),  # along x, several launches
            scratchpad_bytes=limits["max-compute-workgroup-storage-size"],
            dtypes=frozenset({"int1", "int8", "int16", "int32", "int64", "fp32", *_PROMOTED} | float64),
            promoted=MappingProxyType(dict.fromkeys(_PROMOTED, "fp32")),
            atomics=frozenset({"int32", "fp32", "fp16", "bf16"} | atomic64),
            dot_precisions=frozenset({"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}),
            denormals=frozenset({"fp16", "bf16"} | ({"fp32"} if measured.denormals else set()) | float64),
            fma=measured.fused,
            ulp=MappingProxyType(exact),
        )
