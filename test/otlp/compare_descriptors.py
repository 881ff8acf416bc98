"""Compares descriptors of .proto files with those of opentelemetry-proto, an implementation of OTLP that is not ours.

Takes a JSON list of serialized FileDescriptorProtos in base64 on standard input, and answers one JSON document on
standard output: what is missing, what is there beside, and what differs, each by its full name.
"""

import base64
import importlib
import json
import sys

from google.protobuf import descriptor_pb2, descriptor_pool



def field_of(field):
    oneof = field.containing_oneof
    return {
        "name": field.name,
        "type": field.type,
        "repeated": field.is_repeated,
        "packed": field.is_packed,
        "presence": field.has_presence,
        "of": (field.message_type or field.enum_type) and (field.message_type or field.enum_type).full_name,
        "oneof": oneof and [oneof.name, [member.name for member in oneof.fields]],
        "json": field.json_name,
    }


def symbols_of_message(message):
    yield message.full_name, {
        "fields": {field.number: field_of(field) for field in message.fields},
        "oneofs": sorted(oneof.name for oneof in message.oneofs),
    }
    for nested in message.nested_types:
        yield from symbols_of_message(nested)
    for enum in message.enum_types:
        yield from symbols_of_enum(enum)


def symbols_of_enum(enum):
    yield enum.full_name, {value.name: value.number for value in enum.values}


def symbols_of_service(service):
    yield service.full_name, {
        method.name: [
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        ]
        for method in service.methods
    }


def symbols_of(file):
    found = {file.name: {"package": file.package, "uses": sorted(used.name for used in file.dependencies)}}
    for message in file.message_types_by_name.values():
        found.update(symbols_of_message(message))
    for enum in file.enum_types_by_name.values():
        found.update(symbols_of_enum(enum))
    for service in file.services_by_name.values():
        found.update(symbols_of_service(service))
    return found


def main():
    pool = descriptor_pool.DescriptorPool()
    names = []
    for text in json.load(sys.stdin):
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text))
        assert file.syntax == "proto3", file.name
        # Adding it checks what a compiler checks.
        pool.Add(file)
        names.append(file.name)
    ours, theirs = {}, {}
    for name in names:
        module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
        ours.update(symbols_of(pool.FindFileByName(name)))
        theirs.update(symbols_of(importlib.import_module(module).DESCRIPTOR))
    json.dump(
        {
            "compared": sorted(ours.keys() & theirs.keys()),
            "missing": sorted(theirs.keys() - ours.keys()),
            "beside": sorted(ours.keys() - theirs.keys()),
            "different": {
                name: {"ours": ours[name], "theirs": theirs[name]}
                for name in ours.keys() & theirs.keys()
                if ours[name] != theirs[name]
            },
        },
        sys.stdout,
    )


main()
