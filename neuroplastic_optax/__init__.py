"""Plasticity for any Optax optimizer.

The NeuroPlastic method (Jiang et al., arXiv 2604.26297) as composable gradient transformations:
:func:`with_plasticity` brings plasticity to another optimizer, :func:`neuroplastic` is the
published optimizer, :func:`scale_by_plasticity` and :func:`homeostasis` are its two parts, and
:func:`with_diagnostics` keeps what any optimizer does.
"""

from neuroplastic_optax import masks as masks
from neuroplastic_optax import monitoring as monitoring
from neuroplastic_optax import schedules as schedules
from neuroplastic_optax import variants as variants
from neuroplastic_optax._alias import adamw_with_plasticity as adamw_with_plasticity
from neuroplastic_optax._alias import gradient_only as gradient_only
from neuroplastic_optax._alias import neuroplastic as neuroplastic
from neuroplastic_optax._alias import sgd_with_plasticity as sgd_with_plasticity
from neuroplastic_optax._coefficient import plasticity_coefficient as plasticity_coefficient
from neuroplastic_optax._homeostasis import homeostasis as homeostasis
from neuroplastic_optax._migration import migrate_state as migrate_state
from neuroplastic_optax._scale_by_plasticity import scale_by_plasticity as scale_by_plasticity
from neuroplastic_optax._traces import ScaleByPlasticityState as ScaleByPlasticityState
from neuroplastic_optax._with_plasticity import WithPlasticityState as WithPlasticityState
from neuroplastic_optax._with_plasticity import with_plasticity as with_plasticity
from neuroplastic_optax.monitoring import diagnostics as diagnostics
from neuroplastic_optax.monitoring import with_diagnostics as with_diagnostics
from neuroplastic_optax.schedules import plasticity_warmup as plasticity_warmup

__version__ = "0.1.0"
