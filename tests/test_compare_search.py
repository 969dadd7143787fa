"""``secateur compare-search``: landscapes, a recorded table, and a recipe."""

from __future__ import annotations

import json

import pytest

from command_cases import secateur, write_recipe
from secateur.searching._landscapes import landscape


def _compared(place, *words):
    done = secateur(place, "compare-search", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_landscapes_side_by_side(tmp_path):
    words = ("additive", "--algorithms", "auto,random", "--trials", "12", "--seeds", "2",
             "--begin", "both", "--output", "out")  # fmt: skip
    document = _compared(tmp_path, *words)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == document
    (subject,) = document["subjects"]
    place = landscape("additive")
    assert subject["best"] == place.best and subject["uniform"] == place.value(place.uniform())
    kinds = {(a["name"], a["seeded"]): a for a in subject["algorithms"]}
    assert set(kinds) == {(n, s) for n in ("auto", "random") for s in (True, False)}
    lines = [json.loads(x) for x in (tmp_path / "out/comparison.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    for (name, seeded), found in kinds.items():
        values = [
            line["values"] for line in lines
            if (line["cell"]["algorithm"], line["cell"]["seeded"]) == (name, seeded)
        ]  # fmt: skip
        assert [len(each) for each in values] == found["evaluations"] == [12, 12]
        for count in (10, 12):
            least = [min(each[:count]) for each in values]
            assert abs(found["at"][str(count)]["mean"] - sum(least) / 2) < 1e-12
            assert found["least"][count - 1] == min(least)
            assert found["largest"][count - 1] == max(least)
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<svg") == 2 and "http" not in page.replace("http-equiv", "")
    # A cell is searched once: one that was cut off is searched again, the others are read.
    ledger = tmp_path / "out" / "comparison.jsonl"
    changed = json.loads(ledger.read_text().splitlines()[0])
    changed["values"] = [0.5, *changed["values"][1:]]
    text = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join([json.dumps(changed) + "\n", *text[1:-1], text[-1][:50]]))
    again = _compared(tmp_path, *words)["subjects"][0]
    assert min(a["least"][-1] for a in again["algorithms"]) == 0.5
    assert ledger.read_text().splitlines()[1:] == [line.rstrip("\n") for line in text[1:]]


@pytest.mark.xdist_group("search")
def test_a_recipe_live(tmp_path):
    write_recipe(tmp_path, data={"source": "digits", "limit": 120, "batch_size": 20})
    words = ("recipe.yaml", "--algorithms", "auto,random", "--trials", "4", "--seeds", "1",
             "--output", "out")  # fmt: skip
    (subject,) = _compared(tmp_path, *words)["subjects"]
    for algorithm in subject["algorithms"]:
        run = next((tmp_path / "out" / "runs").glob(f"{algorithm['name']}-*"))
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["after"]["flops"] <= 0.5 * metrics["before"]["flops"]
        losses = [trial["loss"] for trial in metrics["choice"]["trials"]]
        assert algorithm["evaluations"] == [len(losses)] == [4]
        assert algorithm["mean"] == [min(losses[: n + 1]) for n in range(4)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("additive", "--algorithms", "auto,anealing"), "did you mean 'annealing'"),
        (("additive", "--begin", "maybe"), "seeded, unseeded or both"),
        (("additive", "--algorithms", ","), "names none"),
        (("nothing.jsonl",), "there is no file nothing.jsonl"),
        (("broken.jsonl",), "no recorded table"),
        (("nothing.yaml",), "nothing.yaml"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(tmp_path, words, said):
    (tmp_path / "broken.jsonl").write_text("{}\n")
    done = secateur(tmp_path, "compare-search", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
