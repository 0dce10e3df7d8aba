"""The recipe's optimiser and learning rate are what trains."""

import pytest
import torch

from latentdiff import ConfigError
from latentdiff.config import load_recipe
from latentdiff.training.engine.optimizers import make_learning_rate, make_optimizer
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
