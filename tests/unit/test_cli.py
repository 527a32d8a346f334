"""The ``torchport`` command, as a user runs it: in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import processes
import pytest

from torchport.cli import demo
from torchport.cli.console import standard_error

COMMAND = "import runpy; runpy.run_module('torchport.cli', run_name='__main__', alter_sys=True)"

IR = """
func.func @f(%x: i32) -> i32 {
  %unused = arith.constant 7 : i32
  %a = arith.addi %x, %x : i32
  %b = arith.addi %x, %x : i32
  %c = arith.muli %a, %b : i32
  return %c : i32
}
"""

TTIR = """
module {
  tt.func public @copy(%arg0: !tt.ptr<f32> {tt.divisibility = 16 : i32}) attributes {noinline = false} {
    %0 = tt.make_range {end = 8 : i32, start = 0 : i32} : tensor<8xi32>
    %1 = tt.splat %arg0 : !tt.ptr<f32> -> tensor<8x!tt.ptr<f32>>
    %2 = tt.addptr %1, %0 : tensor<8x!tt.ptr<f32>>, tensor<8xi32>
    %3 = tt.load %2 : tensor<8x!tt.ptr<f32>>
    tt.store %2, %3 : tensor<8x!tt.ptr<f32>>
    tt.return
  }
}
"""


def torchport(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"COLUMNS": "160", "TORCHPORT_DEBUG": "0", **environment}
    return processes.run(COMMAND, *arguments, environment=variables, stdin=stdin)


def test_help_names_every_command_and_loads_no_compiler() -> None:
    result = torchport("--help")
    assert result.returncode == 0
    for command in ("doctor", "targets", "demo", "opt", "cache"):
        assert command in result.stdout
    program = "import sys, torchport.cli; print(sorted({'torch', 'triton', 'mlir', 'llvmlite'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_version() -> None:
    assert re.fullmatch(r"torchport \d+\.\d+\.\d+\n", torchport("--version").stdout)


def test_opt_runs_upstream_passes_in_order() -> None:
    result = torchport("opt", "-p", "cse,canonicalize", stdin=IR)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("arith.addi") == 1
    assert "arith.constant" not in result.stdout


def test_opt_verify_only_leaves_the_ir_as_it_is() -> None:
    result = torchport("opt", "--verify-only", stdin=IR)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("arith.addi") == 2


def test_opt_after_and_until_select_a_part_of_the_list() -> None:
    until = torchport("opt", "-p", "canonicalize,cse", "--until", "canonicalize", stdin=IR)
    assert until.stdout.count("arith.addi") == 2
    assert "arith.constant" not in until.stdout
    after = torchport("opt", "-p", "canonicalize,cse", "--after", "canonicalize", stdin=until.stdout)
    assert after.stdout.count("arith.addi") == 1


def test_opt_imports_triton_syntax(tmp_path: Path) -> None:
    source, output = tmp_path / "copy.ttir", tmp_path / "copy.mlir"
    source.write_text(TTIR)
    assert torchport("opt", str(source), "--verify-only", "-o", str(output)).returncode == 0
    imported = output.read_text()
    assert '"tt.load"' in imported and "!tt.ptr" not in imported
    assert torchport("opt", str(output), "--verify-only").stdout == imported  # what opt writes, opt reads


def test_opt_imports_triton_syntax_with_locations() -> None:
    located = re.sub(r"(: tensor<\S+|tt.return)$", r"\1 loc(#loc1)", TTIR, flags=re.MULTILINE)
    located = located.replace("= 16 : i32})", '= 16 : i32} loc("arg0"(#loc)))')
    located = (
        f'#loc = loc("/a (1)/kernel.py":16:0)\n#loc1 = loc("x"(#loc))\n{located}\n#loc2 = loc(callsite(#loc at #loc1))'
    )
    assert located.count("loc(") >= 8
    assert (
        torchport("opt", "--verify-only", stdin=located).stdout == torchport("opt", "--verify-only", stdin=TTIR).stdout
    )


def test_opt_print_after_all_shows_each_pass() -> None:
    result = torchport("opt", "-p", "cse,canonicalize", "--print-after-all", stdin=IR)
    shown = re.findall(r"// ----- after (\S+) -----", result.stderr)
    assert shown == ["cse", "canonicalize"]


def test_opt_list_names_every_pass() -> None:
    from torchport_passes import registry

    result = torchport("opt", "--list")
    assert result.returncode == 0, result.stderr
    for name in registry.names():
        assert name in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("opt", "missing.mlir", "-p", "cse"), "missing.mlir: No such file or directory"),
        (("opt", "-p", "no-such-pass"), "unknown pass 'no-such-pass'"),
        (("opt", "-p", "scalarize{depth=2}"), "pass 'scalarize' has no option 'depth'"),
        (("opt", "-p", "scalarize{"), "cannot read the pass list"),
        (("opt", "-p", "cse", "--until", "dce"), "--until 'dce' is not one of the passes: cse"),
        (("opt", "--target", "toaster"), "no backend is called 'toaster'"),
        (("demo", "--hidden", "100"), "multiple of 64"),
    ],
)
def test_errors_are_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = torchport(*arguments, stdin=IR)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in torchport(*arguments, stdin=IR, TORCHPORT_DEBUG="2").stderr


def test_opt_says_what_does_not_parse() -> None:
    result = torchport("opt", "-p", "cse", stdin="func.func @f(")
    assert result.returncode == 2
    assert "is not valid MLIR" in result.stderr and "Traceback" not in result.stderr


def test_cache_info_and_clear(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    (folder / "ab").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "ab" / ("ab" * 16 + ".kernel")).write_bytes(b"x" * 2**20)
    info = torchport("cache", "info", TORCHPORT_CACHE_DIR=str(folder))
    assert str(folder) in info.stdout
    assert re.search(r"kernels +1\n", info.stdout) and re.search(r"size +1\.0 of", info.stdout)
    assert "removed 1 file" in torchport("cache", "clear", TORCHPORT_CACHE_DIR=str(folder)).stdout
    assert re.search(r"kernels +0\n", torchport("cache", "info", TORCHPORT_CACHE_DIR=str(folder)).stdout)


def test_targets_names_the_cpu() -> None:
    result = torchport("targets")
    assert result.returncode == 0
    assert re.search(r"\bcpu\b.*\bready\b", result.stdout), result.stdout


def test_names_of_targets_are_no_emoji() -> None:
    result = torchport("targets", "--all")
    assert result.returncode == 0
    assert "cuda:100" in result.stdout and "\N{HUNDRED POINTS SYMBOL}" not in result.stdout


def test_names_are_no_emoji_where_work_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    standard_error().print("compiling for cuda:100: 3 kernels")
    assert capsys.readouterr().err == "compiling for cuda:100: 3 kernels\n"


def test_an_invalid_variable_is_one_sentence() -> None:
    result = torchport("cache", "info", TORCHPORT_CACHE_SIZE="much")
    assert result.returncode == 2
    assert result.stderr.startswith("error: TORCHPORT_CACHE_SIZE='much' is not valid")


def test_demo_shows_warnings_of_torchport_only(recwarn: pytest.WarningsRecorder) -> None:
    with demo.only_own_warnings():
        warnings.warn_explicit("theirs", UserWarning, "modeling_bert.py", 1, module="transformers.models.bert")
        warnings.warn_explicit("ours", UserWarning, "cache.py", 1, module="torchport.runtime.cache")
    assert [str(warning.message) for warning in recwarn] == ["ours"]


def test_demo_counts_in_the_singular() -> None:
    result = torchport("demo", "--layers", "1", "--hidden", "64", "--batch", "1", "--sequence", "2", "--runs", "1")
    assert result.returncode == 0, result.stderr
    assert ": 1 layer, " in result.stdout and "median of 1 run," in result.stdout
    assert result.stderr == ""
