"""The mesh: how the devices share the work, and where arrays lie on them.

Its axis ``seed`` shares out the cells, its axis ``data`` the images of every batch. XLA's
partitioner adds all communication.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.cells import ConfigError

SEED, DATA = "seed", "data"

Loop = Literal["map", "vmap"]  # how the cells at one place on the axis ``seed`` are run


def make_mesh(axes: Sequence[str] = (), devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices with the axes ``seed`` and ``data``.

    >>> make_mesh(["data=1"], jax.devices()[:1]).shape_tuple
    (('seed', 1), ('data', 1))

    Args:
      axes: their sizes, such as ``["seed=2", "data=4"]``; ``data`` left out is 1, ``seed`` left
        out all that remains.
      devices: of all processes, where nothing else is said.

    Raises:
      ConfigError: an axis is unknown, there twice or without a size, or the devices do not fit.
    """
    devices = devices or jax.devices()
    sizes: dict[str, int] = {}
    for axis in axes:
        name, _, size = axis.partition("=")
        if name not in (SEED, DATA) or not size.isdecimal() or int(size) < 1:
            raise ConfigError(f"mesh takes seed=N and data=N with N of at least 1, got {axis!r}.")
        if name in sizes:
            raise ConfigError(f"mesh takes {name} once, got {' '.join(axes)}.")
        sizes[name] = int(size)
    data = sizes.get(DATA, 1)
    seed = sizes.get(SEED, max(len(devices) // data, 1))
    if seed * data != len(devices):
        raise ConfigError(
            f"mesh {' '.join(axes)} must take every device: seed={seed} times data={data} is "
            f"{seed * data}, found {len(devices)} devices."
        )
    return jax.make_mesh((seed, data), (SEED, DATA), (AxisType.Auto,) * 2, devices=devices)


def join_processes() -> None:
    """Makes one program of the processes of a job: ``jax.devices()`` are those of all of them.

    Raises:
      ConfigError: this process was not started as a part of a job.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ConfigError(
            f"distributed finds no SLURM, Open MPI, Kubernetes or TPU job around it: {error}"
        ) from error


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Checks that every device has at least one image of a batch.

    Raises:
      ConfigError: it has none.
    """
    if batch_size < mesh.shape[DATA]:
        raise ConfigError(
            f"batch_size must be at least the mesh's data={mesh.shape[DATA]}, got {batch_size}."
        )


def seed_devices(mesh: Mesh, cells: int) -> Mesh:
    """The part of a mesh that so many cells use: a device that trained a copy would only slow them.

    In a job of several processes every one takes part, and the mesh stays whole.
    """
    if cells >= mesh.shape[SEED] or jax.process_count() > 1:
        return mesh
    return Mesh(mesh.devices[:cells], mesh.axis_names, axis_types=mesh.axis_types)


def default_loop(mesh: Mesh) -> Loop:
    """The faster one: one cell after the other on CPUs, all together on accelerators."""
    return "map" if mesh.devices.flat[0].platform == "cpu" else "vmap"


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays as a whole on each device; without a copy where they are there already."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def spread(
    one: Callable[..., Any],
    mesh: Mesh,
    loop: Loop,
    shardings: Any,
    *,
    donate: bool = False,
    skipping: bool = False,
    options: dict[str, Any] | None = None,
) -> Any:
    """``one(state, *cell, data)`` for all cells of all devices in one program.

    Before there is a state it is ``()``; ``donate`` gives its memory to the result.
    ``shardings`` say how the result lies. ``skipping``: the first part of a cell says whether it is
    active, and where it is not a loop leaves it out. ``options`` are the compiler's.
    """
    if skipping:
        one = _where_active(one)

    def share(states: Any, cells: tuple[Any, ...], data: Any) -> Any:
        if loop == "map":
            return jax.lax.map(lambda x: one(x[0], *x[1], data), (states, cells))
        return jax.vmap(lambda state, cell: one(state, *cell, data))(states, cells)

    # Cells do not communicate; check_vma would ask for annotations on every scan's carry. XLA
    # divides a cell's work over the other axis, from the constraints on batch and state.
    shared = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(PartitionSpec(SEED), PartitionSpec(SEED), PartitionSpec()),
        out_specs=PartitionSpec(SEED),
        axis_names={SEED},
        check_vma=False,
    )
    return jax.jit(
        shared,
        out_shardings=shardings,
        donate_argnums=0 if donate else (),
        compiler_options=options,
    )


def _where_active(one: Callable[..., Any]) -> Callable[..., Any]:
    """``one(state, *cell, data)`` where the cell is active; zeros, at no cost, where it is not."""
    traced_once = jax.jit(one, inline=True)

    def cell(state: Any, active: jax.Array, *rest: Any) -> Any:
        shapes = jax.eval_shape(traced_once, state, *rest)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(active, lambda: traced_once(state, *rest), lambda: nothing)

    return cell


def fsdp_spec(shape: Sequence[int], size: int) -> PartitionSpec:
    """Cuts an array along its largest axis that ``size`` divides; leaves it whole without one.

    >>> tuple(fsdp_spec((3, 3, 16, 32), 8)), tuple(fsdp_spec((10,), 8))
    ((None, None, None, 'data'), ())
    """
    axis = max(
        (axis for axis, length in enumerate(shape) if length % size == 0 and length),
        key=lambda axis: shape[axis],
        default=None,
    )
    return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, DATA)
