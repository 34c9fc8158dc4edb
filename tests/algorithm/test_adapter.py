"""The lattice: perturbing and restoring gives the same bits, updates replay to the same bits."""

import hashlib
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_zofc.algorithm.adapter import LATTICE_STEP, Adapter, Optimizer, lattice_eps
from edge_zofc.algorithm.directions import balanced_scales, direction
from edge_zofc.errors import InputError

LATTICE = arrays.arrays(
    np.float32, st.integers(1, 64), elements=st.integers(-(2**24) + 1, 2**24 - 1).map(lambda n: n * LATTICE_STEP)
)


def start(size: int = 500) -> np.ndarray:
    return (np.arange(size) - size // 2).astype(np.float32) * np.float32(2.0**-12)


def test_one_step_by_hand() -> None:
    adapter = Adapter(np.zeros(1, np.float32), seed=0, eps=1e-3, momentum=0.9)
    z = float(direction(0, 0, 0, 1)[0])
    adapter.apply(0, np.array([0.5], np.float32), learning_rate=0.25)
    assert adapter.velocity[0] == 0.5 * z
    assert adapter.theta[0] == -0.125 * z
    adapter.reset_velocity()
    assert adapter.velocity[0] == 0.0


def test_eps_is_rounded_to_the_lattice() -> None:
    assert lattice_eps(1e-3) == 4194 * 2.0**-22
    assert lattice_eps(1e-9) == 2.0**-22
    for bad in (0.0, -1e-3, 0.3, float("nan")):
        with pytest.raises(InputError, match="eps is"):
            lattice_eps(bad)


@settings(max_examples=200)
@given(LATTICE, st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]), st.integers(1, 30))
def test_perturbing_and_restoring_gives_the_same_bits(theta: np.ndarray, eps: float, rounds: int) -> None:
    adapter = Adapter(theta, seed=3, eps=eps, momentum=0.9)
    before = adapter.theta.tobytes()
    other = np.empty_like(adapter.theta)
    for step in range(rounds):
        for query in range(2):
            adapter.perturbed_into(other, step, query, 1)
            adapter.perturb(step, query, 1)
            assert adapter.theta.tobytes() == other.tobytes()
            adapter.perturb(step, query, -2)
            adapter.perturb(step, query, 1)
    assert adapter.theta.tobytes() == before


@settings(max_examples=100)
@given(LATTICE, st.sampled_from([1e-3, 2e-3, 1e-2]), st.integers(1, 5), st.integers(1, 30))
def test_balanced_directions_are_restored_to_the_same_bits(
    theta: np.ndarray, eps: float, first: int, rounds: int
) -> None:
    pieces = [first, len(theta) - first] if first < len(theta) else [len(theta)]
    adapter = Adapter(theta, seed=3, eps=eps, momentum=0.9, scales=balanced_scales(pieces))
    before, other = adapter.theta.tobytes(), np.empty_like(adapter.theta)
    for step in range(rounds):
        adapter.perturbed_into(other, step, 0, 1)
        adapter.perturb(step, 0, 1)
        assert adapter.theta.tobytes() == other.tobytes()
        assert np.abs(adapter.theta).max() < 4
        adapter.perturb(step, 0, -1)
    assert adapter.theta.tobytes() == before


def test_a_balanced_query_moves_each_piece_equally_far() -> None:
    adapter = Adapter(np.zeros(100, np.float32), seed=3, eps=1e-3, momentum=0.9, scales=balanced_scales([10, 90]))
    adapter.perturb(0, 0, 1)
    first, second = (float(np.linalg.norm(part.astype(float))) for part in np.split(adapter.theta, [10]))
    assert first == pytest.approx(second, rel=1e-3)
    assert np.hypot(first, second) == pytest.approx(1e-3 * 10, rel=1e-3)


def test_a_balanced_step_is_the_plain_one_in_scaled_coordinates() -> None:
    """theta = s c: c moves by the optimizer's step with c's gradient, theta by s times that."""
    for optimizer in get_args(Optimizer):
        pieces = [4, 16]  # scales sqrt(20 / 8) and sqrt(20 / 32)
        scaled = Adapter(np.zeros(20, np.float32), 3, 1e-3, 0.9, optimizer, balanced_scales(pieces))
        plain = Adapter(np.zeros(20, np.float32), 3, 1e-3, 0.9, optimizer)
        for step in range(3):
            for adapter in (scaled, plain):
                adapter.apply(step, np.array([0.3, -0.1], np.float32), 1e-2)
        scales = np.repeat(np.sqrt([20 / 8, 20 / 32]), pieces)
        assert scaled.theta == pytest.approx(plain.theta * scales, abs=3 * 2.0**-22)


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_a_piece_that_rests_keeps_its_bits(optimizer: Optimizer) -> None:
    start = (np.arange(-10, 10) * 2.0**-12).astype(np.float32)
    adapter = Adapter(start, 3, 1e-3, 0.9, optimizer, balanced_scales([4, 6, 10], [False, True, False]))
    for step in range(4):
        adapter.perturb(step, 0, 1)
        assert np.flatnonzero(adapter.theta != start)[[0, -1]].tolist() == [4, 9] or step
        adapter.perturb(step, 0, -1)
        adapter.apply(step, np.array([0.3, -0.1], np.float32), 1e-2)
    assert np.array_equal(adapter.theta[:4], start[:4])
    assert np.array_equal(adapter.theta[10:], start[10:])
    assert not np.array_equal(adapter.theta[4:10], start[4:10])


def test_a_rest_is_where_the_adapter_began() -> None:
    start = (np.arange(8) * 2.0**-10).astype(np.float32)
    adapter = Adapter(start, seed=3, eps=1e-3, momentum=0.9, optimizer="adam")
    fresh = Adapter(start, seed=3, eps=1e-3, momentum=0.9, optimizer="adam")
    adapter.apply(0, np.array([0.5], np.float32), 0.1)
    adapter.rest(start)
    assert adapter.theta.tobytes() == fresh.theta.tobytes()
    for name, moment in adapter.moments().items():
        assert moment.tobytes() == fresh.moments()[name].tobytes()


def test_a_piece_too_small_for_its_eps_is_refused() -> None:
    with pytest.raises(InputError, match=r"eps is 0\.2.*smaller --eps"):
        Adapter(np.zeros(1001, np.float32), seed=3, eps=0.2, momentum=0.9, scales=balanced_scales([1, 1000]))


@settings(max_examples=100)
@given(LATTICE, st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4), st.floats(0, 1))
def test_an_update_stays_on_the_lattice(theta: np.ndarray, coefficients: list[float], rate: float) -> None:
    adapter = Adapter(theta, seed=3, eps=1e-3, momentum=0.9)
    adapter.apply(0, np.array(coefficients, np.float32), rate)
    units = adapter.theta.astype(np.float64) / LATTICE_STEP
    assert np.array_equal(units, np.rint(units))
    assert np.all(np.abs(adapter.theta) + adapter.eps < 4)


def test_a_negative_zero_is_never_kept() -> None:
    """-0.0 + eps - eps is +0.0: an update that rounds to -0.0 would not survive a perturbation bit by bit."""
    adapter = Adapter(np.array([-0.0, 0.0], np.float32), seed=1, eps=1e-3, momentum=0.9)
    assert not np.signbit(adapter.theta).any()
    for step in range(40):
        adapter.apply(step, np.array([1e-6], np.float32), 1e-3)
        assert not np.signbit(adapter.theta).any()


def test_momentum_follows_torch_sgd() -> None:
    torch = pytest.importorskip("torch")
    adapter = Adapter(start(), seed=11, eps=1e-3, momentum=0.9)
    parameter = torch.nn.Parameter(torch.from_numpy(start()).double())
    optimiser = torch.optim.SGD([parameter], lr=0.01, momentum=0.9)
    for step in range(20):
        coefficients = np.array([0.03, -0.01], np.float32)
        gradient = sum(c * direction(11, step, q, 500) for q, c in enumerate(coefficients))
        parameter.grad = torch.from_numpy(gradient).double()
        optimiser.step()
        adapter.apply(step, coefficients, 0.01)
    assert np.abs(adapter.theta - parameter.detach().numpy()).max() < 20 * LATTICE_STEP


def test_a_thousand_updates_give_the_known_bits() -> None:
    """The hash was computed on x86-64; every machine with IEEE 754 float32 must give it."""
    adapter = Adapter(start(), seed=1993, eps=1e-3, momentum=0.9)
    for step in range(1000):
        coefficients = np.array([0.01, -0.02, 0.03, -0.04], np.float32) / np.float32(1 + step % 7)
        adapter.apply(step, coefficients, 0.01)
    digest = hashlib.sha256(adapter.theta.astype("<f4").tobytes()).hexdigest()
    assert digest == "8dcf6780544f37885bce5cfa9be7e26e79468f500c33e093e547cae51ca4b272"


# --- exact gradients -------------------------------------------------------------------------------------

GIVEN: tuple[Optimizer, ...] = ("sgd", "sign", "adam")


def given_gradients(count: int) -> list[np.ndarray]:
    """float32 [500] each, of many sizes, a few zeros among them."""
    draw = np.random.RandomState(4)
    found = draw.standard_normal((count, 500)) * 10.0 ** draw.randint(-6, 2, (count, 500))
    found[draw.uniform(size=found.shape) < 0.05] = 0.0
    return list(found.astype(np.float32))


def test_one_step_along_a_given_gradient_by_hand() -> None:
    gradient = np.array([0.5, -0.25, 0.0], np.float32)
    for optimizer, wanted in (("sgd", [-0.125, 0.0625, 0]), ("sign", [-0.25, 0.25, 0]), ("adam", [-0.25, 0.25, 0])):
        adapter = Adapter(np.zeros(3, np.float32), 0, 1e-3, 0.9, optimizer)
        adapter.apply_gradient(gradient, 0.25)
        assert adapter.theta == pytest.approx(np.array(wanted), abs=1e-6), optimizer
    assert gradient.tolist() == [0.5, -0.25, 0.0], "what was given is not changed"
    assert not np.signbit(adapter.theta[2])


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("adam", 2e-3)])
@pytest.mark.parametrize("steps", [1, 8, 200])
def test_a_given_gradient_moves_as_torchs_optimiser(optimizer: Optimizer, rate: float, steps: int) -> None:
    """To 1e-6, beside half a lattice step that each step's rounding may be off."""
    torch = pytest.importorskip("torch")
    adapter = Adapter(start(), 11, 1e-3, 0.9, optimizer)
    parameter = torch.nn.Parameter(torch.from_numpy(start()).double())
    torchs = torch.optim.SGD([parameter], lr=rate, momentum=0.9)
    if optimizer == "adam":
        torchs = torch.optim.Adam([parameter], lr=rate, betas=(0.9, 0.999), eps=1e-8)
    for gradient in given_gradients(steps):
        gradient = np.clip(gradient, -0.1, 0.1)  # so that theta stays inside the lattice
        parameter.grad = torch.from_numpy(gradient).double()
        torchs.step()
        adapter.apply_gradient(gradient, rate)
    expected = parameter.detach().numpy()
    assert np.abs(start() - expected).max() > 100 * LATTICE_STEP, "the reference must have moved"
    assert np.abs(adapter.theta - expected).max() <= 1e-6 + steps * LATTICE_STEP / 2


@pytest.mark.parametrize("optimizer", GIVEN)
def test_an_estimate_given_as_a_gradient_ends_in_the_same_bits(optimizer: Optimizer) -> None:
    by_queries, given = (Adapter(start(), 11, 1e-3, 0.9, optimizer) for _ in range(2))
    for step in range(20):
        coefficients = np.array([0.03, -0.01], np.float32) / np.float32(1 + step % 3)
        given.apply_gradient(given.gradient(step, coefficients), 0.01)
        by_queries.apply(step, coefficients, 0.01)
    assert given.theta.tobytes() == by_queries.theta.tobytes() != start().tobytes()
    for name, moment in by_queries.moments().items():
        assert given.moments()[name].tobytes() == moment.tobytes()


@pytest.mark.parametrize("optimizer", GIVEN)
@settings(max_examples=50)
@given(LATTICE, st.floats(-1e3, 1e3, width=32), st.floats(0, 1))
def test_a_step_along_a_given_gradient_stays_on_the_lattice(
    optimizer: Optimizer, theta: np.ndarray, slope: float, rate: float
) -> None:
    adapter = Adapter(theta, 3, 1e-3, 0.9, optimizer)
    adapter.apply_gradient(np.arange(theta.size, dtype=np.float32) * np.float32(slope), rate)
    units = adapter.theta.astype(np.float64) / LATTICE_STEP
    assert np.array_equal(units, np.rint(units))
    assert np.all(np.abs(adapter.theta) + adapter.eps < 4)
    assert not (np.signbit(adapter.theta) & (adapter.theta == 0)).any()


def test_a_gradient_that_does_not_fit_moves_nothing() -> None:
    ones = np.ones(500, np.float32)
    conserve = Adapter(start(), 3, 1e-3, 0.9, "conserve")
    with pytest.raises(InputError, match=r"'conserve' .*, not an exact gradient; give sgd, sign or adam\.$"):
        conserve.apply_gradient(ones, 0.1)
    plain, scaled = Adapter(start(), 3, 1e-3, 0.9), Adapter(start(), 3, 1e-3, 0.9, scales=balanced_scales([100, 400]))
    for adapter, gradient in ((plain, ones[:1]), (plain, ones[None]), (scaled, ones)):
        with pytest.raises(ValueError, match="does not fit 500 entries without scales"):
            adapter.apply_gradient(gradient, 0.1)
    for adapter in (conserve, plain, scaled):
        assert adapter.theta.tobytes() == start().tobytes()
        assert not adapter.velocity.any()
