"""The parameters of llama.cpp that a launch may set; every name that `server.py --describe` prints is in one group."""

from __future__ import annotations

from xinference.engines.options.option_policy import OptionPolicy, names
from xinference.engines.options.risk import Risk
from xinference.engines.options.value_rules import absolute_path, text

_SIZES = names("""
    n_batch n_ubatch n_ctx n_parallel n_keep n_predict n_cache_reuse n_ctx_checkpoints n_outputs_max
    n_outputs_max_per_seq n_threads_http checkpoint_min_step cont_batching ctx_shift grp_attn_n grp_attn_w swa_full
    slot_prompt_similarity sleep_idle_seconds sse_ping_interval timeout_read timeout_write
""")
_CACHE = names("cache_idle_slots cache_prompt cache_ram_mib cache_type_k cache_type_v")
_PROCESSOR = frozenset(
    f"{group}.{name}"
    for group in (
        *("cpuparams", "cpuparams_batch"),
        *("speculative.draft.cpuparams", "speculative.draft.cpuparams_batch"),
    )
    for name in ("cpumask", "mask_valid", "n_threads", "poll", "priority", "strict_cpu")
) | {"numa"}
_DEVICES = names("""
    n_gpu_layers main_gpu split_mode tensor_split flash_attn_type fit_params fit_params_min_ctx fit_params_target
    no_extra_bufts no_host no_kv_offload no_op_offload moe_cache_size
""")
_LOADING = names("load_mode lazy_mode load_mtp check_tensors no_perf offline warmup")
_ROPE = names("""
    rope_freq_base rope_freq_scale rope_scaling_type yarn_attn_factor yarn_beta_fast yarn_beta_slow yarn_ext_factor
    yarn_orig_ctx
""")
_CHAT = names("""
    chat_template default_template_kwargs enable_chat_template enable_reasoning force_pure_content_parser
    prefill_assistant preserve_reasoning_specified reasoning_format special use_jinja antiprompt
""")
_POOLING = names("attention_type cls_sep embd_normalize embd_sep embedding pooling_type")
#: The projector is a path, as weights are.
_VISION = names("""
    mmproj.path mmproj_device mmproj_use_gpu no_mmproj image_max_tokens image_min_tokens mtmd_batch_max_tokens video_fps
    video_timestamp_interval_ms
""")
_SAMPLING = frozenset(
    f"sampling.{name}"
    for name in names("""
        adaptive_decay adaptive_target backend_sampling dry_allowed_length dry_base dry_multiplier dry_penalty_last_n
        dynatemp_exponent dynatemp_range generation_prompt ignore_eos min_keep min_p mirostat mirostat_eta mirostat_tau
        n_prev n_probs no_perf penalty_freq penalty_last_n penalty_present penalty_repeat reasoning_budget_end
        reasoning_budget_forced reasoning_budget_message reasoning_budget_start reasoning_budget_tokens
        reasoning_control samplers seed temp timing_per_token top_k top_p typ_p xtc_probability xtc_threshold
    """)
)
#: The draft model is a path, as weights are.
_SPECULATION = frozenset(
    f"speculative.{name}"
    for name in names("""
        types draft.backend_sampling draft.cache_type_k draft.cache_type_v draft.devices draft.mparams.path
        draft.n_gpu_layers draft.n_max draft.n_min draft.p_min draft.p_split draft.probabilistic
        ngram_map_k.min_hits ngram_map_k.size_m ngram_map_k.size_n ngram_map_k4v.min_hits ngram_map_k4v.size_m
        ngram_map_k4v.size_n ngram_mod.n_match ngram_mod.n_max ngram_mod.n_min ngram_simple.min_hits
        ngram_simple.size_m ngram_simple.size_n
    """)
)

POLICY = OptionPolicy(
    engine="llama.cpp",
    allowed=_SIZES
    | _CACHE
    | _PROCESSOR
    | _DEVICES
    | _LOADING
    | _ROPE
    | _CHAT
    | _POOLING
    | _VISION
    | _SAMPLING
    | _SPECULATION,
    reserved=names("""
        port hostnames api_keys reuse_port model model_alias kv_unified kv_unified_per_slot ui
    """),
    refused={
        Risk.FILES: names("""
            ssl_file_cert ssl_file_key public_path media_path slot_save_path path_prompt_cache models_dir models_preset
            lora_adapters lora_init_without_apply image in_files context_files prompt_file logits_file
            logits_output_dir save_logits out_file tts_speaker_file speculative.ngram_cache.lookup_cache_dynamic
            speculative.ngram_cache.lookup_cache_static
        """),
        Risk.PROGRAMS: names("""
            video_ffmpeg_bin_dir server_tools server_tools_runtime mcp_servers_config mcp_servers_json
        """),
        Risk.NETWORK: names("""
            mmproj.url mmproj.hf_repo mmproj.hf_file mmproj.docker_repo hf_token models_preset_hf ui_mcp_proxy
            speculative.draft.mparams.url speculative.draft.mparams.hf_repo speculative.draft.mparams.hf_file
            speculative.draft.mparams.docker_repo
        """),
        Risk.PROMPTS: names("path_prompts_log_dir verbosity verbose_prompt log_json"),
        Risk.HTTP_SERVER: names("""
            api_prefix server_base cors_credentials cors_headers cors_methods cors_origins cors_origins_explicit
            endpoint_metrics endpoint_props endpoint_slots ui_config_json models_autoload models_max model_tags
        """),
        Risk.OTHER_PROGRAM: names("""
            activation_statistics check chunk_separator chunk_size compute_ppl control_vector_layer_end
            control_vector_layer_start display_prompt embd_out escape fit_params_print hellaswag hellaswag_tasks i_chunk
            i_pos imat_dat input_prefix input_prefix_bos input_suffix interactive is_gen_docs is_pp_shared
            is_tg_separate kl_divergence multiline_input multiple_choice multiple_choice_tasks n_chunks n_junk
            n_out_freq n_pca_batch n_pca_iterations n_pl n_pp n_print n_save_freq n_sequences n_tg no_alloc
            parse_special ppl_output_type ppl_stride process_output prompt prompt_cache_all prompt_cache_ro
            show_statistics show_timings simple_io single_turn system_prompt tensor_filter tokenize_ids tokenize_no_bos
            tokenize_show_count tokenize_stdin tts_lang usage use_color winogrande winogrande_tasks
        """),
        Risk.NO_VALUE: names("""
            diffusion sampling.grammar sampling.logit_bias sampling.logit_bias_eog
        """),
        Risk.UNREVIEWED: names("""
            sampling.user_sampling_config speculative.synth_len speculative.synth_rates tensor_buft_overrides
            speculative.draft.tensor_buft_overrides
        """),
    },
    rules={
        **dict.fromkeys(
            names("""
                mmproj.path chat_template default_template_kwargs antiprompt cls_sep embd_sep
                sampling.generation_prompt sampling.reasoning_budget_message
            """),
            text,
        ),
        "speculative.draft.mparams.path": absolute_path,
    },
)
