"""Operations are counted as the shapes of all products say, and shares are of the best rate that was measured."""

import pytest
import torch
import torch.nn.functional as F

from latentdiff.bench import flops
from latentdiff.bench.flops import Peak, count_flops, measure_peak


class Products:
    """Counts the operations of linear maps, convolutions and attention by their shapes, while it is entered."""

    def __init__(self, network, monkeypatch, leave_out=()):
        self.count, self.network, self.monkeypatch, self.leave_out = 0, network, monkeypatch, leave_out

    def __enter__(self):
        self.hooks = [
            module.register_forward_hook(self._called)
            for name, module in self.network.named_modules()
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and not name.endswith(self.leave_out)
        ]
        attend = F.scaled_dot_product_attention

        def counted(query, key, value, *args, **options):
            self.count += 4 * query.numel() * key.shape[-2]
            return attend(query, key, value, *args, **options)

        self.monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
        return self

    def _called(self, module, _inputs, output):
        self.count += 2 * output.numel() * module.weight[0].numel()

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
        self.monkeypatch.undo()


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_parts_add_up_to_the_products_of_all_networks(text_pipe, monkeypatch, scale):
    found = count_flops(text_pipe, {"guidance_scale": scale})
    networks = torch.nn.ModuleList([text_pipe.vae, text_pipe.unet, text_pipe.text_encoder])
    text_pipe.set_scheduler("ddim")
    with Products(networks, monkeypatch) as products:
        text_pipe([""], num_inference_steps=3, guidance_scale=scale)
    assert found.condition + 3 * found.step + found.decode == products.count
    with Products(text_pipe.vae, monkeypatch) as products, torch.no_grad():
        text_pipe.vae.decode(torch.zeros(1, 4, 8, 8))
    assert found.decode == products.count > 0


@pytest.mark.thorough
def test_a_step_is_a_call_of_the_network_and_the_context_is_prepared_once(text_pipe, monkeypatch):
    found = count_flops(text_pipe, {"guidance_scale": 1.0})
    unet = text_pipe.unet
    with torch.no_grad(), Products(unet, monkeypatch, ("attn2.to_k", "attn2.to_v")) as products:
        unet(torch.zeros(1, 4, 8, 8), torch.tensor(1), encoder_hidden_states=torch.zeros(1, 12, 16))
    assert found.step == products.count
    assert count_flops(text_pipe, {"guidance_scale": 5.0}).step > 1.5 * found.step


def test_the_model_keeps_its_solver(text_pipe):
    text_pipe.set_scheduler("unipc")
    before = text_pipe.scheduler
    count_flops(text_pipe, {})
    assert text_pipe.scheduler is before


def test_the_peak_is_the_best_rate_over_sizes_and_stops_at_long_operations(monkeypatch):
    seconds = iter([9.0, 3.0, 2.0, 1.0, 2.0, 3.0, *[9.0, *[0.25] * 5], *[9.0, *[0.01] * 5], *[9.0, *[0.02] * 5]])
    monkeypatch.setattr(flops, "seconds_of", lambda *_: next(seconds))
    monkeypatch.setattr(flops, "LONG_ENOUGH", 2.0)
    peak = measure_peak(torch.device("cpu"), torch.bfloat16)
    assert peak.matmul == max(2 * 16**3 / 1.0, 2 * 32**3 / 0.25)
    assert peak.convolution == max(2 * 8 * 32**2 * 9 * 2**2 / 0.01, 2 * 8 * 32**2 * 9 * 4**2 / 0.02)
    assert peak.dtype == "bfloat16" and peak.best == peak.convolution
    monkeypatch.setattr(flops, "LONG_ENOUGH", 1.0)
    seconds = iter([9.0, *[1.0] * 5, 9.0, *[1.0] * 5])
    assert measure_peak(torch.device("cpu"), torch.float32).matmul == 2 * 16**3  # 32 isn't tried


def test_the_better_of_both_is_the_peak():
    assert Peak(3.0, 2.0, "float32").best == 3.0
