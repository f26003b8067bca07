"""The options of vLLM's own server that a launch may set; every option of its table is in one group.

The groups follow the help texts and the code of vLLM 0.32.0. A path, an address or an import path is accepted only
if a rule in `rules` allows it.
"""

from __future__ import annotations

from xinference.engines.options.option_policy import OptionPolicy, names
from xinference.engines.options.risk import Risk
from xinference.engines.options.value_rules import absolute_path, one_of, only_keys, template, text

#: Without ``custom_class``, which imports the class that `model` names, and ``extract_hidden_states``, which writes
#: files.
_DRAFT_METHODS = (
    *("ngram", "ngram_gpu", "suffix", "medusa", "mlp_speculator", "draft_model", "eagle", "eagle3", "mtp", "dflash"),
    *("dspark", "deepseek_mtp", "mimo_mtp", "glm4_moe_mtp", "ernie_mtp", "qwen3_next_mtp", "qwen3_5_mtp"),
    *("longcat_flash_mtp", "minimax_m3_mtp", "kimi_k3_mtp", "step3p5_mtp"),
)
_SPECULATIVE = only_keys(
    *("num_speculative_tokens", "draft_tensor_parallel_size", "quantization", "moe_backend", "attention_backend"),
    *("kv_cache_dtype", "max_model_len", "revision", "enforce_eager", "disable_padded_drafter_batch"),
    *("prompt_lookup_max", "prompt_lookup_min", "parallel_drafting", "use_local_argmax_reduction"),
    *("suffix_decoding_max_tree_depth", "suffix_decoding_max_cached_requests", "suffix_decoding_max_spec_factor"),
    *("suffix_decoding_min_token_prob", "rejection_sample_method", "draft_sample_method"),
    *("use_heterogeneous_vocab", "num_speculative_tokens_per_batch_size"),
    method=one_of(*_DRAFT_METHODS),
    model=absolute_path,
)
#: Without the keys for functions (`backend`, `inductor_passes`), for folders, and for the compiler's own settings.
_COMPILATION = only_keys(
    *("mode", "level", "custom_ops", "splitting_ops", "compile_sizes", "compile_ranges_endpoints", "cudagraph_mode"),
    *("cudagraph_num_of_warmups", "cudagraph_capture_sizes", "max_cudagraph_capture_size", "cudagraph_copy_inputs"),
    *("cudagraph_specialize_lora", "use_inductor_graph_partition", "pass_config", "compile_mm_encoder"),
    *("cudagraph_mm_encoder", "fast_moe_cold_start"),
)
_STRUCTURED_OUTPUTS = only_keys(
    *("backend", "disable_any_whitespace", "disable_additional_properties", "reasoning_parser", "enable_in_reasoning")
)
#: Sizes and counts of a model's processor; vLLM also accepts other keys, such as `trust_remote_code`.
_PROCESSOR = only_keys(
    *("min_pixels", "max_pixels", "num_crops", "fps", "num_frames", "max_dynamic_patch", "min_dynamic_patch"),
    *("dynamic_image_size", "do_pan_and_scan", "crop_to_patches", "size", "max_image_size", "max_slice_nums"),
)

POLICY = OptionPolicy(
    engine="vLLM",
    allowed=names("""
        aggregate_engine_logging all2all_backend allow_deprecated_quantization anthropic_disabled_thinking_effort
        async_scheduling attention_backend attention_config block_size chat_template chat_template_content_format
        cohere_format cohere_is_reasoning_model compilation_config config_format convert cp_kv_cache_interleave_size
        cpu_distributed_timeout_seconds cpu_offload_gb cpu_offload_params cudagraph_capture_sizes cudagraph_metrics
        custom_histogram_buckets data_parallel_backend data_parallel_size dbo_decode_token_threshold
        dbo_prefill_token_threshold dcp_comm_backend dcp_kv_cache_interleave_size dcp_q_replicate
        decode_context_parallel_size default_chat_template_kwargs disable_access_log_for_endpoints disable_cascade_attn
        disable_chunked_mm_input disable_custom_all_reduce disable_hybrid_kv_cache_manager disable_log_stats
        disable_nccl_for_dp_synchronization disable_sliding_window disable_uvicorn_access_log
        distributed_executor_backend distributed_timeout_seconds dp_sync_interval dtype enable_auto_tool_choice
        enable_batch_sharded_sampling enable_chunked_prefill enable_cumem_allocator enable_dbo enable_ep_weight_filter
        enable_eplb enable_expert_parallel enable_flash_late_interaction enable_flashinfer_autotune
        enable_force_include_usage enable_hc_sp enable_layerwise_nvtx_tracing enable_logging_iteration_details
        enable_lora enable_mamba_cache_stochastic_rounding enable_mamba_shared_prefix_checkpoint enable_mfu_metrics
        enable_mixed_moe_lora_format enable_moe_shared_loras enable_per_request_metrics enable_prefix_caching
        enable_prompt_tokens_details enable_request_id_headers enable_return_routed_experts enable_server_load_tracking
        enable_shm_tensor_arena enable_tower_connector_lora enforce_eager eplb_config
        exclude_tools_when_tool_choice_none expert_placement_strategy fail_on_environ_validation fingerprint_mode
        fingerprint_value fully_sharded_loras gdn_prefill_backend generation_config gpu_memory_utilization hf_overrides
        ignore_patterns interleave_mm_strings ir_op_priority jit_monitor_mode jit_monitor_verbose kda_decode_backend
        kda_prefill_backend kernel_config kv_cache_dtype kv_cache_dtype_skip_layers kv_cache_memory_bytes
        kv_cache_metrics kv_cache_metrics_sample kv_offloading_backend kv_offloading_size kv_sharing_fast_prefill
        language_model_only limit_mm_per_prompt linear_backend load_format log_level logprobs_mode
        long_prefill_token_threshold long_prefill_token_threshold_adaptive lora_dtype lora_modules lora_target_modules
        mamba_backend mamba_block_size mamba_cache_dtype mamba_cache_mode mamba_cache_philox_rounds
        mamba_ssm_cache_dtype mamba_ssu_algorithm max_cpu_loras max_cudagraph_capture_size max_logprobs
        max_lora_cls_labels max_lora_rank max_loras max_model_len max_num_active_seqs max_num_batched_tokens
        max_num_queued_reqs max_num_queued_tokens max_num_scheduled_tokens max_num_seqs max_parallel_loading_workers
        media_io_kwargs mm_device_do_normalize mm_encoder_attn_backend mm_encoder_attn_dtype mm_encoder_only
        mm_encoder_tp_mode mm_hasher_algorithm mm_ipc_gpu_memory_gb mm_processor_cache_gb mm_processor_cache_type
        mm_processor_device mm_processor_kwargs mm_shm_cache_max_object_size_mb mm_tensor_ipc model_impl moe_backend
        num_gpu_blocks_override offload_backend offload_group_size offload_num_in_group offload_params
        offload_prefetch_step optimization_level override_generation_config per_request_spec_decode_metrics
        performance_mode pipeline_parallel_size pooler_config prefill_context_parallel_size prefill_schedule_interval
        prefix_cache_retention_interval prefix_caching_hash_algo prefix_match_unit pt_load_map_location quantization
        quantization_config reasoning_config reasoning_parser renderer_num_workers replayssm_buffer_len response_role
        return_sampling_mask return_tokens_as_token_ids revision runner safetensors_load_strategy
        safetensors_prefetch_block_size safetensors_prefetch_num_threads scheduler_reserve_full_isl scheduling_policy
        seed show_hidden_metrics_for_version shutdown_timeout skip_mm_profiling skip_tokenizer_init
        sparse_indexer_topk_backend spec_method spec_model spec_tokens specialize_active_lora speculative_config
        sse_keep_alive_interval stream_interval structured_outputs_config swa_bounded_replay tensor_parallel_size
        tokenizer_mode tokenizer_revision tool_call_parser tool_strict_level ubatch_size use_fp64_gumbel use_replayssm
        use_tqdm_on_load uvicorn_log_level video_pruning_method video_pruning_rate watermark
    """),
    reserved=names("""
        api_key config device_ids grpc grpc_port headless hf_token host model port root_path served_model_name
        ssl_ca_certs ssl_cert_reqs ssl_certfile ssl_ciphers ssl_keyfile uds
    """),
    refused={
        Risk.FILES: names("""
            allowed_local_media_path default_mm_loras download_dir hf_config_path log_config_file logging_config
            mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_margin mm_encoder_fp8_scale_save_path
            model_loader_extra_config profiler_config tokenizer
        """),
        Risk.PROGRAMS: names("""
            numa_bind numa_bind_cpus numa_bind_nodes ray_workers_use_nsight
        """),
        Risk.NETWORK: names("""
            allowed_media_domains collect_detailed_traces data_parallel_address data_parallel_external_lb
            data_parallel_hybrid_lb data_parallel_multi_port_external_lb data_parallel_rank data_parallel_rpc_port
            data_parallel_size_local data_parallel_start_rank data_parallel_supervisor_port
            dp_supervisor_probe_failure_threshold dp_supervisor_probe_interval_s dp_supervisor_probe_timeout_s
            ec_transfer_config elastic_ep_max_dp_size enable_elastic_ep kv_events_config kv_transfer_config master_addr
            master_port nnodes node_rank otlp_traces_endpoint tool_server weight_transfer_config
        """),
        Risk.PROMPTS: names("""
            enable_log_deltas enable_log_outputs enable_log_requests log_error_stack max_log_len
        """),
        Risk.HTTP_SERVER: names("""
            allow_credentials allowed_headers allowed_methods allowed_origins api_server_count disable_fastapi_docs
            enable_nccl_comm_suspend enable_offline_docs enable_scale_out enable_sleep_mode enable_ssl_refresh
            enable_tokenizer_info_endpoint h11_max_header_count h11_max_incomplete_event_size
            sleep_mode_offload_cudagraph sleep_preserve_parameter_names tokens_only
        """),
        Risk.REQUESTS: names("""
            enable_mm_embeds enable_prompt_embeds enable_trace_replay trust_request_chat_template
            trust_request_mm_kwargs
        """),
        Risk.UNREVIEWED: names("""
            additional_config aux_output_config diffusion_config ec_manager_config enable_fault_tolerance engram_config
            fault_tolerance_config watermark_config
        """),
    },
    switches={
        "trust_remote_code": names("code_revision"),
        "trust_plugins": names("""
            io_processor_plugin logits_processors middleware model_class_overrides reasoning_parser_plugin
            scheduler_cls tool_parser_plugin worker_cls worker_extension_cls
        """),
    },
    rules={
        # Adapters are paths, as weights are.
        "lora_modules": text,
        "spec_model": absolute_path,
        "spec_method": one_of(*_DRAFT_METHODS),
        "chat_template": template,
        "default_chat_template_kwargs": text,
        "reasoning_config": only_keys("reasoning_parser", reasoning_start_str=text, reasoning_end_str=text),
        "ignore_patterns": text,
        "disable_access_log_for_endpoints": text,
        "speculative_config": _SPECULATIVE,
        "compilation_config": _COMPILATION,
        "structured_outputs_config": _STRUCTURED_OUTPUTS,
        "mm_processor_kwargs": _PROCESSOR,
        "generation_config": one_of("auto", "vllm"),
        "load_format": one_of("auto", "hf", "safetensors", "fastsafetensors", "mistral", "dummy"),
        "distributed_executor_backend": one_of("mp", "uni"),
        "data_parallel_backend": one_of("mp"),
        "kv_offloading_backend": one_of("native"),
    },
)
