"""The environment variables that a launch may set for the processes of an engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from xinference.engines.options.option_policy import names
from xinference.error_codes import Code
from xinference.errors import Problem

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A path, an address, or a control character.
_PATH_OR_ADDRESS = re.compile(r"[/\\\x00-\x1f]|^~")
#: Parts of the names of variables for files, programs, code or machines; a prefix does not allow such a variable.
_RISKY_PART = re.compile(
    r"DIR|PATH|FILE|FOLDER|ROOT|CACHE|PLUGIN|PACKAGE|MODULE|CLASS|URL|HOST|ADDR|PORT|ENDPOINT|DUMP"
)
_MAX_VALUE = 4096

#: Number of threads, memory allocation and logging of the libraries: the same for all engines.
COMMON = names("""
    OMP_NUM_THREADS OMP_PROC_BIND OMP_PLACES OMP_DYNAMIC OMP_SCHEDULE OMP_WAIT_POLICY OMP_STACKSIZE OMP_THREAD_LIMIT
    OMP_MAX_ACTIVE_LEVELS OMP_DISPLAY_ENV GOMP_CPU_AFFINITY GOMP_SPINCOUNT KMP_AFFINITY KMP_BLOCKTIME KMP_SETTINGS
    KMP_TPAUSE KMP_FORKJOIN_BARRIER_PATTERN KMP_PLAIN_BARRIER_PATTERN KMP_REDUCTION_BARRIER_PATTERN
    MKL_NUM_THREADS MKL_DYNAMIC MKL_ENABLE_INSTRUCTIONS OPENBLAS_NUM_THREADS OPENBLAS_CORETYPE
    MALLOC_ARENA_MAX MALLOC_TRIM_THRESHOLD_ MALLOC_MMAP_THRESHOLD_ MALLOC_TOP_PAD_
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING CUDA_DEVICE_MAX_CONNECTIONS CUDA_MODULE_LOADING
    CUDA_CACHE_DISABLE CUDA_CACHE_MAXSIZE CUDA_FORCE_PTX_JIT CUDA_SCALE_LAUNCH_QUEUES
    NO_COLOR FORCE_COLOR LANG LC_ALL
""")
#: Variables of torch and of the libraries of Hugging Face, for the engines that use them.
TORCH = names("""
    NCCL_DEBUG NCCL_DEBUG_SUBSYS NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_SHM_DISABLE NCCL_IB_DISABLE NCCL_IB_TIMEOUT
    NCCL_SOCKET_IFNAME NCCL_SOCKET_FAMILY NCCL_SOCKET_NTHREADS NCCL_NSOCKS_PERTHREAD NCCL_BUFFSIZE NCCL_NTHREADS
    NCCL_MIN_NCHANNELS NCCL_MAX_NCHANNELS NCCL_MIN_CTAS NCCL_MAX_CTAS NCCL_ALGO NCCL_PROTO NCCL_CUMEM_ENABLE
    NCCL_NVLS_ENABLE NCCL_CROSS_NIC NCCL_NET_GDR_LEVEL NCCL_CHECKS_DISABLE NCCL_LAUNCH_MODE NCCL_GRAPH_MIXING_SUPPORT
    PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING PYTORCH_NVML_BASED_CUDA_CHECK
    TORCH_CPP_LOG_LEVEL TORCH_LOGS TORCH_SHOW_CPP_STACKTRACES TORCH_ALLOW_TF32_CUBLAS_OVERRIDE TORCH_COMPILE_DISABLE
    TORCH_BLAS_PREFER_CUBLASLT TORCH_DISTRIBUTED_DEBUG TORCH_NCCL_ASYNC_ERROR_HANDLING TORCH_NCCL_AVOID_RECORD_STREAMS
    TORCH_NCCL_BLOCKING_WAIT TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC TORCH_NCCL_ENABLE_MONITORING TORCH_CUDA_ARCH_LIST
    TORCHDYNAMO_DISABLE TORCHINDUCTOR_COMPILE_THREADS TORCHINDUCTOR_MAX_AUTOTUNE NVIDIA_TF32_OVERRIDE
    CUBLAS_WORKSPACE_CONFIG CUBLASLT_WORKSPACE_SIZE ONEDNN_MAX_CPU_ISA ONEDNN_DEFAULT_FPMATH_MODE
    HF_HUB_OFFLINE HF_HUB_DISABLE_TELEMETRY HF_HUB_DISABLE_PROGRESS_BARS HF_HUB_DISABLE_SYMLINKS_WARNING
    HF_HUB_DISABLE_XET HF_HUB_DOWNLOAD_TIMEOUT HF_HUB_ETAG_TIMEOUT HF_HUB_VERBOSITY TRANSFORMERS_OFFLINE
    TRANSFORMERS_VERBOSITY TRANSFORMERS_NO_ADVISORY_WARNINGS TOKENIZERS_PARALLELISM RAYON_NUM_THREADS TQDM_DISABLE
    DO_NOT_TRACK SAFETENSORS_FAST_GPU BITSANDBYTES_NOWELCOME
""")


@dataclass(frozen=True)
class VariablePolicy:
    """The variables that a launch may set for one engine; all others are refused."""

    engine: str
    allowed: frozenset[str]
    prefixes: tuple[str, ...] = ()
    """Prefixes of variables that select kernels and sizes."""

    def check(self, variables: Mapping[str, str]) -> None:
        """Check the variables of a launch.

        Raises:
            Problem: 400 ``bad_variable``, names the variable and, if its name shows it, its effect.
        """
        for name, value in variables.items():
            if not _NAME.fullmatch(name):
                raise _bad_variable(f"envs: {name!r:.100} is not the name of an environment variable.", "Correct it.")
            if not self._allows(name):
                raise _bad_variable(
                    f"envs: {name} is not a variable that a launch may set for {self.engine}{_effect(name)}.",
                    "Leave it out, or set it for the server itself: engines inherit the server's environment.",
                )
            if len(value) > _MAX_VALUE or _PATH_OR_ADDRESS.search(value):
                raise _bad_variable(
                    f"envs: {name} is {value!r:.100}, but no path or address is allowed in a variable.",
                    "Set it for the server itself: engines inherit the server's environment.",
                )

    def _allows(self, name: str) -> bool:
        return name in self.allowed or (name.startswith(self.prefixes) and not _RISKY_PART.search(name))


#: For the text of a problem only: the lists above decide which variables are allowed.
_EFFECT_PATTERNS = (
    (re.compile(r"^(LD_|DYLD_|PYTHON|GLIBC_|OPENSSL_CONF|OPENSSL_MODULES|OPENSSL_ENGINES|NODE_|PERL|RUBY)"), "code"),
    (re.compile(r"PLUGIN|PACKAGE|PRELOAD|_LIBRAR|BACKEND_PATH"), "code"),
    (re.compile(r"PROXY|ENDPOINT|URL|HOST|_IP$|_PORT$|_ADDR"), "network"),
    (re.compile(r"DIR|PATH|FILE|FOLDER|ROOT|CACHE|^HOME$"), "files"),
    (re.compile(r"^XINFERENCE_|API_KEY$|TOKEN$"), "reserved"),
)
_EFFECTS = {
    "code": ": it decides which code a program loads",
    "network": ": it decides which machines a program connects to",
    "files": ": it names files or folders",
    "reserved": ": it is reserved for Xinference",
}


def _effect(name: str) -> str:
    kind = next((kind for pattern, kind in _EFFECT_PATTERNS if pattern.search(name.upper())), None)
    return _EFFECTS[kind] if kind else ""


def _bad_variable(cause: str, hint: str) -> Problem:
    return Problem(Code.BAD_VARIABLE, cause, hint=hint)
