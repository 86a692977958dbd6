"""Networks as Equinox modules: fields, critics, denoisers and the Gaussian network."""

from sorl.networks.critics import CriticEnsemble as CriticEnsemble, Value as Value
from sorl.networks.denoisers import ConsistencyNetwork as ConsistencyNetwork, NoisePredictor as NoisePredictor
from sorl.networks.fields import (
    OneStepField as OneStepField,
    ShortcutField as ShortcutField,
    VelocityField as VelocityField,
)
from sorl.networks.gaussian import GaussianNetwork as GaussianNetwork
from sorl.networks.mlp import MLP as MLP
