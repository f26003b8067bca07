"""The options of SGLang's own server that a launch may set; every option of its table is in one group.

The groups follow the help texts and the code of SGLang 0.5.23. A path, an address or an import path is accepted only
if a rule in `rules` allows it.
"""

from __future__ import annotations

from xinference.engines.options.option_policy import OptionPolicy, names
from xinference.engines.options.risk import Risk
from xinference.engines.options.value_rules import absolute_path, built_in_name, one_of, template_or_name, text

#: Without the formats that download weights, unpickle them, or import a loader.
_LOAD_FORMAT = one_of("auto", "safetensors", "fastsafetensors", "mistral", "dummy", "bitsandbytes", "layered")

POLICY = OptionPolicy(
    engine="SGLang",
    allowed=names("""
        abort_on_priority_when_disabled allow_auto_truncate asr_max_buffer_seconds asr_max_concurrent_sessions
        attention_backend attn_cp_size attn_dp_size batch_notify_size bf16_gemm_backend boundary_reduction
        bucket_e2e_request_latency bucket_inter_token_latency bucket_time_to_first_token c128_page_size chat_template
        chunked_prefill_size completion_template constrained_json_disable_any_whitespace
        constrained_json_max_whitespace_cnt constrained_json_whitespace_pattern context_length cp_strategy
        cpu_offload_gb cuda_graph_backend_decode cuda_graph_backend_prefill cuda_graph_bs_decode cuda_graph_bs_prefill
        cuda_graph_config cuda_graph_max_bs_decode cuda_graph_max_bs_prefill cuda_graph_max_seq_len_prefill
        cuda_graph_prefill_max_context dcp_comm_backend dcp_replicate_q_proj dcp_size decode_attention_backend
        decode_log_interval deepep_dispatcher_output_dtype deepep_mode deepep_v2_mode default_chat_template_kwargs
        default_priority_value detokenizer_worker_num device disable_aiter_allreduce_fusion_in_decode
        disable_aiter_allreduce_fusion_in_prefill disable_attn_tp_gather disable_chunked_prefix_cache
        disable_cuda_graph disable_cuda_graph_padding disable_custom_all_reduce disable_decode_cuda_graph
        disable_fast_image_processor disable_flashinfer_autotune disable_flashinfer_cutlass_moe_fp4_allgather
        disable_hybrid_swa_memory disable_outlines_disk_cache disable_overlap_schedule disable_prefill_cuda_graph
        disable_priority_preemption disable_radix_cache disable_shared_experts_fusion disable_tokenizer_batch_decode
        dist_timeout dllm_algorithm dllm_fdfo dp_size dsa_decode_backend dsa_paged_mqa_logits_backend
        dsa_prefill_backend dsa_topk_backend dsa_triton_union dsv4_attn_backend dsv4_prefill_backend dtype dwdp_size
        dynamic_batch_tokenizer_batch_size dynamic_batch_tokenizer_batch_timeout enable_aiter_allreduce_fusion
        enable_amd_monokernel enable_attn_tp_input_scattered enable_broadcast_mm_inputs_process enable_cache_report
        enable_cp_decode_attn_tp enable_cudagraph_gc enable_decoder_swa_bounded_replay enable_deepseek_v4_fp4_indexer
        enable_dense_mlp_attn_tp enable_deterministic_inference enable_dp_attention
        enable_dp_attention_local_control_broadcast enable_dp_lm_head enable_draft_weights_cpu_backup
        enable_dsa_cache_layer_split enable_dsa_fused_indexer enable_dynamic_batch_tokenizer enable_dynamic_chunking
        enable_encoder_swa_bounded_replay enable_eplb enable_flashinfer_allreduce_fusion enable_fp32_lm_head
        enable_fused_moe_sum_all_reduce enable_fused_qk_norm_rope enable_hierarchical_cache enable_hisparse
        enable_int8_mamba_checkpoint enable_kv_cache_sharding enable_layernorm_sp enable_layerwise_nvtx_marker
        enable_lean_attention enable_linear_replayssm enable_linear_replayssm_spec enable_lora
        enable_lora_overlap_loading enable_mamba_cache_stochastic_rounding enable_megamoe_for_layernorm_sp
        enable_memory_saver enable_metrics enable_metrics_for_all_schedulers enable_mfu_metrics enable_mis
        enable_mixed_chunk enable_mscclpp enable_multi_layer_eagle enable_multimodal enable_nccl_nvls
        enable_nvidia_megakernel enable_p2p_check enable_page_major_kv_layout enable_paged_experts enable_pdmux
        enable_precise_embedding_interpolation enable_prefill_cp enable_prefill_delayer enable_prefix_mm_cache
        enable_priority_scheduling enable_profile_cuda_graph enable_quant_communications
        enable_request_time_stats_logging enable_return_aux_hidden_states enable_return_hidden_states
        enable_return_indexer_topk enable_return_routed_experts enable_scattered_sconv enable_shared_experts_attn_tp
        enable_single_batch_overlap enable_strict_thinking enable_symm_mem enable_tf32_matmul
        enable_tokenizer_batch_encode enable_torch_compile enable_torch_symm_mem enable_tp_lm_head_all_to_all
        enable_two_batch_overlap enable_unified_memory enable_w4a4_mxfp4_megamoe enable_waterfill
        enable_weights_cpu_backup enforce_disable_flashinfer_allreduce_fusion enforce_shared_experts_fusion
        ep_dispatch_algorithm ep_num_redundant_experts ep_size eplb_algorithm
        eplb_min_rebalancing_utilization_threshold eplb_rebalance_layers_per_chunk eplb_rebalance_num_iterations
        expert_balancedness_report_mode experts_shared_outer_loras extra_metric_labels flashinfer_a2a_dispatch_type
        flashinfer_allreduce_fusion_backend flashinfer_autotune_skip_ops flashinfer_mla_disable_ragged
        flashinfer_mxfp4_moe_precision fp4_gemm_backend fp8_gemm_backend fuseep_mode gc_threshold
        gc_warning_threshold_secs generation_tokens_buckets grammar_backend hf_chat_template_name
        hicache_host_memory_fraction hicache_host_memory_mode hicache_io_backend hicache_mem_layout hicache_ratio
        hicache_size hicache_write_policy hisparse_config image_processor_backend incremental_streaming_output
        init_expert_location int8_mamba_ckpt_size is_embedding json_model_override_args kt_cpuinfer
        kt_max_deferred_experts_per_token kt_method kt_num_gpu_experts kt_threadpool_count kv_cache_dtype
        language_model_only limit_mm_data_per_request linear_attn_backend linear_attn_decode_backend
        linear_attn_prefill_backend linear_attn_verify_backend linear_replayssm_cache_len load_balance_method
        load_format log_level log_level_http lora_backend lora_drain_wait_threshold lora_eviction_policy lora_paths
        lora_strict_loading lora_target_modules lora_use_virtual_experts mamba_backend mamba_cache_philox_rounds
        mamba_full_memory_ratio mamba_max_states_per_path mamba_radix_cache_strategy mamba_ssm_dtype
        mamba_track_interval max_loaded_loras max_lora_chunk_size max_lora_rank max_loras_per_batch
        max_mamba_cache_size max_prefill_tokens max_queued_requests max_running_requests max_total_tokens
        mem_fraction_static min_free_slots_delay mm_attention_backend mm_enable_dp_encoder mm_feature_transport
        mm_io_worker_num mm_preprocess_cache_size_mb mm_process_config mm_processor_worker_num model_impl
        modelopt_quant moe_a2a_backend moe_dense_tp_size moe_dp_size moe_runner_backend monokernel_backend
        num_continuous_decode_steps num_reserved_decode_tokens numa_node offload_group_size offload_mode
        offload_num_in_group offload_prefetch_step optimistic_prefill_attempts page_size paged_experts_num_resident
        ple_offload_backend ple_offload_embedding pp_async_batch_depth pp_max_micro_batch_size pp_size pre_warm_nccl
        preferred_sampling_params prefill_attention_backend prefill_decode_interval prefill_decode_interval_min_bs
        prefill_delayer_forward_passes_buckets prefill_delayer_max_delay_ms prefill_delayer_max_delay_passes
        prefill_delayer_queue_min_ratio prefill_delayer_token_usage_low_watermark prefill_delayer_wait_seconds_buckets
        prefill_kv_cache_dequant_dtype prefill_max_requests prefill_only_disable_kv_cache
        priority_scheduling_preemption_threshold prompt_tokens_buckets qsa_indexer_dtype quantization
        quantize_and_serve radix_eviction_policy radix_eviction_policy_config random_seed reasoning_parser
        retraction_policy return_aux_hidden_state_layer_ids return_hidden_states_mode return_input_ids
        return_output_ids revision sampling_backend sampling_defaults sampling_mask_max_tokens
        schedule_conservativeness schedule_low_priority_values_first schedule_policy scheduler_recv_interval
        shared_experts_tp_size show_time_cost skip_server_warmup skip_tokenizer_init sleep_on_idle sm_group_num
        soft_watchdog_timeout speculative_accept_threshold_acc speculative_accept_threshold_single speculative_adaptive
        speculative_algorithm speculative_attention_mode speculative_dflash_block_size
        speculative_domino_candidate_pool_size speculative_draft_attention_backend speculative_draft_kv_cache_dtype
        speculative_draft_load_format speculative_draft_model_path speculative_draft_model_quantization
        speculative_draft_model_revision speculative_draft_sink_size speculative_draft_window_size
        speculative_dsa_topk_backend speculative_dspark_align_verify_tokens_to_graph_tier speculative_dspark_block_size
        speculative_eagle_topk speculative_enable_w4a4_mxfp4_megamoe speculative_moe_a2a_backend
        speculative_moe_runner_backend speculative_ngram_capacity speculative_ngram_external_corpus_max_tokens
        speculative_ngram_external_sam_budget speculative_ngram_match_type speculative_ngram_max_bfs_breadth
        speculative_ngram_max_trie_depth speculative_ngram_min_bfs_breadth speculative_num_draft_tokens
        speculative_num_steps speculative_use_block_verification speculative_use_rejection_sampling
        startup_weight_load_mode stream_interval stream_response_default_include_usage strip_thinking_cache
        swa_full_tokens_ratio swa_prefix_tails tbo_token_distribution_threshold tokenizer_backend tokenizer_mode
        tokenizer_worker_num tool_call_parser torch_compile_max_bs tp_size triton_attention_num_kv_splits
        triton_attention_reduce_in_fp32 triton_attention_split_tile_size watchdog_timeout weight_loader_disable_mmap
        weight_loader_drop_cache_after_load weight_loader_prefetch_checkpoints weight_loader_prefetch_num_threads
        weight_version
    """),
    reserved=names("""
        admin_api_key api_key base_gpu_id config gpu_id_step grpc_mode grpc_port host model model_path port
        served_model_name smg_grpc_mode ssl_ca_certs ssl_certfile ssl_keyfile ssl_keyfile_password
    """),
    refused={
        Risk.FILES: names("""
            debug_tensor_dump_input_file debug_tensor_dump_layers debug_tensor_dump_output_folder decrypted_config_file
            decrypted_draft_config_file deepep_config delete_ckpt_after_loading dllm_algorithm_config download_dir
            enable_watermark expert_distribution_recorder_buffer_size expert_distribution_recorder_mode
            export_metrics_to_file export_metrics_to_file_dir file_storage_path kt_weight_path model_checksum
            model_loader_extra_config modelopt_checkpoint_restore_path modelopt_checkpoint_save_path
            modelopt_export_path msprobe_dump_config pdmux_config_path ple_offload_dir quantization_param_path
            rl_quant_profile spec_trace_dir speculative_adaptive_config speculative_dspark_confidence_sts_path
            speculative_dspark_sps_table_path speculative_ngram_external_corpus_path speculative_token_map
            tokenizer_path uno_lora_path watermark_config
        """),
        Risk.PROGRAMS: names("""
            sidecar sidecar_args weight_cache_mode weight_cache_socket weight_cache_timeout
        """),
        Risk.NETWORK: names("""
            allowed_media_domains checkpoint_engine_wait_weights_before_ready decoupled_spec_bind_endpoint
            decoupled_spec_connect_endpoints decoupled_spec_rank decoupled_spec_role disaggregation_bootstrap_port
            disaggregation_decode_allocation_policy disaggregation_decode_enable_offload_kvcache
            disaggregation_decode_enable_radix_cache disaggregation_decode_extra_slots
            disaggregation_decode_host_receive_threshold disaggregation_decode_polling_interval
            disaggregation_decode_retraction_backup disaggregation_enable_kv_checksum disaggregation_ib_device
            disaggregation_mode disaggregation_transfer_backend dist_init_addr elastic_ep_backend
            elastic_ep_initial_size elastic_ep_join_mode elastic_ep_join_rank_offset elastic_ep_scale_timeout
            enable_adaptive_dispatch_to_encoder enable_elastic_expert_backup enable_flexkv enable_forward_pass_metrics
            enable_linker_mla_dedup enable_lmcache enable_mm_global_cache enable_pd_role_switch enable_trace
            enable_unified_cache_external_linker encoder_bootstrap_port encoder_only encoder_register_urls
            encoder_transfer_backend encoder_urls engine_info_bootstrap_port flexkv_config_file
            forward_pass_metrics_ipc_name forward_pass_metrics_worker_id gated_launch_port hicache_storage_backend
            hicache_storage_backend_extra_config hicache_storage_prefetch_policy
            hicache_storage_prefetch_retry_max_attempts hicache_storage_prefetch_retry_poll_interval kv_events_config
            language_only lmcache_config_file load_publish_endpoint load_snapshot_publish_interval max_ep_size
            media_url_max_file_size_mb mm_global_cache_backend modelexpress_config mooncake_ib_device nccl_port nnodes
            node_rank otlp_service_name otlp_traces_endpoint remote_instance_weight_loader_backend
            remote_instance_weight_loader_seed_instance_ip remote_instance_weight_loader_seed_instance_service_port
            remote_instance_weight_loader_send_weights_group_ports
            remote_instance_weight_loader_start_seed_via_transfer_engine tool_server trace_modules
            unified_cache_external_linker_backend unified_cache_external_linker_config use_ray
        """),
        Risk.PROMPTS: names("""
            crash_dump_folder log_requests log_requests_format log_requests_level log_requests_target
        """),
        Risk.HTTP_SERVER: names("""
            enable_http2 enable_http_worker_reuseport enable_response_store enable_session_radix_cache
            enable_ssl_refresh enable_streaming_session fastapi_root_path grpc_response_timeout_secs
            http2_initial_connection_window_size http2_max_concurrent_streams smg_http_sidecar_port
            tokenizer_metrics_allowed_custom_labels tokenizer_metrics_custom_labels_header
            uvicorn_access_log_exclude_prefixes
        """),
        Risk.REQUESTS: names("""
            enable_custom_logit_processor trust_mm_content_hashes trust_request_chat_template
        """),
        Risk.UNREVIEWED: names("""
            debug_cuda_graph enable_torch_compile_debug_mode kv_canary kv_canary_real_data kv_canary_sweep_interval
            mlx_enable_sampling model_config_parser radix_cache_backend rl_on_policy_target warmups
        """),
    },
    switches={
        "trust_remote_code": frozenset(),
        "trust_plugins": names("""
            custom_weight_loader forward_hooks
        """),
    },
    rules={
        # Adapters are paths, as weights are.
        "lora_paths": text,
        "speculative_draft_model_path": absolute_path,
        "chat_template": template_or_name,
        "default_chat_template_kwargs": text,
        "constrained_json_whitespace_pattern": text,
        "completion_template": built_in_name,
        "init_expert_location": one_of("trivial"),
        "ple_offload_backend": one_of("pinned"),
        "load_format": _LOAD_FORMAT,
        "speculative_draft_load_format": _LOAD_FORMAT,
    },
)
