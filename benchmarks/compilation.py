"""One program, compiled for an accelerator that need not be there, and counted.

Call `count` in a process of its own: one in which a compiler fails a check of its own ends.
"""

import dataclasses
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import neuroplastic_optax as npx
from benchmarks import hlo, step

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # the process itself; the compilers are asked for by name
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}

# What NVIDIA publishes of the H100 SXM, in the form in which XLA takes it.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000  device_memory_size: 84942979072  l2_cache_size: 52428800
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 }
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """An accelerator to compile for: its name, and the TPU topology of one host."""

    label: str
    topology: str = ""

    @property
    def is_gpu(self) -> bool:
        """Whether its compiler is that of the CUDA plugin."""
        return not self.topology

    def devices(self, topology: str = "") -> Any:
        """The devices of a topology, by default those of one host."""
        if self.is_gpu:
            found = topologies.get_topology_desc("", "cuda", target_config=H100, topology="1x1x1")
        else:
            name = topology or self.topology
            found = topologies.get_topology_desc(platform="tpu", topology_name=name)
        return found.devices


TARGETS = {
    "v4": Target("TPU v4", "v4:2x2x1"),
    "v5e": Target("TPU v5e", "v5e:2x2"),
    "v5p": Target("TPU v5p", "v5p:2x2x1"),
    "v6e": Target("TPU v6e", "v6e:2x2"),
    "h100": Target("H100"),
}

RATE = step.LEARNING_RATE


def _before_rate(*parts: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(*parts, optax.scale_by_learning_rate(RATE))


# An empty tuple of passes: a floor that was not worked out.
CONTESTANTS: dict[str, step.Contestant] = {
    **{name: step.CONTESTANTS[name] for name in ("adam", "adamw")},
    "lamb": step.Contestant("LAMB", lambda: optax.lamb(RATE), ("gmvp > mvu", "up > p")),
    "muon": step.Contestant("Muon", lambda: optax.contrib.muon(RATE), ()),
    **{name: step.CONTESTANTS[name] for name in ("full", "full_bfloat16", "gradient_only")},
    "with_plasticity": step.CONTESTANTS["with_plasticity"],
    "adamw_with_plasticity": step.Contestant(
        "AdamW with plasticity",
        lambda: npx.adamw_with_plasticity(RATE),
        step.CONTESTANTS["with_plasticity"].passes,
    ),
    "on_momentum": step.Contestant(
        "momentum with plasticity",
        lambda: _before_rate(npx.with_plasticity(optax.trace(0.9))),
        ("gamv > ", "gamvM > amvMd", "Mdp > p"),
    ),
    "homeostasis": step.Contestant(
        "SGD with homeostasis", lambda: _before_rate(npx.homeostasis()), ("g > ", "gp > p")
    ),
    "per_leaf": step.Contestant(
        "full, diagnostics by leaf", lambda: npx.neuroplastic(RATE, diagnostics="per_leaf"), ()
    ),
    "bounded": step.Contestant(
        "bounded variant", lambda: _before_rate(npx.variants.add_bounded_plasticity()), ()
    ),
    "orthogonal": step.Contestant(
        "orthogonal variant", lambda: _before_rate(npx.variants.add_orthogonal_plasticity()), ()
    ),
    "controlled": step.Contestant(
        "Adam, rate controlled by plasticity",
        lambda: _before_rate(npx.variants.control_learning_rate(optax.scale_by_adam())),
        (),
    ),
}

TREES: dict[str, Callable[[], Any]] = {
    "leaf": lambda: jax.ShapeDtypeStruct((16_384, 16_384), jnp.float32),
    "resnet18": step.TREES["resnet18"],
    "transformer": step.TREES["transformer"],
}
TITLES = {"leaf": "One leaf"} | {name: step.TITLES[name] for name in ("resnet18", "transformer")}

PODS = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
SHARDINGS = {"data_parallel": "data parallel", "fsdp": "FSDP"}
LAYERS, WIDTH, HEADS, VOCABULARY, CONTEXT = 2, 256, 4, 2_048, 128
BATCH = 1  # sequence per device
DERIVATIVE = "jvp("  # in the name of what `jax.grad` traces


def compile_step(target: str, tree: str, optimizer: str) -> dict[str, Any]:
    """A step of an optimizer alone: parameters and state donated, gradients given."""
    tx = CONTESTANTS[optimizer].make()

    def take(state: Any, params: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return state, optax.apply_updates(params, updates)

    params = TREES[tree]()
    place = SingleDeviceSharding(TARGETS[target].devices()[0])
    state, params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        (jax.eval_shape(tx.init, params), params),
    )
    compiled, seconds = _compile(jax.jit(take, donate_argnums=(0, 1)), state, params, params)
    traffic = hlo.traffic(compiled.as_text())
    leaves = jax.tree.leaves(params)
    parameters = sum(leaf.size for leaf in leaves)
    memory = compiled.memory_analysis()
    return {
        "parameters": parameters,
        "leaves": len(leaves),
        "bytes_per_parameter": traffic.bytes / parameters,
        "kernels": traffic.kernels if TARGETS[target].is_gpu else traffic.array_kernels,
        "temporary_bytes": memory.temp_size_in_bytes,
        "compile_seconds": seconds,
    }


def compile_training(devices: int, sharding: str, optimizer: str) -> dict[str, Any]:
    """A training step of a small transformer on a part of a TPU v5e pod."""
    tx = CONTESTANTS[optimizer].make()
    mesh = Mesh(np.asarray(TARGETS["v5e"].devices(PODS[devices])), ("data",))

    def place(leaf: Any) -> Any:
        spec = split_over(leaf.shape, devices) if sharding == "fsdp" else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    params = step.transformer(LAYERS, WIDTH, VOCABULARY, CONTEXT)
    state, params = jax.tree.map(place, (jax.eval_shape(tx.init, params), params))
    tokens = jax.ShapeDtypeStruct(
        (BATCH * devices, CONTEXT), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec("data"))
    )

    def take(state: Any, params: Any, tokens: jax.Array) -> tuple[Any, Any]:
        gradients = jax.grad(loss)(params, tokens)
        updates, state = tx.update(gradients, state, params)
        return state, optax.apply_updates(params, updates)

    placed = jax.tree.map(lambda leaf: leaf.sharding, (state, params))
    jitted = jax.jit(take, donate_argnums=(0, 1), out_shardings=placed)
    compiled, seconds = _compile(jitted, state, params, tokens)
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    by_kind = hlo.collectives(text)
    of_optimizer = hlo.collectives(text, but_of=DERIVATIVE).values()
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "leaves": len(jax.tree.leaves(params)),
        "collectives": sum(number for number, _ in by_kind.values()),
        "collective_bytes": sum(size for _, size in by_kind.values()),
        "by_kind": " ".join(f"{kind}:{n}:{size}" for kind, (n, size) in by_kind.items()),
        "optimizer_collectives": sum(number for number, _ in of_optimizer),
        "optimizer_bytes": sum(size for _, size in of_optimizer),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "compile_seconds": seconds,
    }


def _compile(jitted: Any, *arguments: Any) -> tuple[Any, float]:
    lowered = jitted.lower(*arguments)
    start = time.perf_counter()
    compiled = lowered.compile()
    return compiled, time.perf_counter() - start


def split_over(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """The longest dimension of a leaf split over all devices, where they divide it.

    >>> tuple(split_over((3, 512), 4)), tuple(split_over((3,), 4))
    ((None, 'data'), ())
    """
    fitting = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if not fitting:
        return PartitionSpec()
    longest = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * longest, "data")


def loss(params: Any, tokens: jax.Array) -> jax.Array:
    """Next-token cross-entropy of the decoder whose leaves `step.transformer` names."""

    def norm(x: jax.Array, of: Any) -> jax.Array:
        return jax.nn.standardize(x) * of["scale"] + of["bias"]

    def dense(x: jax.Array, of: Any) -> jax.Array:
        return x @ of["kernel"] + of["bias"]

    x = params["embedding"][tokens] + params["positions"]
    for block in params["blocks"].values():
        heads = dense(norm(x, block["norm1"]), block["attention"])
        q, k, v = jnp.split(heads.reshape(*x.shape[:2], HEADS, -1), 3, axis=-1)
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x += dense(attended.reshape(x.shape), block["projection"])
        expanded = jax.nn.gelu(dense(norm(x, block["norm2"]), block["expand"]))
        x += dense(expanded, block["contract"])
    logits = norm(x, params["norm"]) @ params["embedding"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).mean()


def use_library(folder: Path) -> None:
    """Takes the optimizers from another copy of the library, such as that of an older commit."""
    name = npx.__name__
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    sys.path.insert(0, str(folder.resolve()))
    for namespace in (globals(), vars(step)):
        namespace["npx"] = importlib.import_module(name)


def count(kind: str, *names: Any, library: Path | None = None) -> dict[str, Any]:
    """The counts of a ``step`` or of a training step (``train``), by the names of its parts."""
    if library is not None:
        use_library(library)
    return compile_step(*names) if kind == "step" else compile_training(*names)
