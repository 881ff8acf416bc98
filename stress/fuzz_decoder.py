"""The judge of the fuzzer: says of each body whether opentelemetry-proto decodes it to the bottom.

Takes batches on standard input and answers each on standard output. A batch is the number of its cases, and for each case
one byte for the signal, one for what is around the request, and its length and bytes. An answer is one byte a case, each
followed by the length and bytes of a reason: 0 for a body that is refused, 1 for profiles that are decoded as far as OTLP is
stable, 2 for what is decoded in full. All other numbers have four bytes, little-endian.
"""

import gzip
import struct
import sys
import zlib

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

# What is around a request: the low bits are its encoding, the high one says that it is the body of a gRPC call.
IDENTITY, GZIP, DEFLATE = 0, 1, 2
FRAMED = 0x80


def stable_profiles():
    """ExportProfilesServiceRequest to the depth that is stable: what is below it are bytes."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="stable_profiles.proto", package="stable", syntax="proto3")
    file.dependency.extend([common_pb2.DESCRIPTOR.name, resource_pb2.DESCRIPTOR.name])

    def message(name, *fields):
        added = file.message_type.add(name=name)
        for number, field, repeated, wire, of in fields:
            label = kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL
            added.field.add(name=field, number=number, label=label, type=wire, type_name=of)

    message(
        "Request",
        (1, "resource_profiles", True, kind.TYPE_MESSAGE, ".stable.ResourceProfiles"),
        (2, "dictionary", True, kind.TYPE_BYTES, None),
    )
    message(
        "ResourceProfiles",
        (1, "resource", False, kind.TYPE_MESSAGE, ".opentelemetry.proto.resource.v1.Resource"),
        (2, "scope_profiles", True, kind.TYPE_MESSAGE, ".stable.ScopeProfiles"),
        (3, "schema_url", False, kind.TYPE_STRING, None),
    )
    message(
        "ScopeProfiles",
        (1, "scope", False, kind.TYPE_MESSAGE, ".opentelemetry.proto.common.v1.InstrumentationScope"),
        (2, "profiles", True, kind.TYPE_BYTES, None),
        (3, "schema_url", False, kind.TYPE_STRING, None),
    )
    # A message of whose fields none is known. google.protobuf.Empty is not it: it takes fields with the number 0.
    message("Unknown", (18999, "unused", False, kind.TYPE_INT32, None))
    pool = descriptor_pool.Default()
    pool.Add(file)
    names = ("stable.Request", "stable.Unknown")
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)


StableProfiles, Unknown = stable_profiles()


def outline_of_profiles(body):
    request = StableProfiles.FromString(body)
    for dictionary in request.dictionary:
        Unknown.FromString(dictionary)
    for resource in request.resource_profiles:
        for scope in resource.scope_profiles:
            for profile in scope.profiles:
                Unknown.FromString(profile)


PROFILES = 4
REQUESTS = {
    1: ExportTraceServiceRequest,
    2: ExportMetricsServiceRequest,
    3: ExportLogsServiceRequest,
    PROFILES: ExportProfilesServiceRequest,
}


def inflated(body):
    """All of a deflate body, with or without the wrapper of zlib."""
    for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        stream = zlib.decompressobj(window)
        try:
            content = stream.decompress(body) + stream.flush()
        except zlib.error:
            continue
        if stream.eof and not stream.unused_data:
            return content
    raise ValueError("neither zlib nor raw deflate from end to end")


def unframed(body):
    if len(body) < 5:
        raise ValueError("no prefix")
    flag, length = struct.unpack_from(">BI", body)
    if flag > 1 or length != len(body) - 5:
        raise ValueError("not exactly one message")
    return flag == 1, body[5:]


def taken_out(signal, around, body):
    encoding = around & 0x7F
    if around & FRAMED:
        compressed, body = unframed(body)
        if not compressed:
            encoding = IDENTITY
        elif encoding == IDENTITY:
            raise ValueError("compressed, but not with what")
    if encoding == GZIP:
        body = gzip.decompress(body)
    elif encoding == DEFLATE:
        body = inflated(body) if body else body
    if signal == PROFILES:
        outline_of_profiles(body)
    return signal, body


def is_decoded_in_full(signal, body):
    try:
        REQUESTS[signal].FromString(body)
        return True
    except DecodeError:
        if signal != PROFILES:
            raise
        return False


def answer(signal, around, body):
    try:
        in_full = is_decoded_in_full(*taken_out(signal, around, body))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:300]
        return struct.pack("<BI", 0, len(reason)) + reason
    return b"\x02\0\0\0\0" if in_full else b"\x01\0\0\0\0"


def main():
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(4):
        parts = []
        for _ in range(*struct.unpack("<I", head)):
            signal, around, length = struct.unpack("<BBI", requests.read(6))
            parts.append(answer(signal, around, requests.read(length)))
        answers.write(b"".join(parts))
        answers.flush()


main()
