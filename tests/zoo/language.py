"""Text, speech and multimodal transformers."""

from shapes import (
    HIDDEN,
    HIDDEN_STATE,
    INNER,
    LABELS,
    POSITIONS,
    VOCAB,
    Architecture,
    Input,
    Sizes,
    audio,
    ids,
    image,
    mask,
)

TEXT = (ids(), mask())
CAUSAL = (ids(),)
TRANSLATION = (ids(), mask(), ids("decoder_input_ids", 7, "decoder_sequence"))

SPECIAL: Sizes = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER: Sizes = {
    **SPECIAL,
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
DECODER: Sizes = {**ENCODER, "use_cache": False}
GROUPED: Sizes = {**DECODER, "num_key_value_heads": 2}
SEQ2SEQ: Sizes = {
    **SPECIAL,
    "vocab_size": VOCAB,
    "d_model": HIDDEN,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER + 32,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": 1,
    "use_cache": False,
}
SPEECH: Sizes = {
    **ENCODER,
    "conv_dim": [24, 32, 48],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}

TEXT_ENCODERS = (
    Architecture("bert", "BertForSequenceClassification", ENCODER, TEXT),
    Architecture(
        "distilbert",
        "DistilBertForMaskedLM",
        {"pad_token_id": 0, "vocab_size": VOCAB, "dim": HIDDEN, "hidden_dim": INNER}
        | {"n_layers": 2, "n_heads": 4, "max_position_embeddings": POSITIONS},
        TEXT,
    ),
    Architecture("roberta", "RobertaForMaskedLM", ENCODER, TEXT),
    Architecture("albert", "AlbertForMaskedLM", {**ENCODER, "embedding_size": 40}, TEXT),
    Architecture("electra", "ElectraForPreTraining", {**ENCODER, "embedding_size": 40}, TEXT),
    Architecture(
        "deberta",
        "DebertaForMaskedLM",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        TEXT,
    ),
    Architecture(
        "deberta_v2",
        "DebertaV2ForMaskedLM",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
        | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        TEXT,
    ),
    Architecture("mpnet", "MPNetForMaskedLM", ENCODER, TEXT),
    Architecture(
        "funnel",
        "FunnelForMaskedLM",
        {"vocab_size": VOCAB, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": HIDDEN}
        | {"n_head": 4, "d_head": 16, "d_inner": INNER, "pad_token_id": 0},
        TEXT,
    ),
    Architecture("squeezebert", "SqueezeBertForMaskedLM", {**ENCODER, "embedding_size": 64}, TEXT),
    Architecture(
        "mobilebert",
        "MobileBertForMaskedLM",
        {**ENCODER, "embedding_size": 40, "hidden_size": 96, "intra_bottleneck_size": HIDDEN}
        | {"num_feedforward_networks": 2},
        TEXT,
    ),
    Architecture("camembert", "CamembertForTokenClassification", ENCODER, TEXT),
    Architecture("convbert", "ConvBertForMaskedLM", {**ENCODER, "embedding_size": 40}, TEXT),
    Architecture("roformer", "RoFormerForMaskedLM", {**ENCODER, "embedding_size": 40}, TEXT),
    Architecture("esm", "EsmForMaskedLM", {**ENCODER, "position_embedding_type": "rotary"}, TEXT),
    Architecture(
        "modernbert",
        "ModernBertForMaskedLM",
        {**ENCODER, "cls_token_id": 1, "sep_token_id": 2},
        TEXT,
    ),
    Architecture(
        "xlm",
        "XLMModel",
        {"vocab_size": VOCAB, "emb_dim": HIDDEN, "n_layers": 2, "n_heads": 4}
        | {"max_position_embeddings": POSITIONS, "pad_token_id": 0},
        TEXT,
        HIDDEN_STATE,
    ),
)

LANGUAGE_MODELS = (
    Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        {**SPECIAL, "vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": 2}
        | {"n_head": 4, "n_positions": POSITIONS, "use_cache": False},
        CAUSAL,
    ),
    Architecture(
        "gpt_bigcode",
        "GPTBigCodeForCausalLM",
        {**SPECIAL, "vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": 2}
        | {"n_head": 4, "n_positions": POSITIONS, "multi_query": True, "use_cache": False},
        CAUSAL,
    ),
    Architecture(
        "gpt_neo",
        "GPTNeoForCausalLM",
        {**SPECIAL, "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER}
        | {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
        | {"window_size": 8, "max_position_embeddings": POSITIONS, "use_cache": False},
        CAUSAL,
    ),
    Architecture(
        "gptj",
        "GPTJForCausalLM",
        {**SPECIAL, "vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": 2}
        | {"n_head": 4, "n_positions": POSITIONS, "rotary_dim": 8, "use_cache": False},
        CAUSAL,
    ),
    Architecture("gpt_neox", "GPTNeoXForCausalLM", DECODER, CAUSAL),
    Architecture(
        "opt",
        "OPTForCausalLM",
        {**SPECIAL, "vocab_size": VOCAB, "hidden_size": HIDDEN, "ffn_dim": INNER}
        | {"num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 40}
        | {"max_position_embeddings": POSITIONS, "use_cache": False},
        TEXT,
    ),
    Architecture(
        "bloom",
        "BloomForCausalLM",
        {**SPECIAL, "vocab_size": VOCAB, "hidden_size": HIDDEN, "n_layer": 2, "n_head": 4}
        | {"use_cache": False},
        CAUSAL,
    ),
    Architecture("llama", "LlamaForCausalLM", GROUPED, CAUSAL),
    Architecture(
        "mistral", "MistralForCausalLM", {**GROUPED, "sliding_window": 8, "head_dim": 24}, CAUSAL
    ),
    Architecture("qwen2", "Qwen2ForCausalLM", GROUPED, CAUSAL),
    Architecture("qwen3", "Qwen3ForCausalLM", {**GROUPED, "head_dim": 24}, CAUSAL),
    Architecture("gemma", "GemmaForCausalLM", {**GROUPED, "head_dim": 24}, CAUSAL),
    Architecture("gemma2", "Gemma2ForCausalLM", {**GROUPED, "head_dim": 24}, CAUSAL),
    Architecture("phi", "PhiForCausalLM", DECODER, CAUSAL),
    Architecture("phi3", "Phi3ForCausalLM", GROUPED, CAUSAL),
    Architecture(
        "falcon",
        "FalconForCausalLM",
        {**DECODER, "ffn_hidden_size": INNER, "new_decoder_architecture": False},
        CAUSAL,
    ),
    Architecture("stablelm", "StableLmForCausalLM", GROUPED, CAUSAL),
    Architecture("cohere", "CohereForCausalLM", GROUPED, CAUSAL),
    Architecture("olmo2", "Olmo2ForCausalLM", GROUPED, CAUSAL),
    Architecture("granite", "GraniteForCausalLM", GROUPED, CAUSAL),
    Architecture("starcoder2", "Starcoder2ForCausalLM", GROUPED, CAUSAL),
    Architecture(
        "mixtral",
        "MixtralForCausalLM",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"experts_implementation": "batched_mm"},
        CAUSAL,
    ),
)

SEQUENCE_TO_SEQUENCE = (
    Architecture(
        "t5",
        "T5ForConditionalGeneration",
        {**SPECIAL, "vocab_size": VOCAB, "d_model": HIDDEN, "d_kv": 16, "d_ff": INNER}
        | {"num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "use_cache": False},
        TRANSLATION,
    ),
    Architecture(
        "mt5",
        "MT5ForConditionalGeneration",
        {**SPECIAL, "vocab_size": VOCAB, "d_model": HIDDEN, "d_kv": 24, "d_ff": INNER}
        | {"num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "use_cache": False},
        TRANSLATION,
    ),
    Architecture("bart", "BartForConditionalGeneration", SEQ2SEQ, TRANSLATION),
    Architecture("mbart", "MBartForConditionalGeneration", SEQ2SEQ, TRANSLATION),
    Architecture("marian", "MarianMTModel", SEQ2SEQ, TRANSLATION),
    Architecture("pegasus", "PegasusForConditionalGeneration", SEQ2SEQ, TRANSLATION),
    Architecture("m2m_100", "M2M100ForConditionalGeneration", SEQ2SEQ, TRANSLATION),
)

SOUND = (
    Architecture("wav2vec2", "Wav2Vec2ForCTC", SPEECH, (audio(),)),
    Architecture("hubert", "HubertForCTC", SPEECH, (audio(),)),
    Architecture("wavlm", "WavLMForCTC", SPEECH, (audio(),)),
    Architecture(
        "whisper",
        "WhisperForConditionalGeneration",
        {**SEQ2SEQ, "num_mel_bins": 20, "max_source_positions": 30}
        | {"max_target_positions": POSITIONS},
        (
            Input("input_features", (2, 20, 60)),
            ids("decoder_input_ids", 7, "decoder_sequence"),
        ),
    ),
    Architecture(
        "audio_spectrogram",
        "ASTForAudioClassification",
        {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"intermediate_size": INNER, "patch_size": 8, "max_length": 40, "num_mel_bins": 24}
        | {"frequency_stride": 8, "time_stride": 8, "num_labels": LABELS},
        (Input("input_values", (2, 40, 24)),),
    ),
)

TOWER: Sizes = {**ENCODER, "hidden_size": 48, "intermediate_size": 112, "num_attention_heads": 4}
EYE: Sizes = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
MULTIMODAL = (
    Architecture(
        "clip",
        "CLIPModel",
        {"text_config": TOWER, "vision_config": EYE, "projection_dim": 40},
        (ids(), image(), mask()),
        ("text_embeds", "image_embeds"),
    ),
    Architecture(
        "siglip",
        "SiglipModel",
        {"text_config": {**TOWER, "projection_size": HIDDEN}, "vision_config": EYE},
        (ids(), image()),
        ("text_embeds", "image_embeds"),
    ),
    Architecture(
        "layoutlm",
        "LayoutLMForMaskedLM",
        {**ENCODER, "max_2d_position_embeddings": 64},
        TEXT,
    ),
)
