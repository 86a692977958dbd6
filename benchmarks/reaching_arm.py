"""A simulator of robot arms that reach for points, with a scripted demonstrator; it generates logs for benchmarks."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float


JOINTS = 7
TORQUE_LIMITS = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])
"""Largest torque of each joint, in Nm; actions are torques."""
LINK = 0.15
"""Length of each link, in metres."""
STEP_SECONDS = 0.05
GAIN, DAMPING = 10.0, 4.0
"""Acceleration at full torque, in rad/s^2, and damping rate, in 1/s."""
REACHED = 0.08
"""Distance to the goal, in metres, below which it counts as reached."""
EFFORT = 0.05
"""Weight of the mean squared torque, as a share of the limits, in the reward."""
AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]] * 4)[:JOINTS]
"""Axis of each joint in the frame of the link before it."""

Rows = Float[np.ndarray, "arms size"]


@dataclasses.dataclass
class Arms:
    """Many arms side by side, each in its own episode; `step` moves them all."""

    count: int
    generator: np.random.Generator

    def __post_init__(self):
        shape = (self.count, JOINTS)
        self.angles = self.generator.uniform(-0.3, 0.3, shape)
        self.speeds = np.zeros(shape)
        self.torques = np.zeros(shape)
        self.temperatures = self.generator.uniform(25.0, 35.0, shape)
        self.goals = forward(self.generator.uniform(-0.9, 0.9, shape))[0]
        self.seconds = np.zeros(self.count)

    @property
    def distances(self) -> Float[np.ndarray, " arms"]:
        """Distance from each tip to its goal, in metres."""
        return np.linalg.norm(self.goals - forward(self.angles)[0], axis=1)

    def observe(self) -> Rows:
        """Angles, speeds, last torques, tip and goal in mm, temperatures, a noisy sensor, a clock, two constants."""
        tip = forward(self.angles)[0]
        noise = self.generator.standard_normal
        parts = [
            self.angles + 0.002 * noise(self.angles.shape),
            self.speeds + 0.01 * noise(self.speeds.shape),
            self.torques,
            1000 * tip + noise(tip.shape),
            1000 * self.goals,
            self.temperatures,
            9.81 * AXES[0] + 0.2 * noise((self.count, 3)),
            self.seconds[:, None],
            np.full((self.count, 2), (24.0, 0.0)),
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def step(self, torques: Rows) -> tuple[Float[np.ndarray, " arms"], Bool[np.ndarray, " arms"]]:
        """Moves by one step; **returns** the rewards (minus distance and effort) and whether each goal is reached."""
        shares = np.clip(torques / TORQUE_LIMITS, -1, 1)
        self.speeds = self.speeds + STEP_SECONDS * (GAIN * shares - DAMPING * self.speeds)
        self.angles = self.angles + STEP_SECONDS * self.speeds
        self.torques = shares * TORQUE_LIMITS
        self.temperatures = self.temperatures + 0.1 * np.abs(shares) - 0.01 * (self.temperatures - 25)
        self.seconds = self.seconds + STEP_SECONDS
        distances = self.distances
        return -distances - EFFORT * np.mean(shares**2, axis=1), distances < REACHED

    def demonstrate(self, noise: Rows) -> Rows:
        """Torques that move the tip towards the goal by its Jacobian, plus `noise` as shares of the limits."""
        tip, jacobian = forward(self.angles)
        transposed = np.swapaxes(jacobian, 1, 2)
        wanted = 1.5 * (self.goals - tip)
        damped = jacobian @ transposed + 0.01 * np.eye(3)
        speeds = (transposed @ np.linalg.solve(damped, wanted[:, :, None]))[:, :, 0]
        shares = (DAMPING * speeds + 4.0 * (speeds - self.speeds)) / GAIN
        return np.clip(shares + noise, -1, 1) * TORQUE_LIMITS


def forward(angles: Rows) -> tuple[Rows, Float[np.ndarray, "arms 3 size"]]:
    """The tip's position, in metres, and its Jacobian with respect to the angles."""
    frames = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    tip = np.zeros((len(angles), 3))
    axes, places = [], []
    for joint in range(JOINTS):
        axes.append(frames @ AXES[joint])
        places.append(tip)
        frames = frames @ _rotation(AXES[joint], angles[:, joint])
        tip = tip + LINK * frames[:, :, 0]
    columns = [np.cross(axis, tip - place) for axis, place in zip(axes, places, strict=True)]
    return tip, np.stack(columns, axis=2)


def _rotation(axis: Float[np.ndarray, " 3"], angle: Float[np.ndarray, " arms"]) -> Float[np.ndarray, "arms 3 3"]:
    """The rotation matrices about an axis, by Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
