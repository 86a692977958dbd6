"""Networks as Equinox modules: fields, actors, critics and denoisers."""

from sorl.networks.actors import GaussianActor as GaussianActor
from sorl.networks.critics import CriticEnsemble as CriticEnsemble, Value as Value
from sorl.networks.denoisers import ConsistencyNetwork as ConsistencyNetwork, NoisePredictor as NoisePredictor
from sorl.networks.fields import (
    OneStepField as OneStepField,
    ShortcutField as ShortcutField,
    VelocityField as VelocityField,
)
from sorl.networks.mlp import MLP as MLP
