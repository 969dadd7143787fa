"""The page of a run: well-formed, offline, safe, accessible, and right in a real browser."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess

import pytest

import report_documents as documents
from report_outline import Outline
from secateur.reports.html import render, write_html
from secateur.reports.sentences import verdict_line

DOCUMENTS = ("convolutional", "transformer", "bare", "hostile")


@pytest.fixture(scope="module", params=DOCUMENTS)
def page(request):
    """The page of each document."""
    return render(getattr(documents, request.param)())


def test_the_page_is_well_formed(page):
    assert Outline(page).faults == []


def test_ids_are_unique_and_links_arrive(page):
    outline = Outline(page)
    ids = [found["id"] for _, found in outline.elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = [found["href"] for found in outline.all("a")]
    assert {str(link)[1:] for link in links} <= set(ids)
    assert {found["aria-labelledby"] for found in outline.all("section")} <= set(ids)


def test_nothing_is_loaded_from_anywhere(page):
    outline = Outline(page)
    for tag, found in outline.elements:
        assert not {"srcset", "action", "background", "poster"} & found.keys()
        assert "src" not in found, tag
        assert (found.get("href") or "#").startswith(("#", "data:,"))
    assert not re.search(r"url\(|@import|https?://|//cdn", page)
    policy = next(f["content"] for f in outline.all("meta") if f.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")


def test_missing_values_never_show_as_code(page):
    assert not re.search(r"\b(NaN|undefined|None|null|nan|Infinity)\b", Outline(page).text)


def test_the_page_is_accessible(page):
    outline = Outline(page)
    assert len(outline.all("h1")) == len(outline.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for tag, found in outline.elements:
        if tag == "svg":
            assert found.get("aria-hidden") == "true" or found.get("aria-label")
        if tag == "th":
            assert found.get("scope") in ("row", "col")
    assert len(outline.all("caption")) == len(outline.all("table"))


def test_hostile_text_stays_text():
    page = render(documents.hostile())
    outline = Outline(page)
    assert documents.HOSTILE in outline.text
    assert "alert(1)" in outline.text and "<script>alert" not in page
    assert len(outline.all("script")) == 2 and not outline.all("img")
    assert not any(name.startswith("on") for _, found in outline.elements for name in found)
    page.encode("utf-8")  # half a surrogate pair would not go through
    assert "\x00" not in page and "\ufffd\ufffd" in outline.text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_data_is_inside_and_comes_back(name):
    metrics = getattr(documents, name)()
    page = render(metrics)
    found = re.search(r'<script type="application/json" id="secateur-metrics">(.*?)</script>', page)
    assert found is not None and "<" not in found[1]
    assert json.loads(found[1]) == metrics


def test_the_page_tells_the_story():
    text = Outline(render(documents.convolutional())).text
    for words in (
        "resnet18-cifar10", "target reached", "11 of 12 groups were cut",
        "layer4.1.conv1: outputs 512 → 61 (12 % kept), inputs 512 → 420 (82 % kept)",
        "resnet.py:268: x = self.conv1(x)", "fc.weight dimension 0 (10)", "24 min 50 s",
        "criterion: taylor", "AMD EPYC 7B13", "recalibrated on 2000 training images",
        "secateur run timm:resnet18 --data cifar10 --target flops=0.5x --seed 0",
    ):  # fmt: skip
        assert words in text


def test_every_layer_is_drawn_and_listed():
    metrics = documents.transformer()
    outline = Outline(render(metrics))
    assert len(metrics["layers"]) == 50
    # Twice each: once for a wide window and once for a narrow one.
    assert sum(found.get("class") == "bar" for found in outline.all("g")) == 100
    for layer in metrics["layers"]:
        assert outline.text.count(f"{layer['name']}:") == 2
    assert "3 → 2" in outline.text  # heads of a group, beside the layer it is named after


def test_a_stage_is_shaded_where_its_epochs_are_not():
    metrics = documents.convolutional()
    step = {"metric": 0.9, "loss": 0.1, "flops": 5, "params": 5}
    metrics["timeline"] = [
        {"step": "dense epoch 1", "kind": "epoch", "at": 6.0, "seconds": 6.0, **step},
        {"step": "dense", "kind": "dense", "at": 10.0, "seconds": 10.0, **step},
        {"step": "prune 1", "kind": "prune", "at": 20.0, "seconds": 10.0, **step},
        {"step": "train 1 epoch 1", "kind": "epoch", "at": 30.0, "seconds": 10.0, **step},
        {"step": "train 1", "kind": "train", "at": 40.0, "seconds": 20.0, **step},
    ]
    page = render(metrics)
    shades = re.findall(r'width="([\d.e+]+)" height="[\d.]+" class="shade (p-[a-z]+)"', page)
    whole = sum(float(width) for width, _ in shades[:3])
    shares = [(css, round(float(width) / whole, 2)) for width, css in shades[:3]]
    assert shares == [("p-other", 0.25), ("p-prune", 0.25), ("p-tune", 0.5)]


def test_the_choice_of_widths_is_told():
    text = Outline(render(documents.convolutional())).text
    assert "weights, taken" in text and "knapsack, taken" not in text
    assert "64 → 32" in text
    assert "12 layers that lost most; 2 more were solved" in text
    assert "20.0 % 1.0 %" in " ".join(text.split())
    bare = documents.convolutional()
    del bare["choice"]
    assert "How widths were chosen was not recorded" in Outline(render(bare)).text


def test_ways_to_deploy_stand_beside_each_other():
    metrics = documents.convolutional()
    outline = Outline(render(metrics))
    text = " ".join(outline.text.split())
    assert "The pruned model in onnxruntime with int8 is 2.85 times as fast." in text
    assert "pruned, ONNX Runtime, int8 8.10 ms 2.85× (2.71× to 2.99×) 0.9662 0.0058" in text
    assert "loses too much" in text and text.count("advised") == 2  # in the table and below
    assert "no operator Frob" in text
    chart = re.search(r'aria-label="accuracy against time of 5 ways.*?</svg>', render(metrics))
    assert chart is not None and chart[0].count("×</text>") == 3
    assert chart[0].count('width="12"') == 1
    for nothing in (None, {}, {"ways": []}):
        metrics["deployment"] = nothing
        assert "Ways to deploy" not in render(metrics)


def test_frozen_entries_are_grouped_by_reason():
    text = Outline(render(documents.transformer())).text
    assert text.count("The budget asked to leave the residual stream whole") == 1
    assert "48 dimensions of tensors" in text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_file_is_small_and_written_whole(name, tmp_path):
    path = write_html(getattr(documents, name)(), tmp_path / "report.html")
    assert path.stat().st_size < 400_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_the_same_document_gives_the_same_page():
    assert render(documents.convolutional()) == render(documents.convolutional())


@pytest.mark.parametrize("layers", [1, 300])
def test_few_and_many_layers_fit(layers):
    metrics = documents.convolutional()
    metrics["layers"] = [
        {"name": f"l{i}", "before": [50000 if i == 0 else 8], "after": [4], "params": [8, 4]}
        for i in range(layers)
    ]
    outline = Outline(render(metrics))
    assert outline.faults == []
    boxes = [str(found["viewbox"]).split() for found in outline.all("svg") if "role" in found]
    widest = max(float(width) for _, _, width, _ in boxes)
    for found in outline.all("rect"):
        assert 0 <= float(str(found["x"])) <= widest and float(str(found["width"])) >= 0
    assert ("square roots" in outline.text) is (layers == 300)


# A real browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement, seen = {};
  seen.overflow = root.scrollWidth - root.clientWidth;
  seen.text = page.body.innerText;
  const bars = [...page.querySelectorAll("g.bar")].filter(bar => bar.getClientRects().length);
  if (bars.length) {
    bars.at(-1).dispatchEvent(new Event("pointerenter"));
    seen.readout = page.querySelector(".readout").textContent;
  }
  const colour = () => frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  seen.before = colour();
  page.getElementById("theme").click();
  seen.after = colour();
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
};
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: the checks of the HTML stand alone")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_browser_shows_it(name, width, tmp_path):
    """In a real browser: no error, no sideways scrolling, the words, the read-out, the theme.

    Runs where chromium is installed; elsewhere the checks of the HTML above stand alone.
    """
    metrics = getattr(documents, name)()
    inner = html.escape(render(metrics), quote=True)
    frame = f'<iframe width="{width}" height="900" srcdoc="{inner}"></iframe>'
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frame}<script>{PROBE}</script>', "utf-8"
    )
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
            "--virtual-time-budget=4000", "--window-size=1400,1000", "--dump-dom", outer.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    result = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result is not None
    seen = json.loads(html.unescape(result[1]))
    assert seen["overflow"] <= 0
    assert seen["before"] != seen["after"]
    words = " ".join(seen["text"].split())
    assert " ".join(f"{verdict_line(metrics)}.".split()) in words
    assert "undefined" not in words and "NaN" not in words
    if metrics["layers"]:
        last = metrics["layers"][-1]
        assert seen["readout"].startswith(f"{last['name']}: outputs {last['before'][0]}")
