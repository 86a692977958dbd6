from sorl.evaluate.__main__ import add_normalised_returns


def test_normalised_returns_are_0_and_1_at_the_reference_scores():
    summary = [{"return": value, "inference_steps": 2, "candidates": 1} for value in (-9.0, -1.0, -3.0)]
    said = add_normalised_returns(summary, (-9.0, -1.0))
    assert [row["normalised_return"] for row in summary] == [0.0, 1.0, 0.75]
    assert said == (
        "Normalised return, 0 at -9 and 1 at -1: 0.000 (M^inf 2, N 1), 1.000 (M^inf 2, N 1), 0.750 (M^inf 2, N 1)."
    )
