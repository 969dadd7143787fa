"""Models by spec: what loads, and what every mistake of a user is told."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.errors import InputError
from secateur.sources.functions import load_function
from secateur.sources.importing import require
from secateur.sources.models import load_model
from sources_support import MODELS, break_import, refusal

FAILING_LINE = MODELS[: MODELS.index("return 1 / 0")].count("\n") + 1
TORCH_LINE = MODELS[: MODELS.index("return torch.zeros(2) @")].count("\n") + 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe's folder, which is not the current one."""
    recipe, current = tmp_path / "recipe", tmp_path / "current"
    recipe.mkdir()
    current.mkdir()
    (recipe / "nets.py").write_text(MODELS)
    monkeypatch.chdir(current)
    path = list(sys.path)
    modules = set(sys.modules)
    yield recipe
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if name.startswith(("nets", "package_of_test", "cut_", "secateur_user_")):
            del sys.modules[name]


@pytest.mark.parametrize("spec", ["nets.py:build", "./nets.py:build", "nets:build"])
def test_a_function_of_the_recipes_folder(folder, spec):
    subject = load_model(spec, {"width": 6}, folder=folder)
    assert subject.spec == spec
    assert subject.model[0].out_features == 6
    assert subject.example_inputs is None


def test_a_function_of_the_current_folder_and_of_a_package(folder):
    Path("here.py").write_text("from there import build")
    Path("there.py").write_text(MODELS)
    assert isinstance(load_model("here.py:build", folder=folder).model, nn.Sequential)
    package = folder / "package_of_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(MODELS)
    assert isinstance(load_model("package_of_test.inner:Net", folder=folder).model, nn.Linear)
    del sys.modules["there"]


def test_an_import_inside_the_function_finds_its_neighbours(folder):
    (folder / "late.py").write_text("def build():\n    import nets\n    return nets.build()")
    assert isinstance(load_model("late.py:build", folder=folder).model, nn.Sequential)


def test_a_function_may_return_example_inputs(folder):
    subject = load_model("nets.py:with_inputs", folder=folder)
    assert subject.example_inputs.shape == (5, 3)


def test_a_file_is_read_again_when_it_has_changed(folder):
    path = folder / "nets.py"
    assert load_model("nets.py:build", folder=folder).model[0].out_features == 4
    path.write_text(MODELS.replace("width=4", "width=55"))
    assert load_model("nets.py:build", folder=folder).model[0].out_features == 55


def test_build_gives_the_loaded_weights_again(folder):
    subject = load_model("nets.py:build", folder=folder)
    first = {name: value.clone() for name, value in subject.model.state_dict().items()}
    with torch.no_grad():
        subject.model[0].weight.zero_()
    for _ in range(2):
        again = subject.build()
        assert again is not subject.model
        for name, value in again.state_dict().items():
            assert torch.equal(value, first[name])
        with torch.no_grad():
            again[2].weight.zero_()


@pytest.mark.parametrize(
    ("spec", "sentences"),
    [
        ("nets.py:biuld", ["nets.py has no function 'biuld'; did you mean 'build'?"]),
        ("nets:biuld", ["nets has no function 'biuld'; did you mean 'build'?"]),
        ("nets.py", ["has none of the forms", "'file.py:function'", "nets.py:build or nets.py:wi"]),
        ("nets.build", ["did you mean 'nets:build'?"]),
        ("nest:build", ["there is no module 'nest'", "did you mean 'nets'?"]),
        ("nest.py:build", ["there is no file", "did you mean 'nets.py'?"]),
        ("torchvison:resnet18", ["no module 'torchvison'", "did you mean 'torchvision'?"]),
        ("torchvison", ["did you mean 'torchvision:NAME'?"]),
        ("torchvision", ["write 'torchvision:NAME'"]),
        ("a b:c", ["'package.module:function'", "'timm:NAME'"]),
        ("nets.py:number_of_classes", ["is a int; expected a function"]),
        ("nets.py:net", ["is a model, not a function that builds one"]),
        ("nets.py:number", ["returned a int; expected a torch.nn.Module"]),
        ("nets.py:nan", ["'2.bias' has 2 values that are NaN"]),
    ],
)
def test_a_wrong_spec(folder, spec, sentences):
    message = refusal(spec, folder)
    for sentence in sentences:
        assert sentence in message


def test_wrong_arguments_name_the_signature(folder):
    message = refusal("nets.py:build", folder, arguments={"widht": 3})
    assert "unexpected keyword argument 'widht'; did you mean 'width'?" in message
    assert "it is build(width=4, *, bias=True)" in message


@pytest.mark.parametrize(
    ("spec", "sentence", "line"),
    [
        ("nets.py:failing", "ZeroDivisionError: division by zero", FAILING_LINE),
        ("nets:failing", "ZeroDivisionError: division by zero", FAILING_LINE),
        ("nets.py:failing_in_torch", "RuntimeError: inconsistent tensor size", TORCH_LINE),
    ],
)
def test_an_error_of_the_users_code_is_one_sentence_with_its_place(folder, spec, sentence, line):
    message = refusal(spec, folder)
    assert message.startswith(f"{spec}: {sentence}")
    assert message.endswith(f"({folder / 'nets.py'}:{line})")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import torch\nimport not_a_module", "No module named 'not_a_module' ({file}:2)"),
        ("def build(:\n", "SyntaxError: invalid syntax ({file}:1)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 ({file}:2)"),
    ],
)
@pytest.mark.parametrize("spec", ["cut_{}.py:build", "cut_{}:build"])
def test_a_file_that_cannot_be_imported(folder, request, text, sentence, spec):
    name = str(abs(hash(request.node.name)))
    file = folder / f"cut_{name}.py"
    file.write_text(text)
    message = refusal(spec.format(name), folder)
    assert sentence.format(file=file) in message
    assert not [module for module in sys.modules if name in module]


def test_a_module_hidden_by_one_that_is_loaded(folder):
    (folder / "textwrap.py").write_text(MODELS)
    message = refusal("textwrap:build", folder)
    assert "another module of that name is loaded" in message
    assert f"{textwrap.__file__}" in message
    assert isinstance(load_model("textwrap.py:build", folder=folder).model, nn.Sequential)


def test_interrupting_is_not_an_error_of_the_input(folder):
    (folder / "slow.py").write_text("def build():\n    raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_model("slow.py:build", folder=folder)


def test_a_loaded_function_keeps_its_attributes_and_takes_positional_arguments(folder):
    """As a metric of the user's own needs both."""
    (folder / "score.py").write_text(
        "def worst(model, batches):\n    return model[batches]\nworst.higher_is_better = False"
    )
    worst = load_function("score.py:worst", folder)
    assert worst.higher_is_better is False
    assert worst([5, 6], 1) == 6
    with pytest.raises(InputError, match=r"IndexError: list index out of range \(.*score.py:2\)"):
        worst([5, 6], 2)


# Libraries


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_that_is_missing_or_broken(monkeypatch, torchvision, tmp_path, library):
    name = "torchvision.models" if library == "torchvision" else library
    break_import(monkeypatch, name, RuntimeError("operator torchvision::nms does not exist"))
    message = refusal(f"{library}:resnet18", tmp_path)
    assert f"needs {name}, which is installed but cannot be imported" in message
    assert "operator torchvision::nms does not exist" in message
    assert f"that belongs to torch {torch.__version__}" in message
    break_import(
        monkeypatch, name, ModuleNotFoundError(f"No module named {library!r}", name=library)
    )
    message = refusal(f"{library}:resnet18", tmp_path)
    assert f"needs {name}, which is not installed; " in message


def test_a_library_whose_own_requirement_is_missing(monkeypatch, tmp_path):
    (tmp_path / "needy_library.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="needy_library, which needs not_there_at_all, which is"):
        require("needy_library", "'x'", "pip install it")


@pytest.mark.parametrize(
    ("spec", "arguments", "shape"),
    [
        ("torchvision:resnet18", {"num_classes": 7}, (1, 3, 224, 224)),
        ("torchvision:mc3_18", {}, (1, 3, 16, 112, 112)),
        ("torchvision:vit_b_32", {"num_classes": 7, "image_size": 64}, (1, 3, 64, 64)),
        ("timm:resnet10t", {"num_classes": 7, "in_chans": 1}, (1, 1, 176, 176)),
        ("timm:vit_tiny_patch16_224", {"num_classes": 7, "img_size": 64}, (1, 3, 64, 64)),
    ],
)
def test_models_of_libraries(torchvision, tmp_path, spec, arguments, shape):
    subject = load_model(spec, arguments, folder=tmp_path)
    assert subject.example_inputs.shape == shape
    with torch.no_grad():
        outputs = subject.model.eval()(subject.example_inputs)
    assert outputs.shape == (1, arguments.get("num_classes", 400))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_wrong_names_and_arguments_of_libraries(torchvision, tmp_path, library):
    assert "did you mean 'resnet18'" in refusal(f"{library}:resnet_18", tmp_path)
    message = refusal(f"{library}:resnet18", tmp_path, arguments={"widht": 3})
    assert message.startswith(f"{library}:resnet18 cannot be built: TypeError")
    assert "widht" in message


def test_the_sources_are_listed_without_importing_them(tmp_path):
    import subprocess

    code = (
        "import sys; from secateur.sources.data import DATA_SOURCES as d\n"
        "from secateur.sources.models import MODEL_SOURCES as m\n"
        "assert d.names() == ('digits', 'fashion-mnist', 'imagefolder', 'mnist'), d.names()\n"
        "assert m.names() == ('timm', 'torchvision'), m.names()\n"
        "assert all(text for _, text in d.describe() + m.describe())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
