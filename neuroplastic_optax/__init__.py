"""Plasticity for any Optax optimizer.

The NeuroPlastic method (Jiang et al., arXiv 2604.26297) as composable gradient transformations:
:func:`scale_by_plasticity` and :func:`homeostasis` are its two parts, :func:`neuroplastic` the
whole, :func:`with_plasticity` brings plasticity to another optimizer.
"""

from neuroplastic_optax._alias import adamw_with_plasticity as adamw_with_plasticity
from neuroplastic_optax._alias import gradient_only as gradient_only
from neuroplastic_optax._alias import neuroplastic as neuroplastic
from neuroplastic_optax._coefficient import plasticity_coefficient as plasticity_coefficient
from neuroplastic_optax._diagnostics import ALPHA_EDGES as ALPHA_EDGES
from neuroplastic_optax._diagnostics import HomeostasisDiagnostics as HomeostasisDiagnostics
from neuroplastic_optax._diagnostics import PlasticityDiagnostics as PlasticityDiagnostics
from neuroplastic_optax._diagnostics import diagnostics as diagnostics
from neuroplastic_optax._homeostasis import HomeostasisState as HomeostasisState
from neuroplastic_optax._homeostasis import homeostasis as homeostasis
from neuroplastic_optax._modulation import ControlLearningRateState as ControlLearningRateState
from neuroplastic_optax._modulation import WithPlasticityState as WithPlasticityState
from neuroplastic_optax._modulation import control_learning_rate as control_learning_rate
from neuroplastic_optax._modulation import with_plasticity as with_plasticity
from neuroplastic_optax._plasticity import PlasticitySettings as PlasticitySettings
from neuroplastic_optax._plasticity import ScaleByPlasticityState as ScaleByPlasticityState
from neuroplastic_optax._schedules import cosine_ramp as cosine_ramp
from neuroplastic_optax._schedules import late_ramp as late_ramp
from neuroplastic_optax._schedules import phase as phase
from neuroplastic_optax._schedules import plasticity_warmup as plasticity_warmup
from neuroplastic_optax._scopes import classifier as classifier
from neuroplastic_optax._scopes import convolution_kernels as convolution_kernels
from neuroplastic_optax._scopes import early_blocks as early_blocks
from neuroplastic_optax._scopes import late_blocks as late_blocks
from neuroplastic_optax._scopes import leaf_path as leaf_path
from neuroplastic_optax._scopes import scope as scope
from neuroplastic_optax._transform import add_bounded_plasticity as add_bounded_plasticity
from neuroplastic_optax._transform import add_orthogonal_plasticity as add_orthogonal_plasticity
from neuroplastic_optax._transform import scale_by_plasticity as scale_by_plasticity

__version__ = "0.1.0"
