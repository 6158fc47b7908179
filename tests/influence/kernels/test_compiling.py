"""Triton's compiler makes code for real GPUs of the kernels, without one: what interpretation does not show."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.influence.kernels.interpreter import VARIABLE

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(os.environ.get(VARIABLE) == "1", reason="Triton interprets here")

CAPABILITIES = (80, 90)  # A100, H100
SHARED_MEMORY = 99 * 1024  # bytes for a program, of the smallest cards that have bfloat16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, capability: int, pointers: dict[str, str], constants: dict[str, Any], warps: int = 4) -> Any:
    """``kernel`` for pointers of these types, strides and sizes that 16 divides."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
    aligned = [(place,) for place, name in enumerate(kinds) if name not in {*constants, "length", "ignored"}]
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(place,): constants[name] for place, name in enumerate(kinds) if name in constants},
        attrs={place: [["tt.divisibility", 16]] for place in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("dtype", "block", "k", "projected"),
    [
        ("bf16", 64, 32, True),
        ("bf16", 16, 32, True),
        ("bf16", 64, 64, True),
        ("fp16", 32, 16, True),
        ("bf16", 64, 32, False),
        ("fp32", 32, 32, True),
        ("fp32", 64, 64, True),
    ],
)
def test_sketch(dtype: str, block: int, k: int, projected: bool, capability: int) -> None:
    from presence_ds.influence.kernels.sketch import _sketch

    pointers = dict.fromkeys(("rows", "cols", "row_matrix", "col_matrix"), f"*{dtype}") | {"partial": "*fp32"}
    constants = {
        "ROW_PROJECTED": projected,
        "COL_PROJECTED": True,
        "BLOCK_T": block,
        "BLOCK": 32 if dtype == "fp32" else 64,
        "ROW_K": k,
        "COL_K": k,
    }
    found = compiled(_sketch, capability, pointers, constants)
    assert found.metadata.shared <= SHARED_MEMORY
    assert found.asm["cubin"]
    assert ("mma" in found.asm["ptx"]) == (dtype != "fp32")  # tensor cores round float32
    assert "cp.async" in found.asm["ptx"]  # the next part is read while one is multiplied
    assert "atom" not in found.asm["ptx"]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("derive", [True, False])
def test_cross_entropy(dtype: str, derive: bool, capability: int) -> None:
    from presence_ds.influence.kernels.cross_entropy import _cross_entropy

    pointers = {"logits": f"*{dtype}", "targets": "*i64", "losses": "*fp32", "derivatives": f"*{dtype}"}
    constants = {"UNIT": 2.0**14, "DERIVE": derive, "BLOCK": 4096}
    found = compiled(_cross_entropy, capability, pointers, constants, warps=8)
    assert found.asm["cubin"]
    assert "ld.global.v4" in found.asm["ptx"]  # 16 bytes a thread
