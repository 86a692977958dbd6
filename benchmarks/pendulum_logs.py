"""Logs of Pendulum-v1 by a controller that swings up, with noise that differs between episodes."""

from pathlib import Path

import numpy as np


NOISES = (0.2, 0.7, 1.4)
"""Scales of the controller's noise, as a share of the largest torque; episodes take them in turns."""
LARGEST_TORQUE = 2.0
TOP_ENERGY = 5.0
"""Energy of the pendulum (mass 1, length 1, gravity 10) at rest at the top."""


def torque(observation: np.ndarray) -> float:
    """The torque that adds energy until the pendulum is near the top, and then holds it there."""
    cosine, sine, speed = observation
    if cosine > 0.9 and abs(speed) < 3:
        return float(np.clip(-12 * np.arctan2(sine, cosine) - 3 * speed, -LARGEST_TORQUE, LARGEST_TORQUE))
    missing = TOP_ENERGY - (speed**2 / 6 + 5 * cosine)
    return LARGEST_TORQUE * float(np.sign(missing) * (1 if speed >= 0 else -1))


def write_pendulum_logs(path: Path, episodes: int = 150, seed: int = 0) -> None:
    """Writes an npz file of episodes of 200 steps, all of which end by a time-out, as `sorl.load_logs` documents it."""
    import gymnasium

    environment, generator = gymnasium.make("Pendulum-v1"), np.random.default_rng(seed)
    rows: dict[str, list] = {name: [] for name in ("observations", "actions", "rewards", "next_observations")}
    ends = []
    for episode in range(episodes):
        observation, _ = environment.reset(seed=1_000_000 + episode)  # an evaluation plays other seeds
        noise, scale, over = 0.0, NOISES[episode % len(NOISES)], False
        while not over:
            # The noise lasts for some steps, like that of a human demonstrator.
            noise = 0.8 * noise + 0.6 * scale * LARGEST_TORQUE * generator.standard_normal()
            action = np.clip([torque(observation) + noise], -LARGEST_TORQUE, LARGEST_TORQUE).astype(np.float32)
            after, reward, _, over, _ = environment.step(action)
            for name, value in zip(rows, (observation, action, reward, after), strict=True):
                rows[name].append(value)
            ends.append(over)
            observation = after
    environment.close()
    arrays = {name: np.asarray(values, np.float32) for name, values in rows.items()}
    np.savez(path, **arrays, terminals=np.zeros(len(ends)), timeouts=np.asarray(ends))  # pyright: ignore[reportArgumentType]
