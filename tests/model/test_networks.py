"""Networks by name and by objects with settings, and the learned variance, on the estimator."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from tabdiff import MLP, DiffusionGenerator, DiT, UNet
from tabdiff.codecs.inputs import read_fit_inputs
from tabdiff.model.build import build_denoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.training_data import begin

QUICK = {"max_steps": 2, "batch_size": 8, "refine": False, "random_state": 0}
TINY = {
    "mlp": MLP(hidden_size=8, n_blocks=1),
    "dit": DiT(hidden_size=8, n_blocks=1),
    "unet": UNet(model_channels=4, num_res_blocks=1, channel_mult=(1, 2), attention_resolutions=(4,)),
}
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(30, 4))
IMAGES = RNG.integers(0, 256, size=(30, 8, 8)).astype(np.uint8)
LABELS = np.array(["a", "b", "c"] * 10)
TOKENS = RNG.normal(size=(30, 3, 5))


def quick(denoiser, **parameters):
    return DiffusionGenerator(denoiser=denoiser, **{**QUICK, **parameters})


def data_for(network):
    return IMAGES if network == "unet" else ROWS


def saved_and_loaded(gen, folder):
    gen.save(folder / "model")
    return DiffusionGenerator.load(folder / "model")


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("network", TINY)
def test_settings_are_parameters_like_any_other(network, tmp_path):
    gen = quick(TINY[network])
    other = clone(gen)
    assert other.denoiser is not gen.denoiser and repr(other) == repr(gen)
    other.set_params(denoiser__dropout=0.25, denoiser__time_embedding="learned")
    assert gen.denoiser.dropout == 0.0 and other.get_params()["denoiser__dropout"] == 0.25
    assert "dropout=0.25" in repr(other) and "n_heads" not in repr(other)
    other.fit(data_for(network))
    loaded = saved_and_loaded(other, tmp_path)
    assert loaded.denoiser.get_params() == other.denoiser.get_params() and repr(loaded) == repr(other)
    np.testing.assert_array_equal(loaded.sample(3, random_state=0), other.sample(3, random_state=0))
    assert loaded.fit(data_for(network)).n_steps_ == 2


def test_names_and_objects_build_the_same_networks():
    flat = DiffusionGenerator(denoiser="dit", hidden_size=8, n_blocks=1, **QUICK).fit(ROWS)
    same = quick(DiT(hidden_size=8, n_blocks=1)).fit(ROWS)
    np.testing.assert_array_equal(flat.sample(3, random_state=0), same.sample(3, random_state=0))
    assert quick(MLP(hidden_size=8, n_blocks=1)).fit(ROWS).model_.config.network == "mlp"


def test_a_grid_goes_over_settings():
    search = GridSearchCV(quick(TINY["mlp"]), {"denoiser__hidden_size": [4, 8]}, cv=2).fit(ROWS)
    assert search.best_params_["denoiser__hidden_size"] in (4, 8)
    assert search.best_estimator_.model_.config.hidden_size == search.best_params_["denoiser__hidden_size"]


def test_settings_in_two_places_are_refused_and_the_advice_works():
    with pytest.raises(ValueError, match=r"model_channels=8") as error:
        quick(TINY["unet"], hidden_size=8).fit(IMAGES)
    assert "hidden_size must be left out" in str(error.value)
    advised = clone(TINY["unet"]).set_params(model_channels=8)
    assert quick(advised).fit(IMAGES).model_.config.hidden_size == 8
    assert quick(MLP(hidden_size=8, n_blocks=1), hidden_size=8).fit(ROWS).model_.config.hidden_size == 8  # they agree
    assert quick(MLP(dropout=0.1), hidden_size=8).fit(ROWS).model_.config.hidden_size == 8  # one of them says it
    with pytest.raises(ValueError, match="n_blocks must be left out where the denoiser says another"):
        quick(TINY["mlp"], n_blocks=2).fit(ROWS)


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (UNet, r"Use denoiser=UNet\(\)"),
        (MLP(hidden_size=0), "hidden_size of MLP must be 'auto' or an integer of at least 1; got 0"),
        (MLP(conditioning="cross_attention"), "conditioning of MLP must be"),
        (MLP(time_conditioning="cross_attention"), "time_conditioning of MLP"),
        (MLP(dropout=1.0), r"dropout of MLP must be a number in \[0, 1\)"),
        (DiT(n_heads=0), "n_heads of DiT"),
        (DiT(hidden_size=8, n_heads=3), "n_heads must divide"),
        (DiT(mlp_ratio=0), "mlp_ratio of DiT"),
        (DiT(qk_norm="yes"), "qk_norm of DiT must be True or False"),
        (DiT(time_embedding="clock"), "time_embedding of DiT"),
        (DiT(time_embedding="table"), "Set n_timesteps, such as n_timesteps=1000"),
        (UNet(), "denoiser='unet' is for images"),
        (UNet(channel_mult=3), "channel_mult of UNet must be"),
        (UNet(attention_resolutions=(16.5,)), "attention_resolutions of UNet must be"),
        (3, "denoiser must be 'auto'"),
    ],
)
def test_what_is_out_of_range_is_named_before_training(denoiser, message):
    with pytest.raises(ValueError, match=message):
        quick(denoiser).fit(ROWS)


def test_attention_at_a_side_that_no_level_has_is_refused_and_the_advice_works():
    settings = clone(TINY["unet"]).set_params(attention_resolutions=(16, 8))
    with pytest.raises(ValueError, match=r"among the sides of the levels, \(8, 4\).*attention_resolutions=\(8,\)"):
        quick(settings).fit(IMAGES)
    assert quick(settings.set_params(attention_resolutions=(8,))).fit(IMAGES).model_.config.unet["attention"] == (8,)


def built(denoiser, X, y=None, **parameters):
    """The untrained denoiser of a fit."""
    gen = quick(denoiser, **parameters)
    inputs, options = read_fit_inputs(gen, X, y, None), SimpleNamespace(**gen.get_params(deep=False))
    return begin(inputs, None, options, previous=None, resume_from=None, device=torch.device("cpu")).denoiser


def test_the_published_networks_come_out_of_their_settings():
    shape = (2, 32, 32, 3)
    images = np.zeros(shape, dtype=np.uint8)
    images[0] = 255
    published = UNet(
        model_channels=128, num_res_blocks=2, attention_resolutions=(16,), channel_mult=(1, 2, 2, 2), dropout=0.1
    )
    network = built(published, images).network
    # 35.7 million: Ho et al., 2020, appendix B.
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    assert {m.p for m in network.modules() if type(m).__name__ == "Dropout"} == {0.1}


# --------------------------------------------------------------- mechanisms


@pytest.mark.parametrize("network", TINY)
@pytest.mark.parametrize("way", ["film", "adaln", "addition", "concatenation"])
def test_every_network_takes_time_and_condition_by_every_way(network, way, tmp_path):
    settings = clone(TINY[network]).set_params(time_conditioning=way, conditioning=way, time_embedding="table")
    gen = quick(settings, n_timesteps=10).fit(data_for(network), LABELS)
    inside = gen.denoiser_.network
    canonical = "adaln" if way == "film" else way
    assert inside.time_conditioning == inside.conditioning == canonical
    assert inside.time[0].table.num_embeddings == 10
    drawn = gen.sample(3, condition="b", random_state=0)
    again = saved_and_loaded(gen, tmp_path).sample(3, condition="b", random_state=0)
    np.testing.assert_array_equal(drawn, again)


def test_the_u_net_takes_its_settings_into_account():
    settings = UNet(model_channels=4, num_res_blocks=1, time_embedding="learned", conditioning="concatenation")
    gen = quick(settings).fit(IMAGES, LABELS)
    assert type(gen.denoiser_.network.time[0]).__name__ == "FourierEmbedding"
    assert gen.denoiser_.network.conditioning == "concatenation"
    with pytest.raises(ValueError, match="conditioning was 'concatenation' and is 'addition'"):
        gen.set_params(warm_start=True, denoiser__conditioning="addition").fit(IMAGES, LABELS)


def test_the_u_net_attends_to_the_tokens_of_a_condition(tmp_path):
    gen = quick(TINY["unet"]).fit(IMAGES, condition={"words": TOKENS})
    assert gen.model_.config.conditioning == "cross_attention"
    torch.nn.init.normal_(gen.denoiser_.network.conv_out.weight, generator=torch.Generator().manual_seed(0))
    for module in gen.denoiser_.network.modules():
        if hasattr(module, "cross_attention") and module.cross_attention is not None:
            torch.nn.init.normal_(module.cross_attention.attention.out.weight)
            torch.nn.init.normal_(module.conv.weight)
    x, t = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    rows = torch.from_numpy(gen.conditions_.codes[:2]).float()
    # Tokens in another order are the same set; one pooled vector could not tell them from others of the same mean.
    start = gen.model_.config.vectors[0][0] + gen.model_.config.vectors[0][1]
    tokens = rows[:, start:].unflatten(1, (3, 5))
    spread = tokens.clone()
    spread[:, 0] += 1
    spread[:, 1] -= 1

    def estimate(tokens):
        return gen.denoiser_(x, t, torch.cat([rows[:, :start], tokens.flatten(1)], dim=1))

    torch.testing.assert_close(estimate(tokens.flip(1)), estimate(tokens), rtol=1e-4, atol=1e-5)
    assert (estimate(spread) - estimate(tokens)).abs().max() > 1e-4
    again = saved_and_loaded(gen, tmp_path)
    asked = {"condition": {"words": TOKENS[0]}, "random_state": 0}
    np.testing.assert_array_equal(again.sample(2, **asked), gen.sample(2, **asked))
    pooled = quick(clone(TINY["unet"]).set_params(conditioning="film")).fit(IMAGES, condition={"words": TOKENS})
    assert pooled.model_.config.conditioning == "adaln"


def test_tokens_and_an_image_beside_go_together():
    condition = {"words": TOKENS, "sketch": list(IMAGES)}
    gen = quick(TINY["unet"]).fit(IMAGES, condition=condition)
    assert gen.model_.config.conditioning == "cross_attention" and gen.model_.config.beside is not None
    assert gen.sample(2, condition={"words": TOKENS[0], "sketch": IMAGES[0]}, random_state=0).shape == (2, 8, 8)


def test_a_u_net_that_an_earlier_version_saved_is_what_it_was():
    """It had one way for both and saw neither parameter, whatever they were; single channels were normalised."""
    gen = quick(TINY["unet"], n_timesteps=10).fit(IMAGES, LABELS)
    state = gen.model_.config.state()
    unet = {k: v for k, v in state["unet"].items() if k != "time_conditioning"}
    old = {k: v for k, v in state.items() if k not in ("options", "variance")}
    for modulation, way in (("film", "adaln"), ("add", "addition")):
        asked = {"conditioning": "cross_attention", "time_embedding": "learned"}
        spec = ModelConfig.from_state({**old, **asked, "unet": {**unet, "modulation": modulation}})
        network = build_denoiser(spec, "unet", 0).network
        assert (network.time_conditioning, network.conditioning) == (way, way)
        assert type(network.time[0]).__name__ == "SinusoidalEmbedding"
        assert network.down[0].norm.num_groups == 4
        if modulation == "film":
            build_denoiser(spec, "unet", 0).load_state_dict(gen.denoiser_.state_dict())


# --------------------------------------------------------- learned variance


@pytest.mark.parametrize("network", TINY)
def test_learned_variances_are_trained_sampled_and_saved(network, tmp_path):
    gen = quick(TINY[network], n_timesteps=16, variance="learned", max_steps=4).fit(data_for(network), LABELS)
    n = 64 if network == "unet" else 4
    x, t = torch.randn(3, n, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    x0, share = gen.denoiser_.x0_and_share(x, t)
    torch.testing.assert_close(x0, gen.denoiser_(x, t))
    assert share.shape == x.shape and ((share >= 0) & (share <= 1)).all() and share.std() > 0
    asked = {"condition": "b", "guidance_scale": 1.5, "random_state": 0}
    drawn = gen.sample(3, method="ddpm", **asked)
    loaded = saved_and_loaded(gen, tmp_path)
    assert loaded.variance == "learned" and loaded.denoiser_.learned_variance
    np.testing.assert_array_equal(loaded.sample(3, method="ddpm", **asked), drawn)
    assert np.isfinite(gen.score_samples(data_for(network)[:2])).all()
    assert gen.sample(2).shape == (2, *data_for(network).shape[1:])


def test_a_network_of_ones_own_returns_the_variances_too():
    sizes = []

    def network(n_inputs, n_outputs, condition_size):
        sizes.append((n_inputs, n_outputs))
        layer = torch.nn.Linear(n_inputs, n_outputs)
        layer.forward = lambda x, t, c=None: torch.nn.functional.linear(x, layer.weight, layer.bias)
        return layer

    gen = quick(network, n_timesteps=10, variance="learned").fit(ROWS)
    assert sizes == [(4, 8)] and gen.sample(3, method="ddpm").shape == (3, 4)


def test_where_variances_cannot_be_learned_it_is_said_before_training():
    with pytest.raises(ValueError, match="n_timesteps=1000"):
        quick(TINY["mlp"], variance="learned").fit(ROWS)
    assert quick(TINY["mlp"], variance="learned", n_timesteps=1000).fit(ROWS).n_steps_ == 2
    mixed = pd.DataFrame({"x": ROWS[:, 0], "kind": LABELS})
    with pytest.raises(ValueError, match="1 columns of categories"):
        quick(TINY["mlp"], variance="learned", n_timesteps=10).fit(mixed)
    assert quick(TINY["mlp"], variance="fixed", n_timesteps=10).fit(mixed).n_steps_ == 2
    with pytest.raises(ValueError, match="variance must be 'fixed' or 'learned'; got 'large'"):
        quick("auto", variance="large").fit(ROWS)
    gen = quick(TINY["mlp"], n_timesteps=10, warm_start=True).fit(ROWS)
    with pytest.raises(ValueError, match="variance was 'fixed' and is 'learned'"):
        gen.set_params(variance="learned").fit(ROWS)


def test_a_setting_of_a_network_by_name_says_what_to_write_instead():
    gen = DiffusionGenerator()
    with pytest.raises(ValueError, match=r"denoiser must be an object .* Use denoiser=tabdiff.MLP\(hidden_size=8\)"):
        gen.set_params(denoiser__hidden_size=8)
    gen.set_params(denoiser=MLP(), denoiser__hidden_size=8)
    assert gen.denoiser.hidden_size == 8
