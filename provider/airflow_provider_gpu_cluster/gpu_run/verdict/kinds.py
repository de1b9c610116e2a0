"""
The table of kinds: how a job can end, by which signs that is recognized, and what to do about it.

To add one, add a row here, one to ``docs/verdicts.md``, and an output of such a program to ``tests/gpu_run/verdict/corpus``.
Rows are tried from the first to the last, so a row stands before those that would take its signs for something else.

A sign is a regular expression for the beginning of a text; ``.`` does not match the end of a line.

- ``raised`` is compared with an exception: its type, a colon, and its message.
- ``printed`` is compared with a line of any other program, after the names and numbers at its beginning that end with
  a colon, such as ``train.sh: line 3:``.
"""

from __future__ import annotations

import signal
from typing import NamedTuple

from .. import protocol


class Kind(NamedTuple):
    """
    A row.

    :param name: of the kind; several rows may have the same.
    :param reason: the coarse reason that policies of retries know.
    :param cause: what happened, as a sentence about the job.
    :param remedy: what to do, as a sentence.
    :param raised: signs in an exception.
    :param printed: signs in a line of output.
    :param within: what the traceback of such an exception must contain, too.
    :param exit_code: the exit code of a shell that says the same.
    :param signals: signals that have ended it.
    """

    name: str
    reason: str
    cause: str
    remedy: str = ""
    raised: tuple[str, ...] = ()
    printed: tuple[str, ...] = ()
    within: str = ""
    exit_code: int | None = None
    signals: tuple[int, ...] = ()


# Any exception, but for those about a program's own values (ValueError and the like), which must be named by a sign.
_ANY = r"[\w.]+: (?:.{0,300}?[^\w'\"(])?"
_CUDA = r"[\w.]*(?:RuntimeError|AcceleratorError|CUDAError|CUDARuntimeError|CUDADriverError|CudaAPIError|c10::Error|c10::CUDAError|LogicError|XlaRuntimeError|JaxRuntimeError|DistBackendError|InternalError|Exception|Error): (?:.{0,200}?\W)?"
# How a C or C++ program begins to say what a call has returned.
_CALL = r"(?:.{0,100}?\b(?:CUDA|cuda|Cuda|HIP|hip|GPU|cublas|cudnn)\w*\b.{0,100}?)"
_OS = r"(?:[\w.]*\.)?(?:OSError|IOError|BlockingIOError|FileExistsError|SSLError|Error|[\w.]*FilesystemError): "

GPU_OUT_OF_MEMORY = Kind(
    protocol.GPU_OUT_OF_MEMORY,
    protocol.GPU_OUT_OF_MEMORY,
    "it ran out of GPU memory",
    "Lower the batch size or the length of sequences, use gradient checkpointing or a smaller type, or ask for a GPU with "
    "more memory.",
    raised=(
        r"[\w.]*OutOfMemoryError: (?:CUDA|HIP|XPU|MPS)? ?(?:backend )?out of memory",
        r"[\w.]*(?:RuntimeError|AcceleratorError|OutOfMemoryError): (?:CUDA|HIP|XPU|MPS)(?: backend)? out of memory",
        r"[\w.]*(?:RuntimeError|AcceleratorError): (?:CUDA|HIP|cuDNN|hip) (?:driver )?error: (?:out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|HIPBLAS_STATUS_ALLOC_FAILED)",
        r"[\w.]*cupy[\w.]*OutOfMemoryError: ",
        r"pycuda[\w.]*MemoryError: ",
        rf"{_CUDA}(?:cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory|CU\w+_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED)",
        r"[\w.]*numba[\w.]*Error: (?:\[\w+\] )?.*out of memory",
        r"[\w.]*(?:XlaRuntimeError|JaxRuntimeError|RuntimeError): RESOURCE_EXHAUSTED: (?![^\n]*(?:[Cc][Pp][Uu]|No space left|on host))(?:[^\n]*\n){0,12}?.*(?:GPU_\d|with allocator|BufferAssignment|[Oo]ut of memory while trying to allocate|Failed to allocate request)",
        r"[\w.]*(?:ResourceExhaustedError|InternalError): (?![^\n]*No space left)(?:[^\n]*\n){0,25}?.*(?:OOM when allocating tensor.*GPU|GPU:\d.*(?:failed to allocate memory|OOM when)|CUDA_ERROR_OUT_OF_MEMORY|Dst tensor is not initialized)",
        r"[\w.]*(?:DistBackendError|RuntimeError): NCCL [Ee]rror(?:[^\n]*\n){1,6}?.*'?out of memory",
        r"[\w.]*ValueError: (?:No available memory for the cache blocks|Free memory on device .* less than desired GPU memory|To serve at least one request with .* KV cache|The model's max seq len .* KV cache)",
        r"[\w.]*InstantiationException: [^\n]*\n?(?:Torch)?OutOfMemoryError\(['\"](?:CUDA|HIP) out of memory",
        r"[\w.]*torch[\w.]*OutOfMemoryError\b",
        r"onnxruntime[\w.]*: .*BFCArena.*Failed to allocate memory",
        r"(?:[^\n]*\n){0,3}?.*Out of memory error on GPU \d",
    ),
    printed=(
        r"(?:CUDA|cuda|HIP|hip|GPU)\w* ?(?:[Rr]untime |[Dd]river )?(?:[Ee]rror|[Ff]ailure|[Ff]ailed)\b(?! ?[-+:]?\s*\d+\s*$).{0,120}(?:out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory)",
        r"GPUassert: out of memory",
        rf"{_CALL}(?:cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory|CUBLAS_STATUS_ALLOC_FAILED)",
        r".{0,100}\b(?:cuda|hip|cu)(?:Malloc|MemAlloc)\w*\b.{0,60}out of memory",
        r"what\(\): +.{0,600}?(?:(?:CUDA|HIP|cuda\w*|thrust|std::bad_alloc: cuda\w*).{0,60}out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY)",
        r"(?:CUDA|HIP) out of memory\. Tried to allocate",
        r"(?:\w+Error: )?RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
        r"[Ff]ailed to allocate .{0,60}(?:device|GPU|CUDA) memory",
        r"(?:unable|failed) to allocate CUDA\d* buffer",
        r"[Oo]ut of (?:GPU|device|video) memory",
    ),
)

KINDS: tuple[Kind, ...] = (
    # -- words that one of the system's own programs prints about a job ------------------------------------------------
    Kind(
        protocol.OUT_OF_MEMORY,
        protocol.OUT_OF_MEMORY,
        "Slurm counted that the kernel killed it for lack of memory",
        "Ask for more memory, or use less: fewer loader workers, smaller batches, data read piece by piece.",
        printed=(
            r"Detected \d+ oom[-_ ]kill event",
            r"Exceeded (?:job|step) memory limit",
            r"task [\d,\- ]+: Out Of Memory",
            r"Some of (?:the step tasks|your processes) (?:may )?have been (?:OOM Killed|killed by the cgroup)",
        ),
    ),
    # -- GPUs ----------------------------------------------------------------------------------------------------------
    Kind(
        "gpu_fault",
        protocol.NODE_FAILURE,
        "a GPU failed",
        "The GPU or its link is damaged: run on another one, and tell who looks after the machine.",
        raised=(
            rf"{_CUDA}(?:uncorrectable (?:ECC|NVLink|memory)|cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE|NVLink error|GPU (?:is lost|has fallen off the bus)|hardware stack error|CUDA_ERROR_NVLINK_UNCORRECTABLE)",
            r"[\w.]*NVMLError\w*: .*(?:GPU is lost|GPU_IS_LOST)",
        ),
        printed=(
            r".{0,200}\bXid \(PCI:[\w:.]+\): (?:48|61|62|63|64|74|79|92|94|95|119|120|140)\b",
            r".{0,200}GPU has fallen off the bus",
            r"Unable to determine the device handle for (?:GPU|gpu).{0,60}(?:GPU is lost|Unknown Error)",
            rf"{_CALL}(?:uncorrectable (?:ECC|NVLink) error|cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE)",
            r"what\(\): +.*uncorrectable (?:ECC|NVLink) error",
            r"GPU is lost",
        ),
    ),
    GPU_OUT_OF_MEMORY,
    GPU_OUT_OF_MEMORY._replace(
        cause="a kernel needs more of a GPU's on-chip memory than it has",
        remedy="Lower the kernel's block sizes or num_stages, or run on a GPU with more shared memory per block.",
        raised=(r"[\w.]*OutOfResources: out of resource: ",),
        printed=(),
    ),
    Kind(
        "gpu_fault",
        protocol.USER_ERROR,
        "its code failed on the GPU",
        "Run it once with CUDA_LAUNCH_BLOCKING=1, or on the CPU: then the traceback shows the line that does it; an index "
        "or a label outside its range is the usual cause.",
        raised=(
            rf"{_CUDA}(?:an illegal memory access|device-side assert|misaligned address|unspecified launch failure|an illegal instruction|invalid program counter|the launch timed out|cudaErrorIllegalAddress|CUDA_ERROR_(?:ILLEGAL_\w+|MISALIGNED_ADDRESS|LAUNCH_FAILED|ASSERT|INVALID_PC)|cudaErrorAssert|cudaErrorLaunchFailure|cudaErrorMisalignedAddress|HSA_STATUS_ERROR_EXCEPTION|CUBLAS_STATUS_EXECUTION_FAILED|CUDNN_STATUS_EXECUTION_FAILED)",
        ),
        printed=(
            rf"{_CALL}(?:illegal memory access|device-side assert|misaligned address|unspecified launch failure|illegal instruction|launch timed out|cudaErrorIllegalAddress|CUDA_ERROR_(?:ILLEGAL_\w+|MISALIGNED_ADDRESS|LAUNCH_FAILED))",
            r"what\(\): +.*(?:an illegal memory access|device-side assert|misaligned address|unspecified launch failure|an illegal instruction)",
            r"GPUassert: (?:an illegal|device-side|misaligned|unspecified launch)",
            r".{0,200}\bXid \(PCI:[\w:.]+\): \d+",
            r"Memory access fault by GPU node",
        ),
    ),
    Kind(
        "gpu_not_found",
        protocol.NODE_FAILURE,
        "the machine's GPU driver does not work",
        "The driver was updated without a restart, or is not loaded: run elsewhere, and tell who looks after the machine.",
        raised=(
            r"[\w.]*(?:NVMLError\w*|RuntimeError|Exception|NVMLLibraryMismatchError): .*(?:Driver/library version mismatch|Driver Not Loaded)",
            rf"{_CUDA}system has unsupported display driver / cuda driver combination",
            rf"{_CUDA}(?:system not yet initialized|initialization error)",
        ),
        printed=(
            r"Failed to initialize NVML: (?:Driver/library version mismatch|Driver Not Loaded)",
            r"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver",
            rf"{_CALL}(?:driver/library version mismatch|system has unsupported display driver)",
        ),
    ),
    Kind(
        "gpu_not_found",
        protocol.USER_ERROR,
        "its packages and the machine's GPU or driver do not fit together",
        "Install a build for the CUDA version of this machine's driver (nvidia-smi shows it) and for this GPU.",
        raised=(
            r"[\w.]*(?:Error|Exception): .*(?:The NVIDIA driver on your system is too old|CUDA driver version is insufficient)",
            rf"{_CUDA}(?:no kernel image is available|the provided PTX was compiled with an unsupported toolchain|CUDA_ERROR_(?:NO_BINARY_FOR_GPU|UNSUPPORTED_PTX_VERSION|INVALID_PTX)|cudaErrorInsufficientDriver|cudaErrorNoKernelImageForDevice|forward compatibility was attempted)",
            r"[\w.]*RuntimeError: The detected CUDA version .* mismatches the version that was used to compile",
        ),
        printed=(
            rf"(?:{_CALL})?(?:CUDA driver version is insufficient|no kernel image is available|provided PTX was compiled with an unsupported toolchain)",
        ),
    ),
    Kind(
        "gpu_not_found",
        protocol.USER_ERROR,
        "it found no GPU",
        "Ask for enough GPUs, leave CUDA_VISIBLE_DEVICES as it is, and install packages that are built for GPUs.",
        raised=(
            r"[\w.]*RuntimeError: (?:No (?:CUDA|HIP) GPUs are available|Found no NVIDIA driver|No GPU (?:found|device)|Attempting to deserialize object on (?:a )?(?:CUDA|cuda)|Attempting to deserialize object on CUDA device|Device index must be|Unknown backend:? '?(?:cuda|gpu|rocm)|No visible GPU|GPU is required|Unable to initialize backend '(?:cuda|gpu|rocm))",
            r"[\w.]*AssertionError: (?:Torch not compiled with CUDA enabled|Invalid device id|Torch not compiled with ROCm)",
            rf"{_CUDA}(?:invalid device ordinal|no CUDA-capable device|no ROCm-capable device|cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE|cudaErrorInvalidDevice|CUDA_ERROR_INVALID_DEVICE|Failed to get device handle|Unable to initialize backend '(?:cuda|gpu|rocm))",
            r"[\w.]*CudaSupportError: ",
            r"[\w.]*MisconfigurationException: (?:No supported gpu backend found|You requested gpu|CUDAAccelerator can not run)",
            r"[\w.]*(?:RuntimeError|ValueError|ImportError|Error): .*(?:[Nn]o GPU (?:found|available|is available)|requires a (?:CUDA )?GPU|[Nn]o CUDA (?:runtime|device|GPUs?) (?:is|are|was)? ?(?:found|available)|CUDA is not available|cuda is not available|Cannot find any? GPU|GPU is not available)",
            r"[\w.]*ValueError: Your setup doesn't support bf16/gpu",
        ),
        printed=(
            rf"(?:{_CALL})?(?:no CUDA-capable device is detected|no ROCm-capable device|invalid device ordinal)",
            r"No devices were found",
            r"No CUDA (?:GPUs|devices?) (?:are |is |were )?(?:available|found|detected)",
        ),
    ),
    Kind(
        "gpu_not_found",
        protocol.USER_ERROR,
        "it found no GPU",
        "Ask for enough GPUs, leave CUDA_VISIBLE_DEVICES as it is, and install packages that are built for GPUs.",
        raised=(r"AssertionError",),
        within=r"_default_backend is not None",
    ),
    Kind(
        "gpu_busy",
        protocol.USER_ERROR,
        "its GPU was in use by another process",
        "See with nvidia-smi who uses the GPU beside the provider's leases; in exclusive mode, one process of the job may "
        "use a GPU.",
        raised=(
            rf"{_CUDA}(?:all CUDA-capable devices are busy|CUDA-capable device\(s\) is/are busy|device(?:\(s\))? (?:is )?(?:busy|already in use)|cudaErrorDevicesUnavailable|CUDA_ERROR_DEVICE_UNAVAILABLE|exclusive-thread device already in use)",
        ),
        printed=(
            rf"{_CALL}(?:devices are busy or unavailable|is/are busy or unavailable|cudaErrorDevicesUnavailable|exclusive-thread device already in use)",
        ),
    ),
    # -- between processes ---------------------------------------------------------------------------------------------
    Kind(
        "communication",
        protocol.USER_ERROR,
        "a port that it wanted to listen on is in use",
        "Use the job's MASTER_PORT, or port 0; another process of the job, or another job on the host, has this one.",
        raised=(
            rf"{_OS}\[Errno 98\]",
            r"[\w.]*(?:RuntimeError|DistNetworkError|DistStoreError|Error): .*(?:EADDRINUSE|[Aa]ddress already in use|errno: 98)",
            r"[\w.]*OSError: (?:.*[Aa]ddress already in use|Cannot find empty port)",
        ),
        printed=(
            r"(?:what\(\): +)?.{0,200}(?:EADDRINUSE|[Aa]ddress already in use)",
            r"\[Errno 98\]",
        ),
    ),
    Kind(
        "communication",
        protocol.USER_ERROR,
        "its processes could not talk to each other",
        "Look at what the other ranks printed before: one that ended or hung is the usual cause; else check MASTER_ADDR, "
        "MASTER_PORT, the network interface (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME), and the time-out of the group.",
        raised=(
            r"[\w.]*(?:Dist(?:Backend|Network|Store|Error|Queue)\w*)\b",
            r"[\w.]*Rendezvous\w*(?:Error|Exception|Timeout)\b",
            r"[\w.]*RuntimeError: (?:NCCL [Ee]rror|\[[^\]\n]*(?:gloo|tensorpipe)[^\]\n]*\]|Connection (?:reset by peer|refused|timed out)|Broken pipe$|.*store based barrier|Socket Timeout|Connection closed by peer|.*(?:TCPStore|store->get|c10d|gloo|ncclInternalError|ncclSystemError|ncclRemoteError|Timed out waiting \d+ms|rendezvous|init_process_group|Process group watchdog))",
            r"[\w.]*(?:RuntimeError|TimeoutError): .*(?:\[Rank \d+\]|[Ww]ait timeout|waiting for clients|Monitored barrier|monitoredBarrier|collective operation timeout|Detected mismatch between collectives)",
            r"[\w.]*HorovodInternalError\b",
            r"[\w.]*(?:XlaRuntimeError|JaxRuntimeError): (?:DEADLINE_EXCEEDED|UNAVAILABLE|ABORTED): .*(?:[Bb]arrier|coordination|PjRT_Client_Connect|Failed to connect|heartbeat|GetKeyValue)",
            r"[\w.]*(?:TimeoutError|RuntimeError): .*(?:ranks?|workers?|nodes?) .*(?:did not join|failed to join|timed out)",
            r"mpi4py[\w.]*Exception: ",
            r"[\w.]*(?:RaySystemError|ActorUnavailableError|RpcError): ",
            r"[\w.]*ConnectionError: .*(?:GCS|ray cluster|Ray cluster)",
        ),
        printed=(
            r"(?:what\(\): +)?.{0,200}(?:Watchdog caught collective operation timeout|Process group watchdog thread terminated|ncclSystemError|ncclInternalError|ncclRemoteError|NCCL error|\bgloo/transport/)",
            r"\[Rank \d+\] (?:Watchdog caught collective|Caught collective operation timeout)",
            r"what\(\): +.*(?:Timed out waiting|Connection closed by peer|TCPStore)",
            r"(?:NCCL WARN|misc/socket\S*) .*(?:Connect to .* failed|socket\w* .*failed|[Tt]imeout)",
            r".{0,100}(?:MPI_ERR_\w+|MPI_Init\w* .*fail|ORTE (?:was unable to|has lost communication)|PMIX ERROR|unable to reliably start one or more processes)",
            r"Test NCCL failure",
            r"UCX +ERROR",
        ),
    ),
    Kind(
        "communication",
        protocol.USER_ERROR,
        "a process that it talked to was gone",
        "Look at what that process printed before: a worker or a rank that was killed or failed is the usual cause.",
        raised=(r"(?:[\w.]*\.)?(?:ConnectionResetError|ConnectionRefusedError|BrokenPipeError|EOFError)\b",),
        within=r"multiprocessing/(?:connection|managers|resource_sharer|queues)|torch/distributed/",
    ),
    # -- memory --------------------------------------------------------------------------------------------------------
    Kind(
        "shared_memory_full",
        protocol.USER_ERROR,
        "the shared memory of its processes (/dev/shm) was full",
        "Lower num_workers or the batch size, call torch.multiprocessing.set_sharing_strategy('file_system'), or give the "
        "container a larger /dev/shm (--shm-size, --ipc=host).",
        raised=(
            r"[\w.]*(?:RuntimeError|OSError|Error): (?!.*Too many open files).*(?:(?:insufficient|out of) shared memory|unable to (?:allocate|open|mmap|resize|write).{0,40}(?:shared memory|file </torch_)|unable to write to file </torch_|/dev/shm.*No space left|No space left on device.*/dev/shm|shared memory segment.*No space left)",
            r"[\w.]*(?:DistBackendError|RuntimeError): NCCL [Ee]rror(?:[^\n]*\n){1,6}?.*(?:shared memory segment|/dev/shm)",
        ),
        printed=(
            r".{0,200}(?:insufficient shared memory \(shm\)|/dev/shm/\S*.{0,60}No space left on device|shared memory segment .*No space left)",
        ),
    ),
    Kind(
        "shared_memory_full",
        protocol.USER_ERROR,
        "the shared memory of its processes (/dev/shm) was full",
        "Remove what earlier programs have left in /dev/shm, or give the container a larger one (--shm-size, --ipc=host).",
        raised=(r"OSError: \[Errno 28\]",),
        within=r"SemLock|multiprocessing[/.](?:shared_memory|synchronize|heap)|/dev/shm",
    ),
    Kind(
        protocol.OUT_OF_MEMORY,
        protocol.OUT_OF_MEMORY,
        "it ran out of host memory",
        "Ask for more memory (memory=), or use less: fewer loader workers, smaller batches, data read piece by piece.",
        raised=(
            r"(?:[\w.]*\.)?_?(?:Array|Arrow)?MemoryError\b",
            r"(?:[\w.]*\.)?std::bad_alloc",
            rf"{_OS}\[Errno 12\]",
            rf"{_ANY}(?:can't allocate memory|Cannot allocate memory|[Uu]nable to allocate (?!shared|CUDA)|std::bad_alloc|bad allocation|failed to allocate .*CPU|malloc of size \d+ failed|[Oo]ut of memory allocating .*)",
            r"[\w.]*(?:XlaRuntimeError|JaxRuntimeError|RuntimeError): RESOURCE_EXHAUSTED: (?![^\n]*No space left)",
            r"[\w.]*ResourceExhaustedError: (?![^\n]*No space left)(?:[^\n]*\n){0,25}?.*(?:OOM when allocating|failed to allocate)",
            r"ray[\w.]*OutOfMemoryError: ",
            r"(?:[\w.]*\.)?OutOfMemory(?:Error|Exception)\b",
            r"java\.lang\.OutOfMemoryError",
            r"LoadError: OutOfMemoryError|OutOfMemoryError\(\)",
            r"Error: cannot allocate vector of size",
            r"(?:[\w.]*\.)?(?:Worker|Actor)\w*Error: .*(?:running low on memory|OOM)",
        ),
        printed=(
            r".{0,80}java\.lang\.OutOfMemoryError(?!: unable to create)",
            r"terminate called after throwing an instance of 'std::bad_alloc'",
            r"what\(\): +std::bad_alloc",
            r"(?:FATAL ERROR: .*)?(?:JavaScript heap out of memory|.{0,100}Allocation failed - JavaScript heap)",
            r"memory allocation of \d+ bytes failed",
            r"(?:runtime: )?out of memory(?:: cannot allocate)?\b.*$",
            r"Out of memory[!.]?(?: .*)?$",
            r"(?:.{0,80}[\s:])?[Cc]annot allocate (?:memory|vector of size|\d+ bytes)",
            r"(?:.{0,80}[\s:])?(?:virtual memory exhausted|memory exhausted|not enough memory|[Ii]nsufficient (?:virtual )?memory)",
            r"(?:\w+Error: )?OutOfMemoryError\(\)",
            r"(?:xmalloc|malloc|calloc|realloc)\b.{0,40}(?:fail|cannot)",
            r"(?:OutOfMemoryError|MemoryError)\b.*$",
            r"Insufficient virtual memory",
        ),
    ),
    # -- the disk ------------------------------------------------------------------------------------------------------
    Kind(
        "quota",
        protocol.DISK_FULL,
        "its user's quota on the disk is used up",
        "Delete files of yours there, ask for a larger quota, or set the connection's root_dir to another disk.",
        raised=(rf"{_OS}\[Errno 122\]", rf"{_ANY}(?:Disk quota exceeded|EDQUOT)", r"[\w.]*Error: .*Os \{ code: 122"),
        printed=(r"(?:.{0,300}[\s:])?Disk quota exceeded",),
    ),
    Kind(
        "system_limit",
        protocol.USER_ERROR,
        "it watches more files than the system lets it",
        "Watch fewer folders, or have fs.inotify.max_user_watches raised.",
        raised=(r"OSError: \[Errno (?:28|24)\] inotify", r"[\w.]*OSError: .*inotify (?:watch|instance) limit reached"),
        printed=(r".{0,200}(?:inotify|file watchers).{0,40}(?:limit|ENOSPC|reached)",),
    ),
    Kind(
        protocol.DISK_FULL,
        protocol.DISK_FULL,
        "it ran out of disk space",
        "Delete old files there (gpu-run gc, checkpoints), write less, or set the connection's root_dir, or TMPDIR, to "
        "another disk.",
        raised=(
            rf"{_OS}\[Errno 28\]",
            rf"{_ANY}(?:No space left on device|ENOSPC|StorageFull|database or disk is full|[Dd]isk (?:is )?full|[Nn]ot enough (?:free )?disk space)",
            r"[\w.]*(?:OSError|Error): (?:[^\n]*\n){0,6}?.*(?:errno = 28|code: 28|os error 28|No space left on device)",
            r"OSError: \d+ requested and \d+ written",
        ),
        printed=(
            r"(?:.{0,300}[\s:;('\"])?No space left on device",
            r"(?:.{0,100}[\s:])?(?:write error: |writing .* )?(?:ENOSPC\b|[Dd]isk (?:is )?full\b)",
            r"Error: database or disk is full",
        ),
    ),
    Kind(
        protocol.DISK_FULL,
        protocol.DISK_FULL,
        "it could not write a file to its end, as on a full disk or with a used-up quota",
        "Delete old files there (gpu-run gc, checkpoints), or write to another disk.",
        raised=(
            r"RuntimeError: (?:\[enforce fail at inline_container[^\]]*\].*unexpected pos|PytorchStreamWriter failed writing file|.*inline_container.*unexpected pos)",
            r"RuntimeError: \[enforce fail at inline_container[^\]]*\] \. (?:PytorchStreamWriter|write)",
            r"RuntimeError: basic_ios::clear: iostream error",
        ),
    ),
    # -- limits of the system ------------------------------------------------------------------------------------------
    Kind(
        "system_limit",
        protocol.USER_ERROR,
        "it has more files open than the system lets it",
        "Close files, use fewer loader workers, or raise the limit in setup: ulimit -n.",
        raised=(
            rf"{_OS}\[Errno (?:23|24)\]",
            rf"{_ANY}(?:Too many open files|received 0 items of ancdata)",
            r"[\w.]*(?:OSError|Error): .*(?:errno = 24|os error 24)",
        ),
        printed=(r"(?:.{0,200}[\s:(\"])?(?:Too many open files|EMFILE\b)",),
    ),
    Kind(
        "system_limit",
        protocol.USER_ERROR,
        "it has more processes or threads than the system lets it",
        "Set OMP_NUM_THREADS and its like (cpus= does), use fewer workers, or raise the limit in setup: ulimit -u.",
        raised=(
            r"RuntimeError: can't start new thread",
            r"(?:[\w.]*\.)?(?:BlockingIOError|OSError): \[Errno 11\] Resource temporarily unavailable",
            rf"{_ANY}(?:pthread_create|[Rr]esource temporarily unavailable|[Tt]hread creation failed|Thread constructor)",
            r"[\w.]*OutOfMemoryError: unable to create (?:new )?native thread",
        ),
        printed=(
            r"(?:retry: )?fork: .*(?:Resource temporarily unavailable|retry|Interrupted)",
            r"(?:retry: )?(?:Resource temporarily unavailable)$",
            r"(?:.{0,100}[\s:])?(?:[Cc]annot fork|pthread_create (?:failed|error)|libgomp: Thread creation failed|fork failed|failed to create thread)",
            r".{0,100}unable to create (?:new )?native thread",
            r"what\(\): +Resource temporarily unavailable",
        ),
    ),
    Kind(
        "system_limit",
        protocol.USER_ERROR,
        "a command line of its is longer than the system lets it be",
        "Pass the names in a file, or with xargs.",
        raised=(rf"{_OS}\[Errno 7\]",),
        printed=(r"(?:.{0,200}[\s:])?Argument list too long",),
    ),
    Kind(
        "system_limit",
        protocol.USER_ERROR,
        "it used more processor time, or wrote a larger file, than the system lets it",
        "Raise the limit in setup (ulimit -t, ulimit -f), or do the work in a batch job of the scheduler.",
        raised=(rf"{_OS}\[Errno 27\]",),
        printed=(r"(?:CPU time limit exceeded|File size limit exceeded)", r"(?:.{0,200}[\s:])?File too large$"),
        signals=(signal.SIGXCPU, signal.SIGXFSZ),
    ),
    # -- what is missing -----------------------------------------------------------------------------------------------
    Kind(
        "missing_library",
        protocol.USER_ERROR,
        "a shared library that it needs, or a version of it, is missing",
        "Load the module or install the package that has it, add its folder to LD_LIBRARY_PATH in setup, or build the "
        "program on this machine.",
        raised=(
            r"[\w.]*(?:OSError|ImportError|RuntimeError|InternalError|NotFoundError|ValueError|Error|Exception): (?:.*[\s(:])?\S+\.so[.\d]*: cannot open shared object file",
            r"[\w.]*(?:OSError|ImportError|RuntimeError|NotFoundError|AttributeError|Error): .*(?:undefined symbol|version `\w+_[\d.]+' not found|GLIBC(?:XX)?_[\d.]+' not found|file too short|invalid ELF header|wrong ELF class)",
            r"[\w.]*(?:RuntimeError|OSError|ImportError|FileNotFoundError): .*(?:[Cc]ould not (?:load|find) (?:dynamic )?library|[Cc]annot load library|[Ll]ibrary .* not found|libNVVM cannot be found|libcud\w+ .*not found|Could not locate cu\w+)",
            r"[\w.]*ImportError: lib\S+: ",
            r"[\w.]*NvvmSupportError: ",
        ),
        printed=(
            r"error while loading shared libraries",
            r"\S+\.so[.\d]*: cannot open shared object file",
            r"(?:\S+ )?version `\w+_[\d.]+' not found",
            r"symbol lookup error",
            r"undefined symbol: ",
            r"[Cc]ould not load (?:dynamic )?library",
            r"Error: package or namespace load failed for .* shared object",
        ),
    ),
    Kind(
        "missing_module",
        protocol.USER_ERROR,
        "a module of its is missing",
        "Add the package to requirements= or to requirements.txt, install it in the environment that setup activates, or "
        "put the folder of your own module into the code.",
        raised=(
            r"(?:[\w.]*\.)?ModuleNotFoundError: ",
            r"(?:[\w.]*\.)?ImportError: (?:No module named|.*(?:requires the .* (?:library|package) but it was not found|is not installed|not installed\b|[Pp]lease (?:pip )?install|[Rr]un `?pip install|Missing optional dependency))",
            r"(?:[\w.]*\.)?(?:RuntimeError|ValueError|PackageNotFoundError): .*(?:[Pp]lease (?:pip )?install|pip install \S+)",
            r"[\w.]*PackageNotFoundError: ",
            r"(?:.*)Error: Cannot find (?:module|package) ",
            r"java\.lang\.(?:NoClassDefFoundError|ClassNotFoundException)",
        ),
        printed=(
            r"No module named ",
            r"Error while finding module specification for .*ModuleNotFoundError",
            r"(?:Error: )?Cannot find (?:module|package) '",
            r"Can't locate \S+ in @INC",
            r"(?:Error in .*)?there is no package called",
            r"(?:\w*Error: )*(?:ArgumentError: )?Package \S+ (?:not found in current path|\[\S+\] is required but)",
            r"Error: Could not find or load main class",
            r".{0,60}java\.lang\.(?:NoClassDefFoundError|ClassNotFoundException)",
            r"error\[E0432\]: unresolved import",
            r"fatal error: \S+\.(?:h|hpp|cuh|mod): No such file or directory",
        ),
    ),
    Kind(
        "missing_module",
        protocol.USER_ERROR,
        "a package has not the name that is imported from it, so it is another version",
        "Pin the version of that package that the code was written for, in requirements=.",
        raised=(r"(?:[\w.]*\.)?ImportError: cannot import name .*(?:site-packages|dist-packages)",),
    ),
    Kind(
        "missing_module",
        protocol.USER_ERROR,
        "the environment of its command does not exist",
        "Make the environment on the cluster, or name it by its path.",
        printed=(r"(?:EnvironmentNameNotFound: )?Could not find conda environment",),
    ),
    Kind(
        "command_not_found",
        protocol.USER_ERROR,
        "a script of its has lines that end as on Windows (CRLF), so its interpreter is not found",
        "Save the script with Unix line ends: dos2unix, sed -i 's/\\r$//', or git config core.autocrlf input.",
        raised=(r"FileNotFoundError: .*\\r",),
        printed=(
            r".{0,200}(?:\\r|\^M|\r).{0,20}(?:No such file or directory|bad interpreter|command not found|not found)",
            r"\$'(?:[^']*)\\r'",
        ),
        exit_code=127,
    ),
    Kind(
        "command_not_found",
        protocol.USER_ERROR,
        "the shell that ran it knows no `module`",
        "Put into setup what a login does for it, such as `source /etc/profile.d/modules.sh` (or lmod.sh), or use bash -l.",
        printed=(r"(?:command not found: module$|[Uu]nknown command:? '?module\b|module: (?:[Cc]ommand )?not found)",),
        exit_code=127,
    ),
    Kind(
        "command_not_found",
        protocol.USER_ERROR,
        "the shell that ran it knows no `conda`",
        'Put `source PATH/etc/profile.d/conda.sh` into setup, or `eval "$(PATH/bin/conda shell.bash hook)"`, with the PATH '
        "of your installation.",
        printed=(
            r"(?:command not found: (?:conda|mamba|micromamba)$|[Uu]nknown command:? '?(?:conda|mamba|micromamba)\b|(?:conda|mamba|micromamba): (?:[Cc]ommand )?not found)",
            r"CondaError: Run 'conda init'",
            r"CommandNotFoundError: Your shell has not been properly configured",
        ),
        exit_code=127,
    ),
    Kind(
        "command_not_found",
        protocol.USER_ERROR,
        "the interpreter in the first line of a script does not exist",
        "Correct the line, such as `#!/usr/bin/env python3`; or start the script by its interpreter; or end its lines as "
        "Unix does.",
        printed=(
            r".{0,200}cannot execute: required file not found",
            r".{0,200}bad interpreter",
            r"(?:/usr)?/bin/env: .*No such file or directory",
            r"env: .*No such file or directory",
        ),
        exit_code=127,
    ),
    Kind(
        "command_not_found",
        protocol.USER_ERROR,
        "a program of its is built for another kind of machine, or is damaged",
        "Build it on this machine, or for its processor.",
        raised=(rf"{_OS}\[Errno 8\]",),
        printed=(r".{0,200}(?:Exec format error|cannot execute binary file)",),
        exit_code=126,
    ),
    Kind(
        "command_not_found",
        protocol.USER_ERROR,
        "a command of its does not exist on the machine",
        "Load the module or activate the environment that has it in setup, or give its whole path.",
        raised=(r"(?:[\w.]*\.)?FileNotFoundError: \[Errno 2\] No such file or directory: ['\"][^'\"]+['\"]$",),
        within=r"subprocess\.py\", line \d+, in _execute_child|shutil\.py\", line \d+, in which",
        exit_code=127,
        printed=(
            r"(?:.{0,100}[\s:])?command not found",
            r"(?:\d+: )?[\w.+/-]+: (?:[Cc]ommand )?not found$",
            r"[Uu]nknown command:? ",
            r"\./?\S+: No such file or directory$",
            r"execve\(\): .*: No such file or directory",
            r"failed to run command .*: No such file or directory",
            r"(?:error: )?exec: \"[^\"]+\": executable file not found",
        ),
    ),
    # -- the network ---------------------------------------------------------------------------------------------------
    Kind(
        "credentials",
        protocol.USER_ERROR,
        "it has no valid credentials for a service, or not the right to what it asked for",
        "Give it a valid key or token with env= (it is hidden in logs), and ask for access with that account.",
        raised=(
            r"[\w.]*(?:HTTPError|HfHubHTTPError|HTTPStatusError|ClientResponseError|RequestException): .*(?:\b40[137]\b(?: Client)? ?(?:Error|:|,)|'40[13] |HTTP Error 40[137]|Unauthorized|Forbidden)",
            r"[\w.]*(?:GatedRepoError|LocalTokenNotFoundError|NoCredentialsError|PartialCredentialsError|DefaultCredentialsError|CredentialsError|CredentialRetrievalError|TokenRetrievalError|UnauthorizedSSOTokenError|AuthenticationError|AuthenticationException|AuthError|PermissionDeniedError|InvalidAccessKeyId|LoginError|NotAuthorizedError|Unauthorized|ExpiredTokenException|RefreshError)\b",
            r"[\w.]*RepositoryNotFoundError: (?:[^\n]*\n){0,8}.*401",
            r"[\w.]*ClientError: .*(?:AccessDenied|InvalidAccessKeyId|ExpiredToken|SignatureDoesNotMatch|\((?:401|403)\)|UnrecognizedClientException|InvalidToken)",
            r"[\w.]*OSError: (?:You are trying to access a gated repo|.*(?:gated repo|Token is required|invalid (?:user )?token))",
            r"[\w.]*(?:UsageError|CommError|Error|Exception|ValueError|RuntimeError): .*(?:api_key not configured|[Ii]nvalid (?:API|api)[ _]key|API key (?:is )?(?:not|missing|must)|[Ii]ncorrect API key|Cannot access gated repo|[Aa]uthentication (?:failed|required)|password authentication failed|Invalid user token|access token|[Pp]ermission denied \(publickey\)|No API key)",
            r"[\w.]*OSError: Could not find kaggle\.json",
            r"[\w.]*(?:PermissionError|OSError): (?:Forbidden|Access Denied|AccessDenied|Unauthorized|.*\b40[13]\b)",
        ),
        printed=(
            r".{0,200}Permission denied \((?:publickey|password|keyboard|gssapi)",
            r"(?:fatal: )?(?:Authentication failed for|could not read (?:Username|Password) for)",
            r"(?:curl: \(22\) )?The requested URL returned error: 40[137]",
            r"(?:HTTP request sent, awaiting response\.\.\. |.*\bERROR )40[137]\b",
            r".{0,200}\b(?:40[13]) (?:Client Error|Unauthorized|Forbidden)\b",
            r".{0,200}(?:api_key not configured|Cannot access gated repo|[Ii]nvalid API key|InvalidAccessKeyId|ExpiredToken|Unable to locate credentials)",
            r"(?:fatal error: )?An error occurred \((?:AccessDenied|403|401|InvalidAccessKeyId|ExpiredToken)\)",
            r".{0,100}unauthorized: (?:authentication required|access)",
            r"Host key verification failed",
        ),
    ),
    Kind(
        "missing_file",
        protocol.USER_ERROR,
        "a file that it wanted to download does not exist there",
        "Check the address, the name and the version in it.",
        raised=(
            r"[\w.]*(?:HTTPError|HfHubHTTPError|EntryNotFoundError|RevisionNotFoundError|RemoteEntryNotFoundError|HTTPStatusError): .*\b404\b",
            r"[\w.]*(?:EntryNotFoundError|RevisionNotFoundError|NoSuchKey|NoSuchBucket)\b",
            r"[\w.]*ClientError: .*(?:NoSuchKey|NoSuchBucket|\(404\))",
        ),
        printed=(
            r"(?:curl: \(22\) )?The requested URL returned error: 404",
            r"(?:HTTP request sent, awaiting response\.\.\. |.*\bERROR )404\b",
        ),
    ),
    Kind(
        "network",
        protocol.USER_ERROR,
        "it could not reach a service over the network",
        "Machines of a cluster often have no way to the internet: bring the data as inputs (data=, models=), or set the "
        "site's proxy with env=; else try again later.",
        raised=(
            r"[\w.]*(?:gaierror|herror)\b",
            r"(?:[\w.]*\.)?URLError: ",
            r"(?:[\w.]*\.)?(?:NewConnectionError|NameResolutionError|MaxRetryError|ConnectTimeout\w*|ReadTimeout\w*|ConnectError|ProxyError|ChunkedEncodingError|ProtocolError|ReadError|RemoteProtocolError|IncompleteRead|RemoteDisconnected|EndpointConnectionError|ConnectTimeoutError|ServerDisconnectedError|ClientConnector\w*Error|ClientConnectionError|ServerTimeoutError|APIConnectionError|APITimeoutError|ServiceUnavailable|TransportError|OfflineModeIsEnabled|LocalEntryNotFoundError|FileMetadataError|ContentTooShortError|HTTPException)\b",
            r"(?:[\w.]*\.)?(?:SSLError|SSLCertVerificationError|SSLEOFError|SSLZeroReturnError)\b",
            r"(?:requests|urllib3|httpx|aiohttp|botocore|http)\.[\w.]*(?:ConnectionError|Timeout|HTTPError|ConnectionClosedError): ",
            r"(?:[\w.]*\.)?(?:HTTPError|HfHubHTTPError|HTTPStatusError): .*\b(?:429|5\d\d)\b",
            r"(?:[\w.]*\.)?Connection(?:Error|RefusedError): (?!.*multiprocessing)",
            r"(?:[\w.]*\.)?OSError: \[Errno (?:101|113)\]",
            r"(?:[\w.]*\.)?(?:TimeoutError|timeout|OSError): (?:\[Errno 110\]|The (?:read|write) operation timed out|_ssl\.c|Connection timed out|timed out$)",
            r"(?:[\w.]*\.)?OSError: (?:We couldn't connect to|Can't load .* couldn't connect)",
            r"[\w.]*OperationalError: .*(?:could not connect|Connection refused|could not translate host name|Can't connect to)",
            r"[\w.]*CommError: ",
            rf"{_ANY}(?:Temporary failure in name resolution|Name or service not known|Could not resolve host|Max retries exceeded)",
        ),
        printed=(
            r".{0,300}(?:Could not resolve (?:host|proxy)|unable to resolve host|Temporary failure in name resolution|Name or service not known|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)|Could not resolve hostname)",
            r"curl: \((?:5|6|7|16|18|28|35|52|55|56|60|92)\)",
            r"(?:fatal: )?unable to access '",
            r"(?:ssh: )?connect to (?:host|address) .*(?:refused|timed out|unreachable|No route)",
            r"(?:.{0,200}[\s:])?(?:Network is unreachable|No route to host|Connection timed out|Connection refused)$",
            r"(?:.*)?(?:ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTFOUND)\b",
            r"(?:ERROR: )?(?:Could not (?:install packages|find a version).*(?:HTTPSConnectionPool|NewConnectionError|Connection)|No matching distribution found)",
            r"(?:HTTP request sent, awaiting response\.\.\. |.*\bERROR )(?:429|5\d\d)\b",
            r"(?:curl: \(22\) )?The requested URL returned error: (?:429|5\d\d)",
            r"CondaHTTPError|An HTTP error occurred when trying to retrieve",
            r"Error(?: in download\.file.*)?: cannot open URL",
        ),
    ),
    # -- files ---------------------------------------------------------------------------------------------------------
    Kind(
        "corrupt_file",
        protocol.USER_ERROR,
        "a file that it read is damaged, cut off, or of another format",
        "Compare its size and checksum with the original and bring it again; a small text in its place is a pointer of "
        "Git LFS. A checkpoint that was cut off: use the one before, and write to another name, then rename.",
        raised=(
            r"(?:[\w.]*\.)?(?:BadZipFile|BadGzipFile|BadRarFile|Bad7zFile|LZMAError|ZstdError|UnidentifiedImageError|DataLossError|ReadError|HeaderError|EmptyHeaderError|TruncatedHeaderError|InvalidHeaderError|StreamError|NonMatchingChecksumError|ChecksumError|NonMatchingSplitsSizesError|LibsndfileError|UnpicklingError|UnsupportedImageError|DecompressionError)\b",
            r"(?:[\w.]*\.)?SafetensorError: (?!.*(?:No space|I/O error|IoError|No such file|os error (?:28|2|13)))",
            r"zlib\.error: ",
            r"(?:[\w.]*\.)?EOFError: (?:Compressed file ended|Ran out of input|No data left in file|.*end of file|marshal data too short)",
            r"(?:[\w.]*\.)?RuntimeError: (?:PytorchStreamReader failed|unexpected EOF|\[enforce fail at inline_container[^\]]*\].*(?:file not found|read|central directory)|Invalid magic number|.*(?:invalid hash value|file might be corrupted|checkpoint file is corrupted|CRC check|not a ZIP archive|Corrupt|corrupted (?!double|size|unsorted)))",
            r"(?:[\w.]*\.)?(?:OSError|Error|Exception): .*(?:truncated|[Cc]orrupt(?!ed (?:double|size))|file signature not found|[Nn]ot a (?:gzipped|zip|tar|HDF5|Parquet|NetCDF|valid) file|image file is truncated|broken (?:data stream|PNG)|bad object header|CRC|cannot read image data|not a recognized)",
            r"(?:[\w.]*\.)?Arrow(?:Invalid|IOError|SerializationError)?\w*: .*(?:magic bytes|[Cc]orrupt|truncated|Couldn't deserialize|[Nn]ot a(?:n)? (?:Parquet|Arrow|ORC)|[Uu]nexpected end|Invalid (?:IPC|file)|Expected to (?:read|be able to read))",
            r"(?:[\w.]*\.)?DatabaseError: (?:file is not a database|database disk image is malformed|file is encrypted)",
            r"(?:[\w.]*\.)?(?:InvalidDataError|AVError|FFmpegError|InvalidArgumentError|InvalidDataFoundError): .*(?:Invalid data found|[Cc]orrupt|truncated|Expected image|moov atom)",
            r"(?:[\w.]*\.)?ValueError: (?:.*(?:[Ii]nvalid header|bad magic|magic (?:number|string) is not correct|EOF: reading array|embedded null|unexpected end of (?:data|file)|appears to be (?:corrupt|truncated)|Unable to (?:avoid copy|parse) .*corrupt|buffer size must be))",
            r"(?:[\w.]*\.)?OSError: (?:Unable to load weights from pytorch checkpoint|Unable to (?:synchronously )?open file \((?:truncated|file signature|bad)|Failed to interpret file|.*header.*(?:corrupt|invalid))",
            r"(?:[\w.]*\.)?(?:ClientError|RuntimeError|ValueError|OSError|FileIntegrityError): .*(?:[Cc]hecksum (?:mismatch|does not match|failed)|[Hh]ash (?:mismatch|does not match)|SHA\d+ .*(?:mismatch|does not match)|MD5 .*(?:mismatch|does not match))",
            r"(?:[\w.]*\.)?_pickle\.UnpicklingError: ",
        ),
        printed=(
            r".{0,200}(?:unexpected end of file|not in gzip format|invalid compressed data|crc error|does not look like a tar archive|Unexpected EOF in archive|[Ee]nd-of-central-directory signature not found|cannot find zipfile directory|File format not recognized|Compressed file ends unexpectedly|[Ii]nvalid data found when processing input|moov atom not found|file is not a database|database disk image is malformed|[Cc]hecksum mismatch|computed checksums? did NOT match|CRC failed|truncated gzip input|Data Error)",
            r"gguf_init_from_file.*(?:invalid|failed)|.*invalid magic (?:characters|number)",
        ),
    ),
    Kind(
        "corrupt_file",
        protocol.USER_ERROR,
        "a file that it read is damaged, cut off, or of another format",
        "Compare its size and checksum with the original and bring it again. A checkpoint that was cut off: use the one "
        "before, and write to another name, then rename.",
        raised=(r"OSError: \[Errno 22\]",),
        within=r"PyTorchFileReader|in _open_zipfile_reader",
    ),
    Kind(
        "missing_file",
        protocol.USER_ERROR,
        "a file or folder that it needs does not exist",
        "Give it to the job (code=, data=, models=), or correct the path: the job runs in code/, and finds the others by "
        "DATA_DIR, MODEL_DIR and CHECKPOINT_DIR.",
        raised=(
            r"(?:[\w.]*\.)?(?:FileNotFoundError|NotADirectoryError|NoSuchFile\w*)\b",
            rf"{_OS}\[Errno (?:2|20)\]",
            rf"{_ANY}(?:No such file or directory|[Dd]oes not exist[.!]?$|[Nn]o files? (?:were )?found|Couldn't find (?:any data file|a dataset script)|os error 2\b)",
            r"(?:[\w.]*\.)?RuntimeError: Parent directory .* does not exist",
            r"(?:[\w.]*\.)?NotFoundError: .*(?:No such file|not found|Unsuccessful TensorSliceReader)",
            r"(?:[\w.]*\.)?(?:HFValidationError): Repo id must",
            r"(?:[\w.]*\.)?OSError: .*(?:is not a local folder and is not a valid model identifier|does not appear to have a file named|no file named .* found in directory|not found in (?:the )?directory|Can't load (?:the configuration|tokenizer|the model|config) )",
            r"(?:[\w.]*\.)?MissingConfigException: ",
            r"(?:[\w.]*\.)?(?:DatasetNotFoundError|EmptyDatasetError|DataFilesNotFoundError)\b",
            r"Error: ENOENT: ",
            r"(?:[\w.]*\.)?NoSuchFileException|java\.io\.FileNotFoundException",
            r"(?:SystemError|IOError|LoadError): (?:SystemError: )?opening file .*: No such file",
        ),
        printed=(
            r"can't open file .*No such file or directory",
            r"(?:.{0,200}[\s:'\"’])?(?:No such file or directory|Not a directory)$",
            r"(?:.{0,200}[\s:])?ENOENT\b",
            r"cannot open file '[^']*'",
            r"(?:Error: )?Unable to access jarfile",
            r".{0,60}java\.(?:nio\.file\.NoSuchFileException|io\.FileNotFoundException)",
            r"No rule to make target",
            r"(?:Error: )?(?:Invalid value for .*: )?(?:Path|File|Directory) '[^']*' does not exist",
            r"(?:fatal: )?pathspec '.*' did not match any files?",
            r"(?:fatal: )?repository '.*' (?:does not exist|not found)",
        ),
    ),
    Kind(
        "permission_denied",
        protocol.USER_ERROR,
        "it has not the right to do something to a file or folder",
        "Write to OUTPUT_DIR, or have the rights there corrected; for a script, chmod +x, or start it by its interpreter.",
        raised=(
            r"(?:[\w.]*\.)?PermissionError: ",
            rf"{_OS}\[Errno (?:1|13|30)\]",
            rf"{_ANY}(?:Permission denied|Read-only file system|Operation not permitted|os error (?:13|30))",
            r"(?:Error: )?EACCES: ",
            r"(?:[\w.]*\.)?AccessDeniedException|java\.io\.FileNotFoundException: .*\(Permission denied\)",
        ),
        printed=(
            r"(?:.{0,200}[\s:'\"’])?(?:Permission denied|Read-only file system|Operation not permitted)(?:$|[.;])",
            r"(?:.{0,200}[\s:])?EACCES\b",
            r".{0,200}permission denied while trying to connect",
            r"error: could not lock config file .*: Permission denied",
        ),
        exit_code=126,
    ),
    # -- arguments -----------------------------------------------------------------------------------------------------
    Kind(
        "bad_arguments",
        protocol.USER_ERROR,
        "its program does not accept the arguments that it got",
        "Correct script_args= or the command; the program's --help says what it accepts.",
        raised=(
            r"(?:[\w.]*\.)?(?:UsageError|NoSuchOption|MissingParameter|BadParameter|BadOptionUsage|UnrecognizedFlagError|IllegalFlagValueError|GetoptError|FireExit|ArgumentError|OverrideParseException|ConfigCompositionException|LexerNoViableAltException|DocoptExit)\b",
            r"(?:[\w.]*\.)?ValueError: Some specified arguments are not used by the HfArgumentParser",
            r"absl\.flags[\w.]*Error: ",
        ),
        printed=(
            r"(?:[Ee]rror: )?(?:unrecogni[sz]ed arguments?|the following arguments are required|argument \S+.*: |one of the arguments .* is required|ambiguous option|invalid choice|unknown (?:command line )?(?:flag|option|argument)|unexpected (?:argument|option|extra argument)|too few arguments|Unrecogni[sz]ed (?:options?|arguments?)|Parser key |No action for key|Validation failed: )",
            r"(?:Error: |│ )?(?:No such (?:option|command)|Missing (?:option|argument|parameter|command)|Invalid value for|Got unexpected extra argument|Option .* requires an argument|Unrecognized options)",
            r"(?:unrecogni[sz]ed|invalid|illegal|unknown) option\b",
            r"(?:option .* )?requires an argument -- ",
            r"(?:FATAL Flags parsing error|Unknown command line flag|Missing required flag|flag provided but not defined|ERROR: Could not consume arg)",
            r"Could not override '|Key '.*' is not in struct|Could not find '.*'$|mismatched input|token recognition error|no viable alternative|Error parsing override|In '.*': Could not find ",
            r"error: (?:unexpected argument|invalid value .* for|the argument|unrecognized subcommand|the following required arguments)",
            r"Error in getopt.*(?:flag|option)",
        ),
    ),
    # -- numbers -------------------------------------------------------------------------------------------------------
    Kind(
        "not_a_number",
        protocol.USER_ERROR,
        "a value became not a number (NaN) or infinite",
        "Look at the data for NaN first; then lower the learning rate, clip gradients, or use bfloat16 or float32 in place "
        "of float16.",
        raised=(
            r"(?:[\w.]*\.)?FloatingPointError: ",
            r"(?:[\w.]*\.)?RuntimeError: (?:Function '\w+' returned nan|probability tensor contains either|.*(?:\b(?:[Nn]a[Nn]|NAN|nan|non-finite)s?\b.*(?:loss|gradient|value|detected|found|encountered|output|tensor|in)|(?:loss|[Gg]radient|output|tensor|value)s?\b.*\b(?:is|are|was|became|contains?|has|have|=)\s+.{0,20}\b(?:[Nn]a[Nn]|NAN|non-finite)\b|The total norm .* is non-finite))",
            r"(?:[\w.]*\.)?(?:ValueError|AssertionError|ArithmeticError|Exception|TrainingError|NotFiniteError|NanError|NaNError|NaNLossError): (?:.*(?:\b(?:loss|gradients?|outputs?|weights?|activations?|logits|values?|input|X|y)\b.{0,40}\b(?:NaN|nan|NAN|non-finite|not finite|infinite)\b|\b(?:NaN|nan|NAN|[Nn]on-finite)\b.{0,40}\b(?:loss|gradients?|outputs?|weights?|logits|detected|encountered|found)\b|contains? (?:NaN|infinity|missing values))|(?:NaN|nan|Non-finite|non-finite)\b.*|cannot convert float (?:NaN|infinity)|Expected parameter .*(?:[^\n]*\n){0,8}.*\bnan\b|array must not contain infs or NaNs)",
            r"(?:[\w.]*\.)?OverflowError: cannot convert float infinity",
            r"Exception: Current loss scale already at minimum",
            r"(?:[\w.]*\.)?InvalidArgumentError: (?:[^\n]*\n){0,25}?.*(?:Tensor had (?:NaN|Inf)|NaN or Inf|: Tensor had)",
            r"(?:[\w.]*\.)?(?:XGBoostError|LightGBMError|LinAlgError|CatBoostError): .*(?:\b[Nn]a[Nn]s?\b|\binf\b|contains? inf|not finite)",
            r"(?:[\w.]*\.)?(?:MisconfigurationException|NanLossDuringTrainingError)\b.*(?:nan|NaN|Nan)",
            r"[\w.]*NanLossDuringTrainingError",
        ),
        printed=(
            r"(?:[Tt]raining |[Tt]rain |[Cc]urrent )?[Ll]oss (?:is|was|became|=|:) ?(?:nan|NaN|inf|not finite|non-finite)\b.{0,40}(?:stop|abort|exit|end|$)",
            r"(?:[Nn]aN|NAN|[Nn]on-finite) (?:loss|gradients?|values?)\b.{0,60}(?:detected|encountered|found|stop|abort|exit|$)",
        ),
    ),
    # -- how its processes ended ---------------------------------------------------------------------------------------
    Kind(
        "interrupted",
        protocol.USER_ERROR,
        "one of its processes was ended by a signal from outside",
        "Find out who sends it: a person, the system's memory watcher, a launcher that ends the other ranks after one.",
        raised=(
            r"RuntimeError: DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) is killed by signal: (?:Killed|Terminated|Interrupt|Hangup)",
            r"(?:[\w.]*\.)?CalledProcessError: .*died with <Signals\.SIG(?:KILL|TERM|INT|HUP)",
            r"(?:[\w.]*\.)?ProcessExitedException: .*signal SIG(?:KILL|TERM|INT|HUP)",
            r"(?:[\w.]*\.)?TerminatedWorkerError: .*SIG(?:KILL|TERM)(?!.*SIG(?:SEGV|ABRT|BUS))",
            r"(?:[\w.]*\.)?SignalException: Process \d+ got signal: (?:1|2|15)\b",
        ),
        printed=(r"mpirun noticed that process .* exited on signal (?:9|15|2|1) ",),
    ),
    Kind(
        "interrupted",
        protocol.USER_ERROR,
        "it was interrupted",
        "Somebody, or its launcher, has sent it a signal; start it again if that was not meant.",
        raised=(r"(?:[\w.]*\.)?KeyboardInterrupt\b", r"click\.exceptions\.Abort\b"),
        printed=(r"KeyboardInterrupt$", r"Aborted!$"),
        signals=(signal.SIGINT,),
    ),
    Kind(
        "interrupted",
        protocol.USER_ERROR,
        "it was killed by SIGKILL from outside; the kernel counted no kill for lack of memory",
        "Find out who sent it: a person, a script of the site, or a program that watches memory (earlyoom, systemd-oomd).",
        signals=(signal.SIGKILL,),
    ),
    Kind(
        "interrupted",
        protocol.USER_ERROR,
        "it was ended by a signal from outside",
        "Find out who sent it: a person, a script of the site, or its own launcher.",
        signals=(signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    ),
    Kind(
        "crash",
        protocol.USER_ERROR,
        "one of its processes crashed",
        "Set PYTHONFAULTHANDLER=1 with env= to see in which line; packages that were built against each other's other "
        "versions are the usual cause.",
        raised=(
            r"RuntimeError: DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) is killed by signal: ",
            r"(?:[\w.]*\.)?CalledProcessError: .*died with <Signals\.SIG",
            r"(?:[\w.]*\.)?(?:ProcessExitedException): .*signal SIG",
            r"(?:[\w.]*\.)?(?:TerminatedWorkerError|BrokenProcessPool|WorkerCrashedError|LocalWorkerCrashed)\b",
            r"Fatal Python error: ",
        ),
        printed=(
            r"Fatal Python error: ",
            r"mpirun noticed that process .* exited on signal \d+ ",
            r"task [\d,\- ]+: (?:Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception)",
            r"Program received signal SIG(?:SEGV|BUS|ILL|FPE|ABRT)",
        ),
    ),
    Kind(
        "crash",
        protocol.USER_ERROR,
        "it crashed",
        "Set PYTHONFAULTHANDLER=1 with env= to see in which line; packages that were built against each other's other "
        "versions are the usual cause.",
        signals=(
            signal.SIGSEGV,
            signal.SIGABRT,
            signal.SIGBUS,
            signal.SIGILL,
            signal.SIGFPE,
            signal.SIGTRAP,
            signal.SIGSYS,
        ),
    ),
)

# Ends that the code itself has not made, or that its supervisor knows without its output.
OTHER_KINDS: dict[str, tuple[str, str]] = {
    protocol.USER_ERROR: ("its code failed", ""),
    protocol.HANG: (
        "it neither printed, saved nor computed anything for its hang_timeout",
        "Look at the stack in the log: a deadlock between ranks or workers is the usual cause; else allow more time.",
    ),
    protocol.TIME_LIMIT: (
        "it ran longer than its time limit",
        "Allow more time (time_limit=), or save checkpoints and set recover={'time_limit': 'progress'}.",
    ),
    protocol.PREEMPTED: (
        "the scheduler stopped it in favour of another job",
        "Let it save checkpoints (warn_before=) and go on from them; recover= starts it again.",
    ),
    protocol.NODE_FAILURE: (
        "a machine that it ran on failed",
        "Run it again; recover= does so, on another node where it can.",
    ),
    protocol.REASON_LOST: (
        "its supervisor vanished without a record",
        "See whether the host was restarted, or ends the processes of users who have logged out.",
    ),
    protocol.REASON_CANCELLED: ("somebody cancelled it", ""),
    protocol.LAUNCH_FAILED: (
        "it could not be started on the cluster",
        "The message says what is missing; the requirements, setup and the launch command are the usual causes.",
    ),
    protocol.IDLE: (
        "it left its GPUs idle for its whole utilization_window",
        "See what it waits for: its data, a lock, another process; or ask for no GPU while it does not compute.",
    ),
    protocol.CHECKPOINTED: (
        "it saved and asked to be started again, more often than it may",
        "Raise recover={'checkpointed': ...}, or see whether it makes progress between its starts.",
    ),
    protocol.ORPHANED: (
        "nobody asked about it for its orphan_timeout",
        "Its Airflow task is gone, or could not reach the cluster: start it again, or allow more time.",
    ),
}
"""Cause and remedy of the kinds that are no row above."""


def remedy_of(name: str | None) -> str:
    """Return what to do about a kind of which no more is known; empty if nobody knows."""
    if name in OTHER_KINDS:
        return OTHER_KINDS[name][1]
    return next((kind.remedy for kind in KINDS if kind.name == name and kind.raised and not kind.within), "")


def names() -> tuple[str, ...]:
    """Return the names of all kinds, in the order of the table."""
    return tuple(dict.fromkeys([*(kind.name for kind in KINDS), *OTHER_KINDS]))
