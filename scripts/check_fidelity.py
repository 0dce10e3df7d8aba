"""Compare our numbers with torch-fidelity's, on the same images and the same Inception network of random weights.

`scripts/check_fidelity.sh` makes the environment that this needs. Features must agree to 1e-5 of the largest, and
metrics to 1e-6 with what torch-fidelity's functions give for our features in float64; as they are, they add in float32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentdiff.evaluation.distributions import inception_score, kid
from latentdiff.evaluation.inception import Inception2015
from latentdiff.evaluation.manifold import precision_recall
from latentdiff.evaluation.metrics import frechet_distance
from latentdiff.evaluation.moments import frechet, moments_of
from latentdiff.evaluation.samples import SamplesEvaluation
from latentdiff.evaluation.tf_resize import tf_resize

FEATURES, METRICS = 1e-5, 1e-6


def declare_operators() -> None:
    """Let torchvision be imported where its compiled part can't be loaded, as beside a CPU build of torch.

    Its Python part registers shapes for two operators that then don't exist. Declared, they still compute nothing; and
    nothing that is compared here uses them.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declare_operators.keep = library  # type: ignore[attr-defined]  # it undoes its work when it is deleted


def random_weights(path: Path) -> None:
    """Weights that keep the size of what passes through, so that no feature vanishes."""
    torch.manual_seed(0)
    network = Inception2015()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(network.state_dict(), path)


def random_images(folder: Path, count: int, seed: int) -> None:
    """Blurred noise and noise, 64x48 pixels."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
            (64, 48), Image.Resampling.BICUBIC
        )
        noise = rng.normal(0, 4 + 8 * seed, (48, 64, 3))
        Image.fromarray((np.asarray(small) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.png")


def main() -> int:
    """Run all comparisons; the exit code is 1 if one fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    declare_operators()
    import torch_fidelity
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    print(f"torch-fidelity {torch_fidelity.__version__}, torch {torch.__version__}")
    fits = []
    for size in ((32, 32), (64, 48), (299, 299), (512, 300)):
        image = torch.randint(0, 256, (2, 3, *size)).float()
        theirs = interpolate_bilinear_2d_like_tensorflow1x(image, (299, 299), align_corners=False)
        same = torch.equal(tf_resize(image, 299, 299), theirs)
        print(f"resize of {size}: {'the same bits' if same else 'DIFFERS'}")
        fits.append(same)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "inception.pth"
        random_weights(weights)
        for seed, side in enumerate("ab"):
            random_images(folder / side, arguments.images, seed)
        fits += compare_all(folder, weights, arguments.images)
    return 0 if all(fits) else 1


def compare_all(folder: Path, weights: Path, count: int) -> list[bool]:
    """Compare features and metrics of the images in the folders a and b."""
    import torch_fidelity

    subset = count // 2
    start = time.perf_counter()
    evaluation = SamplesEvaluation(
        folder / "a", folder / "b", features=f"inception:{weights}", metrics=["frechet", "is", "precision"],
        cache=folder / "cache",
    )  # fmt: skip
    evaluation.compute()
    ours_seconds = time.perf_counter() - start
    network = torch_fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    start = time.perf_counter()
    a, b = evaluation.sides[False]
    fits = []
    for side in (a, b):
        found: list[list[torch.Tensor]] = [[], []]
        for first in range(0, count, 8):
            numbers = range(first, min(first + 8, count))
            pixels = np.stack([side.images.pixels(number) for number in numbers])
            with torch.no_grad():
                for kept, values in zip(found, network(torch.from_numpy(pixels).permute(0, 3, 1, 2)), strict=True):
                    kept.append(values)
        for output, parts in zip(("pool", "logits"), found, strict=True):
            own, theirs = torch.from_numpy(side.rows(output).take(np.arange(count))), torch.cat(parts)
            difference = float((own - theirs).abs().max() / theirs.abs().max())
            print(f"features {output}: largest difference {difference:.2e} of the largest")
            fits.append(difference <= FEATURES)
    print(f"features: ours {2 * count / ours_seconds:.2f} images/s (reading and writing included), torch-fidelity's "
          f"network alone {2 * count / (time.perf_counter() - start):.2f}")  # fmt: skip
    theirs = torch_fidelity.calculate_metrics(
        input1=str(folder / "a"),
        input2=str(folder / "b"),
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=8,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        feature_layer_prc="2048",
        kid_subset_size=subset,
        kid_subsets=20,
    )
    pools = a.rows("pool"), b.rows("pool")
    few = [moments_of([rows.take(np.arange(count))[:, :subset]], subset) for rows in pools]
    features = [torch.from_numpy(rows.take(np.arange(count))) for rows in (*pools, a.rows("logits"))]
    in_float64 = theirs | double_precision(*features, subset)
    score, distance = inception_score(a.rows("logits")), kid(*pools, subsets=20, subset_size=subset)
    shares = precision_recall(*pools)
    rows = [
        (f"frechet of {subset} features", frechet(*few), "frechet_of_few"),
        ("frechet", frechet(a.moments("pool"), b.moments("pool")), "frechet_inception_distance"),
        ("inception score", score.mean, "inception_score_mean"),
        ("inception score, deviation", score.std, "inception_score_std"),
        ("kid", distance.mean, "kernel_inception_distance_mean"),
        ("kid, deviation", distance.std, "kernel_inception_distance_std"),
        ("precision", shares.precision, "precision"),
        ("recall", shares.recall, "recall"),
    ]
    print("ours, torch-fidelity's as it is (its means and kernels are float32), torch-fidelity's in float64")
    for name, value, key in rows:
        fits.append(abs(value - in_float64[key]) <= METRICS * abs(in_float64[key]))
        found = [other[key] for other in (theirs, in_float64) if key in other]
        away = [f"{other:.10g} ({abs(value - other) / abs(other):.1e} away)" for other in found]
        print(f"{name:28} {value:.10g}  {'  '.join(away)}  {'ok' if fits[-1] else 'DIFFERS'}")
    return fits


def double_precision(a: torch.Tensor, b: torch.Tensor, logits: torch.Tensor, subset: int) -> dict[str, float]:
    """What torch-fidelity's functions give for our features in float64; for low rank, ours by way of SVDs."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = a.double(), b.double()
    # Of more features than images, the eigenvalues that it takes the root of are exact to half of their digits.
    few = [fid_features_to_statistics(pool[:, :subset]) for pool in (a, b)]
    distance = {"frechet_of_few": fid_statistics_to_metric(*few, verbose=False)["frechet_inception_distance"]}
    distance["frechet_inception_distance"] = frechet_distance(a, b)
    options = {"kid_subset_size": subset, "kid_subsets": 20, "verbose": False}
    found: dict[str, float] = distance | kid_features_to_metric(a, b, **options) | isc_features_to_metric(logits)
    return found


if __name__ == "__main__":
    sys.exit(main())
