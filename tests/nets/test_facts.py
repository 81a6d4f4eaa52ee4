"""What is known of a network: its optimizer and rate, from our table, by timm's families."""

from __future__ import annotations

from dataclasses import replace

import pytest

from miue import nets
from miue.core.errors import UserError
from miue.nets import NetFacts
from miue.nets.adapter import OURS
from miue.testing import check_net
from miue.victims.recipes import RECIPES, recipe

ATTENTION = [
    "beit",
    "cait",
    "coat",
    "convit",
    "convmixer",
    "convnext",
    "cpubone",
    "crossvit",
    "csatv2",
    "davit",
    "deepseek_vit",
    "deit",
    "edgenext",
    "efficientformer",
    "efficientformer_v2",
    "efficientvim",
    "efficientvit_mit",
    "efficientvit_msra",
    "eva",
    "fastvit",
    "focalnet",
    "gcvit",
    "gemma4_vit",
    "hiera",
    "hieradet_sam2",
    "iformer",
    "inception_next",
    "levit",
    "lowformer",
    "mambaout",
    "maxxvit",
    "metaformer",
    "mlp_mixer",
    "mobilenetv5",
    "mobilevit",
    "mvitv2",
    "naflexvit",
    "nest",
    "nextvit",
    "pit",
    "pvt_v2",
    "qwen3_vit",
    "rdnet",
    "sequencer",
    "shvit",
    "swiftformer",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "tiny_vit",
    "tnt",
    "twins",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "visformer",
    "vitamin",
    "volo",
    "xcit",
]


def test_families_of_timm_follow_one_rule():
    """The rule goes by names; here the same by the files of timm, each of which has one family."""
    import timm

    for name in timm.list_models():
        there = timm.models.is_model_in_modules(name, ATTENTION)
        assert nets.facts(name).optimizer == ("adamw" if there else "sgd"), name


@pytest.mark.parametrize(
    "name",
    [
        "vit-tiny",
        "small-vit:width=32",
        "deit_tiny_patch16_224",
        "swin",
        "swinv2_tiny_window8_256",
        "cait",
        "xcit_nano_12_p16_224",
        "eva02_tiny_patch14_224",
        "beit_base_patch16_224",
        "maxvit_pico_rw_256",
        "convnext_atto",
        "test_vit",
    ],
)
def test_transformers_and_their_kin_get_adamw(name: str):
    for base in RECIPES:
        given = recipe(base, name)
        assert (given.optimizer, given.lr, given.weight_decay) == ("adamw", 1e-3, 0.05) and given.warmup >= 0.1


@pytest.mark.parametrize("name", ["small-cnn", "wrn-28-10", "wrn:depth=16,width=2", "resnet18", "vgg19", "vgg16_bn"])
def test_convolutions_with_batch_norm_train_as_the_recipe_says(name: str):
    for base in RECIPES:
        assert recipe(base, name) == replace(RECIPES[base], net=name)


@pytest.mark.parametrize("name", ["linear", "mlp2:width=8", "mlp3", "lenet5", "vgg16"])
def test_a_network_without_normalisation_has_a_lower_rate(name: str):
    assert not nets.facts(name).normalised
    for base in RECIPES:
        own = {"lr": min(RECIPES[base].lr, 0.01), "bias_lr": 1.0}
        assert recipe(base, name) == replace(RECIPES[base], net=name, **own)


def test_all_of_ours_say_where_their_numbers_come_from():
    assert all(of.facts.reference for of in OURS.values())
    assert {nets.facts(name).rate for name in nets.list_networks()} == {"the recipe's", "at most 0.01", "0.001"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"optimizer": "adamw"}, "needs a rate"),
        ({"lr": 0.0}, "lr=0 is no positive rate"),
        ({"lr": float("nan")}, "lr=nan is no positive rate"),
        ({"weight_decay": -1.0}, "weight_decay=-1 is negative"),
        ({"warmup": 1.0}, "warmup=1 is no share"),
    ],
)
def test_refused_facts(fields: dict, told: str):
    with pytest.raises(UserError, match=told):
        NetFacts(**fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "convit_tiny",
        "flexivit_small",
        "eva02_tiny_patch14_224",
        "xcit_nano_12_p16_224",
        "maxvit_pico_rw_256",
        "pit_ti_224",
        "coatnet_pico_rw_224",
        "gcvit_xxtiny",
        "deit_tiny_distilled_patch16_224",
    ],
)
def test_the_contract_of_families(name: str):
    check_net(name, (32,))
