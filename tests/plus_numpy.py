"""Expected-max backup, value-weighted cloning and re-noised jumps in plain numpy and float64, gradients by hand.

Written from their formulas alone, to check the agent that has them as switches; networks as in `released_numpy`.
"""

import numpy as np

from .released_numpy import (
    FLOW_EPSILON,
    Draws,
    Network,
    add,
    backward,
    rollout,
    rollout_backward,
    scaled,
    values,
    values_backward,
    velocity,
)


Batch = dict[str, np.ndarray]


def renoised(actor: Network, obs: np.ndarray, noise: np.ndarray):
    """The end point of a chain before and after clipping, and the residuals; `noise` is `[jumps, batch, action]`."""
    action, residuals = noise[0], []
    for j, fresh in enumerate(noise):
        time = 1 - 2.0**-j
        point = time * action + (1 - time) * fresh
        v, residual = velocity(actor, obs, point, time, j)
        residuals.append(residual)
        action = point + 2.0**-j * v
    return action, np.clip(action, -1, 1), residuals


def renoised_backward(actor: Network, preclip: np.ndarray, residuals: list, d_action: np.ndarray, obs_size: int):
    """The actor's gradient through the clip and all jumps of a chain."""
    gradients, d = [], np.where(np.abs(preclip) < 1, d_action, 0.0)
    for j, residual in reversed(list(enumerate(residuals))):
        gradient, d_input = backward(actor, residual, 2.0**-j * d)
        gradients.append(gradient)
        d = (1 - 2.0**-j) * (d + d_input[:, obs_size:-2])
    return add(*gradients)


def chain(actor: Network, obs: np.ndarray, noise: np.ndarray, k: int, renoise: bool):
    """An action by plain or re-noised jumps."""
    return renoised(actor, obs, noise) if renoise else rollout(actor, obs, noise, k)


def lower_bound(qs: np.ndarray, rho: float) -> np.ndarray:
    """Mean minus rho standard deviations over the heads, which are the first axis."""
    return qs.mean(0) - rho * np.sqrt(((qs - qs.mean(0)) ** 2).mean(0))


def expected_max_td(
    actor: Network,
    critic: Network,
    target_critic: Network,
    batch: Batch,
    noises: list[np.ndarray],
    k: int,
    *,
    discount: float,
    rho: float,
    renoise: bool,
):
    """Loss, targets and the critic's gradient; one array of noise for each candidate."""
    options = []
    for noise in noises:
        _, action, _ = chain(actor, batch["next_obs"], noise, k, renoise)
        options.append(lower_bound(values(target_critic, batch["next_obs"], action, k)[0], rho))
    target = batch["rewards"] + discount * batch["masks"] * np.max(options, axis=0)
    qs, residuals = values(critic, batch["obs"], batch["act"], k)
    error = qs - target
    gradient, _ = values_backward(critic, residuals, 2 * error / error.size, batch["obs"].shape[1])
    return (error**2).mean(), target, gradient


def weighted_policy_loss(
    actor: Network,
    teacher: Network,
    critic: Network,
    target_critic: Network,
    batch: Batch,
    draws: Draws,
    *,
    eta: float,
    rho: float,
    renoise: bool,
    coefficients: tuple[float, float, float],
):
    """Weights, the three losses, and the actor's gradient of their weighted sum."""
    # The Q loss, and the actions that the weights compare the logged ones with.
    obs = batch["obs"]
    preclip, actions, jumps = chain(actor, obs, draws.q_noise, draws.q_k, renoise)
    qs, residuals = values(critic, obs, actions, draws.q_k)
    scale = np.abs(qs.mean(0)).mean()
    _, d_action = values_backward(critic, residuals, np.full_like(qs, -1 / (scale * qs.size)), obs.shape[1])
    through = renoised_backward if renoise else rollout_backward
    q_gradient = through(actor, preclip, jumps, d_action, obs.shape[1])
    logged, own = (lower_bound(values(target_critic, obs, a, draws.q_k)[0], rho) for a in (batch["act"], actions))
    weight = 1 / (1 + np.exp(-(logged - own) / (eta * scale)))

    # Flow matching and self-consistency, each row with its weight.
    def cloning(x0, t, level, velocity_target):
        x_t = (1 - (1 - FLOW_EPSILON) * t[:, None]) * x0 + t[:, None] * batch["act"]
        prediction, residuals = velocity(actor, obs, x_t, t, level)
        error = prediction - velocity_target(x_t)
        d_error = 2 * weight[:, None] * error / error.size
        return (weight * (error**2).mean(1)).mean(), backward(actor, residuals, d_error)[0]

    step = 2.0**-draws.sc_dt_base
    consistency_time = draws.sc_t_int * step

    def two_halves(x_t):
        first, _ = velocity(teacher, obs, x_t, consistency_time, draws.sc_dt_base + 1)
        midpoint = x_t + step[:, None] / 2 * first
        second, _ = velocity(teacher, obs, midpoint, consistency_time + step / 2, draws.sc_dt_base + 1)
        return (first + second) / 2

    straight = batch["act"] - (1 - FLOW_EPSILON) * draws.fm_x0
    flow, flow_gradient = cloning(draws.fm_x0, draws.fm_t_int / 8, 3, lambda _: straight)
    consistency, consistency_gradient = cloning(draws.sc_x0, consistency_time, draws.sc_dt_base, two_halves)
    parts = zip((flow_gradient, consistency_gradient, q_gradient), coefficients, strict=True)
    losses = {
        "flow_matching_loss": flow,
        "self_consistency_loss": consistency,
        "q_loss": -qs.mean() / scale,
        "cloning_weight_mean": weight.mean(),
    }
    return losses, add(*(scaled(gradient, coefficient) for gradient, coefficient in parts))
