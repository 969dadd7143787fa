"""Recurrent classifiers, taggers and language models."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.architectures.table import Table, tokens
from model_zoo.subjects import Subject

VOCABULARY, LENGTH = 40, 9


class RnnClassifier(nn.Module):
    """A stacked Elman network read at its last step."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden, self.layers = hidden, 2
        self.rnn = nn.RNN(inputs, hidden, self.layers, batch_first=True, nonlinearity="relu")
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(self.layers, x.size(0), self.hidden, device=x.device, dtype=x.dtype)
        out, _ = self.rnn(x, state)
        return self.fc(out[:, -1, :])


class SentimentLstm(nn.Module):
    """A stacked bidirectional LSTM; both last states are concatenated."""

    def __init__(self, embedding: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, embedding, padding_idx=0)
        self.lstm = nn.LSTM(
            embedding, hidden, num_layers=2, bidirectional=True, dropout=0.5, batch_first=True
        )
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(hidden * 2, classes)

    def forward(self, text: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(text))
        _, (hidden, _) = self.lstm(embedded)
        hidden = self.dropout(torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1))
        return self.fc(hidden)


class Tagger(nn.Module):
    """Characters by a convolution, words by a bidirectional LSTM, a tag for every word."""

    def __init__(self, words: int, characters: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(VOCABULARY, words)
        self.char_embedding = nn.Embedding(VOCABULARY, 10)
        self.char_conv = nn.Conv1d(10, characters, 3, padding=1)
        self.lstm = nn.LSTM(words + characters, hidden // 2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(hidden, tags)

    def forward(self, words: Tensor, characters: Tensor) -> Tensor:
        batch, length, letters = characters.shape
        x = self.char_embedding(characters.view(batch * length, letters)).transpose(1, 2)
        x = F.max_pool1d(F.relu(self.char_conv(x)), letters).view(batch, length, -1)
        x = torch.cat([self.word_embedding(words), x], dim=-1)
        x, _ = self.lstm(x)
        return F.log_softmax(self.tags(x), dim=-1)


class GruLanguageModel(nn.Module):
    """The language model of the PyTorch examples: time first, optionally tied to the embedding."""

    def __init__(self, embedding: int, hidden: int, tied: bool) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(VOCABULARY, embedding)
        self.rnn = nn.GRU(embedding, hidden, num_layers=2, dropout=0.2)
        self.decoder = nn.Linear(hidden, VOCABULARY)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, source: Tensor, state: Tensor | None = None) -> Tensor:
        embedded = self.drop(self.encoder(source))
        output, state = self.rnn(embedded, state)
        decoded = self.decoder(self.drop(output))
        return F.log_softmax(decoded, dim=-1)


class AwdLstm(nn.Module):
    """Layers of decreasing width, the last as wide as the embedding, its weight on the output."""

    def __init__(self, embedding: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(VOCABULARY, embedding)
        sizes = [embedding, hidden, hidden, embedding]
        self.rnns = nn.ModuleList(
            nn.LSTM(sizes[i], sizes[i + 1], batch_first=True) for i in range(3)
        )
        self.decoder = nn.Linear(embedding, VOCABULARY)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        for rnn in self.rnns:
            x, _ = rnn(x)
        return self.decoder(x)


class ProjectedLstm(nn.Module):
    """LSTMP of speech models: a narrow recurrence below a wide cell."""

    def __init__(self, features: int, hidden: int, projection: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True, proj_size=projection)
        self.norm = nn.LayerNorm(projection)
        self.output = nn.Linear(projection, classes)

    def forward(self, frames: Tensor) -> Tensor:
        return self.output(self.norm(self.lstm(frames)[0]))


class PackedLstm(nn.Module):
    """Sequences of known lengths, packed before the LSTM and padded after it."""

    def __init__(self, embedding: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, embedding, padding_idx=0)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(text), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (hidden, _) = self.lstm(packed)
        return self.fc(hidden[-1])


class LstmCellLoop(nn.Module):
    """Two stacked cells stepped by hand, as in the sine-wave example."""

    def __init__(self, inputs: int, first: int, second: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.lstm1 = nn.LSTMCell(inputs, first)
        self.lstm2 = nn.LSTMCell(first, second)
        self.linear = nn.Linear(second, inputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        h1 = torch.zeros(x.size(0), self.first, dtype=x.dtype)
        c1 = torch.zeros(x.size(0), self.first, dtype=x.dtype)
        h2 = torch.zeros(x.size(0), self.second, dtype=x.dtype)
        c2 = torch.zeros(x.size(0), self.second, dtype=x.dtype)
        for step in x.split(1, dim=1):
            h1, c1 = self.lstm1(step.squeeze(1), (h1, c1))
            h2, c2 = self.lstm2(h1, (h2, c2))
            outputs.append(self.linear(h2))
        return torch.stack(outputs, dim=1)


class LayerNormGru(nn.Module):
    """A GRU written by hand, its gates normalised."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.x2h = nn.Linear(inputs, 3 * hidden)
        self.h2h = nn.Linear(hidden, 3 * hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc = nn.Linear(hidden, classes)

    def cell(self, x: Tensor, state: Tensor) -> Tensor:
        x_reset, x_update, x_new = self.x2h(x).chunk(3, 1)
        h_reset, h_update, h_new = self.h2h(state).chunk(3, 1)
        reset = torch.sigmoid(x_reset + h_reset)
        update = torch.sigmoid(x_update + h_update)
        new = torch.tanh(self.norm(x_new + reset * h_new))
        return new + update * (state - new)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.size(0), self.hidden)
        for step in range(x.size(1)):
            state = self.cell(x[:, step], state)
        return self.fc(state)


class AttentiveGru(nn.Module):
    """Self-attentive pooling over the steps of a bidirectional GRU."""

    def __init__(self, embedding: int, hidden: int, hops: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.ws1 = nn.Linear(2 * hidden, 15, bias=False)
        self.ws2 = nn.Linear(15, hops, bias=False)
        self.fc = nn.Linear(2 * hidden * hops, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(x))
        weights = F.softmax(self.ws2(torch.tanh(self.ws1(states))), dim=1)
        pooled = torch.bmm(weights.transpose(1, 2), states)
        return self.fc(pooled.view(pooled.size(0), -1))


ARCHITECTURES: Table = {
    "rnn_classifier": lambda: Subject(RnnClassifier(7, 12, 5), torch.randn(2, LENGTH, 7)),
    "sentiment_lstm": lambda: Subject(SentimentLstm(10, 12, 3), tokens(LENGTH, VOCABULARY)),
    "tagger": lambda: Subject(
        Tagger(12, 8, 18, 5), (tokens(LENGTH, VOCABULARY), torch.randint(0, 40, (2, LENGTH, 6)))
    ),
    "gru_language_model": lambda: Subject(
        GruLanguageModel(14, 18, tied=False), tokens(LENGTH, VOCABULARY).t().contiguous()
    ),
    "gru_language_model_tied": lambda: Subject(
        GruLanguageModel(16, 16, tied=True), tokens(LENGTH, VOCABULARY).t().contiguous()
    ),
    "awd_lstm": lambda: Subject(AwdLstm(14, 18), tokens(LENGTH, VOCABULARY)),
    "projected_lstm": lambda: Subject(ProjectedLstm(8, 20, 12, 6), torch.randn(2, LENGTH, 8)),
    "packed_lstm": lambda: Subject(
        PackedLstm(10, 12, 3), (tokens(LENGTH, VOCABULARY), torch.tensor([LENGTH, 5]))
    ),
    "lstm_cell_loop": lambda: Subject(LstmCellLoop(3, 14, 10), torch.randn(2, 5, 3)),
    "layer_norm_gru": lambda: Subject(LayerNormGru(6, 12, 4), torch.randn(2, 5, 6)),
    "attentive_gru": lambda: Subject(AttentiveGru(10, 9, 4, 3), tokens(LENGTH, VOCABULARY)),
}
