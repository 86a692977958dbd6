"""Writes reference values in the layout of the released implementation's, from its numpy transcription.

They hold what our own file lacks: Q and policy loss, TD gradients, whole updates, best-of-N for batches. Names carry
the way to aggregate heads, or the jump count, in one place and leave them out in another, where a file may do either.
"""

from pathlib import Path

import numpy as np

from . import released_numpy as released


# Few and small jump counts: the time of the tests is that of compiling them.
STEP_COUNTS = (2, 4)
AGGREGATES = {2: "min", 4: "mean"}
TARGET_STEPS, POLICY_STEPS = (4, 1, 2), (2, 4, 1)
UPDATES = 3


def write(path: Path, ours: Path) -> None:
    """Writes the file at `path`: parameters and inputs of `ours`, further inputs, and outputs in float64 alone."""
    with np.load(ours, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if not name.startswith(("f32/", "f64/"))}
    _draw(arrays, np.random.default_rng(0))
    exact = {name: value.astype(np.float64) for name, value in arrays.items()}
    networks = {
        name: {key.split("/", 2)[2]: exact[key] for key in exact if key.startswith(f"params/{name}/")}
        for name in released.NAMES
    }
    outputs = _losses(exact, networks) | _updates(exact, networks) | _best_of_n(exact, networks)
    np.savez(path, allow_pickle=False, **arrays, **{f"f64/{name}": value for name, value in outputs.items()})


def _draw(arrays, random):
    """Adds the inputs that our reference file lacks, in float32."""

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    arrays["q/noise"] = normal(16, 3)
    arrays |= {"bon_batch/obs": normal(5, 7), "bon_batch/noise": normal(4, 5, 3)}
    levels = arrays["sc/dt_base"]
    for i in range(UPDATES):
        noises = {f"update/{i}/{name}": normal(16, 3) for name in ("td_noise", "q_noise", "fm_x0", "sc_x0")}
        arrays |= noises | {f"update/{i}/fm_t_int": random.integers(0, 8, 16), f"update/{i}/sc_dt_base": levels}
        arrays[f"update/{i}/sc_t_int"] = random.integers(0, 2 ** levels.astype(int))
        arrays[f"update/{i}/td_k"], arrays[f"update/{i}/q_k"] = np.array(TARGET_STEPS[i]), np.array(POLICY_STEPS[i])


def _batch(exact):
    return {name.removeprefix("in/"): value for name, value in exact.items() if name.startswith("in/")}


def _draws(exact, folder, separator, td_k, q_k):
    names = ("fm/x0", "fm/t_int", "sc/x0", "sc/t_int", "sc/dt_base", "td/noise", "q/noise")
    found = {name.replace("/", "_"): exact[folder + name.replace("/", separator)] for name in names}
    return released.Draws(td_k=int(td_k), q_k=int(q_k), **found)


def _with_gradient(scope, result):
    """The arrays of one loss: values, and gradients by network and leaf."""
    arrays = {f"{scope}/{name}": value for name, value in result.items() if name != "gradient"}
    gradients = result["gradient"].items()
    return arrays | {f"{scope}/grad/{n}/{leaf}": value for n, network in gradients for leaf, value in network.items()}


def _losses(exact, networks):
    batch, outputs = _batch(exact), {}
    for k in STEP_COUNTS:
        draws = _draws(exact, "", "/", k, k)
        settings = released.Settings(aggregate=AGGREGATES[k])
        td = released.temporal_difference(networks, batch, draws.td_noise, k, settings)
        kept = {name: td[name] for name in ("target_q", "critic_loss")}
        outputs |= _with_gradient(f"td/k{k}/{settings.aggregate}", kept | {"gradient": {}})
        level = "" if settings.aggregate == "mean" else f"/{settings.aggregate}"
        outputs |= _with_gradient(f"td/k{k}{level}", {"gradient": td["gradient"]})
        q = released.q_loss(networks["actor"], networks["critic"], batch["obs"], draws.q_noise, k)
        outputs |= _with_gradient(f"q/k{k}", q)
        teacher, critic = networks["target_actor"], networks["critic"]
        policy = released.policy_loss(networks["actor"], teacher, critic, batch, draws, released.Settings())
        outputs |= _with_gradient(f"actor/k{k}", {"loss": policy["loss"], "gradient": policy["gradient"]})
    return outputs


def _updates(exact, networks):
    adam, outputs = released.Adam(), {}
    for i in range(UPDATES):
        draws = _draws(exact, f"update/{i}/", "_", exact[f"update/{i}/td_k"], exact[f"update/{i}/q_k"])
        networks, metrics = released.update(networks, adam, _batch(exact), draws, released.Settings())
        moments = {"mu": adam.moment(adam.mean, networks), "nu": adam.moment(adam.variance, networks)}
        for folder, tree in {"": networks, "mu/": moments["mu"], "nu/": moments["nu"]}.items():
            names = [(name, leaf) for name in released.NAMES for leaf in tree[name]]
            outputs |= {f"update/{i}/{folder}{name}/{leaf}": tree[name][leaf] for name, leaf in names}
        both = np.hypot(metrics["critic_grad_norm"], metrics["td_policy_grad_norm"])
        outputs |= {f"update/{i}/td_grad_norm": both, f"update/{i}/count": np.array(adam.count)}
        outputs[f"update/{i}/policy_grad_norm"] = np.array(metrics["policy_grad_norm"])
    return outputs


def _best_of_n(exact, networks):
    obs, noise, outputs = exact["bon_batch/obs"], exact["bon_batch/noise"], {}
    for k in STEP_COUNTS:
        candidates = np.stack([released.rollout(networks["actor"], obs, n, k)[1] for n in noise])
        qs = np.stack([released.values(networks["critic"], obs, c, k)[0] for c in candidates], axis=1)
        outputs[f"bon_batch/k{k}/candidates"] = candidates
        if k == 2:
            best = qs.mean(0).argmax(0)
            outputs |= {"bon_batch/candidates": candidates, "bon_batch/qs": qs, "bon_batch/best_idx": best}
            outputs["bon_batch/action"] = candidates[best, np.arange(len(obs))]
        for aggregate, q in (("mean", qs.mean(0)), ("min", qs.min(0))):
            outputs[f"bon_batch/k{k}/{aggregate}/q_correct_pairing"] = q
            outputs[f"bon_batch/k{k}/{aggregate}/best_idx_correct"] = q.argmax(0)
    return outputs
