"""What the small random configurations of transformers have in common, by kind of model."""

from __future__ import annotations

VOCABULARY, LENGTH = 96, 12

# Every width is told apart from every other, so that a mix-up cannot come out right by chance.
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 56, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "num_labels": 5,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
PAIR = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 56,
    "decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": 2,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 56, "num_layers": 2,
    "num_decoder_layers": 2, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip
VISION = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 56, "num_labels": 5,
}  # fmt: skip
STAGES = {
    "image_size": 64, "num_labels": 5, "depths": [1, 1, 2, 1], "hidden_sizes": [16, 24, 32, 40],
}  # fmt: skip
WINDOWS = {
    "image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
    "window_size": 4, "num_labels": 5,
}  # fmt: skip
SPEECH = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 56, "conv_dim": [24, 24, 24], "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3], "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "num_labels": 5, "classifier_proj_size": 24,
}  # fmt: skip
UNLIMITED = {key: value for key, value in TEXT.items() if key != "max_position_embeddings"}
RWKV = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "attention_hidden_size": 32,
    "num_hidden_layers": 2, "intermediate_size": 56, "context_length": 32,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 56,
    "n_positions": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 5,
}  # fmt: skip
MAMBA = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "conv_kernel": 4,
}  # fmt: skip
TOWERS = {
    "text_config": TEXT | {"projection_dim": 24}, "vision_config": VISION | {"projection_dim": 24},
    "projection_dim": 24,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
           "moe_intermediate_size": 40, "shared_expert_intermediate_size": 48}  # fmt: skip
