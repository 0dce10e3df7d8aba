import pytest

from latentdiff.registry import SCHEDULERS
from latentdiff.testing import measure_order

ORDERS = {
    "ddim": (0.9, 1.1),
    "euler": (0.9, 1.1),
    "heun": (1.8, 2.3),
    "dpmpp_2m": (1.8, 2.4),
    "plms": (1.8, 3.0),
    "unipc": (2.7, 4.2),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_order(name, kind):
    scheduler_class = SCHEDULERS.get(name)
    order = measure_order(lambda: scheduler_class(prediction_type=kind))
    print(f"{name} {kind}: order {order:.2f}")
    low, high = ORDERS[name]
    assert low < order < high
