"""A module with the functions of `cuda.bindings.driver`, over the simulated driver: no card, no library.

Types and enumerations are those of ``real``, the wheel's own module, or stand-ins with the values of the CUDA
driver API.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

from tests.kernels.cpu import CpuRunner

from vram_residency.device.cuda.driver import DriverError
from vram_residency.device.cuda.simulated import SimulatedDriver
from vram_residency.digest.launches import Launch

CODES = {
    "CUDA_SUCCESS": 0,
    "CUDA_ERROR_INVALID_VALUE": 1,
    "CUDA_ERROR_OUT_OF_MEMORY": 2,
    "CUDA_ERROR_UNKNOWN": 999,
}
MODULE, STREAM, CONTEXT = 71, 72, 73


class Status(int):
    """A CUresult: a number with a name."""

    name: str


def status(code: str) -> Status:
    found = Status(CODES.get(code, 700))
    found.name = code
    return found


OK = status("CUDA_SUCCESS")


def words(**values: int) -> SimpleNamespace:
    return SimpleNamespace(**values)


class StandIns:
    """What the code names of the module's types."""

    CUstream_flags = words(CU_STREAM_NON_BLOCKING=1)
    CUmemAllocationGranularity_flags = words(CU_MEM_ALLOC_GRANULARITY_MINIMUM=0)
    CUmemAllocationType = words(CU_MEM_ALLOCATION_TYPE_PINNED=1)
    CUmemAllocationHandleType = words(CU_MEM_HANDLE_TYPE_NONE=0, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR=1)
    CUmemLocationType = words(CU_MEM_LOCATION_TYPE_DEVICE=1, CU_MEM_LOCATION_TYPE_HOST=2)
    CUmemAccess_flags = words(CU_MEM_ACCESS_FLAGS_PROT_READ=1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE=3)
    CUdevice_attribute = words(
        CU_DEVICE_ATTRIBUTE_INTEGRATED=18,
        CU_DEVICE_ATTRIBUTE_ECC_ENABLED=32,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=75,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=76,
        CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS=88,
        CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS=89,
        CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES=100,
        CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED=102,
        CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED=103,
        CU_DEVICE_ATTRIBUTE_MPS_ENABLED=133,
    )
    CUpointer_attribute = words(
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE=2,
        CU_POINTER_ATTRIBUTE_BUFFER_ID=7,
        CU_POINTER_ATTRIBUTE_IS_MANAGED=8,
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL=9,
        CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE=10,
        CU_POINTER_ATTRIBUTE_MAPPED=13,
        CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES=14,
        CU_POINTER_ATTRIBUTE_ACCESS_FLAGS=16,
        CU_POINTER_ATTRIBUTE_MAPPING_SIZE=18,
        CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR=19,
    )

    @staticmethod
    def CUmemAllocationProp() -> Any:  # noqa: N802
        flags = SimpleNamespace(gpuDirectRDMACapable=None)
        return SimpleNamespace(type=0, location=None, allocFlags=flags, requestedHandleTypes=0)

    @staticmethod
    def CUmemLocation() -> Any:  # noqa: N802
        return SimpleNamespace(type=0, id=0)

    @staticmethod
    def CUmemAccessDesc() -> Any:  # noqa: N802
        return SimpleNamespace(location=None, flags=0)


#: The kernels, and how many arguments each has.
ARGUMENTS = {"blake3_groups": 3, "blake3_groups_tagged": 5, "blake3_parents": 3, "tag_groups": 5}
ATTRIBUTES = {18: 0, 32: 1, 75: 9, 76: 0, 88: 1, 89: 1, 100: 0, 102: 1, 103: 1, 133: 0}


class Bindings:
    """The module. ``made`` is each call with its arguments; ``attributes`` can be changed."""

    def __init__(self, card: SimulatedDriver, kernels: CpuRunner | None = None, real: Any = None) -> None:
        self.card = card
        self.kernels = kernels
        self.types = real or StandIns
        self.made: list[tuple[str, tuple[Any, ...]]] = []
        self.failing: dict[str, str] = {}
        self.attributes = dict(ATTRIBUTES)
        self.depth = 0
        self.functions = dict.fromkeys(
            ("cuInit", "cuDevicePrimaryCtxRelease", "cuModuleUnload"), lambda *_: ()
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            return getattr(self.types, name)
        step = self.functions.get(name) or getattr(self, f"_{name}")

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.made.append((name, arguments))
            if name in self.failing:
                return (status(self.failing[name]), *[None] * 1)
            try:
                answer = step(*arguments)
            except DriverError as error:
                return (status(error.code),)
            return (OK, *(answer if isinstance(answer, tuple) else () if answer is None else (answer,)))

        return call

    # --- the device -----------------------------------------------------------------------------------

    def _cuDeviceGet(self, ordinal: int) -> int:  # noqa: N802
        if ordinal != self.card.ordinal:
            raise DriverError("cuDeviceGet", "CUDA_ERROR_INVALID_DEVICE")
        return 40 + ordinal

    def _cuDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def _cuDevicePrimaryCtxRetain(self, _device: int) -> int:  # noqa: N802
        return CONTEXT

    def _cuCtxPushCurrent(self, context: int) -> None:  # noqa: N802
        assert context == CONTEXT
        self.depth += 1

    def _cuCtxPopCurrent(self) -> int:  # noqa: N802
        self.depth -= 1
        return CONTEXT

    def _cuDeviceGetName(self, length: int, _device: int) -> bytes:  # noqa: N802
        return b"NVIDIA Pretend".ljust(length, b"\0")

    def _cuDeviceGetUuid(self, _device: int) -> Any:  # noqa: N802
        return SimpleNamespace(bytes=bytes(range(16)))

    def _cuDeviceTotalMem(self, _device: int) -> int:  # noqa: N802
        return self.card.total_bytes

    def _cuDriverGetVersion(self) -> int:  # noqa: N802
        return 13000

    def _cuDeviceGetAttribute(self, attribute: Any, _device: int) -> int:  # noqa: N802
        if int(attribute) not in self.attributes:
            raise DriverError("cuDeviceGetAttribute", "CUDA_ERROR_INVALID_VALUE")
        return self.attributes[int(attribute)]

    def _cuStreamCreate(self, flags: int) -> int:  # noqa: N802
        assert flags == 1
        return STREAM

    def _cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        assert stream == STREAM

    # --- memory ---------------------------------------------------------------------------------------

    def _cuMemGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return self.card.free_and_total_bytes()

    def _cuMemGetAllocationGranularity(self, _properties: Any, _option: Any) -> int:  # noqa: N802
        return self.card.granularity_bytes

    def _cuMemCreate(self, size: int, properties: Any, _flags: int) -> int:  # noqa: N802
        assert (int(properties.type), int(properties.location.type)) == (1, 1)
        assert (properties.location.id, properties.allocFlags.gpuDirectRDMACapable) == (self.card.ordinal, 0)
        return self.card.create(size, is_exportable=int(properties.requestedHandleTypes) == 1)

    def _cuMemRelease(self, handle: int) -> None:  # noqa: N802
        self.card.release(handle)

    def _cuMemAddressReserve(self, size: int, _alignment: int, _hint: int, _flags: int) -> int:  # noqa: N802
        return self.card.reserve(size)

    def _cuMemAddressFree(self, address: int, size: int) -> None:  # noqa: N802
        self.card.free_addresses(address, size)

    def _cuMemMap(self, address: int, size: int, *rest: int) -> None:  # noqa: N802
        offset, handle, _flags = rest
        assert offset == 0
        self.card.map(address, size, handle)

    def _cuMemUnmap(self, address: int, size: int) -> None:  # noqa: N802
        self.card.unmap(address, size)

    def _cuMemSetAccess(self, address: int, size: int, rights: list[Any], count: int) -> None:  # noqa: N802
        assert count == len(rights) == 1
        assert rights[0].location.id == self.card.ordinal
        self.card.allow(address, size, "read" if int(rights[0].flags) == 1 else "read_write")

    def _cuMemGetAccess(self, location: Any, address: int) -> int:  # noqa: N802
        if int(location.type) == 1 and location.id == self.card.ordinal:
            return {"none": 0, "read": 1, "read_write": 3}[self.card.access(address)]
        return 0

    def _cuMemRetainAllocationHandle(self, address: int) -> int:  # noqa: N802
        return self.card.retain(address)

    def _cuMemGetAllocationPropertiesFromHandle(self, _handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(type=1, location=SimpleNamespace(type=1, id=self.card.ordinal))

    def _cuMemExportToShareableHandle(self, handle: int, kind: Any, _flags: int) -> int:  # noqa: N802
        assert int(kind) == 1
        return self.card.export(handle)

    def _cuMemImportFromShareableHandle(self, descriptor: int, kind: Any) -> int:  # noqa: N802
        assert int(kind) == 1
        return self.card.borrow(descriptor)

    def _cuPointerGetAttribute(self, attribute: Any, address: int) -> int:  # noqa: N802
        facts = self.card.memory_facts(address)
        answers = {
            2: 2, 7: 5, 8: int(bool(facts["managed"])), 9: self.card.ordinal, 10: 0, 13: 1, 14: 0,
            16: {"none": 0, "read": 1, "read_write": 3}[str(facts["access"])],
            18: facts["mapped_bytes"], 19: address,
        }  # fmt: skip
        return int(answers[int(attribute)] or 0)

    def _cuMemcpyHtoDAsync(self, address: int, host: int, size: int, stream: int) -> None:  # noqa: N802
        assert stream == STREAM
        if self._is_scratch(address):
            ctypes.memmove(address, host, size)
        else:
            self.card.write(address, memoryview(ctypes.string_at(host, size)))

    def _cuMemcpyDtoHAsync(self, host: int, address: int, size: int, stream: int) -> None:  # noqa: N802
        assert stream == STREAM
        if not self._is_scratch(address):
            view = memoryview(bytearray(size))
            self.card.read(address, view)
        ctypes.memmove(host, address, size)

    def _cuMemsetD8Async(self, address: int, value: int, *rest: int) -> None:  # noqa: N802
        size, stream = rest
        assert (value, stream) == (0, STREAM)
        if self._is_scratch(address):
            ctypes.memset(address, 0, size)
        else:
            self.card.clear(address, size)

    # --- kernels --------------------------------------------------------------------------------------

    def _is_scratch(self, address: int) -> bool:
        held = self.kernels.reserved if self.kernels else {}
        return any(start <= address < start + len(buffer) for start, buffer in held.items())

    def _cuMemAlloc(self, size: int) -> int:  # noqa: N802
        assert self.kernels is not None
        return self.kernels.reserve(size)

    def _cuMemFree(self, address: int) -> None:  # noqa: N802
        assert self.kernels is not None
        self.kernels.release(address)

    def _cuModuleLoadData(self, cubin: bytes) -> int:  # noqa: N802
        assert cubin == b"cubin 9 0"
        return MODULE

    def _cuModuleGetFunction(self, module: int, name: bytes) -> int:  # noqa: N802
        assert module == MODULE
        return list(ARGUMENTS).index(name.decode())

    def _cuLaunchKernel(self, function: int, *rest: int) -> None:  # noqa: N802
        kernel = list(ARGUMENTS)[function]
        blocks, one, two, threads, three, four, shared, stream, pointers, extra = rest
        assert (one, two, three, four, shared, stream, extra) == (1, 1, 1, 1, 0, STREAM, 0)
        assert self.kernels is not None
        places = (ctypes.c_void_p * ARGUMENTS[kernel]).from_address(pointers)
        values = tuple(ctypes.c_uint64.from_address(place or 0).value for place in places)
        launch = Launch(kernel, blocks, values)
        assert threads == launch.threads
        self.kernels.launch(launch)
