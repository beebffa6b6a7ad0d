"""The real driver, through NVIDIA's own `cuda.bindings.driver` (gpu.md, "Parts"). Imported when first opened.

**Nothing here has been run on a GPU yet**: it is written against the signatures of cuda-bindings 13, and its
tests drive it over a module that has the same functions and no card behind them.
"""

from __future__ import annotations

import contextlib
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from vram_residency.core.errors import DeviceLostError
from vram_residency.device.base import Facts
from vram_residency.device.cuda.calls import Calls
from vram_residency.device.cuda.driver import Access, CubinFor, DriverError, Runner
from vram_residency.device.cuda.runner import CudaRunner
from vram_residency.device.kernel import address_of

#: What is asked of the device, and whether the answer is a yes or no.
_ATTRIBUTES: Final = {
    "integrated": "INTEGRATED",
    "pageable_memory_access": "PAGEABLE_MEMORY_ACCESS",
    "pageable_memory_access_uses_host_page_tables": "PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES",
    "concurrent_managed_access": "CONCURRENT_MANAGED_ACCESS",
    "ecc": "ECC_ENABLED",
    "mps": "MPS_ENABLED",
    "virtual_memory": "VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED",
    "shareable_handles": "HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED",
}
#: What is asked of an address, besides its kind. The base address is compared, not told.
_POINTER_ATTRIBUTES: Final = {
    "device_ordinal": "DEVICE_ORDINAL",
    "mapped_bytes": "MAPPING_SIZE",
    "buffer_id": "BUFFER_ID",
    "allowed_handle_types": "ALLOWED_HANDLE_TYPES",
}
_POINTER_FLAGS: Final = {
    "managed": "IS_MANAGED",
    "pointer_mapped": "MAPPED",
    "legacy_ipc": "IS_LEGACY_CUDA_IPC_CAPABLE",
}
_MEMORY_TYPES: Final = {1: "host", 2: "device", 3: "array", 4: "unified"}
_ACCESSES: Final[dict[int, Access]] = {0: "none", 1: "read", 3: "read_write"}
_ALLOCATION_TYPES: Final = {1: "pinned", 2: "managed"}
_LOCATION_TYPES: Final = {1: "device", 2: "host", 3: "host_numa", 4: "host_numa"}
_NAME_BYTES_MAX: Final = 256
_KERNEL_RELEASE: Final = Path("/proc/sys/kernel/osrelease")
_HINT: Final = "Check the driver with `nvidia-smi`; name --device host to run on the host device."


def open_driver(ordinal: int) -> BoundDriver:
    """The driver of one card. Raises DeviceLostError, in words, where anything is missing."""
    name = f"cuda:{ordinal}"
    try:
        from cuda.bindings import driver as module
    except ImportError as error:
        hint = "Run `pip install 'vram-residency[cuda]'`, or name --device host."
        raise DeviceLostError(name, "NVIDIA's Python packages are not installed", hint=hint) from error
    try:
        return BoundDriver(module, ordinal)
    except DriverError as error:
        raise DeviceLostError(name, str(error), hint=_HINT) from error


def device_count() -> int:
    """How many cards the driver shows; 0 where there is no driver to ask."""
    try:
        from cuda.bindings import driver as module
    except ImportError:
        return 0
    calls = Calls(module)
    try:
        calls.checked("cuInit", 0)
        return int(calls.checked("cuDeviceGetCount"))
    except DriverError:
        return 0


class BoundDriver:
    """See ``device.cuda.driver.Driver``. Keeps the device's primary context, which other libraries use too.

    ``module`` is `cuda.bindings.driver` or one that has its functions. Raises DriverError.
    """

    def __init__(self, module: ModuleType, ordinal: int) -> None:
        self.ordinal = ordinal
        self._cuda: Any = module
        calls = Calls(module)
        calls.checked("cuInit", 0)
        self._device = calls.checked("cuDeviceGet", ordinal)
        context = calls.checked("cuDevicePrimaryCtxRetain", self._device)
        # The context goes with the last that has this object; at exit with the process.
        self._let_go = weakref.finalize(self, _release_context, calls, self._device)
        self._let_go.atexit = False
        self._calls = Calls(module, context)
        self._stream = self._call("cuStreamCreate", int(module.CUstream_flags.CU_STREAM_NON_BLOCKING))
        name = self._call("cuDeviceGetName", _NAME_BYTES_MAX, self._device)
        self._name = name.split(b"\0")[0].decode("utf-8", "replace")
        minimum = module.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        properties = self._properties(is_exportable=False)
        self.granularity_bytes = int(self._call("cuMemGetAllocationGranularity", properties, minimum))

    # --- facts ------------------------------------------------------------------------------------------

    def device_facts(self) -> Facts:
        """What the driver says; ``virtual_gpu`` is left open, since only NVML knows."""
        asked = {fact: self._attribute(attribute) for fact, attribute in _ATTRIBUTES.items()}
        major, minor = (self._attribute(f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        return {
            "kind": "cuda",
            "name": self._name,
            "device_uuid": self._uuid(),
            "compute_capability": f"{major}.{minor}",
            "total_bytes": int(self._call("cuDeviceTotalMem", self._device)),
            "cuda_version": int(self._call("cuDriverGetVersion")),
            "wsl": _is_wsl(),
            "virtual_gpu": None,
            **{fact: None if answer is None else bool(answer) for fact, answer in asked.items()},
        }

    def free_and_total_bytes(self) -> tuple[int, int]:
        """See ``Driver``."""
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def memory_facts(self, address: int) -> Facts:
        """Pointer attributes, what this device, the others and the host may do, and the allocation."""
        kind = self._pointer("MEMORY_TYPE", address)
        numbers = {fact: self._pointer(name, address) for fact, name in _POINTER_ATTRIBUTES.items()}
        flags = {fact: self._pointer(name, address) for fact, name in _POINTER_FLAGS.items()}
        return {
            "kind": "cuda",
            "memory_type": _word(_MEMORY_TYPES, kind),
            "device_uuid": self._uuid(),
            **numbers,
            **{fact: None if answer is None else bool(answer) for fact, answer in flags.items()},
            "mapping_begins_here": self._pointer("MAPPING_BASE_ADDR", address) == address,
            "access": self.access(address),
            "pointer_access": _word(_ACCESSES, self._pointer("ACCESS_FLAGS", address)),
            "host_access": self._access_of(self._location("HOST", 0), address),
            "peer_access": self._peer_access(address),
            **self._allocation_facts(address),
        }

    def access(self, address: int) -> Access:
        """See ``Driver``."""
        location = self._location("DEVICE", self.ordinal)
        return _ACCESSES.get(int(self._call("cuMemGetAccess", location, address)), "none")

    # --- memory -----------------------------------------------------------------------------------------

    def create(self, size_bytes: int, *, is_exportable: bool) -> int:
        """See ``Driver``: type PINNED, location DEVICE, no RDMA."""
        return int(self._call("cuMemCreate", size_bytes, self._properties(is_exportable=is_exportable), 0))

    def release(self, handle: int) -> None:
        """See ``Driver``."""
        self._call("cuMemRelease", handle)

    def reserve(self, size_bytes: int) -> int:
        """See ``Driver``."""
        return int(self._call("cuMemAddressReserve", size_bytes, 0, 0, 0))

    def free_addresses(self, address: int, size_bytes: int) -> None:
        """See ``Driver``."""
        self._call("cuMemAddressFree", address, size_bytes)

    def map(self, address: int, size_bytes: int, handle: int) -> None:
        """See ``Driver``."""
        self._call("cuMemMap", address, size_bytes, 0, handle, 0)

    def unmap(self, address: int, size_bytes: int) -> None:
        """See ``Driver``."""
        self._call("cuMemUnmap", address, size_bytes)

    def allow(self, address: int, size_bytes: int, access: Literal["read", "read_write"]) -> None:
        """See ``Driver``."""
        flags = self._cuda.CUmemAccess_flags
        right = self._cuda.CUmemAccessDesc()
        right.location = self._location("DEVICE", self.ordinal)
        right.flags = (
            flags.CU_MEM_ACCESS_FLAGS_PROT_READ
            if access == "read"
            else flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        )
        self._call("cuMemSetAccess", address, size_bytes, [right], 1)

    def retain(self, address: int) -> int:
        """See ``Driver``."""
        return int(self._call("cuMemRetainAllocationHandle", address))

    def write(self, address: int, data: memoryview) -> None:
        """See ``Driver``: waited for, since a copy from pageable memory returns before it has arrived."""
        self._call("cuMemcpyHtoDAsync", address, address_of(data), data.nbytes, self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def read(self, address: int, view: memoryview) -> None:
        """See ``Driver``."""
        self._call("cuMemcpyDtoHAsync", address_of(view), address, view.nbytes, self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def clear(self, address: int, size_bytes: int) -> None:
        """See ``Driver``."""
        self._call("cuMemsetD8Async", address, 0, size_bytes, self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def export(self, handle: int) -> int:
        """See ``Driver``."""
        return int(self._call("cuMemExportToShareableHandle", handle, self._handle_type(), 0))

    def borrow(self, descriptor: int) -> int:
        """See ``Driver``."""
        return int(self._call("cuMemImportFromShareableHandle", descriptor, self._handle_type()))

    def runner(self, cubin_for: CubinFor, /) -> Runner:
        """See ``Driver``."""
        major, minor = (self._attribute(f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        return CudaRunner(self._calls, self._stream, cubin_for(major or 0, minor or 0), owner=self)

    # --- steps ------------------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._calls.in_context(name, *arguments)

    def _properties(self, *, is_exportable: bool) -> Any:
        properties = self._cuda.CUmemAllocationProp()
        properties.type = self._cuda.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location = self._location("DEVICE", self.ordinal)
        properties.allocFlags.gpuDirectRDMACapable = 0
        if is_exportable:
            properties.requestedHandleTypes = self._handle_type()
        return properties

    def _handle_type(self) -> Any:
        return self._cuda.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR

    def _location(self, kind: Literal["DEVICE", "HOST"], number: int) -> Any:
        location = self._cuda.CUmemLocation()
        location.type = getattr(self._cuda.CUmemLocationType, f"CU_MEM_LOCATION_TYPE_{kind}")
        location.id = number
        return location

    def _attribute(self, name: str) -> int | None:
        """None where this driver does not know the question."""
        attribute = getattr(self._cuda.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return self._answer("cuDeviceGetAttribute", attribute, self._device)

    def _pointer(self, name: str, address: int) -> int | None:
        attribute = getattr(self._cuda.CUpointer_attribute, f"CU_POINTER_ATTRIBUTE_{name}")
        return self._answer("cuPointerGetAttribute", attribute, address)

    def _answer(self, call: str, *arguments: Any) -> int | None:
        try:
            return int(self._call(call, *arguments))
        except DriverError as error:
            if error.is_lost:
                raise
            return None

    def _uuid(self) -> str:
        found = bytes(self._call("cuDeviceGetUuid", self._device).bytes).hex()
        parts = (found[:8], found[8:12], found[12:16], found[16:20], found[20:])
        return ("MIG-" if " MIG " in self._name else "GPU-") + "-".join(parts)

    def _access_of(self, location: Any, address: int) -> Access | None:
        flags = self._answer("cuMemGetAccess", location, address)
        return None if flags is None else _ACCESSES.get(flags, "none")

    def _peer_access(self, address: int) -> str:
        """What every other device may do there: "none", or each that may do more."""
        others = (n for n in range(int(self._call("cuDeviceGetCount"))) if n != self.ordinal)
        rights = ((n, self._access_of(self._location("DEVICE", n), address)) for n in others)
        return ",".join(f"{n}:{right}" for n, right in rights if right not in {"none", None}) or "none"

    def _allocation_facts(self, address: int) -> Facts:
        handle = self.retain(address)
        try:
            properties = self._call("cuMemGetAllocationPropertiesFromHandle", handle)
        finally:
            self.release(handle)
        return {
            "allocation_type": _word(_ALLOCATION_TYPES, int(properties.type)),
            "location_type": _word(_LOCATION_TYPES, int(properties.location.type)),
            "location_ordinal": int(properties.location.id),
        }


def _word(words: dict[int, Any], number: int | None) -> Any:
    return None if number is None else words.get(number, str(number))


def _release_context(calls: Calls, device: Any) -> None:
    # Runs in a finaliser, from which nothing may be raised.
    with contextlib.suppress(DriverError):
        calls.checked("cuDevicePrimaryCtxRelease", device)


def _is_wsl(release: Path = _KERNEL_RELEASE) -> bool | None:
    """Whether the kernel is that of WSL; None where it does not say which it is."""
    try:
        return "microsoft" in release.read_text("utf-8", "replace").lower()
    except OSError:
        return None
