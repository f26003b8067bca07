"""The environment variables that a launch may set for an engine's processes."""

from __future__ import annotations

import pytest

from tests.support.cases import check_each, in_one_test
from xinference.engines.registry import all_engines
from xinference.errors import Problem

ENGINES = all_engines()


def refused(engine: str, name: str, value: str = "1") -> Problem:
    with pytest.raises(Problem) as caught:
        ENGINES[engine].variables.check({name: value})
    assert (caught.value.status, caught.value.code) == (400, "bad_variable")
    assert name in caught.value.cause and caught.value.hint
    return caught.value


OUTSIDE = (
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "OPENSSL_CONF", "OPENSSL_MODULES"),
    *("GGML_BACKEND_PATH", "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_CONF_FILE", "OMP_TOOL_LIBRARIES"),
    *("VLLM_PLUGINS", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_RUST_FRONTEND_PATH", "VLLM_SERVER_DEV_MODE"),
    *("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "VLLM_API_KEY", "VLLM_CPU_PLUGIN", "SGLANG_OPT_CACHE_DIR"),
    *("SGLANG_PLUGINS", "SGLANG_EXTERNAL_MODEL_PACKAGE", "SGLANG_PYSPY_DUMP_BEFORE_CRASH"),
    *("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "TORCHINDUCTOR_CACHE_DIR"),
    *("TRITON_PTXAS_PATH", "CUDA_CACHE_PATH", "CUDA_INJECTION64_PATH", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN"),
    *("HTTPS_PROXY", "SSL_CERT_FILE", "TMPDIR", "HOME", "PATH", "XINFERENCE_ENGINE_KEY", "GCONV_PATH", "BASH_ENV"),
    *("ld_preload", "COLOUR", "a b", "A=B", "A\0B", ""),
)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_variable_outside_the_list_is_refused_by_its_name(engine: str) -> None:
    def check(name: str) -> None:
        with pytest.raises(Problem) as caught:
            ENGINES[engine].variables.check({name: "1"})
        assert caught.value.code == "bad_variable" and (name in caught.value.cause or repr(name) in caught.value.cause)

    check_each(OUTSIDE, check)


def test_a_problem_names_the_effect_of_a_variable_if_its_name_shows_it() -> None:
    assert "which code a program loads" in refused("llama.cpp", "LD_PRELOAD").cause
    assert "which code a program loads" in refused("Transformers", "OPENSSL_CONF").cause
    assert "which machines" in refused("vLLM", "HTTPS_PROXY").cause
    assert "names files or folders" in refused("vLLM", "VLLM_CACHE_ROOT").cause
    assert "reserved for Xinference" in refused("vLLM", "XINFERENCE_ENGINE_KEY").cause


@in_one_test("value", ["/tmp/x", "a\\b", "~/x", "a\nb", "http://x", "x" * 5000])
def test_no_variable_accepts_a_path_or_an_address(value: str) -> None:
    refused("vLLM", "NCCL_DEBUG", value)


@in_one_test(
    ("engine", "name", "value"),
    [
        ("llama.cpp", "OMP_NUM_THREADS", "4"),
        ("llama.cpp", "OMP_PLACES", "{0:4},{4:4}"),
        ("llama.cpp", "GGML_CUDA_ENABLE_UNIFIED_MEMORY", "1"),
        ("llama.cpp", "CUDA_VISIBLE_DEVICES", "0,1"),
        ("vLLM", "VLLM_LOGGING_LEVEL", "DEBUG"),
        ("vLLM", "VLLM_CPU_KVCACHE_SPACE", "4"),
        ("vLLM", "NCCL_SOCKET_IFNAME", "^lo,docker0"),
        ("SGLang", "SGLANG_OPT_USE_TOPK_V2", "true"),
        ("SGLang", "HF_HUB_DISABLE_TELEMETRY", "1"),
        ("Transformers", "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("Transformers", "TOKENIZERS_PARALLELISM", "false"),
    ],
)
def test_a_variable_for_threads_kernels_or_logs_is_accepted(engine: str, name: str, value: str) -> None:
    ENGINES[engine].variables.check({name: value})


def test_a_variable_of_one_engine_is_refused_for_another() -> None:
    refused("llama.cpp", "VLLM_LOGGING_LEVEL")
    refused("Transformers", "SGLANG_OPT_USE_TOPK_V2")
