"""What is counted in programs of XLA, in texts that need no compiler, and what becomes of it."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest
from rich.console import Console

from benchmarks import accelerators, accelerators_report, compilation, harness, hlo
from experiments.cells import ConfigError

# x + 1 for a leaf, a sum of what it gives, and a scalar of the sum: 3 kernels on a GPU.
GPU = """
HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

%fused_add (param_0: f32[8,128], param_1: bf16[8,128]) -> (f32[8,128], f32[8]) {
  %param_0 = f32[8,128]{1,0} parameter(0)
  ROOT %add = f32[8,128]{1,0} add(%param_0, %param_0)
}

ENTRY %main.1 (p.1: f32[8,128], g.1: bf16[8,128]) -> (f32[8,128], f32[]) {
  %p.1 = f32[8,128]{1,0} parameter(0), metadata={op_name="p[0]"}
  %g.1 = bf16[8,128]{1,0} parameter(1)
  %fusion = (f32[8,128]{1,0}, /*index=1*/f32[8]{0}) fusion(%p.1, /*index=1*/%g.1), kind=kInput, \
calls=%fused_add, metadata={op_name="jit(step)/add (of %p.1)"}
  %get-tuple-element.1 = f32[8]{0} get-tuple-element(%fusion), index=1
  %reduce = f32[] fusion(%get-tuple-element.1), kind=kInput, calls=%fused_reduce
  %loop_add = f32[] fusion(%reduce), kind=kLoop, calls=%fused_scalar
  %get-tuple-element = f32[8,128]{1,0} get-tuple-element(%fusion), index=0
  ROOT %tuple = (f32[8,128]{1,0}, f32[]) tuple(%get-tuple-element, %loop_add)
}
"""

# One leaf is fetched onto the chip whole, the other by a slice; both are added there.
TPU = """
HloModule jit_step, is_scheduled=true

ENTRY %main.1 (p.1: f32[8,128], g.1: f32[16,128]) -> f32[8,128] {
  %p.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %g.1 = f32[16,128]{1,0:T(8,128)} parameter(1)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) \
copy-start(%p.1)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%g.1), slice={[0:8], [0:128]}
  %slice-done = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  %custom-call = f32[8,128]{1,0:T(8,128)S(1)} custom-call(%slice-done), \
custom_call_target="ConcatBitcast"
  ROOT %fusion = f32[8,128]{1,0:T(8,128)} fusion(%copy-done, %custom-call), kind=kLoop, calls=%add
}
"""

LOOP = """
%body (state: (s32[], f32[100])) -> (s32[], f32[100]) {
  %state = (s32[], f32[100]{0}) parameter(0)
  %get-tuple-element = f32[100]{0} get-tuple-element(%state), index=1
  %negate = f32[100]{0} negate(%get-tuple-element)
  ROOT %tuple = (s32[], f32[100]{0}) tuple(%get-tuple-element, %negate)
}

ENTRY %main (x: f32[100]) -> f32[100] {
  %x = f32[100]{0} parameter(0)
  %start = (s32[], f32[100]{0}) tuple(%x, %x)
  %while = (s32[], f32[100]{0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %get-tuple-element.1 = f32[100]{0} get-tuple-element(%while), index=1
}
"""

COLLECTIVES = """
%fused (p: f32[64]) -> f32[16] {
  %p = f32[64]{0} parameter(0)
  ROOT %scatter = f32[16]{0} reduce-scatter(%p), dimensions={0}, to_apply=%add
}

ENTRY %main (x: f32[64], y: f32[]) -> f32[16] {
  %x = f32[64]{0} parameter(0)
  %y = f32[] parameter(1)
  %all-reduce = (f32[], f32[]) all-reduce(%y, %y), to_apply=%add, \
metadata={op_name="jit(take)/transpose(jvp())/reduce_sum"}
  %all-gather-start = (f32[64]{0}, f32[256]{0}) all-gather-start(%x), dimensions={0}, \
metadata={op_name="jit(take)/reduce_sum"}
  %all-gather-done = f32[256]{0} all-gather-done(%all-gather-start)
  ROOT %fusion = f32[16]{0} fusion(%x), kind=kCustom, calls=%fused
}
"""
LEAF = 8 * 128


class TestTraffic:
    def test_of_a_gpu_is_all_operands_and_results(self):
        counted = hlo.traffic(GPU)
        first, second, third = 4 * LEAF + 2 * LEAF + 4 * LEAF + 32, 32 + 4, 4 + 4
        assert counted == hlo.Traffic(first + second + third, kernels=3, array_kernels=2)

    def test_of_a_tpu_leaves_out_what_is_on_the_chip(self):
        """Each leaf is read once, the result written once; the adding reads nothing of memory."""
        assert hlo.traffic(TPU) == hlo.Traffic(3 * 4 * LEAF, kernels=1, array_kernels=1)

    def test_of_a_loop_counts_as_often_as_it_runs(self):
        assert hlo.traffic(LOOP) == hlo.Traffic(5 * 800, kernels=5, array_kernels=5)

    def test_of_a_compiled_program_on_cpu_is_that_of_its_arrays(self):
        x = jax.ShapeDtypeStruct((1000,), "float32")
        text = jax.jit(lambda x, y: x * y + 1).lower(x, x).compile().as_text()
        assert hlo.traffic(text).bytes == 3 * 4000

    def test_of_half_a_text_is_an_error(self):
        with pytest.raises(ValueError, match="no entry computation"):
            hlo.traffic(GPU.partition("ENTRY")[0])


def test_collectives_are_counted_by_kind_wherever_they_are():
    assert hlo.collectives(COLLECTIVES) == {
        "all-gather": (1, 4 * 256),
        "all-reduce": (1, 8),
        "reduce-scatter": (1, 4 * 64),
    }


def test_collectives_of_the_derivative_and_of_nothing_known_can_be_left_out():
    rest = hlo.collectives(COLLECTIVES, but_of=compilation.DERIVATIVE)
    assert rest.keys() == {"all-gather"}


@pytest.mark.parametrize(
    ("shape", "size"), [("u8[3]", 3), ("s4[3]", 2), ("f8e4m3fn[8]", 8), ("pred[]", 1)]
)
def test_bytes_of_narrow_types(shape: str, size: int):
    assert [found.bytes for found in hlo.shapes(shape)] == [size]


class TestFloors:
    def test_are_those_counted_by_hand(self):
        floors = {
            name: contestant.floor
            for name, contestant in compilation.CONTESTANTS.items()
            if contestant.passes
        }
        assert floors == {
            "adam": 28,
            "adamw": 28,
            "lamb": 28 + 12,
            "full": 16 + 32 + 12,
            "full_bfloat16": 10 + 20 + 12,
            "gradient_only": 4 + 4 + 12,
            "with_plasticity": 16 + 52 + 16,
            "adamw_with_plasticity": 16 + 52 + 16,
            "on_momentum": 16 + 40 + 16,
            "homeostasis": 4 + 12,
        }


@pytest.mark.parametrize(
    ("line", "optimizer"),
    [
        ("`neuroplastic`", "full"),
        ("`neuroplastic`, bfloat16 traces", "full_bfloat16"),
        ("`gradient_only`", "gradient_only"),
        ("`adamw_with_plasticity`", "adamw_with_plasticity"),
        ("`with_plasticity` around Adam, then `homeostasis`", "with_plasticity"),
    ],
)
def test_the_page_on_the_method_has_the_floors_and_what_was_counted(line: str, optimizer: str):
    docs = Path(__file__).parents[1] / "docs"
    counted = pd.read_csv(docs / "results/benchmarks-accelerators/steps.csv")
    of_leaf = counted.query("tree == 'leaf' and optimizer == @optimizer").set_index("target")
    cells = of_leaf["bytes_per_parameter"][["v5e", "v5p", "v6e", "h100"]]
    floor = compilation.CONTESTANTS[optimizer].floor
    row = " | ".join([line, f"{floor}", *(f"{cell:.0f}" for cell in cells)])
    assert f"| {row} |" in (docs / "method.md").read_text("utf-8").splitlines()


def test_on_an_h100_adamw_with_plasticity_is_within_two_percent_of_its_floor_on_models():
    records = Path(__file__).parents[1] / "docs/results/benchmarks-accelerators/steps.csv"
    counted = pd.read_csv(records).query("optimizer == 'adamw_with_plasticity' and tree != 'leaf'")
    of_h100 = counted[counted["target"] == "h100"]["bytes_per_parameter"]
    assert len(of_h100) == 2
    assert (of_h100 <= 1.02 * compilation.CONTESTANTS["adamw_with_plasticity"].floor).all()


def test_the_training_step_has_a_loss_near_that_of_chance():
    shapes = compilation.step.transformer(
        compilation.LAYERS, compilation.WIDTH, compilation.VOCABULARY, compilation.CONTEXT
    )
    zeros = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), shapes)
    tokens = jax.numpy.zeros((2, compilation.CONTEXT), "int32")
    with jax.numpy_rank_promotion("allow"):
        loss = jax.jit(compilation.loss)(zeros, tokens)
    assert loss == pytest.approx(jax.numpy.log(compilation.VOCABULARY))


class TestCompilers:
    def test_that_are_missing_are_named_with_what_installs_them(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(accelerators, "PACKAGES", {"no_such_module": "libtpu"})
        with pytest.raises(ConfigError, match="libtpu is not installed; `make accelerators`"):
            accelerators.check_compilers()

    def test_of_another_version_of_jax_are_refused(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(accelerators, "PACKAGES", {"jax": "jax-cuda12-plugin"})
        monkeypatch.setattr(accelerators.metadata, "version", lambda _: "0.1.0")
        with pytest.raises(ConfigError, match=r"jax-cuda12-plugin 0\.1\.0 is not for JAX"):
            accelerators.check_compilers()

    @pytest.mark.parametrize("name", ["trees", "optimizers", "targets"])
    def test_are_not_asked_for_what_is_not_there(self, name: str):
        with pytest.raises(ConfigError, match=f"{name} must be of .*, got 'x'"):
            accelerators.Config(**{name: ("x",)})

    @pytest.mark.parametrize(("code", "outcome"), [(-6, "aborts"), (1, "fails")])
    def test_that_end_leave_a_row_that_says_why(self, code: int, outcome: str):
        log = "W1 noise\nF1125 01:06:40.3 31602 loop.cc:198] Check failed: a <= b (4 vs. 0) \n@ 0x7"
        assert accelerators.ended(code, log) == {
            "outcome": outcome,
            "reason": "loop.cc:198] Check failed: a <= b (4 vs. 0)",
        }

    def test_get_a_process_of_their_own(self):
        row = accelerators.compile_apart("step", "no_such_target", "leaf", "adam")
        assert row["outcome"] == "fails"
        assert "no_such_target" in row["reason"]


COUNTS = {
    "outcome": "compiles",
    "reason": "",
    "parameters": 1000,
    "leaves": 1,
    "temporary_bytes": 4000,
    "compile_seconds": 1.5,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run leaves with compilers that know their counts, but for one that aborts."""

    def compile_apart(kind: str, *key: str, **_: object) -> dict[str, object]:
        if key == ("h100", "leaf", "full"):
            return {"outcome": "aborts", "reason": "Check failed"}
        if kind == "step":
            return COUNTS | {"bytes_per_parameter": 28.0, "kernels": 3}
        extra = 0 if key[-1] == "adam" else 2
        return COUNTS | {
            "collectives": 5 + extra,
            "collective_bytes": 1000 + 12 * extra,
            "by_kind": "all-reduce:5:1000",
            "optimizer_collectives": extra,
            "optimizer_bytes": 12 * extra,
            "argument_bytes": 2e6,
        }

    size = dataclasses.replace(accelerators.SIZES["smoke"], pods=(4, 16))
    monkeypatch.setitem(accelerators.SIZES, "smoke", size)
    monkeypatch.setattr(accelerators, "compile_apart", compile_apart)
    versions = {"libtpu": "1", "jax-cuda12-plugin": "2"}
    monkeypatch.setattr(accelerators, "check_compilers", lambda: versions)
    run(tmp_path)
    return tmp_path


def run(folder: Path, **settings: object) -> str:
    said = io.StringIO()
    accelerators.run(
        accelerators.Config("smoke", folder, **settings), Console(file=said, width=200)
    )
    return said.getvalue()


def other_library(folder: Path) -> Path:
    """A library whose full method is a word."""
    package = folder / "other" / accelerators.LIBRARY
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from ._alias import neuroplastic")
    (package / "_alias.py").write_text("neuroplastic = lambda rate: 'another one'")
    return package.parent


class TestOtherLibrary:
    def test_makes_the_optimizers(self, tmp_path: Path):
        program = (
            "import pathlib, sys; from benchmarks import compilation;"
            "compilation.use_library(pathlib.Path(sys.argv[1]));"
            "print(compilation.CONTESTANTS['full'].make())"
        )
        made = subprocess.run(
            [sys.executable, "-c", program, str(other_library(tmp_path))],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert made.stdout.strip() == "another one"

    def test_is_named_by_its_checksum(self, folder: Path):
        run(folder, library=other_library(folder))
        checksum = json.loads((folder / "manifest.json").read_text())["library"]
        assert len(checksum) == 64
        assert f"of another library, with SHA-256 {checksum}" in (folder / "report.md").read_text()

    def test_that_is_none_is_refused(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=f"library must be .* got {tmp_path}, which has none"):
            accelerators.Config(library=tmp_path)


class TestRecords:
    def test_are_a_row_for_each_compilation(self, folder: Path):
        steps, pods = (pd.read_csv(folder / f"{name}.csv") for name in ("steps", "pods"))
        assert steps[accelerators.STEP_KEYS].to_numpy().tolist() == [
            [target, "leaf", optimizer]
            for optimizer in ("adam", "full")
            for target in ("v5e", "h100")
        ]
        assert len(pods) == 2 * len(compilation.SHARDINGS) * len(accelerators.ON_PODS)
        assert steps["outcome"].tolist() == ["compiles", "compiles", "compiles", "aborts"]

    def test_leave_a_manifest_with_the_compilers_and_a_figure(self, folder: Path):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["benchmark"] == "accelerators"
        assert manifest["versions"].items() >= {"libtpu": "1", "jax-cuda12-plugin": "2"}.items()
        assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")

    def test_are_reported_with_what_did_not_compile(self, folder: Path):
        report = (folder / "report.md").read_text()
        assert "| NeuroPlastic (full) | 60 | 28.0 | aborts |" in report
        assert "- h100, leaf, full: aborts, `Check failed`" in report
        assert "| 16 | FSDP | Adam with plasticity | 7 | 1 | 2 | 24 | 2.00 | 0.00 |" in report
        assert str(folder) not in report

    @pytest.mark.parametrize(("commit", "again"), [("abc", 0), ("abc+", 12)])
    def test_of_the_same_code_are_not_made_again(
        self, commit: str, again: int, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        make_manifest = harness.make_manifest
        monkeypatch.setattr(
            harness, "make_manifest", lambda *args: make_manifest(*args) | {"commit": commit}
        )
        run(folder)
        made: list[object] = []
        compile_apart = accelerators.compile_apart
        monkeypatch.setattr(
            accelerators, "compile_apart", lambda *key, **_: made.append(key) or compile_apart(*key)
        )
        run(folder)
        assert len(made) == again
        run(folder, library=other_library(folder))
        assert len(made) == again + 12


def test_a_tree_that_never_compiles_is_reported_all_the_same():
    steps = pd.DataFrame(
        [{"target": "v4", "tree": "leaf", "optimizer": "adam", "outcome": "fails", "reason": "no"}]
    ).reindex(columns=["target", "tree", "optimizer", "outcome", "reason", *COUNTS])
    steps = steps.loc[:, ~steps.columns.duplicated()]
    tables = dict(accelerators_report.tables(steps, pd.DataFrame()))
    assert tables["One leaf: seconds of compilation"] == [
        ["optimizer", "TPU v4"],
        ["Adam", "fails"],
    ]


def test_the_command_line_ends_with_one_line_where_compilers_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(accelerators, "PACKAGES", {"no_such_module": "libtpu"})
    monkeypatch.setattr(sys, "argv", ["accelerators", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exit_:
        harness.command_line(accelerators.Config, accelerators.run, "accelerators")
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: the compiler of libtpu is not installed;")
