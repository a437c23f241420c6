#!/usr/bin/env python3
"""Writes fields.txt: the protocol as the tritonclient package knows it.

    pip install 'tritonclient[grpc]'
    python3 proto/tests/dump_fields.py > proto/tests/fields.txt
"""

import importlib.metadata

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

FIELD = descriptor_pb2.FieldDescriptorProto

HEADER = f"""\
# The messages, enums and methods of package inference, as tritonclient {importlib.metadata.version("tritonclient")} knows them.
# Regenerate with: python3 proto/tests/dump_fields.py > proto/tests/fields.txt
#
#   message NAME
#   MESSAGE.FIELD NUMBER TYPE LABEL        label: singular, optional, repeated, map or oneof=NAME
#   value ENUM.VALUE NUMBER
#   rpc METHOD REQUEST RESPONSE KIND       kind: unary, client, server or bidi"""


def short(name):
    return name.removeprefix(".inference.")


def type_of(field):
    return short(field.type_name) or FIELD.Type.Name(field.type).removeprefix("TYPE_").lower()


def type_and_label(message, field):
    if field.label == FIELD.LABEL_REPEATED:
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                key, value = nested.field
                return f"map<{type_of(key)},{type_of(value)}>", "map"
        return type_of(field), "repeated"
    if field.proto3_optional:
        return type_of(field), "optional"
    if field.HasField("oneof_index"):
        return type_of(field), f"oneof={message.oneof_decl[field.oneof_index].name}"
    return type_of(field), "singular"


def print_enum(enum, scope):
    for value in enum.value:
        print(f"value {scope}{enum.name}.{value.name} {value.number}")


def print_message(message, scope):
    name = scope + message.name
    print(f"message {name}")
    for field in sorted(message.field, key=lambda field: field.number):
        print(f"{name}.{field.name} {field.number}", *type_and_label(message, field))
    for enum in message.enum_type:
        print_enum(enum, f"{name}.")
    for nested in message.nested_type:
        if not nested.options.map_entry:
            print_message(nested, f"{name}.")


def main():
    print(HEADER)
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        print()
        for service in file.service:
            for rpc in service.method:
                kind = [["unary", "server"], ["client", "bidi"]][rpc.client_streaming][rpc.server_streaming]
                print("rpc", rpc.name, short(rpc.input_type), short(rpc.output_type), kind)
        for enum in file.enum_type:
            print_enum(enum, "")
        for message in file.message_type:
            print_message(message, "")


if __name__ == "__main__":
    main()
