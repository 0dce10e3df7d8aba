"""The recipe's optimiser and learning rate are what trains."""

import pytest
import tiny_run
import torch
from safetensors.torch import load_file

from latentdiff import ConfigError
from latentdiff.config import load_recipe
from latentdiff.training.engine.optimizers import check_optimizer, make_learning_rate, make_optimizer
from latentdiff.training.recipes import Recipe

BASE = {"data.train_data_dir": "unused", "output_dir": "none", "train_batch_size": 3, "gradient_accumulation_steps": 2}


def make(**options):
    recipe = load_recipe(Recipe, None, {**BASE, "optimizer.learning_rate": 0.1, **options})
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    return recipe, weight, make_optimizer([weight], recipe.optimizer)


def after_two_steps(**options):
    _, weight, optimizer = make(**options)
    for gradient in ([0.5, 3.0], [-1.0, 3.0]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    return weight.detach()


def test_sgd_with_momentum_is_its_definition():
    options = {"optimizer.name": "SGD", "optimizer.options": {"momentum": 0.5}, "optimizer.weight_decay": 0.0}
    first, second = torch.tensor([0.5, 3.0]), torch.tensor([-1.0, 3.0])
    expected = torch.tensor([1.0, -2.0]) - 0.1 * first - 0.1 * (0.5 * first + second)
    assert torch.allclose(after_two_steps(**options), expected)


def test_fused_adamw_is_adamw():
    assert make(**{"optimizer.name": "adamw_fused"})[2].defaults["fused"] is True and not make()[2].defaults["fused"]
    assert torch.allclose(after_two_steps(**{"optimizer.name": "adamw_fused"}), after_two_steps(), rtol=1e-5)
    assert not torch.allclose(after_two_steps(), after_two_steps(**{"optimizer.beta1": 0.1}), rtol=1e-3)


def test_the_original_scales_the_learning_rate_by_the_images_of_a_step():
    for options, expected in (({}, 0.1), ({"optimizer.scale_lr": True}, 0.1 * 3 * 2 * 4)):
        recipe, _, optimizer = make(**options, **{"optimizer.lr_warmup_steps": 2})
        rate = make_learning_rate(recipe, optimizer, num_processes=4)
        assert [rate(0), rate(1), rate(2)] == pytest.approx([0, expected / 2, expected])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer.name": "adamv"}, "optimizer.name is 'adamv'; did you mean 'adamw'"),
        ({"optimizer.name": "LBFGS"}, "optimizer.name is 'LBFGS'"),
        ({"optimizer.options": {"epsilon": 1}}, "optimizer.options has 'epsilon', .* does not take"),
        ({"optimizer.options": {"betas": [0, 0]}}, "optimizer.options has 'betas', .* says elsewhere"),
        (
            {"optimizer.name": "SGD", "optimizer.options": {"nesterov": True}},
            "optimizer 'SGD' cannot be made: Nesterov",
        ),
        (
            {"optimizer.name": "SGD", "optimizer.beta2": 0.99},
            r"optimizer\.beta2 is given, but torch\.optim\.SGD has no betas",
        ),
        ({"optimizer.name": "Rprop", "optimizer.weight_decay": 0.1}, r"torch\.optim\.Rprop has no weight_decay"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"optimizer.lr_scheduler": "polynomial", "optimizer.lr_scheduler_options": {"power": 2.0}}, 0.1 * 0.25),
        (
            {
                "optimizer.lr_scheduler": "piecewise_constant",
                "optimizer.lr_scheduler_options": {"step_rules": "1:40,0.5"},
            },
            0.1 * 1.0,
        ),
        ({"optimizer.lr_scheduler": "warmup_linear", "optimizer.lr_scheduler_options": {"f_min": 0.5}}, 0.1 * 0.75),
        ({"optimizer.lr_scheduler": "warmup_cosine", "optimizer.lr_scheduler_options": {"lr_min": 0.5}}, 0.1 * 0.75),
        ({"optimizer.lr_scheduler": "warmup_linear", "optimizer.lr_scheduler_options": {"f_min": "5e-1"}}, 0.1 * 0.75),
    ],
)
def test_schedules_take_their_options(options, expected):
    """Half-way through a run of 40 steps."""
    recipe, _, optimizer = make(**options, max_train_steps=40)
    assert make_learning_rate(recipe, optimizer, 1)(20) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer.lr_scheduler": "cosin"}, "optimizer.lr_scheduler is 'cosin'; did you mean 'cosine'"),
        (
            {"optimizer.lr_scheduler": "linear", "optimizer.lr_scheduler_options": {"num_cycles": 2}},
            "has 'num_cycles', which linear does not",
        ),
        (
            {"optimizer.lr_scheduler": "warmup_linear", "optimizer.lr_scheduler_options": {"f_mn": 2}},
            "has 'f_mn', .* did you mean 'f_min'",
        ),
        (
            {"optimizer.lr_scheduler": "warmup_linear", "optimizer.lr_scheduler_options": {"f_min": "x"}},
            "lr_scheduler is 'warmup_l",
        ),
        ({"optimizer.lr_scheduler": "piecewise_constant"}, "lr_scheduler is 'piecewise_constant'; "),
        (
            {"optimizer.lr_scheduler": "constant", "optimizer.lr_warmup_steps": 5},
            "lr_warmup_steps is 5, but lr_scheduler 'constant' has no",
        ),
    ],
)
def test_bad_schedules_are_one_line(options, message):
    recipe, _, optimizer = make(**options)
    with pytest.raises(ConfigError, match=message) as caught:
        make_learning_rate(recipe, optimizer, 1)
    assert "\n" not in str(caught.value)


PACKAGED = ["schedulefree:AdamWScheduleFree", "schedulefree:SGDScheduleFree", "prodigyopt:Prodigy"]


def test_an_optimiser_goes_by_its_module_and_class():
    assert torch.equal(after_two_steps(**{"optimizer.name": "torch.optim:AdamW"}), after_two_steps())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:Adam", "no_such_package is not installed; pip install no_such_package"),
        ("torch.optim.nothing:Adam", r"there is no module torch\.optim\.nothing; give package\.module:Class"),
        ("torch.optim:AdamX", r"torch\.optim has no such optimiser; did you mean 'Adam"),
        ("torch.optim:Optimizer", r"torch\.optim has no such optimiser"),
        ("torch.optim:", r"torch\.optim has no such optimiser"),
        ("adamw_8bit", r"pip install bitsandbytes, and give 'bitsandbytes\.optim:AdamW8bit'"),
        ("Prodigy", "pip install prodigyopt, and give 'prodigyopt:Prodigy'"),
        ("Muon", "takes matrices alone"),
        ("torch.optim:LBFGS", "makes no step on this device"),
        ("torch.optim:Muon", r"optimizer\.beta1 is given, but torch\.optim:Muon has no betas"),
    ],
)
def test_what_is_to_be_installed_is_said_in_one_line(name, message):
    options = {"optimizer.beta1": 0.5} if name.endswith(":Muon") else {}
    recipe = load_recipe(Recipe, None, {**BASE, "optimizer.name": name, **options})
    with pytest.raises(ConfigError, match=message) as caught:
        check_optimizer(recipe, torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PACKAGED)
def test_a_run_with_a_packages_optimiser_goes_on_bit_for_bit(tmp_path, name):
    """What it counts beside its state for each weight, such as Prodigy's distance, is in the checkpoint, too."""
    pytest.importorskip(name.partition(":")[0])
    options = {"optimizer.name": name, "ema.decay": 0}
    tiny_run.run(tmp_path / "whole", **options)
    tiny_run.run(tmp_path / "again", **options, resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    whole, again = (tmp_path / name / "checkpoint-10" for name in ("whole", "again"))
    for file in ("model.safetensors", "optimizer.pt", "state.json"):
        assert (whole / file).read_bytes() == (again / file).read_bytes(), file
    first, second = tiny_run.weights(tmp_path / "whole"), tiny_run.weights(tmp_path / "again")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_a_schedule_free_run_ends_with_is_the_average(tmp_path):
    """Equation 1 of Defazio et al. 2024: trained is y = (1 - b) z + b x, used is x."""
    pytest.importorskip("schedulefree")
    options = {"optimizer.name": "schedulefree:AdamWScheduleFree", "ema.decay": 0, "optimizer.beta1": 0.75}
    output = tiny_run.run(tmp_path, **options)
    trained = load_file(output / "checkpoint-10" / "model.safetensors")
    state = torch.load(output / "checkpoint-10" / "optimizer.pt", weights_only=True)["state"]
    order = [name for name, _ in tiny_run.Denoise().named_parameters()]
    for name, x in tiny_run.weights(output).items():
        y, z = trained[f"net.{name}"], state[order.index(f"net.{name}")]["z"]
        assert torch.allclose(y, 0.25 * z + 0.75 * x, atol=1e-6) and not torch.allclose(x, y, atol=1e-4)


def test_an_average_of_averages_is_refused(tmp_path):
    pytest.importorskip("schedulefree")
    with pytest.raises(ConfigError, match=r"which averages the weights by itself; set ema\.decay to 0"):
        tiny_run.run(tmp_path / "run", **{"optimizer.name": "schedulefree:AdamWScheduleFree"})
    assert not (tmp_path / "run").exists()
