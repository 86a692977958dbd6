"""The authors' released update in plain numpy and float64, every backward pass by hand; independent of the package.

It is written from the description of that update alone, to check the agent that reproduces it. A network is a dict of
arrays, `layer{i}/w` `[..., in, out]`, `layer{i}/b` and, in critics, `ln{i}/scale` and `ln{i}/bias`; critics have a
leading head axis throughout. `networks` holds four: actor, target_actor, critic, target_critic.
"""

import dataclasses
import math
from typing import Any

import numpy as np


Network = dict[str, np.ndarray]
Networks = dict[str, Network]
NAMES = ("actor", "target_actor", "critic", "target_critic")
FLOW_EPSILON = 1e-5
LAYER_NORM_EPSILON = 1e-6


def gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tanh approximation of GELU, and its derivative."""
    scale = math.sqrt(2 / math.pi)
    tanh = np.tanh(scale * (x + 0.044715 * x**3))
    inner = scale * (1 + 3 * 0.044715 * x**2)
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner


def forward(network: Network, x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Dense -> GELU -> layer norm if there is one; the last layer is linear. Returns the output and the residuals."""
    depth = sum(name.endswith("/w") for name in network)
    residuals = []
    for i in range(depth):
        layer_input = x
        x = x @ network[f"layer{i}/w"] + network[f"layer{i}/b"][..., None, :]
        slope = normalised = deviation = None
        if i < depth - 1:
            x, slope = gelu(x)
            if f"ln{i}/scale" in network:
                centred = x - x.mean(-1, keepdims=True)
                deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)
                normalised = centred / deviation
                x = normalised * network[f"ln{i}/scale"][..., None, :] + network[f"ln{i}/bias"][..., None, :]
        residuals.append((layer_input, slope, normalised, deviation))
    return x, residuals


def backward(network: Network, residuals: list[Any], d_output: np.ndarray) -> tuple[Network, np.ndarray]:
    """Gradients with respect to the parameters and to the input."""
    gradient, d = {}, d_output
    for i, (layer_input, slope, normalised, deviation) in reversed(list(enumerate(residuals))):
        if normalised is not None:
            gradient[f"ln{i}/scale"] = (d * normalised).sum(-2)
            gradient[f"ln{i}/bias"] = d.sum(-2)
            d = d * network[f"ln{i}/scale"][..., None, :]
            mean, projection = d.mean(-1, keepdims=True), (d * normalised).mean(-1, keepdims=True)
            d = (d - mean - normalised * projection) / deviation
        if slope is not None:
            d = d * slope
        gradient[f"layer{i}/w"] = np.swapaxes(layer_input, -1, -2) @ d
        gradient[f"layer{i}/b"] = d.sum(-2)
        d = d @ np.swapaxes(network[f"layer{i}/w"], -1, -2)
    return gradient, d


def add(*gradients: Network) -> Network:
    return {name: np.sum([gradient[name] for gradient in gradients], axis=0) for name in gradients[0]}


def scaled(gradient: Network, factor: float) -> Network:
    return {name: factor * value for name, value in gradient.items()}


def velocity(actor: Network, obs: np.ndarray, action: np.ndarray, time: Any, log2_steps: Any):
    """The field's answer and its residuals; `time` and `log2_steps` are numbers or one per row."""
    columns = [np.broadcast_to(value, len(obs))[:, None] for value in (time, log2_steps)]
    return forward(actor, np.concatenate([obs, action, *columns], axis=1))


def values(critic: Network, obs: np.ndarray, action: np.ndarray, k: int):
    """Q for each head and row `[heads, batch]`, and the residuals."""
    q, residuals = forward(critic, np.concatenate([obs, action, np.full((len(obs), 1), float(k))], axis=1))
    return q[..., 0], residuals


def values_backward(critic: Network, residuals: list[Any], d_q: np.ndarray, obs_size: int):
    """Gradients with respect to the critic and to the action."""
    gradient, d_input = backward(critic, residuals, d_q[..., None])
    return gradient, d_input.sum(0)[:, obs_size:-1]


def rollout(actor: Network, obs: np.ndarray, noise: np.ndarray, k: int):
    """k jumps from the noise: the end point before and after clipping, and the residuals."""
    action, residuals = noise, []
    for i in range(k):
        v, residual = velocity(actor, obs, action, i / k, math.log2(k))
        residuals.append(residual)
        action = action + v / k
    return action, np.clip(action, -1, 1), residuals


def rollout_backward(actor: Network, preclip: np.ndarray, residuals: list[Any], d_action: np.ndarray, obs_size: int):
    """The actor's gradient through the clip and all jumps."""
    k, gradients = len(residuals), []
    d = np.where(np.abs(preclip) < 1, d_action, 0.0)
    for residual in reversed(residuals):
        gradient, d_input = backward(actor, residual, d / k)
        gradients.append(gradient)
        d = d + d_input[:, obs_size:-2]
    return add(*gradients)


@dataclasses.dataclass
class Draws:
    """What the released code draws in one update."""

    td_noise: np.ndarray
    td_k: int
    fm_x0: np.ndarray
    fm_t_int: np.ndarray
    sc_x0: np.ndarray
    sc_t_int: np.ndarray
    sc_dt_base: np.ndarray
    q_noise: np.ndarray
    q_k: int


@dataclasses.dataclass
class Settings:
    """Hyper-parameters of the released update."""

    learning_rate: float = 1e-4
    clip_norm: float = 1.0
    discount: float = 0.99
    tau: float = 0.005
    aggregate: str = "mean"
    fm_weight: float = 10.0
    sc_weight: float = 10.0
    q_weight: float = 100.0


def flow_matching(actor: Network, batch: dict[str, np.ndarray], x0: np.ndarray, t_int: np.ndarray):
    """Loss and gradient at the finest of eight steps."""
    t = t_int[:, None] / 8
    x_t = (1 - (1 - FLOW_EPSILON) * t) * x0 + t * batch["act"]
    prediction, residuals = velocity(actor, batch["obs"], x_t, t[:, 0], 3)
    error = prediction - (batch["act"] - (1 - FLOW_EPSILON) * x0)
    return (error**2).mean(), backward(actor, residuals, 2 * error / error.size)[0]


def self_consistency(actor: Network, teacher: Network, batch: dict[str, np.ndarray], draws: Draws):
    """Loss and gradient; the teacher makes two half steps and has no gradient."""
    d = 2.0**-draws.sc_dt_base
    t = draws.sc_t_int * d
    x_t = (1 - (1 - FLOW_EPSILON) * t[:, None]) * draws.sc_x0 + t[:, None] * batch["act"]
    first, _ = velocity(teacher, batch["obs"], x_t, t, draws.sc_dt_base + 1)
    midpoint = x_t + d[:, None] / 2 * first
    second, _ = velocity(teacher, batch["obs"], midpoint, t + d / 2, draws.sc_dt_base + 1)
    prediction, residuals = velocity(actor, batch["obs"], x_t, t, draws.sc_dt_base)
    error = prediction - (first + second) / 2
    return (error**2).mean(), backward(actor, residuals, 2 * error / error.size)[0]


def temporal_difference(
    networks: Networks, batch: dict[str, np.ndarray], noise: np.ndarray, k: int, settings: Settings
) -> dict[str, Any]:
    """Loss, intermediate values, and gradients of critic and actor: the target keeps its gradient."""
    obs_size = batch["obs"].shape[1]
    preclip, next_actions, jumps = rollout(networks["actor"], batch["next_obs"], noise, k)
    next_qs, next_residuals = values(networks["target_critic"], batch["next_obs"], next_actions, k)
    qs, residuals = values(networks["critic"], batch["obs"], batch["act"], k)
    if settings.aggregate == "mean":
        next_q, share = next_qs.mean(0), np.full_like(next_qs, 1 / len(next_qs))
    else:
        next_q, share = next_qs.min(0), (next_qs == next_qs.min(0)).astype(next_qs.dtype)
    target = batch["rewards"] + settings.discount * batch["masks"] * next_q
    error = qs - target
    d_qs = 2 * error / error.size
    d_next_qs = share * settings.discount * batch["masks"] * -d_qs.sum(0)
    critic_gradient, _ = values_backward(networks["critic"], residuals, d_qs, obs_size)
    _, d_action = values_backward(networks["target_critic"], next_residuals, d_next_qs, obs_size)
    actor_gradient = rollout_backward(networks["actor"], preclip, jumps, d_action, obs_size)
    return {
        "next_actions": next_actions,
        "next_qs": next_qs,
        "qs": qs,
        "target_q": target,
        "critic_loss": (error**2).mean(),
        "gradient": {"critic": critic_gradient, "actor": actor_gradient},
    }


def q_loss(actor: Network, critic: Network, obs: np.ndarray, noise: np.ndarray, k: int) -> dict[str, Any]:
    """Normalised Q loss, intermediate values, and the actor's gradient through the k jumps."""
    preclip, actions, jumps = rollout(actor, obs, noise, k)
    qs, residuals = values(critic, obs, actions, k)
    scale = np.abs(qs.mean(0)).mean()
    _, d_action = values_backward(critic, residuals, np.full_like(qs, -1 / (scale * qs.size)), obs.shape[1])
    gradient = rollout_backward(actor, preclip, jumps, d_action, obs.shape[1])
    return {"actions": actions, "qs": qs, "loss": -qs.mean() / scale, "gradient": {"actor": gradient}}


def policy_loss(
    actor: Network, teacher: Network, critic: Network, batch: dict[str, np.ndarray], draws: Draws, settings: Settings
) -> dict[str, Any]:
    """The weighted sum of flow matching, self-consistency and Q loss, its parts, and the actor's gradient."""
    fm, fm_gradient = flow_matching(actor, batch, draws.fm_x0, draws.fm_t_int)
    sc, sc_gradient = self_consistency(actor, teacher, batch, draws)
    q = q_loss(actor, critic, batch["obs"], draws.q_noise, draws.q_k)
    weights = settings.fm_weight, settings.sc_weight, settings.q_weight
    parts = fm_gradient, sc_gradient, q["gradient"]["actor"]
    gradient = add(*(scaled(part, weight) for weight, part in zip(weights, parts, strict=True)))
    loss = settings.fm_weight * fm + settings.sc_weight * sc + settings.q_weight * q["loss"]
    return {"loss": loss, "fm": fm, "sc": sc, "q": q["loss"], "q_mean": q["qs"].mean(), "gradient": {"actor": gradient}}


@dataclasses.dataclass
class Adam:
    """One clip and one Adam over the concatenated parameters of all four networks."""

    count: int = 0
    mean: Any = 0.0
    variance: Any = 0.0

    def step(self, networks: Networks, gradients: Networks, settings: Settings) -> Networks:
        """The networks after one step; networks without a gradient get a gradient of zero."""
        paths = [(name, leaf) for name in NAMES for leaf in networks[name]]
        zero = {name: {leaf: np.zeros_like(value) for leaf, value in networks[name].items()} for name in NAMES}
        gradient = np.concatenate([(zero | gradients)[name][leaf].ravel() for name, leaf in paths])
        norm = math.sqrt((gradient**2).sum())
        if norm >= settings.clip_norm:
            gradient = gradient / norm * settings.clip_norm
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.variance = 0.999 * self.variance + 0.001 * gradient**2
        mean, variance = self.mean / (1 - 0.9**self.count), self.variance / (1 - 0.999**self.count)
        change = settings.learning_rate * mean / (np.sqrt(variance) + 1e-8)
        change = self.moment(change, networks)
        return {name: {leaf: networks[name][leaf] - change[name][leaf] for leaf in networks[name]} for name in NAMES}

    def moment(self, flat: np.ndarray, networks: Networks) -> Networks:
        """One number for each parameter, in the layout of the networks."""
        laid_out: Networks = {}
        for name in NAMES:
            laid_out[name] = {}
            for leaf, value in networks[name].items():
                laid_out[name][leaf], flat = flat[: value.size].reshape(value.shape), flat[value.size :]
        return laid_out


def update(
    networks: Networks, adam: Adam, batch: dict[str, np.ndarray], draws: Draws, settings: Settings
) -> tuple[Networks, dict[str, Any]]:
    """One released update, in its order; `adam` is advanced by two steps. Returns the networks and the metrics."""
    td = temporal_difference(networks, batch, draws.td_noise, draws.td_k, settings)
    moved = adam.step(networks, td["gradient"], settings)
    moved["target_critic"] = _average(networks["critic"], networks["target_critic"], settings.tau)
    policy = policy_loss(moved["actor"], networks["target_actor"], networks["critic"], batch, draws, settings)
    moved = adam.step(moved, policy["gradient"], settings)
    moved["target_actor"] = _average(networks["actor"], networks["target_actor"], settings.tau)
    return moved, {
        "critic_loss": td["critic_loss"],
        "q_mean": td["qs"].mean(),
        "target_q_mean": td["target_q"].mean(),
        "critic_grad_norm": _norm(td["gradient"]["critic"]),
        "td_policy_grad_norm": _norm(td["gradient"]["actor"]),
        "flow_matching_loss": policy["fm"],
        "self_consistency_loss": policy["sc"],
        "q_loss": policy["q"],
        "policy_q_mean": policy["q_mean"],
        "policy_loss": policy["loss"],
        "policy_grad_norm": _norm(policy["gradient"]["actor"]),
    }


def _norm(gradient: Network) -> float:
    return math.sqrt(sum((value**2).sum() for value in gradient.values()))


def _average(online: Network, average: Network, tau: float) -> Network:
    return {name: tau * online[name] + (1 - tau) * average[name] for name in online}
