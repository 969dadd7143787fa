"""From one sequence to another: attention over an encoder, the Transformer, speech."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, tokens
from model_zoo.subjects import Subject

VOCABULARY = 40


class BahdanauAttention(nn.Module):
    """An additive score of the decoder's state against every state of the encoder."""

    def __init__(self, encoder: int, decoder: int, hidden: int) -> None:
        super().__init__()
        self.attn = nn.Linear(encoder * 2 + decoder, hidden)
        self.v = nn.Linear(hidden, 1, bias=False)

    def forward(self, hidden: Tensor, encoder_outputs: Tensor) -> Tensor:
        length = encoder_outputs.shape[1]
        hidden = hidden.unsqueeze(1).repeat(1, length, 1)
        energy = torch.tanh(self.attn(torch.cat((hidden, encoder_outputs), dim=2)))
        return F.softmax(self.v(energy).squeeze(2), dim=1)


class AttentiveTranslator(nn.Module):
    """A bidirectional encoder and a decoder that attends to it at every step."""

    def __init__(self, embedding: int, encoder: int, decoder: int) -> None:
        super().__init__()
        self.encoder_embedding = nn.Embedding(VOCABULARY, embedding)
        self.encoder = nn.LSTM(embedding, encoder, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(encoder * 2, decoder)
        self.decoder_embedding = nn.Embedding(VOCABULARY, embedding)
        self.attention = BahdanauAttention(encoder, decoder, 13)
        self.decoder = nn.LSTMCell(encoder * 2 + embedding, decoder)
        self.fc_out = nn.Linear(encoder * 2 + decoder + embedding, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        encoded, (hidden, _) = self.encoder(self.encoder_embedding(source))
        state = torch.tanh(self.bridge(torch.cat((hidden[-2], hidden[-1]), dim=1)))
        cell = torch.zeros_like(state)
        outputs = []
        for step in range(target.shape[1]):
            embedded = self.decoder_embedding(target[:, step])
            weights = self.attention(state, encoded).unsqueeze(1)
            context = torch.bmm(weights, encoded).squeeze(1)
            state, cell = self.decoder(torch.cat((embedded, context), dim=1), (state, cell))
            outputs.append(self.fc_out(torch.cat((state, context, embedded), dim=1)))
        return torch.stack(outputs, dim=1)


class LuongTranslator(nn.Module):
    """Two GRUs, time first; the general score of Luong."""

    def __init__(self, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, embedding)
        self.encoder = nn.GRU(embedding, hidden, num_layers=2)
        self.decoder = nn.GRU(embedding, hidden, num_layers=2)
        self.score = nn.Linear(hidden, hidden, bias=False)
        self.concat = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        encoded, hidden = self.encoder(self.embedding(source))
        decoded, _ = self.decoder(self.embedding(target), hidden)
        energies = torch.einsum("tbh,sbh->bts", decoded, self.score(encoded))
        context = torch.einsum("bts,sbh->tbh", energies.softmax(-1), encoded)
        return self.out(torch.tanh(self.concat(torch.cat([decoded, context], dim=-1))))


class PositionalEncoding(nn.Module):
    """Sines and cosines in a buffer."""

    def __init__(self, width: int, longest: int = 50) -> None:
        super().__init__()
        position = torch.arange(longest).unsqueeze(1)
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(1, longest, width)
        table[0, :, 0::2] = torch.sin(position * frequency)
        table[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", table)
        self.pe: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.size(1)]


class TorchTransformer(nn.Module):
    """``nn.Transformer`` between embeddings and a generator, with a causal mask."""

    def __init__(self, width: int, heads: int, feedforward: int, norm_first: bool) -> None:
        super().__init__()
        self.width = width
        self.source = nn.Embedding(VOCABULARY, width)
        self.target = nn.Embedding(VOCABULARY, width)
        self.position = PositionalEncoding(width)
        self.transformer = nn.Transformer(
            width, heads, 2, 2, feedforward, batch_first=True, norm_first=norm_first
        )
        self.generator = nn.Linear(width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.size(1)).to(target.device)
        source = self.position(self.source(source) * math.sqrt(self.width))
        target = self.position(self.target(target) * math.sqrt(self.width))
        return self.generator(self.transformer(source, target, tgt_mask=mask.to(source.dtype)))


class TimeFirstEncoder(nn.Module):
    """The language model of the PyTorch tutorial: ``nn.TransformerEncoder``, time first."""

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, 0.2)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.linear = nn.Linear(width, VOCABULARY)
        self.width = width

    def forward(self, source: Tensor, padding: Tensor | None = None) -> Tensor:
        x = self.embedding(source) * math.sqrt(self.width)
        return self.linear(self.encoder(x, src_key_padding_mask=padding))


class FeedForward(nn.Module):
    """Half a step of a Conformer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(0.1),
            nn.Linear(hidden, width), nn.Dropout(0.1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class ConvolutionModule(nn.Module):
    """Pointwise and gated, depthwise, batch norm, swish, pointwise."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pointwise1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.pointwise2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.pointwise1(self.norm(x).transpose(1, 2)), dim=1)
        return self.pointwise2(F.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)


class ConformerBlock(nn.Module):
    """Two half feed-forwards around attention and convolution."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ff1, self.ff2 = FeedForward(width, hidden), FeedForward(width, hidden)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.conv = ConvolutionModule(width, 7)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ff1(x)
        y = self.attention_norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.conv(x)
        return self.norm(x + 0.5 * self.ff2(x))


class Conformer(nn.Module):
    """Convolutional subsampling, Conformer blocks, letters."""

    def __init__(self, bins: int, width: int, letters: int) -> None:
        super().__init__()
        self.subsample = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()
        )
        self.project = nn.Linear(8 * (bins // 4), width)
        self.blocks = nn.ModuleList(ConformerBlock(width, 4, 28) for _ in range(2))
        self.output = nn.Linear(width, letters)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.subsample(spectrogram.unsqueeze(1))
        batch, channels, time, bins = x.shape
        x = self.project(x.permute(0, 2, 1, 3).reshape(batch, time, channels * bins))
        for block in self.blocks:
            x = block(x)
        return self.output(x).log_softmax(-1)


class DeepSpeech(nn.Module):
    """Convolutions over a spectrogram, a bidirectional GRU summed over directions, letters."""

    def __init__(self, bins: int, hidden: int, letters: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 6, (5, 3), (2, 1), (2, 1)), nn.BatchNorm2d(6), nn.Hardtanh(0, 20),
            nn.Conv2d(6, 7, (5, 3), (2, 1), (2, 1)), nn.BatchNorm2d(7), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.gru = nn.GRU(7 * (bins // 4), hidden, bidirectional=True, bias=True)
        self.norm = nn.BatchNorm1d(hidden)
        self.fc = nn.Linear(hidden, letters, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        sizes = x.size()
        x = x.view(sizes[0], sizes[1] * sizes[2], sizes[3]).permute(2, 0, 1).contiguous()
        x, _ = self.gru(x)
        x = x.view(x.size(0), x.size(1), 2, -1).sum(2)
        time, batch = x.size(0), x.size(1)
        x = self.norm(x.view(time * batch, -1)).view(time, batch, -1)
        return self.fc(x).transpose(0, 1)


def _pair() -> tuple[Tensor, Tensor]:
    return tokens(7, VOCABULARY), tokens(5, VOCABULARY)


def _pair_time_first() -> tuple[Tensor, Tensor]:
    source, target = _pair()
    return source.t().contiguous(), target.t().contiguous()


ARCHITECTURES: Table = {
    "attentive_translator": lambda: Subject(AttentiveTranslator(9, 10, 12), _pair()),
    "luong_translator": lambda: Subject(LuongTranslator(9, 14), _pair_time_first()),
    "torch_transformer": lambda: Subject(TorchTransformer(24, 4, 36, False), _pair()),
    "torch_transformer_norm_first": lambda: Subject(TorchTransformer(24, 4, 36, True), _pair()),
    "time_first_encoder": lambda: Subject(
        TimeFirstEncoder(24, 4, 30), tokens(7, VOCABULARY).t().contiguous()
    ),
    "conformer": lambda: Subject(Conformer(16, 24, 11), torch.randn(2, 20, 16)),
    "deep_speech": lambda: Subject(DeepSpeech(16, 14, 11), torch.randn(2, 1, 16, 9)),
}
