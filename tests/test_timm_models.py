"""Networks of the library timm: what they compute, and their weights."""

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from test_models import COLOR, GRAY, items, small_vit
from torch.nn import functional


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory) -> Path:
    """Weights of the small ViT as timm's hub has them."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


def test_a_timm_network_computes_what_timm_computes(vit_file):
    whole = timm.create_model("test_vit").eval()
    whole.load_state_dict(load_file(vit_file))
    network = small_vit(pretrained=str(vit_file)).build((3, 32, 32), COLOR, 4).eval()
    x = items(2, (3, 32, 32))
    seen = functional.interpolate(x / 255, size=(160, 160), mode="bilinear", antialias=True)
    seen = (seen - 0.5) / 0.5  # the mean and std of timm's ViTs
    with torch.no_grad():
        torch.testing.assert_close(network.embed(x), whole.forward_head(whole.forward_features(seen), True))


@pytest.mark.parametrize("name", ["test_resnet", "test_mambaout", "mobilenetv3_small_050", "hgnetv2_b0"])
def test_the_width_of_any_timm_family_is_known(name):
    network = small_vit(name=name, image_size=64).build((3, 8, 8), COLOR, 4).eval()
    assert network.adapt.out == (3, 64, 64)
    assert network(items(2, (3, 8, 8))).shape == (2, 4)


def test_position_embeddings_follow_another_image_size_and_keep_the_weights(vit_file):
    network = small_vit(pretrained=str(vit_file), image_size=32).build((3, 32, 32), COLOR, 4)
    state, stored = network.state_dict(), load_file(vit_file)
    before, after = stored["pos_embed"], state["body.0.pos_embed"]
    assert before.shape[1] - after.shape[1] == 10 * 10 - 2 * 2
    assert torch.equal(state["body.0.patch_embed.proj.weight"], stored["patch_embed.proj.weight"])
    assert network(items(2, (3, 32, 32))).isfinite().all()


def test_a_timm_file_needs_no_classifier_and_may_be_saved_by_torch(vit_file, tmp_path):
    stored = {name: value for name, value in load_file(vit_file).items() if not name.startswith("head.")}
    torch.save(stored, tmp_path / "vit.pth")
    network = small_vit(pretrained=str(tmp_path / "vit.pth"), freeze=True).build((3, 32, 32), COLOR, 4)
    assert torch.equal(network.frozen.cls_token, stored["cls_token"])
    assert {name for name, value in network.named_parameters() if value.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_timm_weights_of_another_network_are_refused_by_file_and_entry(vit_file, tmp_path):
    stored = load_file(vit_file)
    patches = stored | {"patch_embed.proj.weight": torch.zeros(64, 3, 32, 32)}  # timm would stretch these
    less = {name: value for name, value in stored.items() if not name.startswith("blocks.0")}
    for wrong, says in [
        (patches, r"patch_embed.proj.weight is \(64, 3, 32, 32\), not \(64, 3, 16, 16\)"),
        (less, "missing blocks.0.norm1.weight; .* and 9 more"),
        (stored | {"blocks.77.norm1.weight": torch.zeros(64)}, "left over blocks.77.norm1.weight"),
    ]:
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match=f"wrong.safetensors does not fit test_vit: .*{says}"):
            small_vit(pretrained=str(tmp_path / "wrong.safetensors")).build((3, 32, 32), COLOR, 3)
    (tmp_path / "odd.safetensors").write_bytes(b"odd")
    with pytest.raises(ValueError, match="odd.safetensors must be a state_dict"):
        small_vit(pretrained=str(tmp_path / "odd.safetensors")).build((3, 32, 32), COLOR, 3)


def test_timm_weights_in_the_cache_of_the_hub_are_used_without_a_network(vit_file, monkeypatch):
    asked = []

    def cached(repository, name, revision=None):
        asked.append((repository, name))
        return str(vit_file) if name == "model.safetensors" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("downloaded"))
    network = small_vit(pretrained=True).build((3, 32, 32), COLOR, 4)
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]
    assert torch.equal(network.body[0].cls_token, load_file(vit_file)["cls_token"])


def test_without_a_network_the_error_says_which_timm_file_to_fetch(monkeypatch):
    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(
        FileNotFoundError, match="needs model.safetensors of timm/test_vit.r160_in1k"
    ) as caught:
        small_vit(pretrained=True).build((3, 32, 32), COLOR, 3)
    told = str(caught.value)
    assert "\n" not in told
    assert "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors" in told
    assert "model.pretrained=<file>" in told


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: small_vit(name="vit_smal_patch16_224"), "model.name .* did you mean vit_small_patch16_224"),
        (lambda: small_vit(name="qqqq"), "model.name is no model of timm .* timm.list_models"),
        (lambda: small_vit(name="test_vit.none"), "model.name .* got test_vit.none; test_vit has r160_in1k"),
        (
            lambda: small_vit(name="coatnet_0_224", pretrained=True),
            "model.pretrained=true .* none of coatnet_0",
        ),
        (
            lambda: small_vit(name="mixer_s32_224", image_size=64).build((3, 8, 8), COLOR, 3),
            "model.image_size: mixer_s32_224 cannot take images of 64 pixels .*image_size=null",
        ),
        (lambda: small_vit().build((4, 32, 32), GRAY, 3), r"3 channels, got items of shape \(4, 32, 32\)"),
        (lambda: small_vit().build((5,), GRAY, 3), r"items of shape \(5,\)"),
    ],
)
def test_timm_settings_and_data_that_do_not_fit_are_refused_with_a_remedy(make, says):
    with pytest.raises(ValueError, match=says):
        make()
