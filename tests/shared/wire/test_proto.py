"""`hub.proto`, the code made from it and the table of methods say the same."""

from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor

from bract.wire import hub_pb2
from bract.wire.channel import ARRAYS, REGISTRY, UNARY

SHARED = Path(hub_pb2.__file__).parents[2]


def test_the_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    arguments = ["protoc", f"-I{SHARED}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", "bract/wire/hub.proto"]
    assert protoc.main(arguments) == 0
    for name in ("hub_pb2.py", "hub_pb2.pyi"):
        made = (tmp_path / "bract" / "wire" / name).read_text()
        assert without_version(made) == without_version((SHARED / "bract" / "wire" / name).read_text())


def without_version(code: str) -> list[str]:
    """The lines that do not depend on the compiler's version."""
    lines = code.splitlines()
    kept = [line for line in lines if not line.startswith("# Protobuf Python Version")]
    if "_runtime_version.ValidateProtobufRuntimeVersion(" in kept:
        start = kept.index("_runtime_version.ValidateProtobufRuntimeVersion(")
        del kept[start : kept.index(")", start)]
    return kept


def test_the_table_of_methods_is_the_protos() -> None:
    services = hub_pb2.DESCRIPTOR.services_by_name
    assert {service.full_name for service in services.values()} == {ARRAYS, REGISTRY}
    seen = set()
    for service in services.values():
        for method in service.methods:
            assert isinstance(method, MethodDescriptor)
            if method.client_streaming or method.server_streaming:
                continue
            owner, request, reply = UNARY[method.name]
            assert owner == service.full_name
            assert (method.input_type, method.output_type) == (request.DESCRIPTOR, reply.DESCRIPTOR)
            seen.add(method.name)
    assert seen == set(UNARY)
