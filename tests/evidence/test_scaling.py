"""Tests of pneumo.evidence.scaling against scikit-learn's logistic regression and values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from pneumo.evidence.metrics import Array
from pneumo.evidence.scaling import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature, scale_probabilities

_ENDS = [0.0, 1e-30, 1e-7, 0.5, 1 - 2**-24, 1.0]


def _sample(seed: int, true_temperature: float, n: int = 500) -> tuple[Array, Array]:
    """Return labels, and probabilities that are calibrated at the temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0.5, 1.5, n).clip(-5, 5)
    return (generator.random(n) < expit(logits)).astype(np.int64), expit(logits * true_temperature)


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_the_inverse_of_a_logistic_regression(seed: int, true_temperature: float) -> None:
    labels, probabilities = _sample(seed, true_temperature)
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    regression.fit(logit(probabilities)[:, None], labels)
    assert fit_temperature(labels, probabilities) == pytest.approx(1 / regression.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found_and_undone(true_temperature: float) -> None:
    labels, probabilities = _sample(7, true_temperature, 20_000)
    fitted = fit_temperature(labels, probabilities)
    assert fitted == pytest.approx(true_temperature, rel=0.05)
    np.testing.assert_allclose(
        scale_probabilities(probabilities, true_temperature), expit(logit(probabilities) / true_temperature)
    )
    assert log_loss(labels, scale_probabilities(probabilities, fitted)) <= log_loss(labels, probabilities) + 1e-12


@settings(deadline=None)
@given(
    pictures=st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=2, max_size=15),
    other=st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
)
def test_no_other_temperature_is_likelier(pictures: list[tuple[int, float]], other: float) -> None:
    labels, probabilities = np.array([y for y, _ in pictures]), np.array([p for _, p in pictures])
    fitted = fit_temperature(labels, probabilities)
    if len(set(labels)) < 2:
        assert fitted == 1.0
        return
    # The loss is computed from logits, because scikit-learn clips probabilities differently.
    signed = np.where(labels == 1, 1, -1) * logit(probabilities)
    loss, other_loss = (np.mean(np.logaddexp(0, -signed / each)) for each in (fitted, other))
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    assert loss <= other_loss + 1e-9


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        (
            [0, 0, 1, 1],
            [0.1, 0.4, 0.6, 0.9],
            MIN_TEMPERATURE,
        ),  # every picture is right: the lower the temperature, the likelier
        ([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0], MIN_TEMPERATURE),
        ([1, 1, 0, 0], [0.1, 0.4, 0.6, 0.9], MAX_TEMPERATURE),  # every picture is wrong
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 1.0),
        ([1, 1, 1, 1], [0.1, 0.4, 0.6, 0.9], 1.0),
        ([0, 0, 0, 0], [0.1, 0.4, 0.6, 0.9], 1.0),
        ([], [], 1.0),
    ],
)
def test_a_temperature_has_bounds_and_is_one_where_nothing_can_be_fitted(
    labels: list[int], probabilities: list[float], expected: float
) -> None:
    assert fit_temperature(np.array(labels), np.array(probabilities)) == expected


def test_a_certain_mistake_is_fitted_as_one_in_ten_million() -> None:
    labels = np.array([1] * 9 + [0] * 10)
    certain = np.array([1.0] * 9 + [1.0] + [0.0] * 9)
    # 18 of 19 are right at a logit of log(1e7), which the temperature scales to log(18).
    assert fit_temperature(labels, certain) == pytest.approx(np.log(1e7 - 1) / np.log(18), rel=1e-9)


def test_scaling_by_hand() -> None:
    # Odds to the power of 1/T: 4 becomes 2, 1/4 becomes 1/2; with T = 1/2, 9 becomes 81.
    np.testing.assert_allclose(scale_probabilities(np.array([0.8, 0.2, 0.5]), 2.0), [2 / 3, 1 / 3, 1 / 2], rtol=1e-12)
    np.testing.assert_allclose(scale_probabilities(np.array([0.9]), 0.5), [81 / 82], rtol=1e-12)


@settings(deadline=None)
@given(
    probabilities=st.lists(st.one_of(st.sampled_from(_ENDS), st.floats(0, 1, width=32)), max_size=20),
    by=st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_scaled_probabilities_keep_order_shape_and_precision(
    probabilities: list[float], by: float, dtype: type
) -> None:
    before: Array = np.array(probabilities, dtype)
    out = scale_probabilities(before, by)
    assert out.dtype == before.dtype
    assert out.shape == before.shape
    assert ((out >= 0) & (out <= 1)).all()
    assert (np.diff(out[np.argsort(before, kind="stable")]) >= 0).all()
    assert ((out > 0.5) <= (before > 0.5)).all()  # scaling never crosses one half
    np.testing.assert_array_equal(scale_probabilities(before, 1.0), before)


def test_the_area_under_the_curve_stays() -> None:
    labels, probabilities = _sample(3, 3.0)
    assert roc_auc_score(labels, scale_probabilities(probabilities, 2.7)) == roc_auc_score(labels, probabilities)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan])
def test_a_temperature_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="above 0 and finite"):
        scale_probabilities(np.array([0.5]), wrong)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.2, np.nan], "from 0 to 1"),
        ([0, 1], [0.2, 1.5], "from 0 to 1"),
        ([0, 1, 1], [0.2, 0.5], "same shape"),
    ],
)
def test_wrong_arrays_are_refused(labels: list[int], probabilities: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(np.array(labels), np.array(probabilities))


def test_whole_numbers_are_no_probabilities() -> None:
    with pytest.raises(ValueError, match="must be floats, got int64"):
        scale_probabilities(np.array([0, 1]), 2.0)
