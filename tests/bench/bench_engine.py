"""The spectrum engine against torch.linalg.svd: seconds, interleaved, in one process; and both against float64.

What is timed is what a threshold needs: every singular value, and the triplets above Gavish and Donoho's tau. The
baseline is ``torch.linalg.svd(delta, full_matrices=False)`` in float32. On the CPU the clock is the process's own, on
one thread, so that other processes disturb little; on CUDA it is the wall, synchronised.

Run: ``python -m tests.bench.bench_engine [--quick] [--out FILE.md]``.
"""

import argparse
import contextlib
import datetime
import platform
import statistics
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

import dgviz.spectra.svd.solve
import dgviz.spectra.svd.triplets
from dgviz.rmt.law import aspect_ratio, svht_coef
from dgviz.spectra.svd.decompose import decompose
from tests.deltas import FAMILIES, compare


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int]
    spikes: int
    strongest: float  # in units of the bulk edge
    target: str  # ours / svd, as asked for
    rounds: int = 3
    repeats: int = 1
    accuracy: bool = True
    quick: bool = False


CASES = [
    Case((8192, 3072), 30, 12, "1/4 (1/6)"),
    Case((8192, 3072), 30, 1000, "1/4 (1/6)"),
    Case((1024, 4096), 30, 12, "1/4", 5, quick=True),
    Case((1024, 4096), 30, 1000, "1/4", 5, quick=True),
    Case((1024, 4096), 300, 12, "1/1.5", 5, quick=True),
    Case((1024, 4096), 300, 1000, "1/1.5", 5, quick=True),
    Case((4096, 1024), 30, 12, "-", 5, quick=True),
    Case((4096, 1024), 300, 1000, "-", 5, quick=True),
    Case((1024, 1024), 30, 12, "1/2", 5, quick=True),
    Case((1024, 1024), 30, 1000, "1/2", 5, quick=True),
    Case((151936, 1024), 30, 12, "1/2", 2, accuracy=False),
    Case((128256, 2048), 30, 12, "-", 1, accuracy=False),
    Case((4096, 4096), 30, 12, "-", 1, accuracy=False),
    Case((2560, 9728), 30, 12, "-", 1, accuracy=False),
    Case((2048, 768), 10, 12, "-", 5, quick=True),
    Case((576, 1536), 10, 12, "-", 5, 2, quick=True),
    Case((512, 512), 10, 12, "1", 7, 4, quick=True),
    Case((256, 256), 5, 12, "1", 9, 10, quick=True),
    Case((512, 128), 5, 12, "1", 9, 20, quick=True),
    Case((128, 128), 5, 12, "1", 9, 40, quick=True),
    Case((64, 64), 3, 12, "1", 9, 100, quick=True),
    Case((32, 32), 2, 12, "1", 9, 200, quick=True),
]


def planted(case, device):
    """Unit noise and spikes spaced geometrically from 1.6 times the bulk edge."""
    generator = torch.Generator().manual_seed(0)
    m, n = case.shape
    u, v = (torch.linalg.qr(torch.randn(d, case.spikes, generator=generator)).Q for d in (m, n))
    steps = torch.linspace(0, 1, case.spikes)
    values = (m**0.5 + n**0.5) * 1.6 * (case.strongest / 1.6) ** steps
    delta = torch.randn(m, n, generator=generator)
    return delta.addmm_(u * values, v.T).to(device)


@cache
def coefficient(shape):
    """The threshold in units of the median: a constant of the shape, which the engine knows nothing of."""
    return svht_coef(aspect_ratio(shape))


def tau_of(s, shape):
    return coefficient(shape) * float(s[(s.numel() - 1) // 2] + s[s.numel() // 2]) / 2


def ours(delta, device):
    found = decompose(delta, device)
    rank = int((found.s > tau_of(found.s, found.shape)).sum())
    return found, rank, found.triplets(rank)


def seconds(function, device, repeats=1):
    """Return seconds per call, of the process on the CPU, of the wall on CUDA."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    synchronise = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    synchronise()
    started = clock()
    for _ in range(repeats):
        function()
    synchronise()
    return (clock() - started) / repeats


def errors(found, delta):
    """Return rank, |dtau| / tau and |dD*| / |D*| against a float64 SVD."""
    result = compare(delta.cpu(), found)
    ranks = str(result.rank) if result.same_rank else f"{result.rank}, should be {result.expected_rank}"
    return ranks, f"{result.tau_error:.0e}", f"{result.repaired_error:.0e}"


def measure(case, device):
    """Return one row of the table."""
    delta = planted(case, device)
    tall = delta if case.shape[0] >= case.shape[1] else delta.T
    baselines = {"svd": lambda: torch.linalg.svd(delta, full_matrices=False)}
    if device != "cpu":
        baselines["gesvdj"] = lambda: torch.linalg.svd(delta, full_matrices=False, driver="gesvdj")
    functions = {"gemm": lambda: tall.T @ tall, "ours": lambda: ours(delta, device), **baselines}
    if case.repeats > 1:  # small: the first calls load code
        for function in functions.values():
            function()
    times = {name: [] for name in functions}
    for _ in range(case.rounds):
        for name, function in functions.items():
            times[name].append(seconds(function, device, case.repeats))
    median = {name: statistics.median(values) for name, values in times.items()}
    found, rank, _ = ours(delta, device)
    maps = seconds(lambda: found.direction_maps(384), device)
    accuracy = errors(found, delta) if case.accuracy else (str(rank), "-", "-")
    ratio = median["svd"] / median["ours"]
    with_maps = median["svd"] / (median["ours"] + maps)
    cells = [
        device,
        f"{case.shape[0]} x {case.shape[1]}",
        f"{case.spikes} to {case.strongest:g}",
        f"{median['svd']:.3g}" + (f" ({median['gesvdj']:.3g})" if "gesvdj" in median else ""),
        f"{median['ours']:.3g}",
        f"1/{ratio:.1f}",
        case.target,
        f"{median['ours'] / median['gemm']:.2f}",
        f"1/{with_maps:.1f}",
        found.certificate.route,
        *accuracy,
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| device | shape | spikes | svd s | ours s | ours/svd | wanted | ours in GEMM | with every direction / svd "
    "| route | rank | dtau/tau | dD*/D* |\n|" + "---|" * 13
)
STEPS = {
    (dgviz.spectra.svd.solve, "find_spikes"): "spikes far above the bulk",
    (dgviz.spectra.svd.solve, "deflated_gram"): "half Gram matrix of what is left",
    (dgviz.spectra.svd.solve, "bulk_eigenvalues"): "its eigenvalues",
    (dgviz.spectra.svd.triplets, "mirrored"): "its other half",
    (dgviz.spectra.svd.triplets, "leading_directions"): "filtered directions above tau",
    (dgviz.spectra.svd.triplets, "rayleigh_ritz"): "triplets",
    (dgviz.spectra.svd.triplets, "residual"): "residuals",
}


@contextlib.contextmanager
def timed_steps(device, spent):
    """Add the seconds of every step of the engine to `spent`, by its words."""
    originals = {step: getattr(*step) for step in STEPS}

    def timed(step):
        def call(*arguments):
            result = []
            elapsed = seconds(lambda: result.append(originals[step](*arguments)), device)
            spent[STEPS[step]] = spent.get(STEPS[step], 0.0) + elapsed
            return result[0]

        return call

    for module, name in STEPS:
        setattr(module, name, timed((module, name)))
    try:
        yield
    finally:
        for (module, name), function in originals.items():
            setattr(module, name, function)


def profile(case, device):
    """Return a table of where the time goes, in GEMMs; the floor is a half Gram and its eigenvalues."""
    delta = planted(case, device)
    tall = delta if case.shape[0] >= case.shape[1] else delta.T
    gemm = statistics.median(seconds(lambda: tall.T @ tall, device) for _ in range(3))
    ours(delta, device)
    rounds, total, spent = 3, [], {}
    with timed_steps(device, spent):
        total = [seconds(lambda: ours(delta, device), device) for _ in range(rounds)]
    lines = [f"| {words} | {spent[words] / rounds / gemm:.2f} |" for words in STEPS.values() if words in spent]
    rest = (sum(total) - sum(spent.values())) / rounds
    lines += [f"| everything else | {rest / gemm:.2f} |", f"| sum | {sum(total) / rounds / gemm:.2f} |"]
    title = (
        f"{case.shape[0]} x {case.shape[1]}, {case.spikes} spikes to {case.strongest:g} times the edge, on {device}"
    )
    return "\n".join(
        [f"Where the time goes: {title} (one GEMM: {gemm:.2f} s)\n", "| step | GEMM |", "|---|---|", *lines]
    )


ACCURACY_SHAPES = [(1024, 1024), (1024, 2048), (4096, 1024), (500, 300)]
ACCURACY_HEADER = "| family | worst dtau/tau | worst dD*/D* | worst ds/s_1 | rank | routes by shape |\n|" + "---|" * 6


def accuracy(family, device):
    """Return one row of the accuracy table: the worst over the shapes."""
    results, routes = [], []
    for shape in ACCURACY_SHAPES:
        delta = FAMILIES[family](*shape).float()
        found = decompose(delta.to(device), device)
        results.append(compare(delta, found))
        routes.append(found.certificate.route)
    taus = [result.tau_error for result in results if result.tau_error is not None]
    wrong = [f"{result.rank} for {result.expected_rank}" for result in results if not result.same_rank]
    cells = [
        family,
        f"{max(taus):.0e}" if taus else "no threshold",
        f"{max(result.repaired_error for result in results):.0e}",
        f"{max(result.value_error for result in results):.0e}",
        ", ".join(wrong) or "same",
        ", ".join(routes),
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the speed of shapes that take seconds")
    parser.add_argument("--out", type=Path, help="write the tables there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    devices = ["cpu"] + (["cuda:0"] if torch.cuda.is_available() else [])
    written = []

    def show(text):
        written.append(text)
        print(text, flush=True)

    cuda = torch.cuda.get_device_name(0) if len(devices) > 1 else "no CUDA device here: nothing was run on one"
    show("# The spectrum engine, as measured\n")
    show(
        f"{datetime.date.today()}, {platform.platform()}, {processor()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}; {cuda}. By `python -m tests.bench.bench_engine`.\n"
    )
    show(
        "## Speed\n\n"
        + __doc__.split("\n\n")[1]
        + " Medians of interleaved rounds; spikes in units of the bulk edge.\n"
    )
    show(HEADER)
    for device in devices:
        for case in CASES:
            if options.quick <= case.quick:
                show(measure(case, device))
    if not options.quick:
        for device in devices:
            for case in CASES[:2]:
                show("\n" + profile(case, device))
            shapes = ", ".join(f"{m} x {n}" for m, n in ACCURACY_SHAPES)
            show(f"\n## Accuracy against float64 SVD, on {device}, worst of {shapes}\n\n{ACCURACY_HEADER}")
            for family in FAMILIES:
                show(accuracy(family, device))
    if options.out:
        options.out.write_text("\n".join(written) + "\n", encoding="utf-8")


def processor():
    """Return the name of the processor, as far as this system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
