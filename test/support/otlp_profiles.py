"""Makes requests of profiles as a profiler does, and reads stacks out of them through their dictionaries.

Takes one JSON document on standard input and answers one on standard output. Bytes travel as base64.
"""

import base64
import gzip
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
)


class Table:
    """One table of a dictionary: entry 0 stands for nothing, and each further entry comes once."""

    def __init__(self, entries, nothing):
        self.entries, self.places = entries, {}
        entries.append(nothing)

    def place(self, key, entry):
        if key not in self.places:
            self.places[key] = len(self.entries)
            self.entries.append(entry)
        return self.places[key]


def make(profiler):
    request = ExportProfilesServiceRequest()
    dictionary = request.dictionary
    empty = ExportProfilesServiceRequest().dictionary
    strings = Table(dictionary.string_table, "")
    functions = Table(dictionary.function_table, empty.function_table.add())
    locations = Table(dictionary.location_table, empty.location_table.add())
    stacks = Table(dictionary.stack_table, empty.stack_table.add())
    mappings = Table(dictionary.mapping_table, empty.mapping_table.add())
    dictionary.link_table.add()
    attributes = Table(dictionary.attribute_table, empty.attribute_table.add())

    def text(value):
        return strings.place(value, value)

    binary = empty.mapping_table.add(
        memory_start=0x400000, memory_limit=0x800000, filename_strindex=text(profiler["binary"])
    )
    mapping = mappings.place(profiler["binary"], binary)

    def location(name):
        function = empty.function_table.add(name_strindex=text(name), start_line=len(name))
        entry = empty.location_table.add(mapping_index=mapping, address=0x400000 + 16 * len(name))
        entry.lines.add(function_index=functions.place(name, function), line=len(name) + 1)
        return locations.place(name, entry)

    resource = request.resource_profiles.add()
    service = resource.resource.attributes.add(key="service.name")
    service.value.string_value = profiler["service"]
    scope = resource.scope_profiles.add()
    scope.scope.name = "profiler"
    profile = scope.profiles.add(
        time_unix_nano=1_760_000_000_000_000_000, duration_nano=5_000_000_000, period=10_101_010
    )
    profile.profile_id = bytes(range(16))
    profile.sample_type.type_strindex = text("cpu")
    profile.sample_type.unit_strindex = text("nanoseconds")
    profile.period_type.type_strindex = text("cpu")
    profile.period_type.unit_strindex = text("nanoseconds")
    for frames, value in profiler["samples"]:
        stack = empty.stack_table.add(location_indices=[location(name) for name in reversed(frames)])
        thread = empty.attribute_table.add(key_strindex=text("thread.name"))
        thread.value.string_value = frames[0]
        profile.samples.add(
            stack_index=stacks.place(tuple(frames), stack),
            attribute_indices=[attributes.place(frames[0], thread)],
            values=[value],
            timestamps_unix_nano=[1_760_000_000_000_000_001],
        )
    as_json = json_format.MessageToDict(request)
    for one in as_json["resourceProfiles"][0]["scopeProfiles"][0]["profiles"]:
        one["profileId"] = base64.b64decode(one["profileId"]).hex()
    return {"body": base64.b64encode(request.SerializeToString()).decode(), "json": as_json}


def read(part):
    """What `make` was asked for, by way of the dictionary."""
    body = base64.b64decode(part["body"])
    if part["encoding"] == "gzip":
        body = gzip.decompress(body)
    request = ExportProfilesServiceRequest.FromString(body)
    dictionary = request.dictionary
    text = dictionary.string_table

    def frames(stack):
        places = reversed(dictionary.stack_table[stack].location_indices)
        lines = [dictionary.location_table[place].lines[0] for place in places]
        return [text[dictionary.function_table[line.function_index].name_strindex] for line in lines]

    return [
        {
            "service": resource.resource.attributes[0].value.string_value,
            "binary": text[dictionary.mapping_table[1].filename_strindex],
            "samples": [[frames(sample.stack_index), sample.values[0]] for sample in profile.samples],
        }
        for resource in request.resource_profiles
        for scope in resource.scope_profiles
        for profile in scope.profiles
    ]


task = json.load(sys.stdin)
json.dump([{"make": make, "read": read}[task["act"]](case) for case in task["cases"]], sys.stdout)
