"""What a user deploys: a policy that acts at any budget, its file, and the choice of a budget for a time limit.

Importing, loading and acting need jax, equinox, jaxtyping and numpy, and no simulator or optimiser.
"""

from sorl.policy._acting import act as act, decide as decide
from sorl.policy._file import bad_seeds as bad_seeds, policy_path as policy_path
from sorl.policy._planning import Plan as Plan
from sorl.policy._policy import Policy as Policy, load_policy as load_policy
