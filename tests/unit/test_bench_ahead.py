"""Counting what is compiled for a GPU that is not here."""

from __future__ import annotations

import sys

import pytest

from benchmarks import ahead, velo

PROGRAM = """HloModule step, is_scheduled=true

%fused (a: f32[4,8], b: f32[8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  ROOT %sum = f32[4,8]{1,0} add(%a, %a)
}

ENTRY %main (x: f32[4,8], y: f32[8]) -> (f32[4,8], s32[2]) {
  %x = f32[4,8]{1,0} parameter(0), metadata={op_name="x"}
  %y = f32[8]{0} parameter(1)
  %fusion = f32[4,8]{1,0} fusion(%x, %y), kind=kLoop, calls=%fused
  %kernel.1 = (f32[4,8]{1,0}, s32[2]{0}) custom-call(%fusion, %y, %x), custom_call_target="t"
  %part = f32[4,8]{1,0} get-tuple-element(%kernel.1), index=0
  %other = s32[2]{0} get-tuple-element(%kernel.1), index=1
  ROOT %both = (f32[4,8]{1,0}, s32[2]{0}) tuple(%part, %other)
}
"""


def test_operands_and_results_of_kernels_are_bytes():
    assert ahead.custom_call_bytes(PROGRAM) == (128 + 8) + (128 + 32 + 128)
    assert ahead.most_operands(PROGRAM) == 3


def test_the_option_says_what_it_needs(monkeypatch, capsys):
    for path in ("jax_plugins", "jax_plugins.xla_cuda12"):
        monkeypatch.delitem(sys.modules, path, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        velo.main(["--compile-for", "h100"])
    assert "compiling for a GPU needs: pip install jax-cuda12-plugin==" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(bool(ahead.missing()), reason=f"needs {ahead.missing()}")
def test_kernels_keep_their_traffic_on_an_h100():
    """On the U-Net tree; ``docs/speed.md`` has the numbers."""
    adam, plain, kernels = velo.counted("unet", "h100").values()
    assert kernels.bytes < 3.5 * adam.bytes
    assert kernels.bytes < 0.6 * plain.bytes
    assert kernels.temporary_bytes < 0.5 * plain.temporary_bytes
    assert kernels.kernels < 100
