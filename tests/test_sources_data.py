"""Digits, Fashion-MNIST, folders of images: splits, options, broken files."""

from __future__ import annotations

import functools
import gzip
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from secateur.sources.data import check_labels, load_data
from secateur.sources.data.fashion_mnist import DEBIAN
from sources_support import break_import, data_refusal


def everything(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    samples = [dataset[index] for index in range(len(dataset))]
    return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


def test_digits():
    data = load_data("digits", Path(), 0)
    sizes = [len(part) for part in (data.train, data.val, data.test)]
    assert sum(sizes) == 1797
    assert sizes[2] == pytest.approx(1797 / 6, abs=5)
    assert sizes[1] == pytest.approx(1797 * 5 / 36, abs=5)
    assert data.classes == 10
    image, label = data.train[0]
    assert image.shape == (1, 8, 8) and image.dtype == torch.float32
    assert label.dtype == torch.int64
    images, labels = data.train.tensors
    assert images.min() == 0 and images.max() == 1
    assert labels.bincount().min() > 0.9 * len(labels) / 10
    check_labels(data, 10)


def test_splits_share_no_sample_and_are_fixed_by_the_seed():
    def rows(seed: int) -> list[set[tuple[float, ...]]]:
        data = load_data("digits", Path(), seed)
        parts = (data.train, data.val, data.test)
        return [{tuple(image.flatten().tolist()) for image, _ in part} for part in parts]

    train, val, test = rows(0)
    assert not train & val and not train & test and not val & test
    assert rows(0) == [train, val, test]
    assert rows(1)[2] != test
    first = load_data("digits", Path(), 0).train.tensors
    again = load_data("digits", Path(), 0).train.tensors
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_options_of_images():
    data = load_data("digits", Path(), 0, image_size=12, channels=3, val_share=0.5, limit=40)
    plain = load_data("digits", Path(), 0, val_share=0.5)
    assert [len(part) for part in (data.train, data.val, data.test)] == [40] * 3
    assert len(plain.train) == pytest.approx(len(plain.val), abs=10)
    image, label = data.train[5]
    small, same_label = plain.train[5]
    assert image.shape == (3, 12, 12)
    assert label == same_label
    assert torch.equal(image[0], image[2])
    assert torch.nn.functional.avg_pool2d(image[:1], 12).item() == pytest.approx(
        small.mean().item(), abs=0.05
    )
    check_labels(data, 10)


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        ("digit", {}, "did you mean 'digits'?"),
        ("fashon-mnist:/somewhere", {}, "did you mean 'fashion-mnist'?"),
        ("digits:x", {}, "'digits:x' is not a source; write 'digits'"),
        ("digits", {"path": "x"}, "no use for path; it takes image_size, channels, val_share, lim"),
        ("digits", {"arguments": {"a": 1}}, "digits takes no arguments"),
        ("digits", {"limit": 0}, "limit is 0; give at least 1"),
        ("digits", {"channels": 2}, "channels is 2; give 1 (grey) or 3 (colour)"),
        ("digits", {"image_size": 0}, "image_size is 0"),
        ("digits", {"val_share": 1.0}, "val_share is 1.0; give a share between 0 and 1"),
        ("digits", {"val_share": 0.0001}, "digits: val is empty"),
        ("imagefolder", {}, "write 'imagefolder:DIR'"),
        ("imagefolder:gone", {}, "there is no folder"),
    ],
)
def test_wrong_data_specs(tmp_path, spec, options, sentence):
    assert sentence in data_refusal(spec, tmp_path, **options)


def test_digits_without_scikit_learn(monkeypatch, tmp_path):
    break_import(monkeypatch, "sklearn.datasets", ModuleNotFoundError("No module", name="sklearn"))
    assert "needs sklearn.datasets, which is not installed; pip install scikit-learn" in (
        data_refusal("digits", tmp_path)
    )


# Fashion-MNIST


def idx(values: np.ndarray) -> bytes:
    header = (0x800 + values.ndim).to_bytes(4, "big")
    return header + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.tobytes()


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """A folder with a tiny set of the same form: training images of their own number."""
    where = tmp_path / "clothes"
    where.mkdir()
    for split, size in (("train", 240), ("t10k", 20)):
        images = np.repeat(np.arange(size, dtype=np.uint8), 28 * 28).reshape(size, 28, 28)
        labels = (np.arange(size) % 10).astype(np.uint8)
        (where / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (where / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return where


@pytest.mark.parametrize("form", ["after the colon", "path", "relative"])
def test_fashion_mnist_of_a_folder(clothes, form):
    spec, path = "fashion-mnist", None
    if form == "path":
        path = clothes
    else:
        spec = f"fashion-mnist:{clothes if form == 'after the colon' else 'clothes'}"
    data = load_data(spec, clothes.parent, 0, path=path)
    assert [len(part) for part in (data.train, data.val, data.test)] == [220, 20, 20]
    images, labels = data.train.tensors
    numbers = (images[:, 0, 0, 0] * 0.3530 + 0.2860) * 255
    assert torch.equal(numbers.round().long() % 10, labels)
    numbers_of_val = (data.val.tensors[0][:, 0, 3, 7] * 0.3530 + 0.2860) * 255
    together = torch.cat([numbers, numbers_of_val]).round().long().sort().values
    assert torch.equal(together, torch.arange(240))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    data = load_data("fashion-mnist", Path(), 0)
    assert [len(part) for part in (data.train, data.val, data.test)] == [55_000, 5_000, 10_000]
    images, labels = data.train.tensors
    assert images.shape[1:] == (1, 28, 28)
    assert images.mean().item() == pytest.approx(0, abs=0.005)
    assert images.std().item() == pytest.approx(1, abs=0.005)
    assert torch.equal(labels.bincount(), torch.full((10,), 5_500))


def test_mnist_reads_the_same_files_with_its_own_mean(clothes):
    data = load_data(f"mnist:{clothes}", Path(), 0)
    assert (data.name, data.classes) == ("mnist", 10)
    images, labels = data.train.tensors
    numbers = (images[:, 0, 0, 0] * 0.3081 + 0.1307) * 255
    assert torch.equal(numbers.round().long() % 10, labels)


def test_mnist_without_a_place(tmp_path):
    message = data_refusal("mnist", tmp_path)
    assert "has no place of its own" in message and "mnist:DIR" in message


def test_fashion_mnist_that_is_not_there(tmp_path):
    message = data_refusal("fashion-mnist:gone", tmp_path)
    assert "no train-images-idx3-ubyte[.gz] in" in message
    for way in ("apt install dataset-fashion-mnist", "fashion-mnist:DIR", "fashion-mnist:https://"):
        assert way in message


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("train-images-idx3-ubyte.gz", lambda b: b[:-20], "cannot be read"),
        ("train-images-idx3-ubyte.gz", lambda b: b"", "starts with the magic number 0"),
        ("train-labels-idx1-ubyte", lambda b: b[:-1], "holds 239 bytes for a shape of [240]"),
        ("train-labels-idx1-ubyte", lambda b: b"<html>" + b, "of labels start with 2049"),
        (
            "t10k-labels-idx1-ubyte",
            lambda b: idx(np.zeros(19, np.uint8)),
            "20 images for 19 labels",
        ),
    ],
)
def test_broken_idx_files(clothes, file, change, sentence):
    path = clothes / file
    path.write_bytes(change(path.read_bytes()))
    message = data_refusal(f"fashion-mnist:{clothes}", clothes)
    assert sentence in message
    assert "anew" in message


@pytest.fixture
def served(clothes, tmp_path, monkeypatch):
    """The URL of the folder, all of it gzipped, and the list of what was asked for."""
    for file in clothes.glob("*-ubyte"):
        (clothes / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(clothes))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_fashion_mnist_of_a_url_is_downloaded_once(served, tmp_path, clothes):
    url, asked = served
    data = load_data(f"fashion-mnist:{url}/", tmp_path, 0)
    local = load_data(f"fashion-mnist:{clothes}", tmp_path, 0)
    assert torch.equal(data.train.tensors[0], local.train.tensors[0])
    assert len(asked) == 4 and len(cached(tmp_path)) == 4
    load_data(f"fashion-mnist:{url}", tmp_path, 0)
    assert len(asked) == 4


def test_a_download_that_fails_leaves_nothing(served, tmp_path, clothes):
    url, _ = served
    message = data_refusal(f"fashion-mnist:{url}/gone", tmp_path)
    assert f"{url}/gone/train-images-idx3-ubyte.gz cannot be downloaded: HTTP Error 404" in message
    (clothes / "train-images-idx3-ubyte.gz").write_text("<html>Sign in</html>")
    message = data_refusal(f"fashion-mnist:{url}", tmp_path)
    assert f"{url}/train-images-idx3-ubyte.gz starts with the magic number" in message
    assert cached(tmp_path) == []


# Folders of images


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 30)) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("RGB", size, colour).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten red images of class ``a`` and twenty blue ones of class ``b``."""
    for number in range(10):
        paint(tmp_path / "all" / "a" / f"{number}.png", (255, 0, 0))
    for number in range(20):
        paint(tmp_path / "all" / "b" / "deeper" / f"{number}.PNG", (0, 0, 255))
    (tmp_path / "all" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "all" / ".cache").mkdir()
    return tmp_path / "all"


RED = (torch.tensor([1.0, 0, 0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
    [0.229, 0.224, 0.225]
)


def test_imagefolder_split_by_the_seed(pictures):
    data = load_data(f"imagefolder:{pictures}", Path(), 0, image_size=16)
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 6, 6]
    assert data.classes == 2
    files = [part.files for part in (data.train, data.val, data.test)]
    assert len({file for part in files for file in part}) == 30
    for part in (data.train, data.val, data.test):
        images, labels = everything(part)
        assert images.shape[1:] == (3, 16, 16)
        assert (labels == 0).sum() * 2 == (labels == 1).sum()
        reddish = (images[labels == 0] - RED.view(3, 1, 1)).abs().max()
        assert reddish < 1e-5
    again = load_data("imagefolder", pictures.parent, 0, path="all", image_size=16)
    assert again.train.files == data.train.files
    assert load_data(f"imagefolder:{pictures}", Path(), 1).train.files != data.train.files
    limited = load_data(f"imagefolder:{pictures}", Path(), 0, limit=12)
    labels = torch.tensor([int(limited.train[index][1]) for index in range(12)])
    assert 0 < labels.sum() < 12  # mixed, though the files are listed class by class


def test_imagefolder_with_its_own_splits(tmp_path):
    for split, number in (("train", 5), ("valid", 2), ("test", 1)):
        for index in range(number):
            paint(tmp_path / split / "cat" / f"{index}.jpg", (9, 9, 9))
            paint(tmp_path / split / "dog" / f"{index}.jpg", (9, 9, 9))
    data = load_data(f"imagefolder:{tmp_path}", Path(), 0)
    assert [len(part) for part in (data.train, data.val, data.test)] == [10, 4, 2]
    assert all("valid" in str(file) for file in data.val.files)
    (tmp_path / "valid").rename(tmp_path / "elsewhere")
    data = load_data(f"imagefolder:{tmp_path}", Path(), 0, val_share=0.4)
    assert [len(part) for part in (data.train, data.val, data.test)] == [6, 4, 2]
    assert not set(data.train.files) & set(data.val.files)
    paint(tmp_path / "test" / "cow" / "0.jpg", (9, 9, 9))
    assert "has the class 'cow', which train does not have" in data_refusal(
        f"imagefolder:{tmp_path}", Path()
    )


def test_imagefolder_resizes_the_shorter_side_and_cuts_the_centre(tmp_path):
    image = pytest.importorskip("PIL.Image")
    wide = image.new("L", (90, 30), 0)
    wide.paste(255, (30, 0, 60, 30))  # white in the middle third
    for name in ("a", "b"):
        for index in range(5):
            (tmp_path / name).mkdir(exist_ok=True)
            wide.save(tmp_path / name / f"{index}.png")
    data = load_data(f"imagefolder:{tmp_path}", Path(), 0, image_size=10, channels=1)
    picture = data.train[0][0]
    assert picture.shape == (1, 10, 10)
    assert picture[:, :, 1:-1].min().item() == pytest.approx((1 - 0.449) / 0.226, abs=1e-4)


def test_images_that_cannot_be_read(pictures):
    content = (pictures / "a" / "0.png").read_bytes()
    for number in range(10):
        (pictures / "a" / f"{number}.png").write_bytes(content[: len(content) // 2])
    message = data_refusal(f"imagefolder:{pictures}", Path())
    assert f"{pictures / 'a'}{os.sep}" in message
    assert "cannot be read as an image" in message


def test_folders_without_images(tmp_path):
    assert "has no folders" in data_refusal(f"imagefolder:{tmp_path}", Path())
    (tmp_path / "a").mkdir()
    assert "has no images in its folders a; images end with" in data_refusal(
        f"imagefolder:{tmp_path}", Path()
    )
