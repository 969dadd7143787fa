"""Architectures of transformers from small random configurations.

An entry is a model type, the task's ``AutoModel`` class, what its configuration differs in from
the common one below, and the kind of inputs. Names that a configuration does not know are left
out of the common part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from model_zoo.subjects import Subject
from model_zoo.transformers_configs import (
    EXPERTS,
    GPT2,
    GROUPED,
    LENGTH,
    MAMBA,
    PAIR,
    RWKV,
    SPEECH,
    STAGES,
    T5,
    TEXT,
    TOWERS,
    UNLIMITED,
    VISION,
    VOCABULARY,
    WINDOWS,
)

MASKED = ("longt5", "switch_transformers")  # these read the mask without asking for one
Kind = Literal["text", "pair", "images", "wave", "mel", "clip", "boxes", "text_and_boxes"]


@dataclass(frozen=True)
class Entry:
    """One architecture."""

    task: str
    kind: Kind = "text"
    common: dict[str, Any] = field(default_factory=lambda: TEXT)
    differs: dict[str, Any] = field(default_factory=dict)
    type: str = ""


def _encoder(**differs: Any) -> Entry:
    return Entry("SequenceClassification", differs=differs)


def _decoder(**differs: Any) -> Entry:
    return Entry("CausalLM", differs=differs)


def _pair(**differs: Any) -> Entry:
    return Entry("Seq2SeqLM", "pair", PAIR, differs)


def _vision(**differs: Any) -> Entry:
    return Entry("ImageClassification", "images", VISION, differs)


def _stages(**differs: Any) -> Entry:
    return Entry("ImageClassification", "images", STAGES, differs)


def _speech(**differs: Any) -> Entry:
    return Entry("CTC", "wave", SPEECH, differs)


ENTRIES: dict[str, Entry] = {
    "bert": _encoder(),
    "roberta": _encoder(),
    "camembert": _encoder(),
    "xlm-roberta": _encoder(),
    "distilbert": _encoder(dim=32, n_layers=2, n_heads=4, hidden_dim=56),
    "albert": _encoder(embedding_size=24),
    "electra": _encoder(embedding_size=24),
    "deberta": _encoder(relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "deberta-v2": _encoder(relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "mpnet": _encoder(),
    "convbert": _encoder(embedding_size=24),
    "squeezebert": _encoder(embedding_size=32),
    "nomic_bert": _encoder(),
    "ibert": _encoder(),
    "mra": _encoder(),
    "canine": _encoder(),
    "roberta-prelayernorm": _encoder(),
    "mobilebert": _encoder(
        embedding_size=24, true_hidden_size=20, intra_bottleneck_size=20,
        num_feedforward_networks=2,
    ),
    "layoutlm": Entry("SequenceClassification", "text_and_boxes", differs={
        "max_2d_position_embeddings": 64}),
    "ernie": _encoder(),
    "nystromformer": _encoder(segment_means_seq_len=LENGTH, num_landmarks=LENGTH),
    "fnet": _encoder(),
    "rembert": _encoder(input_embedding_size=24, output_embedding_size=28),
    "roformer": _encoder(embedding_size=32),
    "megatron-bert": _encoder(),
    "modernbert": _encoder(
        local_attention=8, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2
    ),
    "esm": _encoder(mask_token_id=3),
    "gpt2": Entry("CausalLM", common=GPT2),
    "gpt_bigcode": Entry("CausalLM", common=GPT2),
    "codegen": Entry("CausalLM", common=GPT2, differs={"rotary_dim": 4}),
    "gptj": Entry("CausalLM", common=GPT2, differs={"rotary_dim": 4}),
    "openai-gpt": Entry("CausalLM", common=GPT2, differs={"n_ctx": 64}),
    "gpt_neo": _decoder(
        num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=8
    ),
    "gpt_neox": _decoder(),
    "opt": _decoder(ffn_dim=56, word_embed_proj_dim=32),
    "opt-projected": Entry("CausalLM", type="opt", differs={
        "ffn_dim": 56, "word_embed_proj_dim": 24, "do_layer_norm_before": True}),
    "bloom": _decoder(n_layer=2, n_head=4),
    "falcon": _decoder(),
    "falcon-new": Entry("CausalLM", type="falcon", differs={
        "new_decoder_architecture": True, "num_kv_heads": 2}),
    "mpt": _decoder(d_model=32, n_heads=4, n_layers=2, max_seq_len=64),
    "llama": _decoder(),
    "llama-grouped": Entry("CausalLM", type="llama", differs=GROUPED),
    "mistral": _decoder(**GROUPED),
    "mixtral": _decoder(**GROUPED, **EXPERTS),
    "qwen2": _decoder(**GROUPED),
    "qwen2_moe": _decoder(**GROUPED, **EXPERTS),
    "qwen3": _decoder(**GROUPED, head_dim=12),
    "qwen3_moe": _decoder(**GROUPED, **EXPERTS, head_dim=12),
    "gemma": _decoder(**GROUPED, head_dim=12),
    "gemma2": _decoder(**GROUPED, head_dim=12, sliding_window=8),
    "gemma3_text": _decoder(**GROUPED, head_dim=12, sliding_window=8),
    "phi": _decoder(),
    "phi3": _decoder(**GROUPED),
    "phimoe": _decoder(**GROUPED, **EXPERTS),
    "stablelm": _decoder(**GROUPED),
    "olmo": _decoder(**GROUPED),
    "olmo2": _decoder(**GROUPED),
    "olmoe": _decoder(**GROUPED, **EXPERTS),
    "granitemoe": _decoder(**GROUPED, **EXPERTS),
    "glm4_moe": _decoder(**GROUPED, **EXPERTS, n_routed_experts=4, n_shared_experts=1),
    "jetmoe": _decoder(**GROUPED, **EXPERTS, kv_channels=8),
    "minimax": _decoder(**GROUPED, **EXPERTS),
    "nemotron_h": _decoder(**GROUPED),
    "falcon_h1": _decoder(**GROUPED),
    "arcee": _decoder(**GROUPED),
    "cohere2": _decoder(**GROUPED),
    "olmo3": _decoder(**GROUPED),
    "exaone4": _decoder(**GROUPED),
    "nanochat": _decoder(**GROUPED),
    "bitnet": _decoder(**GROUPED),
    "lfm2": _decoder(**GROUPED),
    "modernbert-decoder": _decoder(),
    "cohere": _decoder(**GROUPED),
    "granite": _decoder(**GROUPED),
    "starcoder2": _decoder(**GROUPED),
    "smollm3": _decoder(**GROUPED),
    "glm": _decoder(**GROUPED, head_dim=8),
    "glm4": _decoder(**GROUPED, head_dim=8),
    "helium": _decoder(**GROUPED, head_dim=8),
    "nemotron": _decoder(**GROUPED),
    "persimmon": _decoder(),
    "biogpt": _decoder(),
    "xglm": _decoder(d_model=32, num_layers=2, attention_heads=4, ffn_dim=56),
    "ctrl": Entry("CausalLM", common=GPT2, differs={"dff": 56}),
    "dbrx": _decoder(d_model=32, n_heads=4, n_layers=2, max_seq_len=64,
                     attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
                     ffn_config={"ffn_hidden_size": 40, "moe_num_experts": 4, "moe_top_k": 2}),
    "deepseek_v3": _decoder(
        num_key_value_heads=4, moe_intermediate_size=40, n_routed_experts=4, num_experts_per_tok=2,
        n_group=2, topk_group=1, q_lora_rank=20, kv_lora_rank=18, qk_rope_head_dim=4,
        qk_nope_head_dim=6, v_head_dim=10, first_k_dense_replace=1,
    ),
    "gpt_oss": _decoder(**GROUPED, **EXPERTS, head_dim=8, sliding_window=8),
    "mamba": Entry("CausalLM", common=MAMBA),
    "mamba2": Entry("CausalLM", common=MAMBA, differs={
        "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 2, "chunk_size": 4}),
    "falcon_mamba": Entry("CausalLM", common=MAMBA),
    "rwkv": Entry("CausalLM", common=RWKV),
    "recurrent_gemma": _decoder(lru_width=32, attention_window_size=8, num_hidden_layers=3),
    "xlnet": Entry("SequenceClassification", common=UNLIMITED, differs={
        "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 56}),
    "t5": Entry("Seq2SeqLM", "pair", T5),
    "mt5": Entry("Seq2SeqLM", "pair", T5, {"feed_forward_proj": "gated-gelu"}),
    "umt5": Entry("Seq2SeqLM", "pair", T5),
    "longt5": Entry("Seq2SeqLM", "pair", T5, {"local_radius": 4}),
    "switch_transformers": Entry("Seq2SeqLM", "pair", T5, {
        "num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}),
    "bart": _pair(),
    "mbart": _pair(),
    "marian": _pair(),
    "pegasus": _pair(),
    "blenderbot": _pair(),
    "m2m_100": _pair(),
    "plbart": _pair(),
    "whisper": Entry("SpeechSeq2Seq", "mel", PAIR, {
        "num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32}),
    "speech_to_text": Entry("SpeechSeq2Seq", "mel", PAIR, {
        "input_feat_per_channel": 16, "max_source_positions": 32, "max_target_positions": 32,
        "conv_channels": 24}),
    "wav2vec2": _speech(),
    "hubert": _speech(),
    "wavlm": _speech(),
    "unispeech": _speech(),
    "sew": _speech(squeeze_factor=2),
    "data2vec-audio": _speech(),
    "audio-spectrogram-transformer": Entry("AudioClassification", "mel", VISION, {
        "num_mel_bins": 16, "max_length": 32, "patch_size": 8, "frequency_stride": 8,
        "time_stride": 8}),
    "vit": _vision(),
    "deit": _vision(architectures=["DeiTForImageClassification"]),
    "beit": _vision(use_relative_position_bias=True),
    "data2vec-vision": _vision(),
    "vit_msn": _vision(),
    "dinov2": _vision(),
    "dinov2_with_registers": _vision(num_register_tokens=2),
    "ijepa": _vision(),
    "siglip_vision": Entry("", "images", VISION, type="siglip_vision_model"),
    "pvt_v2": _stages(hidden_sizes=[16, 24, 32, 40], num_attention_heads=[1, 2, 4, 4]),
    "poolformer": _stages(),
    "levit": _stages(hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4],
                     depths=[1, 1, 1], key_dim=[8, 8, 8], image_size=64,
                     architectures=["LevitForImageClassification"]),
    "swin": Entry("ImageClassification", "images", WINDOWS),
    "swinv2": Entry("ImageClassification", "images", WINDOWS),
    "convnext": _stages(),
    "convnextv2": _stages(),
    "resnet": _stages(embedding_size=16, layer_type="bottleneck"),
    "regnet": _stages(embedding_size=16, groups_width=8),
    "efficientnet": _stages(width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    "mobilenet_v1": _stages(depth_multiplier=0.25),
    "mobilenet_v2": _stages(depth_multiplier=0.35),
    "mobilevit": _stages(hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 32],
                         num_attention_heads=4),
    "cvt": _vision(),
    "focalnet": _vision(),
    "bit": _vision(),
    "mobilevitv2": _stages(width_multiplier=0.5),
    "segformer": Entry("SemanticSegmentation", "images", STAGES, {
        "hidden_sizes": [16, 24, 32, 40], "num_attention_heads": [1, 2, 4, 4],
        "decoder_hidden_size": 28, "depths": [1, 1, 1, 1]}),
    "upernet": Entry("SemanticSegmentation", "images", {
        "hidden_size": 24, "num_labels": 5, "auxiliary_channels": 20}),
    "dpt": Entry("DepthEstimation", "images", VISION, {
        "neck_hidden_sizes": [8, 12, 16, 20], "fusion_hidden_size": 16, "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3]}),
    "detr": Entry("ObjectDetection", "boxes", {
        **PAIR, "num_queries": 6, "use_timm_backbone": False, "backbone": None,
        "use_pretrained_backbone": False, "num_labels": 5,
        "backbone_config": {"model_type": "resnet", "embedding_size": 16,
                            "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
                            "layer_type": "basic", "out_features": ["stage4"]}}),
    "yolos": Entry("ObjectDetection", "images", VISION, {
        "image_size": [32, 32], "num_detection_tokens": 5}),
    "clip": Entry("", "clip", TOWERS),
    "siglip": Entry("", "clip", {key: TOWERS[key] for key in ("text_config", "vision_config")}),
    "clip_text": Entry("", "text", TEXT, type="clip_text_model"),
    "donut-swin": Entry("", "images", WINDOWS),
    "timesformer": Entry("VideoClassification", "clip", VISION, {"num_frames": 2}),
}  # fmt: skip


def names() -> list[str]:
    """All entries."""
    return list(ENTRIES)


def build(name: str) -> Subject:
    """The model of an entry with two samples."""
    from torchvision_shim import import_torchvision

    import_torchvision()  # transformers imports it where it is installed
    import transformers

    entry = ENTRIES[name]
    kind = entry.type or name
    config = transformers.AutoConfig.for_model(kind, **_known(kind, entry.common) | entry.differs)
    torch.manual_seed(0)
    auto = getattr(transformers, f"AutoModel{'For' if entry.task else ''}{entry.task}")
    model = auto.from_config(config).eval()
    return Subject(model, _inputs(name, entry, model), heads=bool(entry.task))


def _known(kind: str, common: dict[str, Any]) -> dict[str, Any]:
    """What of the common part this configuration knows, under any of its names."""
    import transformers

    default = transformers.AutoConfig.for_model(kind)
    always = ("num_labels", "pad_token_id", "bos_token_id", "eos_token_id")
    return {
        key: value
        for key, value in common.items()
        if key in always or key in default.attribute_map or hasattr(default, key)
    }


def _inputs(name: str, entry: Entry, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, VOCABULARY, (2, LENGTH), generator=draw)
    config: Any = model.config
    side = getattr(config, "image_size", 64)
    side = side[0] if isinstance(side, (list, tuple)) else side
    images = torch.randn(2, 3, side, side, generator=draw)
    match entry.kind:
        case "text":
            return {"input_ids": tokens}
        case "text_and_boxes":
            corner = torch.randint(0, 30, (2, LENGTH, 2), generator=draw)
            return {"input_ids": tokens, "bbox": torch.cat([corner, corner + 5], -1)}
        case "pair":
            masks = {"attention_mask": torch.ones_like(tokens)} if name in MASKED else {}
            return {"input_ids": tokens, "decoder_input_ids": tokens[:, :7].clone(), **masks}
        case "images":
            return {"pixel_values": images}
        case "boxes":
            return {"pixel_values": images, "pixel_mask": torch.ones(2, side, side)}
        case "wave":
            return {"input_values": torch.randn(2, 1600, generator=draw)}
        case "mel" if name == "whisper":
            return {"input_features": torch.randn(2, 16, 32, generator=draw),
                    "decoder_input_ids": tokens[:, :7].clone()}  # fmt: skip
        case "mel" if name == "speech_to_text":
            return {"input_features": torch.randn(2, 32, 16, generator=draw),
                    "decoder_input_ids": tokens[:, :7].clone()}  # fmt: skip
        case "mel":
            return {"input_values": torch.randn(2, 32, 16, generator=draw)}
        case "clip" if name == "timesformer":
            return {"pixel_values": torch.randn(2, 2, 3, side, side, generator=draw)}
        case "clip":
            size = config.vision_config.image_size
            pictures = torch.randn(2, 3, size, size, generator=draw)
            return {"input_ids": tokens, "pixel_values": pictures}
    raise AssertionError(entry.kind)
